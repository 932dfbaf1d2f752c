"""A trial: one strategy goes through one stream with one seed, evaluated after every experience.

Between two experiences a trial can be put aside as a tree of plain values and tensors, and a trial
of the same configuration can go on from there, bit for bit. Knows no store and no terminal.
"""

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from math import isnan
from typing import Any, final
from warnings import catch_warnings, simplefilter

import avalanche
import numpy as np
import torch
import torchvision
from avalanche.evaluation.metrics import accuracy_metrics, loss_metrics
from avalanche.training.plugins import EvaluationPlugin

from cl_manifold import __version__, metrics
from cl_manifold.contexts import TaskRecord
from cl_manifold.errors import DataError
from cl_manifold.experiments.build import build_network, build_strategy, build_stream
from cl_manifold.experiments.config import Resolved
from cl_manifold.experiments.freezing import Freezer, World
from cl_manifold.experiments.observing import Observer, Silence
from cl_manifold.experiments.progress import nothing_yet
from cl_manifold.experiments.result import Decision, Result
from cl_manifold.experiments.resuming import left_out, own_packages, reached
from cl_manifold.experiments.thawing import Thawer
from cl_manifold.experiments.trust import Trust
from cl_manifold.strategies import FiniteLossPlugin, ScorePlugin, WeightManifoldPlugin

Tree = Any


@final
class Trial:
    """A strategy on its way through a stream.

    Attributes:
        progress: what is known about finished tasks.
    """

    def __init__(self, resolved: Resolved, observer: Observer | None = None) -> None:
        """Build everything; nothing is trained yet.

        Raises:
            ClManifoldError: anything that a user can correct.
        """
        self.resolved, self.config = resolved, resolved.config
        self.observer = observer or Silence()
        config = self.config
        self.stream = build_stream(config.stream, config.data_dir, config.seed, config.data)
        self.network = build_network(config, self.stream)
        self.scores = ScorePlugin(self.stream.score)
        self.evaluator = _evaluator(self.stream.metric)
        plugins = [self.scores, FiniteLossPlugin(self.observer)]
        self.strategy = build_strategy(config, self.stream, self.network, plugins, self.evaluator)
        count, unseen = len(self.stream.test_stream), len(self.stream.unseen_stream)
        at_once = config.strategy.at_once or self.stream.at_once
        self.progress = nothing_yet(count, unseen, at_once)
        self._world, self._trust = self._named(), Trust(own_packages(config))

    @property
    def manifold(self) -> WeightManifoldPlugin | None:
        """The manifold plugin, where the strategy has one."""
        found = [p for p in self.strategy.plugins if isinstance(p, WeightManifoldPlugin)]
        return found[0] if found else None

    @property
    def rmse(self) -> float | None:
        """√ of the mean squared error over the finished tasks, in units of the target."""
        found, score = self.stream.regression, self.progress.summary()["score"]
        return None if found is None or score is None else found.rmse(score)

    def steps(self) -> Iterator[int]:
        """Train and evaluate what is not finished yet; yields the step after each evaluation."""
        self.observer.begin(self.stream, self.config)
        if not self.progress.done:
            initial = self.scores.measure(self.strategy, self.stream.test_stream)
            self.progress = replace(self.progress, initial=np.array(initial))
        if not self.progress.at_once:
            for step in range(self.progress.done, len(self.stream.train_stream)):
                self._step(step)
                yield step
        elif not self.progress.done:
            yield self._all()

    def result(self, run_id: str) -> Result:
        """The result over the finished tasks."""
        progress, config = self.progress, self.config
        last, stored = progress.records[-1], progress.stored
        found: dict[str, Any] = progress.summary()
        return Result(
            run_id=run_id,
            stream=self.stream.name,
            strategy=config.strategy.name,
            seed=config.seed,
            metric=self.stream.metric,
            acc=found["score"] if self.stream.regression is None else None,
            rmse=self.rmse,
            score_matrix=[[None if isnan(a) else float(a) for a in r] for r in progress.matrix],
            control_points=last.control_points,
            stored_floats=last.stored_floats,
            model_floats=sum(p.numel() for p in self.network.parameters()),
            replay_samples=stored.samples if stored else None,
            train_seconds=progress.train_seconds,
            context_at_test=config.strategy.context_at_test(config.contexts),
            decision_f1=progress.decision_f1,
            decisions=[
                Decision(**record.as_dict(), final_score=None if isnan(score) else float(score))
                for record, score in zip(progress.records, progress.final, strict=True)
            ],
            **found,
        )

    # -- putting aside and going on ------------------------------------------------------------

    def freeze(self) -> Tree:
        """Everything that the rest of the trial depends on, for `thaw`.

        Raises:
            IncompatibleError: the strategy holds something that cannot be put aside.
        """
        freezer = Freezer(self._world, self._trust, left_out)
        freezer.value(self._state(), "the trial")
        return {
            "versions": versions(),
            "settings": self.resolved.deciding(),
            "digest": self.stream.digest,
            "rows": freezer.rows,
        }

    def thaw(self, tree: Tree) -> None:
        """Go on where a trial of this configuration was put aside.

        Raises:
            DataError: the tree is of other data, other versions or another configuration.
        """
        for name, was in _known(tree, "versions", dict).items():
            if versions().get(name) != was:
                raise DataError(
                    f"the snapshot was written with {name} {was}, but here is "
                    f"{versions().get(name)}; go on with {was}, or start again"
                )
        here = self.resolved.deciding()
        for key, value in _known(tree, "settings", dict).items():
            if here.get(key) != value:
                raise DataError(
                    f"the snapshot was written with {key} = {value}, but here it is "
                    f"{here.get(key)}; give the same settings, or start again"
                )
        if _known(tree, "digest", str) != self.stream.digest:
            raise DataError(
                f"the snapshot was written with other data of {self.stream.name}; give the same "
                "data, or start again"
            )
        rows = _known(tree, "rows", list)
        thawer = Thawer(rows, self._world, self._trust, left_out)
        found = thawer.into(self._state())
        self.progress, self.strategy = found["progress"], found["strategy"]
        torch.set_rng_state(found["torch"])
        np.random.set_state(found["numpy"])  # noqa: NPY002
        random.setstate(found["python"])
        if found["cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(found["cuda"])

    def _state(self) -> dict[str, Any]:
        """The root of what is put aside; the network comes first, since others refer to it."""
        cuda = self.config.training.device.startswith("cuda")
        return {
            "network": self.network,
            "strategy": self.strategy,
            "progress": self.progress,
            "torch": torch.get_rng_state(),
            "numpy": np.random.get_state(legacy=False),  # noqa: NPY002
            "python": random.getstate(),
            "cuda": torch.cuda.get_rng_state_all() if cuda else [],
        }

    def _named(self) -> World:
        """What is built anew from the configuration and never changes."""
        config = self.config
        sections = ("stream", "network", "strategy", "training", "topology", "contexts")
        named = {f"config.{name}": getattr(config, name) for name in sections}
        named |= {"config": config, "resolved": self.resolved, "observer": self.observer}
        named |= {"evaluator": self.evaluator, "stream": self.stream}
        for part in ("train", "test", "unseen"):
            named |= reached(list(getattr(self.stream, f"{part}_stream")), part)
        return World(named)

    # -- one step ------------------------------------------------------------------------------

    def _step(self, step: int) -> None:
        """One experience; the progress is replaced as a whole, at the end."""
        before, experience = self.progress, self.stream.train_stream[step]
        self.observer.task(step, experience.context_name)
        seconds = self._train(experience)
        last = len(self.stream.train_stream) - 1
        every = self.config.training.evaluate_every or max(1, (last + 1) // 20)
        matrix, unseen = self._evaluated(step, step == last or step % every == 0)
        zero_shot = before.initial[0] if step == 0 else before.matrix[step - 1, step]
        record = self._record(step, float(zero_shot), float(matrix[step, step]), seconds)
        self._finish(matrix, unseen, (*before.records, record), seconds)
        self.observer.learned(record, metrics.accuracy_so_far(matrix, step))

    def _all(self) -> int:
        """Everything at once: there is only a last row."""
        self.observer.task(0, "all contexts")
        last = len(self.stream.test_stream) - 1
        seconds = self._train(self.stream.train_stream)
        matrix, unseen = self._evaluated(last, full=True)
        each = seconds / (last + 1)
        records = [self._record(i, None, float(matrix[-1, i]), each) for i in range(last + 1)]
        self._finish(matrix, unseen, tuple(records), seconds)
        self.observer.learned(records[-1], metrics.average_accuracy(matrix))
        return last

    def _finish(
        self,
        matrix: np.ndarray,
        unseen: np.ndarray,
        records: tuple[TaskRecord, ...],
        seconds: float,
    ) -> None:
        """The next progress; growth may have given earlier tasks new coordinates."""
        if self.manifold is not None:
            places = self.manifold.coordinates()
            records = tuple(
                replace(record, context=tuple(context.tolist()))
                for record, context in zip(records, places, strict=True)
            )
        self.progress = replace(
            self.progress,
            matrix=matrix,
            unseen=unseen,
            records=records,
            stored=self.config.strategy.stored(self.strategy, self.stream.input_shape),
            train_seconds=self.progress.train_seconds + seconds,
        )

    def _train(self, experiences: Any) -> float:
        start = time.perf_counter()
        self.strategy.train(experiences, eval_streams=[])
        return time.perf_counter() - start

    def _evaluated(self, step: int, full: bool) -> tuple[np.ndarray, np.ndarray]:
        """Matrix and unseen with row `step`: every experience, or this one and the next."""
        matrix, unseen = self.progress.matrix.copy(), self.progress.unseen.copy()
        count = len(self.stream.test_stream)
        columns = list(range(count)) if full else [j for j in (step, step + 1) if j < count]
        experiences = [self.stream.test_stream[j] for j in columns]
        if full:
            experiences += list(self.stream.unseen_stream)
        found = self.scores.measure(self.strategy, experiences)
        matrix[step, columns] = found[: len(columns)]
        if full:
            unseen[step] = found[len(columns) :]
        return matrix, unseen

    def _record(self, step: int, before: float | None, after: float, seconds: float) -> TaskRecord:
        """The record of a task, with its scores before and after training."""
        experience, plugin = self.stream.test_stream[step], self.manifold
        trace = plugin.traces[step] if plugin else None
        manifold = plugin.manifold if plugin else None
        stored = self.config.strategy.stored(self.strategy, self.stream.input_shape)
        return TaskRecord(
            experience=step,
            name=experience.context_name,
            context=tuple(trace.context.tolist()) if trace else (),
            context_source=trace.source if trace else "not used",
            decision=trace.decision if trace else "train",
            plasticity=trace.plasticity if trace else None,
            overshoot=trace.overshoot if trace else None,
            drift=trace.drift if trace else None,
            zero_shot_score=before,
            score=after,
            control_points=manifold.basis.size if manifold else None,
            stored_floats=stored.floats if stored else None,
            seconds=seconds,
            truth=experience.truth,
            kind=experience.hidden_kind,
            gate=trace.gate if trace else None,
            evidence=trace.evidence if trace else None,
            topologies=trace.topologies if trace else {},
        )


def versions() -> dict[str, str]:
    """Of what decides which attributes objects have and which numbers come out."""
    found = {"cl_manifold": __version__, "avalanche": avalanche.__version__}
    found |= {"torch": str(torch.__version__), "torchvision": str(torchvision.__version__)}
    return found | {"numpy": np.__version__}


def _known(tree: Tree, key: str, kind: type) -> Any:
    found = tree.get(key) if isinstance(tree, dict) else None
    if not isinstance(found, kind):
        raise DataError(f"the snapshot has no {key}; it is not one of a trial, so start again")
    return found


def _evaluator(metric: str) -> EvaluationPlugin:
    """Loss and, of classes, accuracy per epoch; its logger joins when the MLflow run exists."""
    with catch_warnings():
        simplefilter("ignore")
        accuracy = [accuracy_metrics(epoch=True)] if metric == "accuracy" else []
        return EvaluationPlugin(loss_metrics(epoch=True), *accuracy, loggers=[])
