"""CASES.md, A: finished tasks that were silently unprotected. What the information says."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from cl_manifold.contexts import ByExperience
from cl_manifold.errors import ClManifoldError
from cl_manifold.geometry import Fourier, Vertices
from cl_manifold.manifold.information import ExactInformation, FisherInformation
from cl_manifold.manifold.layout import Layout
from cl_manifold.manifold.weight_manifold import WeightManifold
from cl_manifold.strategies import InMemoryLoaderPlugin, WeightManifoldPlugin
from cl_manifold.streams import split_digits, split_mnist
from cl_manifold.streams.builders import StreamOptions

from .parts import (
    CLASSES,
    DIM,
    Data,
    Scores,
    accuracies,
    accuracy_at,
    benchmark,
    context,
    evaluated,
    mlp,
    naive,
    outputs_at,
    tasks,
    untold,
    vertex,
    vertices,
    walk,
)


def regression(count: int) -> list[Data]:
    """One number to predict: a direction of its own for each task, bent."""
    found: list[Data] = []
    for t, data in enumerate(tasks(count)):
        direction = torch.randn(DIM, generator=torch.Generator().manual_seed(300 + t))
        found.append(Data(data.x, torch.tanh(data.x @ direction / 3)[:, None]))
    return found


def yes_or_no(count: int) -> list[Data]:
    """Two classes as one logit."""
    return [Data(d.x, (d.y % 2).float()[:, None]) for d in tasks(count)]


INFORMATION: dict[str, Callable[[], Any]] = {
    "default": lambda: None,
    "Fisher": FisherInformation,
    "exact": ExactInformation,
}


@pytest.mark.parametrize("information", INFORMATION)
def test_a_regression_with_one_output_stays_protected(information: str) -> None:
    data = regression(3)
    plugin = WeightManifoldPlugin(
        Vertices(3), contexts=vertices(3), information=INFORMATION[information]()
    )
    strategy = naive(plugin, mlp(1), criterion=nn.MSELoss(), train_epochs=15)
    walk(strategy, untold(data, targets=False).streams["train"])
    errors = [
        float((outputs_at(strategy, plugin, vertex(t, 3), d.x) - d.y).square().mean())
        for t, d in enumerate(data)
    ]
    assert max(errors) <= 0.02, errors


@pytest.mark.parametrize("weight", [None, 2.0])
def test_one_logit_stays_protected(weight: float | None) -> None:
    data = yes_or_no(3)
    plugin = WeightManifoldPlugin(Vertices(3), contexts=vertices(3))
    positive = None if weight is None else torch.tensor([weight])
    strategy = naive(plugin, mlp(1), criterion=nn.BCEWithLogitsLoss(pos_weight=positive))
    walk(strategy, untold(data, targets=False).streams["train"])
    right = [
        float(((outputs_at(strategy, plugin, vertex(t, 3), d.x) > 0) == d.y).float().mean())
        for t, d in enumerate(data)
    ]
    assert min(right) >= 0.99, right


@pytest.mark.filterwarnings("ignore:committing experience")
@pytest.mark.parametrize("make", [regression, yes_or_no])
def test_drift_of_one_output_is_measured_on_the_output(make: Callable[[int], list[Data]]) -> None:
    """On one point every commit moves every context, by as much as the answers differ."""
    criterion = nn.MSELoss() if make is regression else nn.BCEWithLogitsLoss()
    plugin = WeightManifoldPlugin(Fourier(0), contexts=ByExperience([[0.1], [0.6]]), price=0.0)
    strategy = naive(plugin, mlp(1), criterion=criterion)
    walk(strategy, untold(make(2), targets=False).streams["train"])
    assert plugin.traces[1].drift > 0.1
    assert plugin.traces[1].plasticity < 0.5


class Recorded:
    """Keeps the network and the inputs whose information is measured, and what was found."""

    def __init__(self) -> None:
        self.found = self.inputs = torch.empty(0)
        self.network: Any = None
        self.layout: Any = None

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        measure = FisherInformation.__call__

        def measured(*given: Any) -> Tensor:
            flat = [t for g in given for t in (g if isinstance(g, tuple) else (g,))]
            self.network = copy.deepcopy(given[1])
            self.inputs = next(t for t in flat if isinstance(t, Tensor))
            self.layout = next(g for g in given if isinstance(g, Layout))
            self.found = measure(*given)
            return self.found

        monkeypatch.setattr(FisherInformation, "__call__", measured)


class Recurrent(nn.Module):
    """Four steps of two numbers through an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, 6, batch_first=True)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x.reshape(len(x), 4, 2))[0][:, -1])


def expected_squares(module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """E_x E_{y ~ p} g², with the expectation over classes written out."""
    weights = {n: p.detach() for n, p in module.named_parameters()}
    probabilities = module(x).softmax(1).detach()

    def loss(w: dict[str, Tensor], xb: Tensor, y: Tensor) -> Tensor:
        return -functional_call(module, w, (xb[None],)).log_softmax(1)[0].gather(0, y[None])[0]

    total = {n: torch.zeros_like(w) for n, w in weights.items()}
    for label in range(CLASSES):
        y = torch.full((len(x),), label)
        gradients = vmap(grad(loss), in_dims=(None, 0, 0))(weights, x, y)
        for n, g in gradients.items():
            # a copy: gradients of the two biases share memory
            total[n] += (probabilities[:, label].reshape(-1, *[1] * (g.ndim - 1)) * g * g).mean(0)
    return total


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_gradients_that_share_memory_are_squared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    information = Recorded()
    information.install(monkeypatch)
    plugin = WeightManifoldPlugin(Vertices(1), contexts=vertices(1))
    strategy = naive(plugin, Recurrent(), train_mb_size=200, train_epochs=3)
    walk(strategy, benchmark(tasks(1)).train_stream)
    expected = expected_squares(information.network, information.inputs)
    for name in ("lstm.bias_ih_l0", "lstm.bias_hh_l0"):
        entry = next(e for e in information.layout.entries if e.name == name)
        found = information.found[entry.block_start : entry.block_start + entry.blocks].mean()
        # labels are drawn, so it is an estimate; g⁴ is smaller by two orders of magnitude
        assert float(found) == pytest.approx(float(expected[name].mean()), rel=0.3)


def bad(value: float, blocks: int) -> Tensor:
    """Information that is right in the first blocks only, or zero everywhere."""
    found = torch.ones(blocks, dtype=torch.float64)
    found[2:] = value
    return found if value else found.zero_()


@pytest.mark.parametrize("value", [float("nan"), -1.0, 0.0])
def test_useless_information_is_an_error(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def useless(*given: Any) -> Tensor:
        return bad(value, next(g for g in given if isinstance(g, Layout)).blocks)

    monkeypatch.setattr(FisherInformation, "__call__", useless)
    plugin = WeightManifoldPlugin(Fourier(1), contexts=ByExperience([[0.1]]))
    strategy = naive(plugin, mlp(), train_epochs=1)
    with pytest.raises(ClManifoldError, match="information"):
        walk(strategy, benchmark(tasks(1)).train_stream)


@pytest.mark.parametrize("value", [float("nan"), -1.0, 0.0])
def test_useless_information_cannot_be_committed(value: float) -> None:
    manifold: Any = WeightManifold(mlp(), Fourier(1), blocks="tensor")
    manifold.check_out(context(0.3))
    with torch.no_grad():
        manifold.module[0].weight += 1
    with pytest.raises(ClManifoldError, match="information"):
        manifold.commit(bad(value, 4))


class Frozen(SupervisedPlugin):
    """The first layer learns from the second task on."""

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        later = strategy.experience.current_experience > 0
        strategy.model[0].requires_grad_(later)


def test_a_layer_that_was_frozen_at_first_is_protected() -> None:
    data, net = tasks(2), mlp()
    net[0].requires_grad_(False)
    plugin = WeightManifoldPlugin(Vertices(2), contexts=vertices(2))
    strategy = naive(plugin, net, Frozen(), train_epochs=20)
    walk(strategy, benchmark(data).train_stream)
    assert net[0].weight.requires_grad
    found = accuracies(strategy, plugin, data)
    assert min(found) >= 0.98, found


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_defaults_hold_easy_tasks_under_momentum(seed: int) -> None:
    data, places = tasks(3, seed=seed), [0.0, 1 / 3, 2 / 3]
    net = mlp()
    sgd = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    plugin = WeightManifoldPlugin(Fourier(1), contexts=ByExperience([[c] for c in places]))
    strategy = naive(plugin, net, optimizer=sgd)
    walk(strategy, benchmark(data).train_stream)
    found = [
        accuracy_at(strategy, plugin, context(c), d) for c, d in zip(places, data, strict=True)
    ]
    assert min(found) >= 0.99, found


def wide(size: int, outputs: int) -> Any:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(size, 256), nn.ReLU(),
        nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, outputs),
    )  # fmt: skip


def split_accuracies(stream: Any, epochs: int, batch: int) -> tuple[list[float], list[float]]:
    """Five tasks of two classes with bare defaults: accuracy on training and on test images."""
    plugin, scores = WeightManifoldPlugin(Vertices(5), contexts=vertices(5)), Scores()
    net = wide(int(torch.tensor(stream.input_shape).prod()), stream.outputs)
    adam = torch.optim.Adam(net.parameters(), lr=0.001)
    settings = {"train_epochs": epochs, "train_mb_size": batch, "eval_mb_size": 10_000}
    strategy = naive(plugin, net, InMemoryLoaderPlugin(), scores, optimizer=adam, **settings)
    walk(strategy, stream.train_stream)
    streams = (stream.train_stream, stream.test_stream)
    known, new = (evaluated(strategy, scores, part) for part in streams)
    return known, new


def test_bare_defaults_on_split_digits() -> None:
    known, new = split_accuracies(split_digits(), epochs=10, batch=16)
    assert min(known) >= 0.99, known
    assert sum(new) / len(new) >= 0.99, new


def test_bare_defaults_on_split_mnist(mnist_dir: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stream = split_mnist(StreamOptions(samples=3_000, test_samples=400), mnist_dir)
    _, found = split_accuracies(stream, epochs=1, batch=32)
    assert sum(found) / len(found) >= 0.985, found
