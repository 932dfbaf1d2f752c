"""Small tasks, strategies around the plugin, and accuracies recomputed without either.

A task is four Gaussian blobs in eight dimensions, turned by a random orthogonal matrix of its own.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets, dataset_benchmark
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.benchmarks.utils.classification_dataset import (
    _make_taskaware_classification_dataset,
)
from avalanche.benchmarks.utils.data_attribute import DataAttribute
from avalanche.core import SupervisedPlugin
from avalanche.models import avalanche_forward
from avalanche.training.supervised import Naive
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from cl_manifold.contexts import ByExperience
from cl_manifold.errors import ClManifoldError

DIM, CLASSES, SAMPLES, HIDDEN = 8, 4, 200, 32
NOBODY: Any = None


@dataclass(frozen=True)
class Data:
    """Samples of one task, as tensors."""

    x: Tensor
    y: Tensor


def blobs(task: int, count: int = SAMPLES, classes: int = CLASSES, seed: int = 0) -> Data:
    """One task's samples; other tasks see the same blobs turned differently."""
    turn = torch.Generator().manual_seed(100 + task + 1000 * seed)
    draw = torch.Generator().manual_seed(task + 1000 * seed)
    centres = torch.Generator().manual_seed(7)
    rotation = torch.linalg.qr(torch.randn(DIM, DIM, generator=turn)).Q
    means = 3 * nn.functional.normalize(torch.randn(classes, DIM, generator=centres), dim=1)
    y = torch.randint(classes, (count,), generator=draw)
    x = means[y] + 0.4 * torch.randn(count, DIM, generator=draw)
    return Data(x @ rotation.mT, y)


def tasks(count: int = 3, samples: int = SAMPLES, seed: int = 0) -> list[Data]:
    return [blobs(t, samples, seed=seed) for t in range(count)]


def dataset(data: Data, label: int = 0) -> Any:
    """As Avalanche's classic streams have it: targets and a task label."""
    targets: Any = data.y.tolist()
    return _make_taskaware_classification_dataset(
        TensorDataset(data.x, data.y), task_labels=label, targets=targets
    )


def benchmark(data: Sequence[Data], labels: Sequence[int] | None = None) -> Any:
    """A classic benchmark whose test stream is its training stream."""
    labels = [0] * len(data) if labels is None else labels
    made = [dataset(d, label) for d, label in zip(data, labels, strict=True)]
    return dataset_benchmark(made, made)


def untold(data: Sequence[Data], targets: bool = True) -> Any:
    """A benchmark of one's own: no `benchmark` to look classes up in, no task labels."""
    made: list[Any] = []
    for d in data:
        pairs: Any = TensorDataset(d.x, d.y)
        values: Any = d.y.tolist()
        known = [DataAttribute(values, "targets")] if targets else []
        made.append(AvalancheDataset([pairs], data_attributes=known))
    return benchmark_from_datasets(train=made, test=made)


def mlp(outputs: int = CLASSES, hidden: int = HIDDEN) -> Any:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(DIM, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def naive(
    plugin: Any,
    model: Any,
    *others: SupervisedPlugin,
    kind: Any = Naive,
    optimizer: Any = "adam",
    criterion: Any = None,
    **more: Any,
) -> Any:
    """An Avalanche strategy with the plugin first, Adam at .01, 10 epochs and batches of 20."""
    torch.manual_seed(0)
    if optimizer == "adam":
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    settings = {"train_mb_size": 20, "train_epochs": 10, "eval_mb_size": SAMPLES} | more
    settings.setdefault("plugins", [p for p in (plugin, *others) if p is not None])
    return kind(
        model=model,
        optimizer=optimizer,
        criterion=nn.CrossEntropyLoss() if criterion is None else criterion,
        evaluator=NOBODY,
        **settings,
    )


def walk(strategy: Any, stream: Any, **more: Any) -> None:
    """Train on one experience after the other."""
    for experience in stream:
        strategy.train(experience, eval_streams=[], **more)


def vertex(index: int, count: int) -> Tensor:
    return torch.eye(count, dtype=torch.float64)[index]


def vertices(count: int) -> ByExperience:
    """One vertex per experience, spelled out."""
    return ByExperience(torch.eye(count, dtype=torch.float64))


def context(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def network_at(strategy: Any, plugin: Any, place: Tensor) -> nn.Module:
    """A copy of the network with the weights that the manifold holds at a context."""
    net = copy.deepcopy(strategy.model)
    net.load_state_dict(plugin.manifold.state(place), strict=False)
    return net.eval()


@torch.no_grad()
def outputs_at(strategy: Any, plugin: Any, place: Tensor, x: Tensor, label: int = 0) -> Tensor:
    net = network_at(strategy, plugin, place)
    return avalanche_forward(net, x, torch.full((len(x),), label))


def accuracy_at(strategy: Any, plugin: Any, place: Tensor, data: Data, label: int = 0) -> float:
    """The recomputed accuracy: raw tensors through a copy, no strategy and no plugin at work."""
    answers = outputs_at(strategy, plugin, place, data.x, label).argmax(1)
    return float((answers == data.y).float().mean())


def accuracies(
    strategy: Any, plugin: Any, data: Sequence[Data], labels: Sequence[int] | None = None
) -> list[float]:
    """Recomputed accuracies of tasks that were trained one per vertex."""
    labels = [0] * len(data) if labels is None else labels
    places = [vertex(t, len(data)) for t in range(len(data))]
    return [
        accuracy_at(strategy, plugin, c, d, label)
        for c, d, label in zip(places, data, labels, strict=True)
    ]


class Scores(SupervisedPlugin):
    """What every evaluation answered: one list of (outputs, targets) per call of `eval`."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[list[tuple[Tensor, Tensor]]] = []

    def before_eval(self, strategy: Any, **kwargs: Any) -> None:
        self.answers.append([])

    def after_eval_iteration(self, strategy: Any, **kwargs: Any) -> None:
        answer = (strategy.mb_output.detach().clone(), strategy.mb_y.clone())
        self.answers[-1].append(answer)

    @property
    def last(self) -> list[float]:
        """Accuracy of every mini-batch of the last evaluation: one per experience here."""
        return [float((out.argmax(1) == y).float().mean()) for out, y in self.answers[-1]]


def evaluated(strategy: Any, scores: Scores, stream: Any) -> list[float]:
    """Accuracy per experience as the strategy evaluates it."""
    strategy.eval(stream)
    return scores.last


class Steps(SupervisedPlugin):
    """Counts training steps."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        self.count += 1


@contextmanager
def one_sentence(
    match: str, steps: Steps | None = None, kind: str = "ClManifoldError"
) -> Iterator[None]:
    """What cannot work is said in one sentence, and before the first training step."""
    with pytest.raises(ClManifoldError, match=match) as caught:
        yield
    text = str(caught.value)
    kinds = [c.__name__ for c in type(caught.value).__mro__]
    assert kind in kinds, f"{kinds[0]} instead of {kind}: {text}"
    assert "\n" not in text
    assert 20 < len(text) < 400, text
    assert steps is None or steps.count == 0, f"after {steps.count} steps"


def incompatible(match: str, steps: Steps | None = None) -> Any:
    """As `one_sentence`, for what cannot work together."""
    return one_sentence(match, steps, "IncompatibleError")
