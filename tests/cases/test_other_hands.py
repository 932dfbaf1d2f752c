"""CASES.md, A: finished tasks that other hands took out of protection, and the gate on drift."""

import copy
from typing import Any, Literal

import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.core import SupervisedPlugin
from avalanche.training.supervised import CWRStar, GDumb, ICaRL, Naive
from torch import Tensor, nn

from cl_manifold.contexts import ByExperience
from cl_manifold.geometry import Fourier, Vertices
from cl_manifold.manifold.information import ExactInformation
from cl_manifold.strategies import WeightManifoldPlugin

from .parts import (
    DIM,
    HIDDEN,
    NOBODY,
    Data,
    Scores,
    Steps,
    accuracy_at,
    benchmark,
    blobs,
    context,
    dataset,
    evaluated,
    incompatible,
    mlp,
    naive,
    network_at,
    one_sentence,
    tasks,
    vertex,
    vertices,
    walk,
)

PLACES = [0.1, 0.6]


# -- the gate on drift -----------------------------------------------------------------------


def contradiction() -> list[Data]:
    """The same inputs, other answers: on one point the second task undoes the first."""
    first = blobs(0)
    return [first, Data(first.x, (first.y + 1) % 4)]


def on_drift(what: Literal["warn", "grow", "refuse"] | None) -> tuple[Any, Any]:
    """On one point (K = 1) every commit moves every context."""
    options: Any = {} if what is None else {"on_drift": what, "drift_limit": 0.5}
    plugin: Any = WeightManifoldPlugin(
        Fourier(0), contexts=ByExperience([[c] for c in PLACES]), price=0.0, **options
    )
    return plugin, naive(plugin, mlp())


@pytest.mark.parametrize("what", [None, "warn"])
def test_large_drift_is_warned_of(what: Literal["warn"] | None) -> None:
    plugin, strategy = on_drift(what)
    stream = benchmark(contradiction()).train_stream
    strategy.train(stream[0], eval_streams=[])
    with pytest.warns(UserWarning, match=r"experience 1 .*earlier context"):
        strategy.train(stream[1], eval_streams=[])
    assert plugin.traces[1].drift > 0.9
    assert [trace.gate for trace in plugin.traces] == ["passed", "warned"]


def test_large_drift_is_refused() -> None:
    data = contradiction()
    plugin, strategy = on_drift("refuse")
    stream = benchmark(data).train_stream
    strategy.train(stream[0], eval_streams=[])
    kept = {n: w.clone() for n, w in plugin.manifold.state(context(PLACES[0])).items()}
    with one_sentence(r"experience 1 .*earlier context"):
        strategy.train(stream[1], eval_streams=[])
    for name, weights in plugin.manifold.state(context(PLACES[0])).items():
        assert torch.equal(weights, kept[name])
    assert accuracy_at(strategy, plugin, context(PLACES[0]), data[0]) >= 0.99


def test_large_drift_lets_the_basis_grow() -> None:
    data = contradiction()
    plugin, strategy = on_drift("grow")
    walk(strategy, benchmark(data).train_stream)
    assert plugin.manifold.basis.size > 1
    assert [trace.gate for trace in plugin.traces] == ["passed", "grown"]
    assert plugin.traces[1].decision == "grow"
    found = [
        accuracy_at(strategy, plugin, c, d) for c, d in zip(plugin.coordinates(), data, strict=True)
    ]
    assert min(found) >= 0.98, found


# -- another network, another strategy -------------------------------------------------------


class Copying(SupervisedPlugin):
    """A user's own line between tasks: the strategy goes on with a copy of its network."""

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        strategy.model = copy.deepcopy(strategy.model)


def test_a_copy_of_the_network_is_followed() -> None:
    data = tasks(3)
    plugin: Any = WeightManifoldPlugin(
        Fourier(1),
        contexts=ByExperience([[0.0], [1 / 3], [2 / 3]]),
        information=ExactInformation(),
    )
    strategy = naive(plugin, mlp(), Copying())
    kept: list[dict[str, Tensor]] = []
    for experience in benchmark(data).train_stream:
        strategy.train(experience, eval_streams=[])
        kept.append({n: p.detach().clone() for n, p in strategy.model.named_parameters()})
    for c, weights, d in zip((0.0, 1 / 3, 2 / 3), kept, data, strict=True):
        for name, w in plugin.manifold.state(context(c)).items():
            torch.testing.assert_close(w, weights[name], atol=1e-4, rtol=1e-4)
        assert accuracy_at(strategy, plugin, context(c), d) >= 0.99


@pytest.mark.filterwarnings("ignore")
def test_gdumb_which_starts_from_a_copy_every_time() -> None:
    data = tasks(3)
    plugin: Any = WeightManifoldPlugin(
        Vertices(3), contexts=vertices(3), information=ExactInformation()
    )
    strategy = naive(plugin, mlp(), kind=GDumb, mem_size=200)
    kept: list[dict[str, Tensor]] = []
    for experience in benchmark(data).train_stream:
        strategy.train(experience, eval_streams=[])
        kept.append({n: p.detach().clone() for n, p in strategy.model.named_parameters()})
    for t, weights in enumerate(kept):
        for name, w in plugin.manifold.state(vertex(t, 3)).items():
            torch.testing.assert_close(w, weights[name], atol=1e-4, rtol=1e-4)


def test_another_architecture_is_refused() -> None:
    plugin, steps = WeightManifoldPlugin(Vertices(2), contexts=vertices(2)), Steps()
    strategy = naive(plugin, mlp(), steps)
    stream = benchmark(tasks(2)).train_stream
    strategy.train(stream[0], eval_streams=[])
    steps.count = 0
    strategy.model = nn.Sequential(nn.Linear(DIM, 16), nn.ReLU(), nn.Linear(16, 4))
    with one_sentence("network|architecture|module", steps):
        strategy.train(stream[1], eval_streams=[])


def test_a_plugin_belongs_to_one_strategy() -> None:
    plugin, steps = WeightManifoldPlugin(Vertices(3), contexts=vertices(3)), Steps()
    stream = benchmark(tasks(1)).train_stream
    walk(naive(plugin, mlp()), stream)
    with incompatible("strategy", steps):
        walk(naive(plugin, mlp(), steps), stream)


# -- what others write after training --------------------------------------------------------


class Late(SupervisedPlugin):
    """Changes the network when an experience has ended."""

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        with torch.no_grad():
            strategy.model[2].bias += torch.tensor([5.0, 0.0, 0.0, 0.0])


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_what_another_plugin_writes_last_is_on_the_manifold(first: bool, exact: bool) -> None:
    data = tasks(2)
    information = ExactInformation() if exact else None
    plugin: Any = WeightManifoldPlugin(Vertices(2), contexts=vertices(2), information=information)
    strategy = naive(None, mlp(), plugins=[Late(), plugin] if first else [plugin, Late()])
    for t, experience in enumerate(benchmark(data).train_stream):
        strategy.train(experience, eval_streams=[])
        held = plugin.manifold.state(vertex(t, 2))
        for name, p in strategy.model.named_parameters():
            torch.testing.assert_close(held[name], p.detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_cwr_star_which_consolidates_its_head_after_training() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.classifier = nn.Linear(DIM, HIDDEN), nn.Linear(HIDDEN, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.classifier(torch.relu(self.body(x)))

    torch.manual_seed(1)
    plugin: Any = WeightManifoldPlugin(
        Vertices(2), contexts=vertices(2), information=ExactInformation()
    )
    strategy = naive(plugin, Net(), kind=CWRStar, cwr_layer_name="classifier")
    for t, experience in enumerate(benchmark(tasks(2)).train_stream):
        strategy.train(experience, eval_streams=[])
        held = plugin.manifold.state(vertex(t, 2))
        for name, p in strategy.model.named_parameters():
            torch.testing.assert_close(held[name], p.detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_icarl_which_sets_its_class_means_after_training() -> None:
    """Two blobs at a time: each task is answered with its own class means."""
    whole = blobs(0, 300, classes=6)
    made = nc_benchmark(
        dataset(whole), dataset(whole), 3, task_labels=False, fixed_class_order=list(range(6))
    )
    torch.manual_seed(1)
    plugin, scores = WeightManifoldPlugin(Vertices(3), contexts=vertices(3)), Scores()
    body, head = nn.Sequential(nn.Linear(DIM, HIDDEN), nn.ReLU()), nn.Linear(HIDDEN, 6)
    strategy: Any = ICaRL(
        feature_extractor=body,
        classifier=head,
        optimizer=torch.optim.Adam([*body.parameters(), *head.parameters()], lr=0.01),
        memory_size=60,
        buffer_transform=None,
        fixed_memory=True,
        train_mb_size=20,
        train_epochs=8,
        eval_mb_size=200,
        plugins=[plugin, scores],
        evaluator=NOBODY,
    )
    walk(strategy, made.train_stream)
    found = evaluated(strategy, scores, made.test_stream)
    assert min(found) >= 0.97, found


# -- mixed precision and accumulated gradients -----------------------------------------------


class Scaled(Naive):
    """Mixed precision as torch's own recipe has it; the scaler alone matters here."""

    scaler: Any = None

    def backward(self) -> None:
        self.scaler.scale(self.loss).backward()

    def optimizer_step(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()


def moved(kind: Any, optimizer: str, **more: Any) -> dict[str, Tensor]:
    """w − w(c) of a second task whose context is dear to the first one."""
    net = mlp()
    rates = {"sgd": 0.002, "adam": 0.001}
    made: dict[str, Any] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    policy = ByExperience([[c] for c in (0.1, 0.15)])
    plugin: Any = WeightManifoldPlugin(Fourier(1), contexts=policy, price=3e4)
    chosen = made[optimizer](net.parameters(), lr=rates[optimizer])
    strategy = naive(plugin, net, kind=kind, optimizer=chosen, **more)
    if kind is Scaled:
        strategy.scaler = torch.amp.GradScaler("cpu", init_scale=65536.0)
    stream = benchmark(tasks(2)).train_stream
    strategy.train(stream[0], eval_streams=[], shuffle=False)
    before = dict(plugin.manifold.state(context(0.15)))
    strategy.train(stream[1], eval_streams=[], shuffle=False)
    after = network_at(strategy, plugin, context(0.15)).named_parameters()
    return {n: p.detach() - before[n] for n, p in after}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_gradient_scaler_does_not_cancel_the_price(optimizer: str) -> None:
    plain, scaled = moved(Naive, optimizer), moved(Scaled, optimizer)
    for name, displacement in plain.items():
        assert float(displacement.norm()) > 0
        torch.testing.assert_close(scaled[name], displacement, atol=1e-5, rtol=1e-2)


class Accumulating(Naive):
    """Steps once for four mini-batches, as if they were one."""

    def training_epoch(self, **kwargs: Any) -> None:
        for i, mbatch in enumerate(self.dataloader):
            self.mbatch = mbatch
            if self._stop_training:
                break
            self._unpack_minibatch()
            self._before_training_iteration(**kwargs)
            if i % 4 == 0:
                self.optimizer.zero_grad()
            self._before_forward(**kwargs)
            self.mb_output = self.forward()
            self._after_forward(**kwargs)
            self.loss = self.criterion() / 4
            self._before_backward(**kwargs)
            self.backward()
            self._after_backward(**kwargs)
            self._before_update(**kwargs)
            if i % 4 == 3:
                self.optimizer_step()
            self._after_update(**kwargs)
            self._after_training_iteration(**kwargs)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_accumulated_gradients_pay_the_price_once(optimizer: str) -> None:
    whole = moved(Naive, optimizer, train_mb_size=40)
    parts = moved(Accumulating, optimizer, train_mb_size=10)
    for name, displacement in whole.items():
        assert float(displacement.norm()) > 0
        torch.testing.assert_close(parts[name], displacement, atol=1e-5, rtol=1e-2)
