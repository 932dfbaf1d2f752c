"""Fisher information against closed forms and a slow loop over samples with plain autograd."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import cl_manifold.manifold.fisher as fisher
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


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            lambda: nn.Sequential(nn.Linear(4, 3)),
            lambda: nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(1)),
        ),
    ],
)
def test_log_probabilities_tell_the_same_as_logits(
    one: Callable[[], nn.Module], other: Callable[[], nn.Module]
) -> None:
    a, b, x = one(), other(), torch.randn(6, 4)
    b.load_state_dict(a.state_dict())
    layout = layout_of(a, "weight")
    torch.testing.assert_close(measured(a, (x,), layout), measured(b, (x,), layout))


def test_probabilities_tell_the_same_as_logits() -> None:
    a = nn.Sequential(nn.Linear(4, 3))
    b = nn.Sequential(a[0], nn.Sigmoid())
    x, layout = torch.randn(6, 4), layout_of(a, "weight")
    found = measured(b, (x,), layout, Bernoulli(False))
    torch.testing.assert_close(found, measured(a, (x,), layout, Bernoulli(True)))


class Squeezed(nn.Module):
    """Drops every axis of length one, the batch's too."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.body = nn.GRU(4, 3, batch_first=True)
        self.head = nn.Parameter(torch.randn(outputs, 3))

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x)[0][:, -1] @ self.head.mT).squeeze()


@pytest.mark.parametrize("likelihood", [Gaussian(), Bernoulli(True), Poisson(True), Projections()])
def test_one_output_has_information(likelihood: Likelihood) -> None:
    net, x = Squeezed(1), torch.randn(6, 2, 4)
    found = measured(net, (x,), layout_of(net), likelihood)
    assert bool((found > 0).all())


def test_a_sample_may_lose_its_axis() -> None:
    net, x = Squeezed(3), torch.randn(6, 2, 4)
    assert bool((measured(net, (x,), layout_of(net)) > 0).all())


# -- a slow loop ------------------------------------------------------------------------------


class Twice(nn.Module):
    """A layer that is called twice, and a weight that is used outside its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(5, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.shared(torch.tanh(self.shared(x))))
        return self.head(hidden) + 0.1 * F.linear(hidden, self.head.weight)


class Unused(nn.Module):
    """A head that no sample of the task reaches, and one that is called for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(5, 3)
        self.other = nn.Linear(5, 3)
        self.idle = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.idle(x)
        return self.used(x)


def tied() -> nn.Module:
    net = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5))
    net[2].weight = net[0].weight
    return net


class Recurrent(nn.Module):
    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.body = kind(3, 4, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[0][:, -1])


class TimeFirst(nn.Module):
    """Time along axis 0 inside, as many steps as there are samples."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(3, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps = torch.tanh(self.norm(self.inside(x.transpose(0, 1))))
        return self.head(steps.cumsum(0)[-1] * x[:, :1, 0])


class FeaturesFirst(nn.Module):
    """Axis 0 of a layer's input holds as many features as there are samples."""

    def __init__(self) -> None:
        super().__init__()
        self.mixing = nn.Linear(1, 3)

    def forward(self, x: Tensor) -> Tensor:
        every = [self.mixing(row[:, None]).tanh().sum(0) for row in x]
        return torch.stack(every)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(x, x, x)[0].mean(1))


class Words(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 4, **options)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.words(x).tanh().mean(1))


class LowRank(nn.Module):
    """A frozen layer and a low-rank sum beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(5, 3).requires_grad_(False)
        self.down = nn.Parameter(torch.randn(2, 5))
        self.up = nn.Parameter(torch.randn(3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ (self.up @ self.down).mT


class Square(torch.autograd.Function):
    """Without `setup_context`, which vmap needs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return 2 * ctx.saved_tensors[0] * gradients[0]


class OwnFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 5))

    def forward(self, x: Tensor) -> Tensor:
        result: Any = Square.apply(x @ self.weight.mT)
        return result


class Branching(nn.Module):
    """Which weights a sample meets depends on the sample."""

    def __init__(self) -> None:
        super().__init__()
        self.plus = nn.Parameter(torch.randn(3, 5))
        self.minus = nn.Parameter(torch.randn(3, 5))

    def forward(self, x: Tensor) -> Tensor:
        rows = [self.plus @ row if float(row[0]) > 0 else self.minus @ row.tanh() for row in x]
        return torch.stack(rows)


class ManyHeads(nn.Module):
    """In the manner of Avalanche's MultiTaskModule: one head per task label."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(5, 4)
        self.heads = nn.ModuleList(nn.Linear(4, 3) for _ in range(3))

    def forward(self, x: Tensor, task_labels: Tensor) -> Tensor:
        hidden = self.body(x).relu()
        out = hidden.new_zeros(len(x), 3)
        for label in task_labels.unique():
            mine = task_labels == label
            out[mine] = self.heads[int(label)](hidden[mine])
        return out


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(4, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return self.head((x + self.words(labels)).tanh())


class Rescaled(nn.Module):
    """A scalar parameter, an in-place operation on a layer's output, and one on its input."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.first = nn.Linear(5, 4)
        self.second = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x.clone().mul_(self.scale))
        hidden.tanh_()
        return self.second(hidden).mul_(2.0)


def hooked() -> nn.Module:
    """A user's hooks: on a layer's output, on its input, on a gradient; one refuses vmap."""
    net = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4), nn.LayerNorm(4))
    net.append(nn.Linear(4, 3))
    net[0].register_forward_hook(lambda layer, inputs, output: 2 * output)
    net[2].register_forward_pre_hook(lambda layer, inputs: (inputs[0] + 1,))
    net[3].register_forward_hook(
        lambda layer, inputs, output: output * (1 + 0 * output.sum().item())
    )
    return net


def frozen(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: make().requires_grad_(False)


def numbers(*shape: int) -> Callable[[], Inputs]:
    return lambda: (torch.randn(6, *shape),)


def words() -> Inputs:
    return (torch.randint(7, (6, 3)),)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(inplace=True), nn.Linear(7, 3, bias=False))


def cnn() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, stride=2),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 4, 3, groups=2, bias=False),
        nn.GroupNorm(2, 4),
        nn.PReLU(),
        nn.Flatten(),
        nn.Linear(16, 3),
    )
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.5, 2.0)
    return net


def weight_norm() -> nn.Module:
    return nn.Sequential(parametrizations.weight_norm(nn.Linear(5, 4)), nn.Tanh(), nn.Linear(4, 3))


def old_weight_norm() -> nn.Module:
    plain = nn.utils.weight_norm(nn.Linear(5, 4))
    return nn.Sequential(plain, nn.Tanh(), nn.utils.weight_norm(nn.Linear(4, 3), dim=1))


def sequences() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 4, 3, groups=2),
        nn.InstanceNorm1d(4, affine=True),
        nn.Flatten(),
        nn.Linear(24, 3),
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Inputs]]] = {
    "mlp with in-place ReLU": (mlp, numbers(5)),
    "frozen": (frozen(mlp), numbers(5)),
    "frozen body": (
        lambda: nn.Sequential(mlp().requires_grad_(False), nn.Linear(3, 3)),
        numbers(5),
    ),
    "cnn with norms": (cnn, numbers(2, 8, 8)),
    "conv1d in groups, InstanceNorm": (sequences, numbers(2, 8)),
    "transposed": (
        lambda: nn.Sequential(nn.ConvTranspose2d(2, 3, 2), nn.Flatten(), nn.Linear(27, 3)),
        numbers(2, 2, 2),
    ),
    "linear on sequences": (lambda: nn.Sequential(nn.Linear(5, 3), nn.Flatten()), numbers(4, 5)),
    "per position": (lambda: nn.Sequential(nn.Conv1d(2, 3, 3)), numbers(2, 5)),
    "layer called twice": (Twice, numbers(5)),
    "tied weights": (tied, numbers(5)),
    "unused heads": (Unused, numbers(5)),
    "LSTM": (lambda: Recurrent(nn.LSTM), numbers(4, 3)),
    "GRU": (lambda: Recurrent(nn.GRU), numbers(4, 3)),
    "frozen GRU": (frozen(lambda: Recurrent(nn.GRU)), numbers(4, 3)),
    "RNN": (lambda: Recurrent(nn.RNN), numbers(4, 3)),
    "time first": (TimeFirst, numbers(6, 3)),
    "features first": (FeaturesFirst, numbers(6)),
    "MultiheadAttention": (Attention, numbers(3, 4)),
    "TransformerEncoderLayer": (
        lambda: nn.Sequential(
            nn.TransformerEncoderLayer(4, 2, 6, batch_first=True), nn.Flatten(), nn.Linear(12, 3)
        ),
        numbers(3, 4),
    ),
    "Embedding": (Words, words),
    "Embedding with padding": (lambda: Words(padding_idx=2), words),
    "Embedding with max_norm": (lambda: Words(max_norm=0.8), words),
    "low rank": (LowRank, numbers(5)),
    "weight_norm": (weight_norm, numbers(5)),
    "weight_norm of old": (old_weight_norm, numbers(5)),
    "own autograd function": (OwnFunction, numbers(5)),
    "control flow": (Branching, numbers(5)),
    "one head per task label": (
        ManyHeads,
        lambda: (torch.randn(6, 5), torch.tensor([0, 2, 2, 0, 2, 0])),
    ),
    "two inputs": (TwoInputs, lambda: (torch.randn(6, 5), torch.randint(4, (6,)))),
    "in-place on a layer's output": (Rescaled, numbers(5)),
    "hooks": (hooked, numbers(5)),
}


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
    for count, steps in ((6, 2), (2, 3), (2, 2), (3, 2)):
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


# -- gradients that share memory ----------------------------------------------------------------


def test_biases_of_an_lstm_share_memory_and_are_squared_once() -> None:
    """Squares in place, of gradients that share memory, gave E g⁴ for E g²."""
    net = nn.LSTM(1, 1, batch_first=True)

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
