"""What a context per sample costs beside the plain network and beside weights per sample.

A step is forward and backward of one batch of 256. Two variants at a time take turns in one
process on one thread; times are those of the processor, ratios are medians over pairs of
neighbouring steps.
"""

import time
from collections.abc import Callable
from statistics import median

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from cl_manifold.geometry import Fourier
from cl_manifold.manifold.module import ManifoldModule
from cl_manifold.networks import mlp
from tests.benchmark.test_manifold_benchmark import peak_bytes

BATCH, ROUNDS = 256, {"mlp": 30, "cnn": 5, "cnn that halves each time": 10}
pytestmark = pytest.mark.benchmark


def cnn(channels: tuple[int, ...], strides: tuple[int, ...]) -> nn.Module:
    """Four convolutions of 3×3 with ReLU, the mean over the image, a linear layer."""
    layers: list[nn.Module] = []
    for before, after, stride in zip((3, *channels), channels, strides, strict=False):
        layers += [nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], 10)]
    return nn.Sequential(*layers, *head)


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: mlp((784,), (512, 512), 10), (784,)),
    "cnn": (lambda: cnn((32, 32, 64, 64), (1, 2, 1, 2)), (3, 32, 32)),
    "cnn that halves each time": (lambda: cnn((32, 64, 128, 128), (2, 2, 2, 2)), (3, 32, 32)),
}


def mixed_weights(net: nn.Module, manifold: ManifoldModule, x: Tensor, c: Tensor) -> Tensor:
    """The other way: weights of every sample, and the network in vmap over both."""

    def one(weights: dict[str, Tensor], sample: Tensor) -> Tensor:
        return functional_call(net, weights, (sample[None],)).squeeze(0)

    return vmap(one)(manifold.weights(c), x)


def widest(net: nn.Module, x: Tensor) -> int:
    """Numbers in the largest output of any layer with weights."""
    sizes: list[int] = []
    hooks = [
        layer.register_forward_hook(lambda *values: sizes.append(values[2].numel()))
        for layer in net.modules()
        if isinstance(layer, (nn.Linear, nn.Conv2d))
    ]
    net(x)
    for hook in hooks:
        hook.remove()
    return max(sizes)


@pytest.mark.parametrize("size", [3, 7])
@pytest.mark.parametrize("name", NETS)
def test_cost_of_contexts(name: str, size: int) -> None:
    make, shape = NETS[name]
    net = make()
    manifold = ManifoldModule(net, Fourier(size // 2))
    x, y = torch.randn(BATCH, *shape), torch.randint(10, (BATCH,))
    c = torch.rand(BATCH, 1)
    systems: dict[str, Callable[[], Tensor]] = {
        "plain": lambda: net(x),
        "one context": lambda: manifold(x, c[0]),
        "context per sample": lambda: manifold(x, c),
    }

    def step(run: Callable[[], Tensor]) -> float:
        net.zero_grad()
        manifold.zero_grad()
        start = time.process_time()
        nn.functional.cross_entropy(run(), y).backward()
        return time.process_time() - start

    def paired(system: str) -> tuple[list[float], list[float]]:
        """Seconds of the plain network and of a system, taking turns; the first pair warms up."""
        pairs = [(step(systems["plain"]), step(systems[system])) for _ in range(ROUNDS[name] + 1)]
        return [a for a, _ in pairs[1:]], [b for _, b in pairs[1:]]

    def ratio(pair: tuple[list[float], list[float]]) -> float:
        return median(b / a for a, b in zip(*pair, strict=True))

    shared, sampled = paired("one context"), paired("context per sample")
    slow = median(step(lambda: mixed_weights(net, manifold, x, c)) for _ in range(2))
    ours, plain = median(sampled[1]), median(sampled[0])
    model, width = sum(p.numel() for p in net.parameters()), widest(net, x)
    net.zero_grad()
    manifold.zero_grad()
    peak = peak_bytes(lambda: step(systems["context per sample"])) / 4 + size * model
    print(
        f"\n{name}, K = {size}: plain {plain * 1e3:.1f} ms; one context "
        f"{ratio(shared):.2f}× (allowed 1.10); context per sample "
        f"{ratio(sampled) / size:.2f} K× (allowed 1.25), {slow / ours:.0f}× faster "
        f"than vmap (needed {10 if name == 'mlp' else 4}), which takes "
        f"{slow / plain:.1f}× plain; peak memory with control points "
        f"{peak / (size * (model + width)):.2f} K (model + widest layer) (allowed 2)"
    )
