"""ManifoldModule as an nn.Module: copies, states, devices' settings, and what it refuses."""

import copy
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cl_manifold.errors import ContextError, LayoutError
from cl_manifold.geometry import Bernstein, Fourier, Vertices, random_codes
from cl_manifold.manifold.module import ManifoldModule
from tests.networks import small_cnn, small_mlp

B = 4


def shaken(net: nn.Module, basis: Any = None) -> ManifoldModule:
    manifold = ManifoldModule(net, basis or Fourier(1))
    with torch.no_grad():
        for p in manifold.parameters():
            p += 0.1 * torch.randn_like(p)
    return manifold


@pytest.mark.parametrize("basis", [Fourier(2), Bernstein(2), Vertices(3), random_codes(3, 4, 0)])
def test_starts_as_the_given_network_and_leaves_it_alone(basis: Any) -> None:
    net = small_cnn().eval()
    before = copy.deepcopy(net.state_dict())
    manifold, x = ManifoldModule(net, basis), torch.randn(B, 1, 6, 6)
    c = basis.topology.sample(B, torch.Generator().manual_seed(0))
    assert not manifold.training
    torch.testing.assert_close(manifold(x, c), net(x))
    torch.testing.assert_close(manifold(x, c[0]), net(x))
    torch.testing.assert_close(manifold.materialise(c[0])(x), net(x))
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_control_points_have_the_names_and_shapes_of_the_weights() -> None:
    net = small_cnn()
    manifold = ManifoldModule(net, Fourier(2))
    shapes = {n: (5, *p.shape) for n, p in net.named_parameters()}
    assert {n: tuple(p.shape) for n, p in manifold.module.named_parameters()} == shapes
    assert len(manifold.control_points()) == len(list(net.parameters()))
    assert {n: w.shape for n, w in manifold.weights(torch.rand(1)).items()} == {
        n: p.shape for n, p in net.named_parameters()
    }
    assert manifold.weights(torch.rand(7, 1))["4.bias"].shape == (7, 3)


def test_frozen_weights_stay_frozen() -> None:
    net = small_mlp()
    net[0].weight.requires_grad_(False)
    manifold = ManifoldModule(net, Fourier(1))
    assert [p.requires_grad for p in manifold.parameters()] == [False, True, True, True]
    assert not next(manifold.materialise(torch.rand(1)).parameters()).requires_grad


def test_layers_keep_their_modes() -> None:
    net = small_cnn()
    net[1].eval()
    modes = [layer.training for layer in net.modules()]
    manifold = ManifoldModule(net, Fourier(1))
    assert [layer.training for layer in manifold.module.modules()] == modes
    assert [layer.training for layer in manifold.materialise(torch.rand(1)).modules()] == modes


def test_materialise_is_a_plain_module() -> None:
    manifold, x, c = shaken(small_cnn().eval()), torch.randn(B, 1, 6, 6), torch.rand(1)
    plain = manifold.materialise(c)
    assert plain.state_dict().keys() == small_cnn().state_dict().keys()
    assert all("forward" not in vars(m) for m in plain.modules())
    y = manifold(x, c)
    torch.testing.assert_close(plain(x), y)
    with torch.no_grad():
        for p in plain.parameters():
            p.zero_()
    torch.testing.assert_close(manifold(x, c), y)


@pytest.mark.parametrize("basis", [Fourier(1), random_codes(3, 4, 0)])
def test_state_dict_round_trip(basis: Any) -> None:
    manifold, other = shaken(small_cnn(), basis), ManifoldModule(small_cnn(), basis)
    x = torch.randn(B, 1, 6, 6)
    c = basis.topology.sample(B, torch.Generator().manual_seed(0))
    manifold(x, c)
    other.load_state_dict(manifold.state_dict())
    torch.testing.assert_close(other.eval()(x, c), manifold.eval()(x, c))


@pytest.mark.parametrize("how", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_independent(how: Any) -> None:
    manifold, x, c = shaken(small_cnn()).eval(), torch.randn(B, 1, 6, 6), torch.rand(B, 1)
    y = manifold(x, c)
    twin = how(manifold)
    torch.testing.assert_close(twin(x, c), y)
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    assert bool((twin(x, c) == 0).all())
    torch.testing.assert_close(manifold(x, c), y)


def test_to_another_dtype_and_back_to_training() -> None:
    manifold, x, c = shaken(small_cnn()), torch.randn(B, 1, 6, 6), torch.rand(B, 1)
    y = copy.deepcopy(manifold).eval()(x, c)
    manifold.double()
    assert manifold.eval()(x.double(), c).dtype == torch.float64
    torch.testing.assert_close(manifold(x.double(), c).float(), y, atol=1e-5, rtol=1e-5)
    tracked: Any = manifold.module.get_buffer("1.running_mean").clone()
    manifold.train()(x.double(), c)
    assert not torch.equal(manifold.module.get_buffer("1.running_mean"), tracked)


def test_empty_batch() -> None:
    assert shaken(small_mlp())(torch.empty(0, 6), torch.empty(0, 1)).shape == (0, 3)


def test_hooks_see_the_batched_layers() -> None:
    manifold, seen = shaken(small_mlp()), []
    manifold.module.get_submodule("2").register_forward_hook(
        lambda *values: seen.append(values[2].shape)
    )
    manifold(torch.randn(B, 6), torch.rand(B, 1))
    assert seen == [(B, 3)]


@pytest.mark.parametrize("shape", [(), (B,)])
def test_autocast(shape: tuple[int, ...]) -> None:
    """The product in bfloat16, as in the plain network; gradients in float32."""
    net = small_cnn()
    manifold, x, c = shaken(net), torch.randn(B, 1, 6, 6), torch.rand(*shape, 1)
    exact = manifold(x, c)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = manifold(x, c)
        assert y.dtype == net(x).dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), exact, atol=0.05, rtol=0.05)
    y.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == p.dtype for p in manifold.parameters())


@pytest.fixture
def _plain_functions() -> Iterator[None]:
    """Without the tests' checks of shapes, which torch.compile cannot trace."""
    torch._dynamo.reset()
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("_plain_functions")
@pytest.mark.parametrize("shape", [(B,), pytest.param((), marks=pytest.mark.slow)])
def test_compile(shape: tuple[int, ...]) -> None:
    """All layers are in one graph, and the functions of the contexts outside."""
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    manifold, x, c = shaken(small_mlp()), torch.randn(B, 6), torch.rand(*shape, 1)
    compiled: Any = torch.compile(manifold, backend=backend)
    expected, found = manifold(x, c), compiled(x, c)
    torch.testing.assert_close(found, expected)
    points = list(manifold.parameters())
    for one, other in zip(
        torch.autograd.grad(found.sum(), points),
        torch.autograd.grad(expected.sum(), points),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
    linear = [[n for n in g.graph.nodes if "linear" in str(n.target)] for g in graphs]
    assert sorted(len(nodes) for nodes in linear)[-1] == 2
    targets = [str(n.target) for g in graphs for n in g.graph.nodes]
    assert not any("cos" in name or "sin" in name for name in targets), "of the basis"
    with pytest.raises(ContextError, match="not a finite number"):
        compiled(x, torch.full((*shape, 1), torch.nan))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
@pytest.mark.usefixtures("_plain_functions")
@pytest.mark.parametrize("shape", [(B,), ()])
def test_compile_with_compiled_gradients(shape: tuple[int, ...]) -> None:
    manifold, x, c = shaken(small_cnn()).eval(), torch.randn(B, 1, 6, 6), torch.rand(*shape, 1)
    compiled: Any = torch.compile(manifold, backend="aot_eager")
    points = list(manifold.parameters())
    slopes = [torch.autograd.grad(f(x, c).square().sum(), points) for f in (manifold, compiled)]
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
@pytest.mark.usefixtures("_plain_functions")
def test_a_layer_without_batched_form_under_compile() -> None:
    manifold = shaken(nn.Sequential(nn.Linear(6, 4), nn.PReLU(4)))
    x, c = torch.randn(B, 6), torch.rand(B, 1)
    compiled: Any = torch.compile(manifold, backend="eager")
    with pytest.warns(UserWarning, match="layer 1 of type PReLU"):
        found = compiled(x, c)
    torch.testing.assert_close(found, manifold(x, c))


def test_one_warning_names_the_layer() -> None:
    manifold = shaken(nn.Sequential(nn.Linear(6, 4), nn.PReLU(4)))
    x, c = torch.randn(B, 6), torch.rand(B, 1)
    manifold(x, c[0])
    with pytest.warns(UserWarning, match="layer 1 of type PReLU has no batched form"):
        manifold(x, c)
    manifold(x, c)


class Dropping(nn.Module):
    """Drops half of its own products while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(400))

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x * self.weight, 0.5, self.training)


@pytest.mark.filterwarnings("ignore:layer .* has no batched form")
def test_every_sample_draws_for_itself() -> None:
    manifold, x, c = ManifoldModule(Dropping(), Fourier(1)), torch.ones(B, 400), torch.rand(B, 1)
    kept = manifold(x, c) > 1.9
    for i in range(B):
        assert 120 < int(kept[i].sum()) < 280
        assert not any(torch.equal(kept[i], kept[j]) for j in range(i))
    torch.testing.assert_close(manifold.eval()(x, c), x)


# -- what cannot be right is refused ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("context", "says"),
    [
        (torch.rand(3), "has 3 numbers"),
        (torch.rand(B, 2), "has 2 numbers"),
        (torch.rand(B - 1, 1), r"shape \(3, 1\) for 4 samples"),
        (torch.rand(1, 1), r"shape \(1, 1\) for 4 samples"),
        (torch.rand(2, B, 1), r"shape \(2, 4, 1\) for 4 samples"),
        (torch.tensor([1.5]), r"1\.5 lies outside \[0, 1\]"),
        (torch.tensor([[0.1], [0.2], [torch.nan], [0.3]]), "nan lies outside"),
    ],
)
def test_bad_contexts(context: Tensor, says: str) -> None:
    manifold = shaken(small_mlp(), Bernstein(1))
    with pytest.raises(ContextError, match=says):
        manifold(torch.randn(B, 6), context)


def test_a_mixture_that_is_none() -> None:
    manifold = shaken(small_mlp(), Vertices(2))
    with pytest.raises(ContextError, match="is not a mixture"):
        manifold(torch.randn(2, 6), torch.tensor([[0.5, 0.5], [0.5, 0.6]]))


class Outside(nn.Module):
    """Uses a layer's bias beside the layer; with four control points the shapes would even fit."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.layer, self.how = nn.Linear(6, B), how

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        if self.how == "add":
            return y + self.layer.bias
        if self.how == "function":
            return F.linear(x, self.layer.weight)
        if self.how == "keyword":
            return F.linear(x, weight=self.layer.weight)
        if self.how == "method":
            return y * self.layer.weight.mean()
        return y.to(self.layer.weight.dtype).reshape(-1, *self.layer.bias.shape)


@pytest.mark.parametrize("how", ["add", "function", "keyword", "method"])
def test_weights_used_outside_their_layer(how: str) -> None:
    manifold, x = shaken(Outside(how), Bernstein(B - 1)), torch.randn(B, 6)
    manifold(x, torch.rand(1))
    with pytest.raises(LayoutError, match=r"layer\.\w+ was used outside the forward of its layer"):
        manifold(x, torch.rand(B, 1))
    manifold(x, torch.rand(1))


def test_shape_and_dtype_of_a_weight_may_be_read_anywhere() -> None:
    assert shaken(Outside("look"))(torch.randn(B, 6), torch.rand(B, 1)).shape == (B, B)


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (nn.Sequential(nn.Flatten(0, 1), nn.Linear(6, 3)), (B, 2, 6)),
        (nn.Linear(B, 3), (B,)),
        (nn.Conv2d(B, 3, 1), (B, 5, 5)),
        (nn.LayerNorm([B, 6]), (B, 6)),
    ],
)
def test_a_layer_that_does_not_see_the_batch_first(net: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(LayoutError, match="axis 0 of every layer's input must be the batch"):
        shaken(net)(torch.randn(*shape), torch.rand(B, 1))


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, attn_mask=torch.zeros(B, B))[0]


class Counting(nn.Module):
    """Replaces a buffer by one that depends on the sample."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))
        self.register_buffer("total", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.total = self.total + x.detach().sum()
        return x * self.weight


class InPlace(Counting):
    def forward(self, x: Tensor) -> Tensor:
        self.total += x.detach().sum()
        return x * self.weight


class Inside(Counting):
    """A norm that trains inside a layer that runs sample by sample."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) * self.weight


@pytest.mark.filterwarnings("ignore:layer .* has no batched form")
@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize(
    ("net", "says"),
    [
        (Masked(), "of tensors given by keyword"),
        (Counting(), "replaced its buffer total"),
        (InPlace(), "InPlace cannot run with a context per sample"),
        (Inside(), "Inside cannot run with a context per sample"),
        (nn.LSTM(6, 3, batch_first=True), "LSTM cannot run with a context per sample"),
        (nn.utils.spectral_norm(nn.Linear(6, 3)), "weight_orig was used outside the forward"),
        (nn.MultiheadAttention(6, 2), "batch_first=True"),
    ],
)
def test_layers_that_cannot_run_by_sample(net: nn.Module, says: str) -> None:
    sequences = isinstance(net, (Masked, nn.LSTM, nn.MultiheadAttention))
    x = torch.randn(B, B, 6) if sequences else torch.randn(B, 6)
    with pytest.raises(LayoutError, match=says):
        shaken(net)(x, torch.rand(B, 1))


@pytest.mark.parametrize(
    ("net", "says"),
    [
        (nn.ReLU(), "has no parameters"),
        (nn.LazyLinear(3), "weight has no shape yet"),
        (nn.Embedding(3, 2, max_norm=1.0), "max_norm or sparse"),
        (nn.Embedding(3, 2, sparse=True), "max_norm or sparse"),
    ],
)
def test_modules_without_a_manifold(net: nn.Module, says: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(LayoutError, match=says):
            ManifoldModule(net, Fourier(1))


def test_weights_that_are_not_floating_point() -> None:
    net = nn.Module()
    net.register_parameter("count", nn.Parameter(torch.ones(2, dtype=torch.int64), False))
    with pytest.raises(LayoutError, match=r"count has dtype torch\.int64"):
        ManifoldModule(net, Fourier(1))


def test_an_error_does_not_leave_traces() -> None:
    manifold, x = shaken(Outside("add")), torch.randn(B, 6)
    c = torch.rand(1)
    before = manifold(x, c)
    with pytest.raises(LayoutError):
        manifold(x, torch.rand(B, 1))
    torch.testing.assert_close(manifold(x, c), before)
    assert all(type(p) is nn.Parameter for p in manifold.parameters())
