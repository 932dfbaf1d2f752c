"""CASES.md, C: other people's layers, outputs and buffers; and saving what was learned."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cl_manifold.contexts import ByExperience
from cl_manifold.geometry import Fourier, Vertices
from cl_manifold.manifold.information import ExactInformation
from cl_manifold.strategies import WeightManifoldPlugin

from .parts import (
    DIM,
    HIDDEN,
    Data,
    accuracies,
    benchmark,
    context,
    mlp,
    naive,
    outputs_at,
    tasks,
    untold,
    vertex,
    vertices,
    walk,
)

INFORMATION: dict[str, Callable[[], Any]] = {"default": lambda: None, "exact": ExactInformation}


def learned(net: Any, data: list[Data], stream: Any, **more: Any) -> tuple[Any, Any]:
    """The plugin on vertices and its strategy, after the stream."""
    information = more.pop("information", None)
    count = len(data)
    plugin = WeightManifoldPlugin(
        Vertices(count), contexts=vertices(count), information=information
    )
    strategy = naive(plugin, net, **more)
    walk(strategy, stream)
    return plugin, strategy


# -- an answer per position ------------------------------------------------------------------


class PerPosition(nn.Module):
    """Four classes at each of 2, or 2 × 3, positions."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.shape = shape
        positions = int(torch.tensor(shape).prod())
        self.body, self.head = nn.Linear(DIM, HIDDEN), nn.Linear(HIDDEN, 4 * positions)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(x))).reshape(len(x), 4, *self.shape)


@pytest.mark.parametrize("information", INFORMATION)
@pytest.mark.parametrize("shape", [(2,), (2, 3)])
def test_an_answer_per_position(shape: tuple[int, ...], information: str) -> None:
    """Every position asks for the class, shifted by its number."""
    shift = torch.arange(int(torch.tensor(shape).prod())).reshape(shape)
    data = [Data(d.x, (d.y.reshape(-1, *[1] * len(shape)) + shift) % 4) for d in tasks(2)]
    plugin, strategy = learned(
        PerPosition(shape),
        data,
        untold(data, targets=False).streams["train"],
        information=INFORMATION[information](),
    )
    for t, d in enumerate(data):
        answers = outputs_at(strategy, plugin, vertex(t, 2), d.x).argmax(1)
        assert float((answers == d.y).float().mean()) >= 0.99


# -- recurrent layers ------------------------------------------------------------------------


class Recurrent(nn.Module):
    """The eight numbers as four steps of two."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = kind(2, 24, batch_first=True)
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x.reshape(len(x), 4, 2))[0][:, -1])


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("kind", [nn.GRU, nn.RNN])
def test_recurrent_layers(kind: Any) -> None:
    data = tasks(2, 120)
    stream = benchmark(data).train_stream
    plugin, strategy = learned(Recurrent(kind), data, stream, train_epochs=15)
    found = accuracies(strategy, plugin, data)
    assert min(found) >= 0.97, found


# -- buffers ---------------------------------------------------------------------------------


class Masked(nn.Module):
    """Causal attention over four steps, with constants of several kinds as buffers."""

    mask: Tensor
    table: Tensor
    zero: Tensor
    order: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embed, self.head = nn.Linear(2, 16), nn.Linear(64, 4)
        self.norm = nn.BatchNorm1d(64)
        infinite = torch.full((4, 4), -torch.inf)
        self.register_buffer("mask", torch.triu(infinite, diagonal=1))
        self.register_buffer("table", torch.randn(4, 16) / 3)
        self.register_buffer("zero", torch.zeros(()))
        self.register_buffer("order", torch.arange(4))

    def forward(self, x: Tensor) -> Tensor:
        steps = self.embed(x.reshape(len(x), 4, 2)) + self.table[self.order] + self.zero
        weights = (steps @ steps.mT / 4 + self.mask).softmax(-1)
        return self.head(torch.relu(self.norm((weights @ steps).flatten(1))))


@pytest.mark.parametrize("information", INFORMATION)
def test_masks_and_constants_stay_bit_by_bit(information: str) -> None:
    data = tasks(2)
    net = Masked()
    constants = {n: copy.deepcopy(b) for n, b in net.named_buffers() if "norm" not in n}
    plugin, strategy = learned(
        net, data, benchmark(data).train_stream, information=INFORMATION[information]()
    )
    strategy.eval(benchmark(data).test_stream)
    for name, was in constants.items():
        assert torch.equal(net.get_buffer(name), was), name
    found = accuracies(strategy, plugin, data)
    assert min(found) >= 0.97, found


def test_running_statistics_and_their_count_belong_to_a_context() -> None:
    """10 and 20 mini-batches: what a plain network trained at that context would have counted."""
    data = tasks(2)
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Linear(DIM, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 4)
    )
    plugin: Any = WeightManifoldPlugin(
        Fourier(1), contexts=ByExperience([[0.0], [0.5]]), information=ExactInformation()
    )
    strategy = naive(plugin, net, train_epochs=1)
    stream, kept = benchmark(data).train_stream, []
    for experience in stream:
        strategy.train(experience, eval_streams=[])
        kept.append({n: b.clone() for n, b in net.named_buffers()})
    counts = [int(buffers["1.num_batches_tracked"]) for buffers in kept]
    assert counts[0] == 10
    for c, buffers in zip((0.0, 0.5), kept, strict=True):
        held = plugin.manifold.state(context(c))
        assert int(held["1.num_batches_tracked"]) == int(buffers["1.num_batches_tracked"])
        torch.testing.assert_close(held["1.running_mean"], buffers["1.running_mean"])
        torch.testing.assert_close(held["1.running_var"], buffers["1.running_var"])


# -- saving ----------------------------------------------------------------------------------


def by_pickle(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


def by_torch(thing: Any) -> Any:
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("way", [by_pickle, by_torch])
def test_plugins_travel(way: Callable[[Any], Any], trained: bool) -> None:
    data = tasks(2)
    plugin: Any = WeightManifoldPlugin(Vertices(2), contexts=vertices(2))
    strategy = naive(plugin, mlp())
    if trained:
        walk(strategy, benchmark(data).train_stream)
    copied = way(plugin)
    assert copied.price_weight == plugin.price_weight
    if not trained:
        strategy = naive(copied, mlp())
        walk(strategy, benchmark(data).train_stream)
    found = accuracies(strategy, copied, data)
    assert min(found) >= 0.99, found


@pytest.mark.parametrize("way", [by_pickle, by_torch])
def test_manifolds_travel(way: Callable[[Any], Any]) -> None:
    data = tasks(2)
    plugin, _ = learned(mlp(), data, benchmark(data).train_stream)
    copied = way(plugin.manifold)
    for t in range(2):
        for name, w in plugin.manifold.state(vertex(t, 2)).items():
            assert torch.equal(copied.state(vertex(t, 2))[name], w)
