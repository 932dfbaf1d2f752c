"""The batched form of every kind of layer against a loop over samples with weights of their own."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from cl_manifold.geometry import Basis, Bernstein, Fourier, TensorProduct, random_codes
from cl_manifold.manifold import batched
from cl_manifold.manifold.batched import Window
from cl_manifold.manifold.module import ManifoldModule

Net = Callable[[], nn.Module]
BATCH = 4


class Shift(nn.Module):
    """A layer that has no batched form."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.randn(width))
        self.inner = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.shift.tanh()


class Told(nn.Module):
    """A layer that takes a number beside its samples, and returns one beside what it makes."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor, power: int) -> tuple[Tensor, float]:
        return (x * self.scale) ** power, 0.5


class Telling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.told = Told()

    def forward(self, x: Tensor) -> Tensor:
        y, factor = self.told(x, 3)
        return factor * y


class Attention(nn.Module):
    """Self-attention, whose layer returns a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0]


class Tied(nn.Module):
    """Words in and words out share their weights."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 5)
        self.out = nn.Linear(5, 7)
        self.out.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.words(x).tanh())


class Twice(nn.Module):
    """One layer, called twice under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(5, 5)
        self.b = self.a

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu())


class Thrice(Twice):
    """Moreover another layer has its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Linear(5, 5)
        self.c.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.c(super().forward(x).relu())


LAYERS: dict[str, tuple[Net, tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(5, 3), (5,)),
    "linear without bias": (lambda: nn.Linear(5, 3, bias=False), (5,)),
    "linear on sequences": (lambda: nn.Linear(5, 3), (2, 3, 5)),
    "conv1d": (lambda: nn.Conv1d(2, 3, 3), (2, 9)),
    "conv1d reflecting": (
        lambda: nn.Conv1d(4, 4, 3, padding=2, padding_mode="reflect"),
        (4, 7),
    ),
    "conv2d": (lambda: nn.Conv2d(3, 4, 3), (3, 6, 5)),
    "conv2d that narrows": (lambda: nn.Conv2d(6, 2, 3, padding=1), (6, 4, 4)),
    "conv2d without bias": (lambda: nn.Conv2d(3, 4, (1, 2), bias=False), (3, 6, 5)),
    "conv2d with everything": (
        lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(2, 1), dilation=2, groups=2),
        (4, 9, 8),
    ),
    "conv2d by channel": (lambda: nn.Conv2d(3, 9, 3, padding=1, groups=3), (3, 5, 5)),
    "conv2d on larger images": (lambda: nn.Conv2d(2, 4, 3, padding=1, groups=2), (2, 14, 14)),
    "conv2d same": (lambda: nn.Conv2d(2, 4, 3, padding="same", dilation=2), (2, 7, 6)),
    "conv2d same circular": (
        lambda: nn.Conv2d(2, 4, (3, 5), padding="same", padding_mode="circular", groups=2),
        (2, 7, 6),
    ),
    "conv2d valid": (lambda: nn.Conv2d(2, 4, 3, padding="valid"), (2, 5, 5)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2, stride=2, padding=1), (2, 4, 5, 4)),
    "batch norm": (lambda: nn.BatchNorm1d(4).eval(), (4,)),
    "batch norm on images": (lambda: nn.BatchNorm2d(4).eval(), (4, 3, 3)),
    "batch norm in 3d": (lambda: nn.BatchNorm3d(2).eval(), (2, 3, 2, 2)),
    "layer norm": (lambda: nn.LayerNorm(6), (6,)),
    "layer norm without bias": (lambda: nn.LayerNorm([3, 2], bias=False), (4, 3, 2)),
    "rms norm": (lambda: nn.RMSNorm(6), (3, 6)),
    "group norm": (lambda: nn.GroupNorm(2, 4), (4, 3, 3)),
    "instance norm": (lambda: nn.InstanceNorm2d(4, affine=True), (4, 3, 3)),
    "norm without weights": (lambda: nn.Sequential(nn.LayerNorm(5, elementwise_affine=False),
                                                   nn.Linear(5, 2)), (5,)),
    "tied weights": (Tied, ()),
    "tied words in a sequence": (Tied, (3,)),
    "embedding": (lambda: nn.Embedding(7, 3), (2, 2)),
    "embedding with padding": (lambda: nn.Embedding(7, 3, padding_idx=2), (6,)),
    "a layer called twice": (Twice, (5,)),
    "tied to a layer called twice": (Thrice, (5,)),
    "network": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3),
            nn.GroupNorm(3, 3),
            nn.ReLU(),
            nn.Conv2d(3, 2, 3, stride=2, padding=1),
            nn.Flatten(),
            nn.LayerNorm(8),
            nn.Linear(8, 3),
        ),
        (1, 6, 6),
    ),
}  # fmt: skip
UNBATCHED: dict[str, tuple[Net, tuple[int, ...]]] = {
    "parameters of its own": (lambda: nn.Sequential(Shift(4), nn.Linear(4, 2)), (4,)),
    "transposed convolution": (lambda: nn.ConvTranspose2d(2, 3, 2, stride=2), (2, 3, 3)),
    "prelu": (lambda: nn.Sequential(nn.Linear(4, 4), nn.PReLU(4)), (4,)),
    "attention": (Attention, (3, 6)),
    "numbers in and out": (Telling, (4,)),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), (4,)),
}
BASES: dict[str, Callable[[], Basis]] = {
    "ellipse": lambda: Fourier(1),
    "cylinder": lambda: TensorProduct(Fourier(1), Bernstein(1)),
    "codes": lambda: random_codes(3, 5, seed=1),
}


def inputs(net: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if any(isinstance(m, nn.Embedding) for m in net.modules()):
        return torch.randint(7, (BATCH, *shape))
    return torch.randn(BATCH, *shape, dtype=dtype, requires_grad=True)


def shaken(net: nn.Module, basis: Basis) -> ManifoldModule:
    manifold = ManifoldModule(net, basis)
    with torch.no_grad():
        for p in manifold.parameters():
            p += 0.3 * torch.randn_like(p)
    return manifold


def loop(net: nn.Module, manifold: ManifoldModule, x: Tensor, contexts: Tensor) -> Tensor:
    """One plain call per sample, with Σ_k φ_k P_k (and w₀ for codes) summed up one by one."""
    plain = dict(net.named_parameters())
    has_constant = manifold.basis.constant() is not None
    rows: list[Tensor] = []
    for sample, c in zip(x, contexts, strict=True):
        phi = manifold.basis(c)
        weights = {}
        for name, points in manifold.module.named_parameters():
            w = torch.zeros_like(plain[name]) if has_constant else plain[name].detach()
            for k in range(manifold.basis.size):
                w = w + phi[k].to(points.dtype) * points[k]
            weights[name] = w
        # of a copy: torch does not put back the weights of a layer that has two names
        rows.append(functional_call(copy.deepcopy(net), weights, (sample[None],)))
    return torch.cat(rows)


def gradients(y: Tensor, x: Tensor, others: list[Any]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    target = torch.randn(y.shape, generator=generator).to(y)
    wanted = [x, *others] if x.requires_grad else others
    return list(torch.autograd.grad((y * target).sum(), wanted))


def agree(net: nn.Module, x: Tensor, basis: Basis, gap: float) -> None:
    """Outputs, and gradients of input, contexts and control points."""
    manifold = shaken(net, basis)
    c = basis.topology.sample(BATCH, torch.Generator().manual_seed(2)).requires_grad_()
    found, expected = manifold(x, c), loop(net, manifold, x, c)
    torch.testing.assert_close(found, expected, atol=gap, rtol=gap)
    wanted: list[Any] = [c, *manifold.parameters()]
    pairs = zip(gradients(found, x, wanted), gradients(expected, x, wanted), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, atol=gap, rtol=gap)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", LAYERS)
def test_batched_layers_equal_a_loop(name: str, dtype: torch.dtype) -> None:
    make, shape = LAYERS[name]
    net = make().to(dtype)
    gap = 1e-5 if dtype == torch.float32 else 1e-10
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "layer .* has no batched form")
        agree(net, inputs(net, shape, dtype), Fourier(1), gap)


@pytest.mark.parametrize("basis", BASES)
def test_every_kind_of_basis(basis: str) -> None:
    make, shape = LAYERS["network"]
    net = make()
    agree(net, inputs(net, shape, torch.float64), BASES[basis](), 1e-10)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", UNBATCHED)
def test_other_layers_run_sample_by_sample(name: str) -> None:
    make, shape = UNBATCHED[name]
    net = make()
    with pytest.warns(UserWarning, match=r"layer .* of type \w+ has no batched form"):
        agree(net, inputs(net, shape, torch.float64), Fourier(1), 1e-10)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
def test_all_orders_of_a_convolution_agree(stride: int, groups: int) -> None:
    x, phi = torch.randn(3, 4, 7, 6), torch.randn(3, 5)
    weight, bias = torch.randn(5, 6, 4 // groups, 3, 3), torch.randn(5, 6)
    window = Window((stride, stride), (1, 1), (1, 1), groups)
    one = batched._stack_first(x, phi, weight, bias, window)
    for order in (batched._samples_first, batched._kernels_first):
        other = order(x, phi, weight, bias, window)
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


def orders_taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Fills up with the order and the number of samples of every convolution from now on."""
    taken: list[tuple[str, int]] = []

    def spy(name: str) -> Callable[..., Tensor]:
        def run(x: Tensor, _phi: Tensor, weight: Tensor, *_: object) -> Tensor:
            taken.append((name, len(x)))
            return torch.zeros(len(x), weight.shape[1], 1, 1)

        return run

    for name in ("_kernels_first", "_samples_first", "_stack_first"):
        monkeypatch.setattr(batched, name, spy(name))
    return taken


@pytest.mark.parametrize(
    ("order", "channels", "out", "size", "kernel", "stride"),
    [
        # three points: (3 − 1.5) n > 190 from 127 positions on
        ("_kernels_first", 2, 4, (12, 11), 3, (1, 1)),
        ("_kernels_first", 4, 4, (24, 22), 3, (2, 2)),
        ("_samples_first", 2, 4, (12, 10), 3, (1, 1)),
        ("_stack_first", 4, 4, (12, 10), 3, (1, 1)),
        # a kernel of 4·10² numbers is no longer small beside 3 copies of 132
        ("_stack_first", 4, 4, (12, 11), 10, (1, 1)),
        ("_kernels_first", 4, 4, (12, 12), 10, (1, 1)),
        # strides thin out what the stack is multiplied with
        ("_stack_first", 2, 4, (6, 6), 3, (2, 1)),
        ("_samples_first", 2, 5, (6, 6), 3, (2, 1)),
    ],
)
def test_convolutions_take_the_order_that_costs_least(
    order: str, channels: int, out: int, size: tuple[int, int], kernel: int,
    stride: tuple[int, int], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    taken = orders_taken(monkeypatch)
    x, phi = torch.zeros(2, channels, *size), torch.zeros(2, 3)
    weight = torch.zeros(3, out, channels, kernel, kernel)
    batched.convolution(x, phi, weight, None, Window(stride, (0, 0), (1, 1), 1))
    assert taken == [(order, 2)]


def test_only_a_cpu_mixes_kernels_and_takes_few_samples_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = orders_taken(monkeypatch)
    x, phi, weight = torch.zeros(129, 4, 12, 11), torch.zeros(129, 3), torch.zeros(3, 4, 4, 3, 3)
    window = Window((1, 1), (1, 1), (1, 1), 1)
    assert len(batched.convolution(x, phi, weight, None, window)) == 129
    assert taken == [("_kernels_first", n) for n in (64, 64, 1)]
    taken.clear()
    batched.convolution(x[:64], phi[:64], weight, None, window)
    batched.convolution(x.to("meta"), phi.to("meta"), weight.to("meta"), None, window)
    assert taken == [("_kernels_first", 64), ("_stack_first", 129)]


def test_weights_are_assembled_in_full_whatever_autocast_says() -> None:
    phi, points = torch.randn(2, 3), torch.randn(3, 4, 5).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = batched.assemble(phi, points)
    assert found.dtype == torch.float32
    expected = torch.einsum("bk,koi->boi", phi, points.double())
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-6)


def test_convolutions_of_more_samples_than_are_taken_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batched, "AT_ONCE", 3)  # of four samples
    for name in ("conv2d", "conv2d that narrows"):
        make, shape = LAYERS[name]
        net = make().double()
        agree(net, inputs(net, shape, torch.float64), Fourier(1), 1e-10)


@pytest.mark.parametrize(
    "name",
    ["conv2d with everything", "network", "tied weights", "tied to a layer called twice"],
)
def test_one_context_for_the_batch_equals_that_context_for_each(name: str) -> None:
    make, shape = LAYERS[name]
    net = make()
    manifold, x = shaken(net, Fourier(2)), inputs(net, shape, torch.float64)
    c = torch.rand(1)
    same = manifold(x, c.expand(BATCH, 1))
    torch.testing.assert_close(manifold(x, c), same, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(manifold.materialise(c)(x), same, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("shared", [True, False])
def test_gradcheck_of_control_points_and_contexts(shared: bool) -> None:
    """Also of second derivatives; the activations between the layers are smooth."""
    net = nn.Sequential(
        nn.Conv2d(1, 2, 2), nn.GroupNorm(1, 2), nn.Softplus(), nn.Flatten(), nn.Linear(8, 2)
    )
    manifold, x = shaken(net, Fourier(1)), torch.randn(3, 1, 3, 3)
    names = [name for name, _ in manifold.named_parameters()]
    points = [p.detach().clone().requires_grad_() for p in manifold.parameters()]
    c = torch.rand(1 if shared else (3, 1), requires_grad=True)

    def run(c: Tensor, *points: Tensor) -> Tensor:
        return functional_call(manifold, dict(zip(names, points, strict=True)), (x, c))

    assert torch.autograd.gradcheck(run, (c, *points))
    assert torch.autograd.gradgradcheck(run, (c, *points), fast_mode=True)


def test_batch_norm_that_trains_normalises_over_the_batch() -> None:
    """Scale and shift belong to the sample; statistics are those of a plain layer's."""
    net = nn.BatchNorm1d(4)
    manifold, plain = shaken(net, Fourier(1)), copy.deepcopy(net)
    x, c = torch.randn(8, 4), torch.rand(8, 1)
    w = manifold.weights(c)
    expected = w["weight"] * plain(x) + w["bias"]
    torch.testing.assert_close(manifold(x, c), expected)
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(manifold.module.get_buffer(name), buffer)
