"""Fisher information against closed forms and a slow loop over samples with plain autograd."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cl_manifold.manifold.fisher as fisher
import cl_manifold.manifold.layerwise as layers
from cl_manifold.manifold.information import FisherInformation
from cl_manifold.manifold.layout import Granularity, Inputs, Layout, layout_of, with_buffers
from cl_manifold.manifold.likelihood import (
    Bernoulli,
    Categorical,
    Gaussian,
    Likelihood,
    Poisson,
    Projections,
)
from tests.zoo import NETWORKS, Squeezed, TimeFirst, Twice

GRANULARITIES: list[Granularity] = ["tensor", "row", "weight"]


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def measured(
    net: nn.Module, inputs: Inputs, layout: Layout, likelihood: Likelihood | None = None
) -> Tensor:
    return FisherInformation()(net, inputs, layout, likelihood or Categorical(), seeded())


# -- closed forms of linear models -------------------------------------------------------------


def expected_squares(name: str, x: Tensor, w: Tensor) -> Tensor:
    """E_y g² of o = w x, shape (outputs, inputs), averaged over samples."""
    o = x @ w.mT
    if name == "gaussian":
        variance = torch.ones_like(o)  # of the residual o − y
    elif name == "categorical":
        variance = o.softmax(1) * (1 - o.softmax(1))
    elif name == "bernoulli":
        variance = o.sigmoid() * (1 - o.sigmoid())
    elif name == "poisson":
        variance = o.exp()
    else:
        variance = torch.ones_like(o)  # of r
    return variance.mT @ x.square() / len(x)


MODELS: dict[str, Likelihood] = {
    "gaussian": Gaussian(),
    "categorical": Categorical(),
    "bernoulli": Bernoulli(True),
    "poisson": Poisson(True),
    "projections": Projections(),
}


@pytest.mark.parametrize("name", MODELS)
def test_linear_models_have_their_closed_forms(name: str) -> None:
    net = nn.Linear(4, 3, bias=False)
    x = torch.randn(6, 4)
    exact = expected_squares(name, x, net.weight.detach())
    many = x.repeat(20_000, 1)
    found = FisherInformation(len(many))(
        net, (many,), layout_of(net, "weight"), MODELS[name], seeded()
    )
    torch.testing.assert_close(found, exact.flatten(), rtol=0.03, atol=0)


def test_log_probabilities_tell_the_same_as_logits() -> None:
    a = nn.Sequential(nn.Linear(4, 3))
    b = nn.Sequential(a[0], nn.LogSoftmax(1))
    x, layout = torch.randn(6, 4), layout_of(a, "weight")
    torch.testing.assert_close(measured(a, (x,), layout), measured(b, (x,), layout))


def test_probabilities_tell_the_same_as_logits() -> None:
    a = nn.Sequential(nn.Linear(4, 3))
    b = nn.Sequential(a[0], nn.Sigmoid())
    x, layout = torch.randn(6, 4), layout_of(a, "weight")
    found = measured(b, (x,), layout, Bernoulli(False))
    torch.testing.assert_close(found, measured(a, (x,), layout, Bernoulli(True)))


@pytest.mark.parametrize("likelihood", [Gaussian(), Bernoulli(True), Poisson(True), Projections()])
def test_one_output_has_information(likelihood: Likelihood) -> None:
    net, x = Squeezed(1), torch.randn(6, 2, 4)
    found = measured(net, (x,), layout_of(net), likelihood)
    assert bool((found > 0).all())


def test_a_sample_may_lose_its_axis() -> None:
    net, x = Squeezed(3), torch.randn(6, 2, 4)
    assert bool((measured(net, (x,), layout_of(net)) > 0).all())


# -- a slow loop ------------------------------------------------------------------------------


@torch.no_grad()
def labels_of(net: nn.Module, inputs: Inputs) -> Tensor:
    return Categorical().draw(net(*inputs), seeded())


def slow(net: nn.Module, inputs: Inputs, labels: Tensor, layout: Layout) -> Tensor:
    """Autograd, sample by sample, on a copy in which everything has gradients."""
    net = deepcopy(net).requires_grad_(True)
    named = dict(net.named_parameters())
    parameters = [named[e.name] for e in layout.trained]
    squares = [torch.zeros_like(p) for p in parameters]
    for b in range(len(labels)):
        outputs = net(*(column[b : b + 1] for column in inputs))
        loss = F.cross_entropy(outputs, labels[b : b + 1], reduction="sum")
        found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        squares = [s + g**2 / len(labels) for s, g in zip(squares, found, strict=True)]
    every = zip(layout.trained, squares, strict=True)
    return torch.cat([s.reshape(e.blocks, -1).mean(1) for e, s in every]).detach()


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("name", NETWORKS)
def test_equals_a_loop_over_samples(name: str, granularity: Granularity) -> None:
    make, draw = NETWORKS[name]
    net, inputs = make().eval(), draw()
    layout = layout_of(net, granularity)
    labels = labels_of(net, inputs)
    expected = slow(net, inputs, labels, layout)
    found = measured(net, inputs, layout)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["cnn with norms", "LSTM", "GRU", "TransformerEncoderLayer"])
def test_networks_in_single_numbers(name: str) -> None:
    make, draw = NETWORKS[name]
    net, inputs = make().eval().float(), tuple(column.float() for column in draw())
    layout = layout_of(net)
    expected = slow(net, inputs, labels_of(net, inputs), layout)
    torch.testing.assert_close(
        measured(net, inputs, layout), expected.double(), rtol=1e-3, atol=1e-9
    )


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("name", ["mlp with in-place ReLU", "time first", "GRU", "per position"])
def test_few_samples(name: str, count: int) -> None:
    make, draw = NETWORKS[name]
    net = make().eval()
    inputs = tuple(column[:count] for column in draw())
    layout = layout_of(net)
    labels = labels_of(net, inputs)
    torch.testing.assert_close(measured(net, inputs, layout), slow(net, inputs, labels, layout))


def test_time_as_long_as_the_few_samples_of_the_test() -> None:
    for count, steps in ((6, 2), (2, 3), (2, 2), (3, 2), (3, 3), (5, 5), (6, 6)):
        net, x = TimeFirst(), torch.randn(count, steps, 3)
        labels = labels_of(net, (x,))
        layout = layout_of(net)
        torch.testing.assert_close(measured(net, (x,), layout), slow(net, (x,), labels, layout))


@pytest.mark.parametrize("name", ["mlp with in-place ReLU", "cnn with norms", "hooks"])
def test_chunks_add_up(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, draw = NETWORKS[name]
    net, inputs = make().eval(), draw()
    whole = measured(net, inputs, layout_of(net))
    for path in ("common", "networkwise"):
        if path == "networkwise":
            monkeypatch.setattr(fisher, "explained_names", lambda *_: {})
        for floats in (1, 500):
            monkeypatch.setattr(fisher, "CHUNK_FLOATS", floats)
            torch.testing.assert_close(measured(net, inputs, layout_of(net)), whole)


@pytest.mark.parametrize("by_layer", [True, False])
@pytest.mark.parametrize(("floats", "sizes"), [(1, 6 * [1]), (31, 3 * [2]), (60, [4, 2])])
def test_gradients_of_single_samples_stay_within_the_budget(
    by_layer: bool, floats: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network of 15 weights: so many floats at once, or those of one network."""
    module = layers if by_layer else fisher
    found: list[int] = []
    through = module.accumulate

    def spy(total: Any, gradients: Any, entries: Any) -> None:
        found.append(len(gradients["0.weight"]))
        through(total, gradients, entries)

    if not by_layer:
        monkeypatch.setattr(fisher, "explained_names", lambda *_: {})
    monkeypatch.setattr(module, "accumulate", spy)
    monkeypatch.setattr(fisher, "CHUNK_FLOATS", floats)
    net = nn.Sequential(nn.Conv1d(2, 3, 2), nn.Flatten())
    measured(net, (torch.randn(6, 2, 2),), layout_of(net))
    assert found == sizes


@pytest.mark.parametrize(
    "name", ["mlp with in-place ReLU", "frozen", "cnn with norms", "transposed"]
)
def test_common_layers_need_no_pass_per_sample(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the whole network was run sample by sample")

    monkeypatch.setattr(fisher, "_networkwise", refuse)
    make, draw = NETWORKS[name]
    measured(make().eval(), draw(), layout_of(make()))


def test_common_layers_beside_others_need_none_either(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    through = fisher._networkwise

    def spy(*arguments: Any) -> Any:
        seen.extend(arguments[4])
        return through(*arguments)

    monkeypatch.setattr(fisher, "_networkwise", spy)
    net = Twice().eval()
    measured(net, (torch.randn(6, 5),), layout_of(net))
    assert set(seen) == {"shared.weight", "shared.bias", "head.weight"}


@pytest.mark.parametrize("name", ["tied weights", "MultiheadAttention", "two inputs"])
def test_other_networks_need_no_loop(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("samples were run one by one")

    monkeypatch.setattr(fisher, "_one_by_one", refuse)
    make, draw = NETWORKS[name]
    measured(make().eval(), draw(), layout_of(make()))


def test_linear_layers_need_no_gradient_per_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("gradients of single samples were computed")

    monkeypatch.setattr(layers, "_sample_gradients", refuse)
    monkeypatch.setattr(fisher, "_networkwise", refuse)
    make, draw = NETWORKS["mlp with in-place ReLU"]
    measured(make(), draw(), layout_of(make()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_numbers_do_not_hide_a_use_elsewhere(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    through = fisher._networkwise

    def spy(*arguments: Any) -> Any:
        seen.extend(arguments[4])
        return through(*arguments)

    monkeypatch.setattr(fisher, "_networkwise", spy)
    net = Twice().to(dtype)
    measured(net, (torch.randn(6, 5).to(dtype),), layout_of(net))
    assert set(seen) == {"shared.weight", "shared.bias", "head.weight"}


class Leaking(nn.Module):
    """A weight whose use outside its layer is small."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + 0.01 * x @ self.layer.weight.mT


def test_a_small_use_elsewhere_counts() -> None:
    net, x = Leaking(), torch.randn(6, 5)
    layout = layout_of(net, "weight")
    expected = slow(net, (x,), labels_of(net, (x,)), layout)
    torch.testing.assert_close(measured(net, (x,), layout), expected)


def test_rounding_of_short_numbers_is_no_use_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the whole network was run sample by sample")

    monkeypatch.setattr(fisher, "_networkwise", refuse)
    net = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64)).to(torch.bfloat16)
    x = torch.randn(6, 64).to(torch.bfloat16)
    measured(net, (x,), layout_of(net))


class Stopped(nn.Module):
    """A layer that runs without gradients, and one that is called with two arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.apart = nn.Linear(5, 4)
        self.plain = nn.Linear(5, 4)
        self.wider = nn.ConvTranspose1d(1, 2, 2, stride=2)
        self.head = nn.Linear(2 * 9, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            offset = self.apart(x)
        hidden = (self.plain(x) + offset).tanh()
        return self.head(self.wider(hidden[:, None], [9]).flatten(1))


def test_a_part_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = Stopped(), torch.randn(6, 5)
    layout = layout_of(net)
    expected = slow(net, (x,), labels_of(net, (x,)), layout)
    seen: list[str] = []
    through = fisher._networkwise

    def spy(*arguments: Any) -> Any:
        seen.extend(arguments[4])
        return through(*arguments)

    monkeypatch.setattr(fisher, "_networkwise", spy)
    torch.testing.assert_close(measured(net, (x,), layout), expected)
    assert set(seen) == {"wider.weight", "wider.bias"}


# -- gradients that share memory ----------------------------------------------------------------


def test_biases_of_an_lstm_share_memory_and_are_squared_once() -> None:
    """Squares in place, of gradients that share memory, gave E g⁴ for E g²."""
    net: Any = nn.LSTM(1, 1, batch_first=True)

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = net

        def forward(self, x: Tensor) -> Tensor:
            return self.lstm(x)[0][:, -1]

    # one step from zero states: h = σ(o) tanh(σ(i) tanh(g)), the forget gate does nothing
    x = torch.tensor([[[0.7]], [[-1.2]], [[0.1]]])
    gates = [
        x[:, 0] * w + a + b
        for w, a, b in zip(net.weight_ih_l0[:, 0], net.bias_ih_l0, net.bias_hh_l0, strict=True)
    ]
    i, _, g, o = (gate.detach() for gate in gates)
    cell = i.sigmoid() * g.tanh()
    slope = o.sigmoid() * (1 - cell.tanh() ** 2)
    jacobian = torch.stack(
        [
            slope * i.sigmoid() * (1 - i.sigmoid()) * g.tanh(),
            torch.zeros_like(i),
            slope * i.sigmoid() * (1 - g.tanh() ** 2),
            o.sigmoid() * (1 - o.sigmoid()) * cell.tanh(),
        ]
    )[..., 0]
    residual = torch.randn(3, 1, generator=seeded())[:, 0]  # y − o of a Gaussian
    expected = (jacobian * residual).square().mean(1)
    last = Last()
    layout = layout_of(last, "weight")
    found = measured(last, (x,), layout, Gaussian())
    for e in layout.trained:
        if "bias" in e.name:
            torch.testing.assert_close(found[e.part], expected)


# -- what is not trained, and short numbers -----------------------------------------------------


def test_buffers_are_held_like_the_average_weight() -> None:
    net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).eval()
    plain = layout_of(net)
    buffers = {f"1.{n}": (b, False) for n, b in net[1].named_buffers() if b.ndim}
    layout = with_buffers(plain, buffers).layout
    x = torch.randn(8, 5)
    found, alone = measured(net, (x,), layout), measured(net, (x,), plain)
    torch.testing.assert_close(found[: plain.blocks], alone)
    average = (alone * plain.sizes()).sum() / plain.sizes().sum()
    torch.testing.assert_close(found[plain.blocks :], average.expand(2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["mlp with in-place ReLU", "cnn with norms", "LSTM", "GRU"])
def test_networks_in_short_numbers(name: str, dtype: torch.dtype) -> None:
    make, draw = NETWORKS[name]
    short, inputs = make().eval().to(dtype), draw()
    inputs = tuple(column.to(dtype) for column in inputs)
    single = deepcopy(short).float()
    exact = measured(single, tuple(c.float() for c in inputs), layout_of(single), Projections())
    found = measured(short, inputs, layout_of(short), Projections())
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.log(), exact.log(), atol=0.25, rtol=0)


def test_squares_of_short_numbers_do_not_vanish() -> None:
    """In float16 a gradient of 2e-5 has the square 0."""
    net = nn.Linear(4, 2).half()
    x = torch.full((3, 4), 2e-5).half()
    found = measured(net, (x,), layout_of(net, "weight"), Projections())
    r = torch.randn(3, 2, generator=seeded(), dtype=torch.float32).double()
    expected = (r.square().mean(0)[:, None] * x[0].double().square()).flatten()
    torch.testing.assert_close(found[:8], expected, rtol=0.05, atol=0)
