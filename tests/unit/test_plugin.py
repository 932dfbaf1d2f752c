"""WeightManifoldPlugin inside real Avalanche strategies."""

from typing import Any

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import AvalancheDataset, ConstantSequence, TaskLabels
from avalanche.benchmarks.utils.classification_dataset import (
    TaskAwareSupervisedClassificationDataset,
)
from avalanche.benchmarks.utils.data_attribute import DataAttribute
from avalanche.core import SupervisedPlugin
from avalanche.models import MultiHeadClassifier, MultiTaskModule
from avalanche.training.plugins import LwFPlugin, ReplayPlugin
from avalanche.training.supervised import Naive
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from cl_manifold.contexts import ByExperience
from cl_manifold.errors import ContextError, IncompatibleError
from cl_manifold.geometry import Fourier, Vertices
from cl_manifold.manifold.information import ExactInformation
from cl_manifold.strategies import WeightManifoldPlugin, WeightManifoldTraining
from tests.networks import flat, points_of, small_cnn, small_mlp, weights_at

CONTEXTS = [0.1, 0.45, 0.8]


class TwoHeads(MultiTaskModule):
    """A body shared by tasks, a head for each."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 8)
        self.head = MultiHeadClassifier(8, initial_out_features=3)

    def forward(self, x: Tensor, task_labels: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(x)), task_labels)


def benchmark(task_labels: bool = False, shape: tuple[int, ...] = (6,)) -> Any:
    """Three small experiences that carry contexts; the same data for training and testing."""
    datasets: list[Any] = []
    for i in range(3):
        generator = torch.Generator().manual_seed(i)
        x = torch.randn(24, *shape, generator=generator)
        y = torch.randint(3, (24,), generator=generator)
        data = TensorDataset(x, y)
        targets: Any = y.tolist()
        attributes: list[Any] = [DataAttribute(targets, "targets")]
        if task_labels:
            attributes.append(TaskLabels(ConstantSequence(i, len(y))))
        kind = TaskAwareSupervisedClassificationDataset if task_labels else AvalancheDataset
        data = kind([TensorDataset(x, y)], data_attributes=attributes)
        datasets.append(data)
    made = benchmark_from_datasets(train=datasets, test=datasets)
    for stream in (made.streams["train"], made.streams["test"]):
        for i, (experience, c) in enumerate(zip(stream, CONTEXTS, strict=True)):
            experience.context = torch.tensor([c])
            if task_labels:
                experience.task_labels = [i]
                experience.classes_in_this_experience = [0, 1, 2]
    return made


def strategy_with(
    plugin: WeightManifoldPlugin,
    *others: SupervisedPlugin,
    model: Any = None,
    **more: Any,
) -> Naive:
    torch.manual_seed(0)
    nothing: Any = None
    model = small_mlp() if model is None else model
    return Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=8,
        train_epochs=3,
        eval_mb_size=24,
        plugins=[plugin, *others],
        evaluator=nothing,
        **more,
    )


def walk(strategy: Any, made: Any) -> None:
    for experience in made.streams["train"]:
        strategy.train(experience, eval_streams=[])


class Spy(SupervisedPlugin):
    """Records the weights that each experience is evaluated with."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def before_eval_forward(self, strategy: Any, **kwargs: Any) -> None:
        self.seen.append(
            nn.utils.parameters_to_vector(strategy.model.parameters()).detach().clone()
        )


def test_every_experience_is_evaluated_with_the_weights_of_its_context() -> None:
    plugin, spy, made = WeightManifoldPlugin(Fourier(2)), Spy(), benchmark()
    strategy = strategy_with(plugin, spy)
    walk(strategy, made)
    assert plugin.manifold is not None
    spy.seen.clear()
    strategy.eval(made.streams["test"])
    for seen, c in zip(spy.seen, CONTEXTS, strict=True):
        assert torch.equal(seen, weights_at(plugin.manifold, torch.tensor([c])))
    assert not torch.equal(spy.seen[0], spy.seen[1])


def test_evaluation_changes_nothing() -> None:
    plugin, made = WeightManifoldPlugin(Fourier(2)), benchmark()
    strategy = strategy_with(plugin)
    walk(strategy, made)
    manifold = plugin.manifold
    assert manifold is not None
    points, belief, tasks = points_of(manifold), manifold.belief, manifold.atlas.tasks
    live = flat(manifold, manifold.layout.read(strategy.model))
    strategy.eval(made.streams["test"])
    assert torch.equal(points_of(manifold), points)
    assert manifold.belief is belief
    assert torch.equal(flat(manifold, manifold.layout.read(strategy.model)), live)
    assert manifold.atlas.tasks is tasks
    assert len(tasks) == 3


def test_evaluating_in_the_middle_of_training_leaves_training_as_it_was() -> None:
    results: list[Tensor] = []
    for eval_every in (-1, 1):
        plugin, made = WeightManifoldPlugin(Fourier(2), information=ExactInformation()), benchmark()
        strategy = strategy_with(plugin, eval_every=eval_every)
        for experience in made.streams["train"]:
            torch.manual_seed(7)
            strategy.train(experience, eval_streams=[made.streams["test"]], shuffle=False)
        assert plugin.manifold is not None
        results.append(points_of(plugin.manifold))
    torch.testing.assert_close(results[0], results[1], atol=0, rtol=0)


def test_training_pays_the_price_of_its_visit_once_per_step() -> None:
    """One step of plain descent with a step of its own for the penalty, by autograd."""
    plugin, made = WeightManifoldPlugin(Fourier(1), price=2.5), benchmark()
    strategy = strategy_with(plugin)
    strategy.optimizer = torch.optim.SGD(strategy.model.parameters(), lr=1e-3)
    strategy.train(made.streams["train"][0], eval_streams=[])
    manifold = plugin.manifold
    assert manifold is not None
    strategy.experience = made.streams["train"][1]
    plugin.before_training_exp(strategy)
    visit, penalty = manifold.open_visit, torch.zeros(())
    for e in manifold.layout.trained:
        p = strategy.model.get_parameter(e.name)
        p.data += 0.1 * torch.randn_like(p)
        p.grad = torch.ones_like(p)
        apart = e.by_block(p - visit.anchor[e.name])
        penalty = penalty + 1.25 * (visit.step.kappa[e.part].float()[:, None] * apart**2).sum()
    parameters = list(strategy.model.parameters())
    expected = torch.autograd.grad(penalty, parameters)
    before = [p.detach().clone() for p in parameters]
    plugin.before_update(strategy)
    plugin.before_update(strategy)
    strategy.optimizer.step()
    for p, was, g in zip(parameters, before, expected, strict=True):
        torch.testing.assert_close(p.detach(), was - 1e-3 * (1 + g))


def test_another_optimizer_pays_too() -> None:
    """As plugins do that build one anew after the experience began."""

    class Renews(SupervisedPlugin):
        def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
            strategy.optimizer = torch.optim.SGD(strategy.model.parameters(), lr=0.002)

    moved: list[float] = []
    for price in (0.0, 1e7):
        plugin, made = WeightManifoldPlugin(Fourier(2), price=price), benchmark()
        strategy = strategy_with(plugin, Renews())
        walk(strategy, made)
        assert plugin.manifold is not None
        moved.append(float(points_of(plugin.manifold)[1:].square().sum()))
    assert moved[1] < 0.2 * moved[0], moved


def test_a_heavy_price_keeps_the_weights_and_never_diverges() -> None:
    moved: list[float] = []
    for price in (0.0, 1e7):
        plugin, made = WeightManifoldPlugin(Fourier(2), price=price), benchmark()
        strategy = strategy_with(plugin)
        strategy.optimizer = torch.optim.SGD(strategy.model.parameters(), lr=0.002)
        walk(strategy, made)
        assert plugin.manifold is not None
        moved.append(float(points_of(plugin.manifold)[1:].square().sum()))
    assert moved[1] < 0.2 * moved[0], moved


def test_momentum_of_the_previous_context_is_dropped() -> None:
    plugin, made = WeightManifoldPlugin(Fourier(2)), benchmark()
    strategy = strategy_with(plugin)
    walk(strategy, made)
    assert strategy.optimizer.state
    strategy.experience = made.streams["train"][0]
    plugin.before_training_exp(strategy)
    assert not strategy.optimizer.state


def test_exact_protection_in_avalanche() -> None:
    plugin = WeightManifoldPlugin(Fourier(2), information=ExactInformation())
    made = benchmark(shape=(1, 6, 6))
    strategy = strategy_with(plugin, model=small_cnn())
    kept: list[Tensor] = []
    for experience in made.streams["train"]:
        strategy.train(experience, eval_streams=[])
        assert plugin.manifold is not None
        kept.append(weights_at(plugin.manifold, experience.context))
    manifold = plugin.manifold
    assert manifold is not None
    for c, weights in zip(CONTEXTS, kept, strict=True):
        moved = weights_at(manifold, torch.tensor([c])) - weights
        assert moved.norm() < 1e-6 * weights.norm()
    assert [t.drift for t in plugin.traces] == [0, 0, 0]
    assert [t.overshoot > 1 for t in plugin.traces[1:]] == [True, True]


def test_a_given_context_that_cannot_be_learned_any_more_is_an_error() -> None:
    plugin = WeightManifoldPlugin(Fourier(0), information=ExactInformation())
    with pytest.raises(ContextError, match=r"context 0\.45 cannot be learned"):
        walk(strategy_with(plugin), benchmark())
    assert [trace.experience for trace in plugin.traces] == [0]


def test_drift_is_the_share_of_predictions_that_a_commit_changed_elsewhere() -> None:
    """On a point model every context holds the same weights: the commit changes them all alike."""
    plugin, made = WeightManifoldPlugin(Fourier(0), price=0.0, drift_limit=1.0), benchmark()
    strategy = strategy_with(plugin)
    strategy.train(made.streams["train"][0], eval_streams=[])
    x = torch.stack([item[0] for item in made.streams["train"][1].dataset])
    before = strategy.model(x).argmax(-1)
    strategy.train(made.streams["train"][1], eval_streams=[])
    changed = (strategy.model(x).argmax(-1) != before).float().mean()
    assert plugin.traces[1].drift == pytest.approx(float(changed))
    assert 0 < plugin.traces[1].drift < 1


def test_task_labels_and_growing_heads() -> None:
    plugin = WeightManifoldPlugin(Vertices(3), contexts=ByExperience(torch.eye(3)))
    made = benchmark(task_labels=True)
    strategy = strategy_with(plugin, model=TwoHeads())
    walk(strategy, made)
    assert plugin.manifold is not None
    names = [e.name for e in plugin.manifold.layout.trained]
    assert sum("classifiers" in name and name.endswith("weight") for name in names) == 3
    assert {trace.gate for trace in plugin.traces} == {"unmeasured"}
    strategy.eval(made.streams["test"])


@pytest.mark.parametrize("action", ["grow", "refuse"])
def test_a_gate_that_cannot_measure_is_refused_before_training(action: Any) -> None:
    contexts = ByExperience(torch.eye(3))
    plugin = WeightManifoldPlugin(Vertices(3), contexts=contexts, on_drift=action)
    strategy = strategy_with(plugin, model=TwoHeads())
    before = {n: p.clone() for n, p in strategy.model.named_parameters()}
    with pytest.raises(IncompatibleError, match=r"head per task.*leave on_drift at 'warn'"):
        strategy.train(benchmark(task_labels=True).streams["train"][0], eval_streams=[])
    assert all(
        torch.equal(p, before[n]) for n, p in strategy.model.named_parameters() if n in before
    )


@pytest.mark.parametrize("make", [lambda: ReplayPlugin(mem_size=20), lambda: LwFPlugin(1, 2)])
@pytest.mark.filterwarnings("ignore")
def test_other_plugins_work_beside_ours(make: Any) -> None:
    plugin, made = WeightManifoldPlugin(Fourier(2)), benchmark(task_labels=True)
    strategy = strategy_with(plugin, make())
    walk(strategy, made)
    strategy.eval(made.streams["test"])
    assert [t.decision for t in plugin.traces] == ["place"] * 3


def test_frozen_parameters_stay_where_they_are() -> None:
    plugin, made, net = WeightManifoldPlugin(Fourier(1)), benchmark(), small_mlp()
    net[0].requires_grad_(False)
    start = net[0].weight.clone()
    walk(strategy_with(plugin, model=net), made)
    assert plugin.manifold is not None
    for c in (0.1, 0.3):
        state = plugin.manifold.state(torch.tensor([c]))
        torch.testing.assert_close(state["0.weight"], start)


def test_returning_to_a_coordinate_is_a_reuse() -> None:
    plugin = WeightManifoldPlugin(Fourier(2), contexts=ByExperience([[0.1], [0.5], [1.1]]))
    made = benchmark()
    strategy = strategy_with(plugin)
    walk(strategy, made)
    assert [t.decision for t in plugin.traces] == ["place", "place", "reuse"]
    assert plugin.traces[0].plasticity == pytest.approx(1)
    assert plugin.traces[0].drift == 0


def test_the_ready_strategy_trains_and_exposes_its_manifold() -> None:
    made, net = benchmark(), small_mlp()
    strategy = WeightManifoldTraining(
        model=net,
        optimizer=torch.optim.Adam(net.parameters()),
        manifold=WeightManifoldPlugin(Fourier(1)),
        train_mb_size=8,
        evaluator=None,
    )
    assert strategy.manifold is None
    walk(strategy, made)
    assert strategy.manifold is not None
    assert len(strategy.manifold.atlas) == 3


def test_missing_and_unfitting_contexts_are_named() -> None:
    made = benchmark()
    del made.streams["train"][1].context
    plugin = WeightManifoldPlugin(Fourier(1))
    strategy = strategy_with(plugin)
    with pytest.raises(ContextError, match=r"^experience 1 carries no context"):
        walk(strategy, made)
    assert plugin.manifold is not None
    assert len(plugin.manifold.atlas) == 1
    short = WeightManifoldPlugin(Fourier(1), contexts=ByExperience([[0.5]]))
    with pytest.raises(ContextError, match="the list holds 1"):
        walk(strategy_with(short), benchmark())
    with pytest.raises(
        ContextError, match=r"experience 0: context tensor\(\[0\.1000\]\) has the shape \(1,\)"
    ):
        walk(strategy_with(WeightManifoldPlugin(Vertices(3))), benchmark())
    with pytest.raises(ValueError, match="price must be finite"):
        WeightManifoldPlugin(Fourier(1), price=-1.0)
