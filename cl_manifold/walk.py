"""A walk: one strategy goes through one stream and is evaluated after every experience.

Knows Avalanche; knows no store and no terminal.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol, final, runtime_checkable

import numpy as np
from avalanche.training.supervised import JointTraining
from torch import nn

from cl_manifold import metrics
from cl_manifold.contexts import TaskRecord
from cl_manifold.experiments.config import RunConfig
from cl_manifold.strategies import AccuracyPlugin, Stored, WeightManifoldPlugin
from cl_manifold.streams import TaskStream


@runtime_checkable
class Observer(Protocol):
    """Who watches a run; the command line draws it."""

    def recording(self, run: Any) -> None:
        """The MLflow run, a `TrackedRun`, exists."""
        ...

    def begin(self, stream: TaskStream, config: RunConfig) -> None:
        """Everything is built, training starts."""
        ...

    def task(self, experience: int, name: str) -> None:
        """Training on an experience starts."""
        ...

    def epoch(self, experience: int, epoch: int, loss: float) -> None:
        """An epoch (from 0) has ended."""
        ...

    def learned(self, record: TaskRecord, accuracy_so_far: float) -> None:
        """An experience is learned and evaluated."""
        ...


@final
class Silence:
    """An observer that says nothing."""

    def recording(self, run: Any) -> None:
        """Say nothing."""

    def begin(self, stream: TaskStream, config: RunConfig) -> None:
        """Say nothing."""

    def task(self, experience: int, name: str) -> None:
        """Say nothing."""

    def epoch(self, experience: int, epoch: int, loss: float) -> None:
        """Say nothing."""

    def learned(self, record: TaskRecord, accuracy_so_far: float) -> None:
        """Say nothing."""


@final
class Walk:
    """A strategy on its way through a stream, and what is known about finished tasks.

    Attributes:
        matrix: R[i, j] in [0, 1], NaN where it was not measured.
        unseen: U[i, j], the same for the contexts of `unseen_stream`.
        initial: accuracy of the untrained network on each experience.
        records: one per finished task.
        train_seconds: wall time of training so far, commits included, evaluation excluded.
    """

    def __init__(
        self,
        config: RunConfig,
        stream: TaskStream,
        strategy: Any,
        network: nn.Module,
        accuracy: AccuracyPlugin,
    ) -> None:
        """Before the first step; `accuracy` is one of the strategy's plugins."""
        self.config, self.stream = config, stream
        self.strategy, self.network, self.accuracy = strategy, network, accuracy
        count = len(stream.train_stream)
        self.matrix = np.full((count, count), np.nan)
        self.unseen = np.full((count, len(stream.unseen_stream)), np.nan)
        self.initial = np.full(count, np.nan)
        self.records: list[TaskRecord] = []
        self.train_seconds = 0.0

    @property
    def manifold(self) -> WeightManifoldPlugin | None:
        """The manifold plugin, where the strategy has one."""
        found = [p for p in self.strategy.plugins if isinstance(p, WeightManifoldPlugin)]
        return found[0] if found else None

    @property
    def stored(self) -> Stored | None:
        """What the strategy keeps now; None where it does not say."""
        return self.config.strategy.stored(self.strategy, self.stream.input_shape)


def walk_through(walk: Walk, observer: Observer) -> Iterator[int]:
    """Train and evaluate; yields the step after each evaluation."""
    observer.begin(walk.stream, walk.config)
    walk.initial[:] = walk.accuracy.measure(walk.strategy, walk.stream.test_stream)
    if isinstance(walk.strategy, JointTraining):
        yield from _jointly(walk, observer)
    else:
        yield from _in_sequence(walk, observer)


def _in_sequence(walk: Walk, observer: Observer) -> Iterator[int]:
    """One experience after the other."""
    last = len(walk.stream.train_stream) - 1
    every = walk.config.training.evaluate_every or max(1, (last + 1) // 20)
    for step, experience in enumerate(walk.stream.train_stream):
        observer.task(step, experience.context_name)
        zero_shot = walk.initial[0] if step == 0 else walk.matrix[step - 1, step]
        seconds = _timed_training(walk, experience)
        full = step == last or step % every == 0
        _evaluate(walk, step, full)
        seen = (float(zero_shot), float(walk.matrix[step, step]))
        record = _record(walk, step, seen, seconds)
        walk.records.append(record)
        _update_coordinates(walk)
        observer.learned(record, metrics.accuracy_so_far(walk.matrix, step))
        yield step


def _jointly(walk: Walk, observer: Observer) -> Iterator[int]:
    """Everything at once: there is only a last row."""
    observer.task(0, "all contexts")
    last = len(walk.stream.train_stream) - 1
    seconds = _timed_training(walk, walk.stream.train_stream)
    _evaluate(walk, last, full=True)
    for step in range(last + 1):
        seen = (None, float(walk.matrix[-1, step]))
        walk.records.append(_record(walk, step, seen, seconds / (last + 1)))
    observer.learned(walk.records[-1], metrics.average_accuracy(walk.matrix))
    yield last


def _timed_training(walk: Walk, experiences: Any) -> float:
    start = time.perf_counter()
    walk.strategy.train(experiences, eval_streams=[])
    seconds = time.perf_counter() - start
    walk.train_seconds += seconds
    return seconds


def _evaluate(walk: Walk, step: int, full: bool) -> None:
    """Fill row `step`: every experience, or this one and the next; unseen contexts with it."""
    count = len(walk.stream.test_stream)
    columns = list(range(count)) if full else [j for j in (step, step + 1) if j < count]
    experiences = [walk.stream.test_stream[j] for j in columns]
    if full:
        experiences += list(walk.stream.unseen_stream)
    found = walk.accuracy.measure(walk.strategy, experiences)
    walk.matrix[step, columns] = found[: len(columns)]
    if full:
        walk.unseen[step] = found[len(columns) :]


def _record(walk: Walk, step: int, seen: tuple[float | None, float], seconds: float) -> TaskRecord:
    """The record of a task; `seen` are its accuracies before and after training."""
    experience = walk.stream.train_stream[step]
    plugin = walk.manifold
    trace = plugin.traces[step] if plugin else None
    manifold = plugin.manifold if plugin else None
    return TaskRecord(
        experience=step,
        name=experience.context_name,
        context=tuple(trace.context.tolist()) if trace else (),
        context_source=trace.source if trace else "not used",
        decision=trace.decision if trace else "train",
        plasticity=trace.plasticity if trace else None,
        overshoot=trace.overshoot if trace else None,
        drift=trace.drift if trace else None,
        zero_shot_acc=seen[0],
        acc=seen[1],
        control_points=manifold.basis.size if manifold else None,
        stored_floats=kept.floats if (kept := walk.stored) else None,
        seconds=seconds,
        truth=experience.truth,
        kind=experience.hidden_kind,
        gate=trace.gate if trace else None,
        evidence=trace.evidence if trace else None,
        topologies=trace.topologies if trace else {},
    )


def _update_coordinates(walk: Walk) -> None:
    """Growth may have given earlier tasks new coordinates."""
    if walk.manifold is None:
        return
    walk.records = [
        replace(record, context=tuple(context.tolist()))
        for record, context in zip(walk.records, walk.manifold.coordinates(), strict=True)
    ]


def summary_metrics(walk: Walk, step: int) -> dict[str, float | None]:
    """Metrics after experience `step`, over the experiences seen so far; None where undefined.

    Training on everything at once has no earlier and later, and only an accuracy.
    """
    seen = walk.matrix[: step + 1, : step + 1]
    unseen = walk.unseen[step]
    in_sequence = not isinstance(walk.strategy, JointTraining)
    return {
        "acc": metrics.accuracy_so_far(walk.matrix, step),
        "bwt": metrics.backward_transfer(seen) if in_sequence else None,
        "forgetting": metrics.forgetting(seen) if in_sequence else None,
        "fwt": metrics.forward_transfer(seen, walk.initial[: step + 1]) if in_sequence else None,
        "learning_acc": metrics.learning_accuracy(seen) if in_sequence else None,
        "unseen_acc": float(np.mean(unseen)) if unseen.size else None,
    }
