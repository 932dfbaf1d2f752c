"""CASES.md, C: heads that grow and heads per task, in Avalanche's own strategies."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from avalanche.benchmarks import dataset_benchmark, nc_benchmark
from avalanche.benchmarks.utils import concat_datasets
from avalanche.models import IncrementalClassifier, MultiHeadClassifier, MultiTaskModule
from avalanche.training.plugins import ReplayPlugin
from avalanche.training.supervised import Cumulative, GDumb, JointTraining, Naive
from torch import Tensor, nn

from cl_manifold.contexts import ByExperience, InferredContext
from cl_manifold.geometry import Fourier, Vertices
from cl_manifold.manifold.information import ExactInformation
from cl_manifold.strategies import DecisionOptions, InferredTesting, WeightManifoldPlugin

from .parts import (
    DIM,
    HIDDEN,
    Data,
    Scores,
    Steps,
    accuracies,
    accuracy_at,
    benchmark,
    blobs,
    context,
    dataset,
    incompatible,
    naive,
    outputs_at,
    tasks,
    vertex,
    vertices,
    walk,
)

INFORMATION: dict[str, Callable[[], Any]] = {"default": lambda: None, "exact": ExactInformation}


# -- class-incremental: the head widens ------------------------------------------------------


class Growing(nn.Module):
    """A head that widens with the classes it meets, in training and in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(DIM, HIDDEN)
        self.head = IncrementalClassifier(HIDDEN, initial_out_features=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(x)))


def classes_in_turn() -> tuple[Any, list[Data]]:
    """Six blobs, two new ones with each experience."""
    data = blobs(0, 300, classes=6)
    made = nc_benchmark(
        dataset(data), dataset(data), 3, task_labels=False, fixed_class_order=list(range(6))
    )
    parts = [data.y // 2 == t for t in range(3)]
    return made, [Data(data.x[mine], data.y[mine]) for mine in parts]


def among_own(outputs: Tensor, data: Data) -> float:
    """Accuracy among the classes that the context was trained on: others are untrained there."""
    own = outputs[:, data.y.unique()]
    return float((data.y.unique()[own.argmax(1)] == data.y).float().mean())


@pytest.mark.filterwarnings("ignore:committing experience")
@pytest.mark.parametrize("evaluates", [False, True])
@pytest.mark.parametrize("information", INFORMATION)
def test_widening_heads_grow_on_the_manifold(information: str, evaluates: bool) -> None:
    made, data = classes_in_turn()
    torch.manual_seed(1)
    plugin: Any = WeightManifoldPlugin(
        Vertices(3), contexts=vertices(3), information=INFORMATION[information]()
    )
    scores = Scores()
    strategy = naive(plugin, Growing(), scores, train_epochs=15)
    kept: list[Tensor] = []
    for t, experience in enumerate(made.train_stream):
        strategy.train(experience, eval_streams=[])
        kept.append(outputs_at(strategy, plugin, vertex(t, 3), data[t].x)[:, : 2 * t + 2])
        if evaluates:
            strategy.eval(made.test_stream)
            right = [among_own(out, Data(out, y)) for out, y in scores.answers[-1]]
            assert min(right[: t + 1]) >= 0.99, right
    names = {e.name: tuple(e.shape) for e in plugin.manifold.layout.entries}
    assert names["head.classifier.weight"] == (6, HIDDEN)
    for t, (before, d) in enumerate(zip(kept, data, strict=True)):
        now = outputs_at(strategy, plugin, vertex(t, 3), d.x)
        assert among_own(now, d) >= 0.99
        if information == "exact":
            torch.testing.assert_close(now[:, : 2 * t + 2], before, atol=1e-3, rtol=1e-3)


def test_old_rows_keep_their_precision_and_new_rows_start_free() -> None:
    """Exact: at the first context old rows must not move; the second task trains all six rows."""
    made, data = classes_in_turn()
    torch.manual_seed(1)
    plugin: Any = WeightManifoldPlugin(
        Fourier(1),
        contexts=ByExperience([[0.0], [0.3], [0.6]]),
        information=ExactInformation(),
        blocks="row",
    )
    strategy = naive(plugin, Growing(), train_epochs=15)
    strategy.train(made.train_stream[0], eval_streams=[])
    old = plugin.manifold.state(context(0.0))["head.classifier.weight"].clone()
    assert old.shape == (2, HIDDEN)
    walk(strategy, made.train_stream[1:])
    new = plugin.manifold.state(context(0.0))["head.classifier.weight"]
    torch.testing.assert_close(new[:2], old, atol=1e-5, rtol=1e-5)
    places = [context(c) for c in (0.0, 0.3, 0.6)]
    for c, d in zip(places, data, strict=True):
        assert among_own(outputs_at(strategy, plugin, c, d.x), d) >= 0.99


# -- task-incremental: a head per task -------------------------------------------------------


class Heads(MultiTaskModule):
    """A shared body and a head per task label."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Linear(DIM, HIDDEN)
        # masks do not work where one experience has several labels
        self.head = MultiHeadClassifier(HIDDEN, initial_out_features=4, masking=False)

    def forward(self, x: Tensor, task_labels: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(x)), task_labels)


def labelled(samples: int = 200) -> tuple[Any, list[Data]]:
    data = tasks(3, samples)
    return benchmark(data, labels=[0, 1, 2]), data


def heads(**options: Any) -> Any:
    return WeightManifoldPlugin(Vertices(3), contexts=vertices(3), **options)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["Replay", "GDumb", "Cumulative"])
def test_multi_head_with_strategies_that_mix_tasks(kind: str) -> None:
    """Mini-batches hold several task labels; every forward pass must know them."""
    made, data = labelled(120)
    plugin = heads()
    others = [ReplayPlugin(mem_size=100)] if kind == "Replay" else []
    kinds: dict[str, Any] = {"Replay": Naive, "GDumb": GDumb, "Cumulative": Cumulative}
    more = {"mem_size": 300} if kind == "GDumb" else {}
    strategy = naive(plugin, Heads(), *others, kind=kinds[kind], train_epochs=8, **more)
    walk(strategy, made.train_stream)
    found = accuracies(strategy, plugin, data, labels=range(3))
    assert min(found) >= 0.98, found


@pytest.mark.filterwarnings("ignore")
def test_multi_head_joint_training_is_refused_or_right() -> None:
    """One training over three contexts: each must hold what was trained, or it is refused."""
    made, _ = labelled()
    plugin, steps = heads(), Steps()
    strategy = naive(plugin, Heads(), steps, kind=JointTraining, train_epochs=8)
    with incompatible("JointTraining", steps):
        strategy.train(made.train_stream)


@pytest.mark.filterwarnings("ignore:committing experience")
def test_two_task_labels_in_one_experience() -> None:
    data = tasks(3)
    mixed = concat_datasets([dataset(data[0], 0), dataset(data[1], 1)])
    parts = [mixed, dataset(data[2], 2)]
    made = dataset_benchmark(parts, parts)
    plugin = WeightManifoldPlugin(Vertices(2), contexts=vertices(2))
    strategy = naive(plugin, Heads())
    walk(strategy, made.train_stream)
    strategy.eval(made.test_stream)
    places = [(0, 0), (0, 1), (1, 2)]
    found = [accuracy_at(strategy, plugin, vertex(v, 2), data[t], t) for v, t in places]
    assert min(found) >= 0.98, found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", ["deciding", "InferredContext"])
def test_multi_head_with_decisions(what: str) -> None:
    made, data = labelled()
    inferred = what == "InferredContext"
    plugin: Any = WeightManifoldPlugin(
        Vertices(1) if inferred else Vertices(3),
        contexts=InferredContext() if inferred else vertices(3),
        deciding=DecisionOptions(probe_share=0.1),
    )
    strategy = naive(plugin, Heads(), train_epochs=15)
    walk(strategy, made.train_stream)
    strategy.eval(made.test_stream)
    found = [
        accuracy_at(strategy, plugin, c, d, t)
        for t, (c, d) in enumerate(zip(plugin.coordinates(), data, strict=True))
    ]
    assert min(found) >= 0.97, found


@pytest.mark.filterwarnings("ignore:committing experience")
@pytest.mark.parametrize("features", [0, 50])
def test_multi_head_with_contexts_inferred_at_test_time(features: int) -> None:
    made, data = labelled()
    plugin, scores = heads(testing=InferredTesting(batch=50, features=features)), Scores()
    strategy = naive(plugin, Heads(), scores)
    walk(strategy, made.train_stream)
    strategy.eval(made.test_stream)
    assert len(scores.last) == 3
    if features:
        assert min(scores.last) >= 0.95, scores.last
    assert min(accuracies(strategy, plugin, data, labels=range(3))) >= 0.98
