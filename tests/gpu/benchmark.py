"""ResNet-18 with K = 7 on a GPU: what the manifold costs beside plain PyTorch.

python -m tests.gpu.benchmark [FILE]      writes its figures to FILE, gpu.json by default
"""

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, vmap
from torchvision.models import resnet18

from cl_manifold import FisherInformation, Fourier, ManifoldModule, WeightManifold
from cl_manifold.manifold.likelihood import Categorical
from cl_manifold.strategies.manifold.price import Price

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BATCH, REPEATS = (256, 30) if DEVICE == "cuda" else (8, 3)
HERE = torch.tensor([0.3])


def seconds(*functions: Callable[[], Any]) -> list[float]:
    """Median time of each function, taken in turn after a warm-up."""
    times: list[list[float]] = [[] for _ in functions]
    for repeat in range(REPEATS + 3):
        for function, found in zip(functions, times, strict=True):
            _wait()
            start = time.perf_counter()
            function()
            _wait()
            if repeat >= 3:
                found.append(time.perf_counter() - start)
    return [statistics.median(found) for found in times]


def _wait() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def training_step(price: Price | None, net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Any:
    """One step in bfloat16 autocast."""
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    if price is not None:
        price.attach(optimizer)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(DEVICE, torch.bfloat16):
            loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()

    return step


def measured() -> dict[str, float]:
    """All figures: milliseconds, and ratios to plain PyTorch."""
    x = torch.randn(BATCH, 3, 32, 32, device=DEVICE)
    y = torch.randint(10, (BATCH,), device=DEVICE)
    plain, net = (resnet18(num_classes=10).to(DEVICE) for _ in range(2))
    manifold = WeightManifold(net, Fourier(3))
    visit = manifold.check_out(HERE)
    price = Price(manifold, visit, 30.0)
    without, priced = seconds(training_step(None, plain, x, y), training_step(price, net, x, y))
    net.eval()
    measure, generator = FisherInformation(64), torch.Generator().manual_seed(0)

    def information() -> torch.Tensor:
        return measure(net, (x[:64],), manifold.layout, Categorical(), generator)

    found = information()
    checked, committed, informed = seconds(
        lambda: manifold.check_out(HERE), lambda: manifold.commit(found), information
    )
    each = ManifoldModule(resnet18(num_classes=10), Fourier(3)).to(DEVICE).eval()
    contexts = torch.rand(BATCH, 1)
    buffers = dict(each.module.named_buffers())

    def with_vmap() -> torch.Tensor:
        def one(weights: dict[str, torch.Tensor], sample: torch.Tensor) -> torch.Tensor:
            return functional_call(plain, (weights, buffers), (sample[None],))[0]

        return vmap(one)(each.weights(contexts), x)

    plain.eval()
    with torch.no_grad():
        mixed, by_vmap, forward = seconds(lambda: each(x, contexts), with_vmap, lambda: plain(x))
    return {
        "step plain, ms": 1e3 * without,
        "step with the price, ms": 1e3 * priced,
        "step ratio": priced / without,
        "check-out, ms": 1e3 * checked,
        "commit, ms": 1e3 * committed,
        "information of 64 samples, ms": 1e3 * informed,
        "forward plain, ms": 1e3 * forward,
        "forward with a context per sample, ms": 1e3 * mixed,
        "the same with vmap, ms": 1e3 * by_vmap,
        "vmap / ours": by_vmap / mixed,
    }


def main() -> None:
    """Measure, print, write."""
    file = Path(sys.argv[1] if len(sys.argv) > 1 else "gpu.json")
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else platform.processor() or "CPU"
    figures = {"device": name, "torch": torch.__version__, "batch": BATCH, **measured()}
    file.write_text(json.dumps(figures, indent=1))
    for key, value in figures.items():
        print(f"{key:<40} {value:.3f}" if isinstance(value, float) else f"{key:<40} {value}")


if __name__ == "__main__":
    main()
