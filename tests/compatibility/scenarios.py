"""Five ways in which tasks reach a strategy, on four Gaussian blobs turned anew for each task."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from avalanche.benchmarks import (
    DatasetExperience,
    EagerCLStream,
    benchmark_from_datasets,
    dataset_benchmark,
    nc_benchmark,
    split_online_stream,
)
from avalanche.benchmarks.scenarios.online import split_continuous_linear_decay_stream
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.benchmarks.utils.classification_dataset import (
    _make_taskaware_classification_dataset,
)
from avalanche.benchmarks.utils.data_attribute import DataAttribute
from torch import Tensor
from torch.utils.data import TensorDataset

from cl_manifold.geometry import Basis

from . import interface

TASKS, DIM, CLASSES = 3, 8, 4
TRAIN, TEST = 96, 48


@dataclass(frozen=True)
class Probe:
    """A batch of one context's test data, and the task label that goes with it."""

    x: Tensor
    y: Tensor
    label: int | None


@dataclass(frozen=True)
class Scenario:
    """A stream, fresh for one run.

    Attributes:
        name: for tables.
        head: "plain", "multi" or "growing": what the network's last layer must be.
        train: experiences in the order of training.
        test: one experience per context.
        number: the context of an experience as a plain number.
        basis: of the manifold.
        probes: test data by context.
        separate: whether contexts do not share weights (vertices).
    """

    name: str
    head: str
    train: Sequence[Any]
    test: Sequence[Any]
    number: Callable[[Any], interface.Number]
    basis: Basis
    probes: dict[interface.Number, Probe]
    separate: bool = True


def blobs(task: int, count: int, seed: int, classes: int = CLASSES) -> tuple[Tensor, Tensor]:
    """Samples of Gaussian blobs, turned by the task's random orthogonal matrix."""
    turn = torch.Generator().manual_seed(100 + task)
    centres = torch.Generator().manual_seed(7)
    draw = torch.Generator().manual_seed(1000 * seed + task)
    rotation = torch.linalg.qr(torch.randn(DIM, DIM, generator=turn)).Q
    means = 3 * torch.nn.functional.normalize(torch.randn(classes, DIM, generator=centres), dim=1)
    y = torch.arange(count) % classes
    x = means[y] + 0.4 * torch.randn(count, DIM, generator=draw)
    return x @ rotation.T, y


def _data(task: int, count: int, seed: int, label: int) -> Any:
    x, y = blobs(task, count, seed)
    return _make_taskaware_classification_dataset(
        TensorDataset(x, y), task_labels=label, targets=y.tolist()
    )


def _untold(task: int, count: int, seed: int) -> Any:
    """Samples and targets and nothing else."""
    x, y = blobs(task, count, seed)
    targets: Any = y.tolist()
    data: Any = TensorDataset(x, y)
    return AvalancheDataset([data], data_attributes=[DataAttribute(targets, "targets")])


def index_of(experience: Any) -> int:
    """The position in the stream."""
    return int(experience.current_experience)


def origin_of(experience: Any) -> int:
    """The position of the experience from which a part was cut."""
    origin = getattr(experience, "origin_experience", None)
    return index_of(experience if origin is None else origin)


def _probes(labels: Sequence[int | None]) -> dict[interface.Number, Probe]:
    return {t: Probe(*blobs(t, TEST, 2), label) for t, label in enumerate(labels)}


def _benchmark(labels: Sequence[int]) -> dict[str, Any]:
    """Avalanche's classic benchmark, whose experiences know their classes and task labels."""
    benchmark = dataset_benchmark(
        [_data(t, TRAIN, 1, label) for t, label in enumerate(labels)],
        [_data(t, TEST, 2, label) for t, label in enumerate(labels)],
    )
    return {"train": benchmark.train_stream, "test": benchmark.test_stream}


def one_head() -> Scenario:
    """Domain-incremental: the same four classes, one head, task label 0."""
    streams = _benchmark([0] * TASKS)
    return Scenario(
        "one head", "plain", streams["train"], streams["test"], index_of,
        interface.vertices(TASKS), _probes([0] * TASKS),
    )  # fmt: skip


def multi_head() -> Scenario:
    """Task-incremental: a head and a task label per task."""
    labels = list(range(TASKS))
    streams = _benchmark(labels)
    return Scenario(
        "multi-head", "multi", streams["train"], streams["test"], index_of,
        interface.vertices(TASKS), _probes(labels),
    )  # fmt: skip


def growing_head() -> Scenario:
    """Class-incremental: two new classes per task, the head widens with them."""
    x, y = blobs(0, 2 * TRAIN, 1, 2 * TASKS)
    u, v = blobs(0, 2 * TEST, 2, 2 * TASKS)
    benchmark = nc_benchmark(
        _make_taskaware_classification_dataset(TensorDataset(x, y), targets=y.tolist()),
        _make_taskaware_classification_dataset(TensorDataset(u, v), targets=v.tolist()),
        TASKS, task_labels=False, fixed_class_order=list(range(2 * TASKS)),
    )  # fmt: skip
    own = [v // 2 == t for t in range(TASKS)]
    probes: dict[interface.Number, Probe] = {
        t: Probe(u[mine], v[mine], 0) for t, mine in enumerate(own)
    }
    return Scenario(
        "growing head", "growing", benchmark.train_stream, benchmark.test_stream, index_of,
        interface.vertices(TASKS), probes,
    )  # fmt: skip


def online() -> Scenario:
    """Every task in three parts; a part knows from which experience it was cut."""
    streams = _benchmark([0] * TASKS)
    parts = list(split_online_stream(streams["train"], TRAIN // 3, seed=3))
    return Scenario(
        "online", "plain", parts, streams["test"], origin_of,
        interface.vertices(TASKS), _probes([0] * TASKS),
    )  # fmt: skip


def task_free() -> Scenario:
    """Overlapping tasks, no labels, no classes, no boundaries: the context is the position."""
    torch.manual_seed(5)
    stream = benchmark_from_datasets(train=[_untold(t, TRAIN, 1) for t in range(2)]).streams
    parts = list(split_continuous_linear_decay_stream(stream["train"], TRAIN // 3, 3, 2.0, True))
    last = len(parts) - 1
    test = EagerCLStream("test", [DatasetExperience(dataset=p.dataset) for p in parts])

    def number(experience: Any) -> float:
        return index_of(experience) / last

    probes: dict[interface.Number, Probe] = {}
    for position, part in enumerate(parts):
        rows = [part.dataset[i] for i in range(len(part.dataset))]
        x, y = torch.stack([r[0] for r in rows]), torch.tensor([int(r[1]) for r in rows])
        probes[position / last] = Probe(x, y, None)
    basis = interface.interval(len(parts))
    return Scenario("task-free", "plain", parts, list(test), number, basis, probes, separate=False)


SCENARIOS: dict[str, Callable[[], Scenario]] = {
    "one head": one_head,
    "multi-head": multi_head,
    "growing head": growing_head,
    "online": online,
    "task-free": task_free,
}
