"""CASES.md, C: contexts in any spelling, and streams that are not Avalanche's own."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.benchmarks import ni_benchmark
from avalanche.evaluation.metrics import (
    accuracy_metrics,
    class_accuracy_metrics,
    confusion_matrix_metrics,
)
from avalanche.evaluation.metrics.confusion_matrix import StreamConfusionMatrix
from avalanche.training.plugins import EvaluationPlugin, LwFPlugin
from avalanche.training.supervised import Naive
from torch import nn

import cl_manifold.strategies as strategies
from cl_manifold.geometry import Bernstein, Fourier, Vertices
from cl_manifold.strategies import WeightManifoldPlugin
from cl_manifold.streams import permuted_digits, rotated_digits, split_digits
from cl_manifold.streams.builders import StreamOptions

from .parts import (
    DIM,
    Data,
    Scores,
    accuracy_at,
    benchmark,
    context,
    dataset,
    evaluated,
    mlp,
    naive,
    tasks,
    untold,
    vertex,
    walk,
)


def number(e: Any) -> float:
    return 0.1 + 0.3 * e.current_experience


SPELLINGS: dict[str, Callable[[Any], Any]] = {
    "Python float": number,
    "list": lambda e: [number(e)],
    "NumPy scalar": lambda e: np.float64(number(e)),
    "NumPy float32": lambda e: np.float32(number(e)),
    "NumPy array": lambda e: np.array([number(e)]),
    "float32 tensor": lambda e: torch.tensor([number(e)], dtype=torch.float32),
    "float64 tensor": lambda e: torch.tensor([number(e)], dtype=torch.float64),
    "tensor without axes": lambda e: torch.tensor(number(e)),
    "half": lambda e: torch.tensor([number(e)], dtype=torch.float16),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_any_callable_and_any_number(spelling: str) -> None:
    data = tasks(3, 120)
    basis = Bernstein(2) if spelling == "Python float" else Fourier(1)
    plugin: Any = WeightManifoldPlugin(basis, contexts=SPELLINGS[spelling])
    scores = Scores()
    strategy = naive(plugin, mlp(), scores)
    made = benchmark(data)
    walk(strategy, made.train_stream)
    assert min(evaluated(strategy, scores, made.test_stream)) >= 0.98, scores.last
    for t, d in enumerate(data):
        # half precision is 3e-5 away from where the test asks
        assert accuracy_at(strategy, plugin, context(0.1 + 0.3 * t), d) >= 0.98


INDICES: dict[str, Callable[[Any], Any]] = {
    "int": lambda e: e.current_experience,
    "NumPy int": lambda e: np.int64(e.current_experience),
    "int tensor": lambda e: torch.tensor(e.current_experience),
    "one-hot": lambda e: np.eye(3)[e.current_experience],
}


@pytest.mark.parametrize("spelling", INDICES)
def test_an_index_is_a_vertex(spelling: str) -> None:
    data = tasks(3, 120)
    plugin: Any = WeightManifoldPlugin(Vertices(3), contexts=INDICES[spelling])
    scores = Scores()
    strategy = naive(plugin, mlp(), scores)
    made = benchmark(data)
    walk(strategy, made.train_stream)
    assert min(evaluated(strategy, scores, made.test_stream)) >= 0.98, scores.last
    assert accuracy_at(strategy, plugin, vertex(1, 3), data[1]) >= 0.98


def test_contexts_of_a_benchmark_that_builds_its_experiences_anew() -> None:
    data = tasks(3)
    whole = Data(torch.cat([d.x for d in data]), torch.cat([d.y for d in data]))
    order = [list(range(200 * t, 200 * t + 200)) for t in range(3)]
    made = ni_benchmark(
        dataset(whole), dataset(whole), 3, fixed_exp_assignment=order, task_labels=False
    )
    places = [0.1, 0.4, 0.7]
    told = strategies.with_contexts(made, places)
    assert [float(e.context) for e in told.train_stream] == places
    assert len(told.train_stream) == 3
    plugin, scores = WeightManifoldPlugin(Fourier(1)), Scores()
    strategy = naive(plugin, mlp(), scores)
    walk(strategy, told.train_stream)
    for c, d in zip(places, data, strict=True):
        assert accuracy_at(strategy, plugin, context(c), d) >= 0.98


# -- streams of one's own --------------------------------------------------------------------

OWN: dict[str, Callable[[StreamOptions], Any]] = {
    "split": split_digits,
    "rotated": rotated_digits,
    "permuted": permuted_digits,
}
"""The toolkit's own streams know as much as Avalanche's classic ones."""


def own_stream(name: str) -> Any:
    return OWN[name](StreamOptions(contexts=2, samples=60, test_samples=30))


def trained_on(stream: Any, size: int, outputs: int, *plugins: Any, metrics: Any = ()) -> Any:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(size, 16), nn.ReLU(), nn.Linear(16, outputs))
    strategy: Any = Naive(
        model=net,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=20,
        train_epochs=3,
        plugins=list(plugins),
        evaluator=EvaluationPlugin(*metrics, loggers=[]),
    )
    walk(strategy, stream.streams["train"])
    strategy.eval(stream.streams["test"])
    return strategy


def size_of(stream: Any) -> int:
    return int(torch.tensor(stream.input_shape).prod())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OWN)
def test_confusion_matrix_and_class_accuracy_of_own_streams(name: str) -> None:
    """Without their number of classes: the benchmark knows it."""
    stream = own_stream(name)
    metrics = (
        confusion_matrix_metrics(stream=True, save_image=False),
        class_accuracy_metrics(stream=True),
        accuracy_metrics(stream=True),
    )
    strategy = trained_on(stream, size_of(stream), 10, metrics=metrics)
    found = strategy.evaluator.get_last_metrics()
    matrix = next(v for k, v in found.items() if "Confusion" in k)
    right = next(v for k, v in found.items() if "Top1_Acc_Stream" in k)
    classes = [v for k, v in found.items() if "ClassAcc" in k]
    assert float(matrix.diag().sum() / matrix.sum()) == pytest.approx(right)
    assert len(classes) >= 4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OWN)
def test_learning_without_forgetting_on_own_streams(name: str) -> None:
    """The second task differs from plain training, as on Avalanche's classic streams."""
    stream, weights = own_stream(name), list[Any]()
    for plugins in ([], [LwFPlugin(alpha=5, temperature=2)]):
        torch.manual_seed(0)
        strategy = trained_on(stream, size_of(stream), 10, *plugins)
        weights.append(copy.deepcopy(strategy.model.state_dict()))
    assert any(not torch.equal(weights[0][n], weights[1][n]) for n in weights[0])


@pytest.mark.filterwarnings("ignore")
def test_the_plugin_with_these_metrics_on_an_untold_stream() -> None:
    data = tasks(2)
    made = untold(data)
    plugin = WeightManifoldPlugin(Vertices(2), contexts=lambda e: e.current_experience)
    matrix = StreamConfusionMatrix(num_classes=4, save_image=False)
    strategy = trained_on(made, DIM, 4, plugin, metrics=(matrix,))
    metrics = strategy.evaluator.get_last_metrics()
    found = next(v for k, v in metrics.items() if "Confusion" in k)
    assert float(found.diag().sum() / found.sum()) >= 0.9
