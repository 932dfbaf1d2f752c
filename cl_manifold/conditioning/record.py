"""An experiment on conditioning in MLflow: a parent run with the table, one child per system."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, final

import torch

from cl_manifold.conditioning.experiment import (
    Experiment,
    Order,
    Row,
    Watcher,
    prepare,
    ranges,
    rows_of,
)
from cl_manifold.conditioning.figure import accuracy_figure
from cl_manifold.conditioning.findings import sentences
from cl_manifold.conditioning.lineup import System
from cl_manifold.conditioning.problems import evaluation_contexts, in_range
from cl_manifold.conditioning.training import Found
from cl_manifold.tracking import Store, TrackedRun, open_store, resolve_tracking_uri, version_tags
from cl_manifold.tracking.keys import legal_key

PARENT = "mlflow.parentRunId"


@final
@dataclass(frozen=True)
class ConditionResult:
    """What an experiment found; fields as in `condition --json`.

    Attributes:
        run_id: of the parent run.
        name: of the problem.
        data: what the images are.
        seeds: of network and batches.
        steps: of training, for every system.
        systems: the rows of the table.
        findings: what the table says, in sentences.
    """

    run_id: str
    name: str
    data: str
    seeds: list[int]
    steps: int
    systems: list[Row]
    findings: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the accuracies by context."""
        plain = asdict(self)
        for row in plain["systems"]:
            del row["accuracy"]
        return plain


def condition(
    order: Order, watcher: Watcher, tracking_uri: str | None, experiment: str
) -> ConditionResult:
    """Run an experiment and record it.

    Names, images and store are checked before the run exists.

    Raises:
        ClManifoldError: anything that a user can correct.
    """
    built = prepare(order)
    store = open_store(resolve_tracking_uri(tracking_uri), experiment)
    recorder = Recorder(store, built)
    watcher.recording(recorder.parent)
    rows: list[Row] = []
    with one_thread(), recorder.truthful_end(rows):
        for row in rows_of(built, watcher, recorder.seed):
            rows.append(row)
            recorder.system(row)
    return recorder.result(rows)


@contextmanager
def one_thread() -> Iterator[None]:
    """Small networks gain nothing from more, and the last digit depends on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@final
class Recorder:
    """The MLflow runs of one experiment.

    Attributes:
        parent: the run with the table.
    """

    def __init__(self, store: Store, experiment: Experiment) -> None:
        """Start the parent run."""
        self.store, self.experiment = store, experiment
        problem, pictures = experiment.problem, experiment.pictures
        self.tags = {"condition": problem.name, "data": pictures.name} | version_tags()
        self.parent = store.start_run(
            name=f"condition {problem.name} · {pictures.name}",
            description=f"{problem.summary}\n\nIn progress.",
            params=self._settings(),
            tags=self.tags,
        )
        self.parent.log_dataset(pictures.name, pictures.digest, experiment.order.holdout)
        self._child: TrackedRun | None = None

    def _settings(self) -> dict[str, Any]:
        size = self.experiment.size
        return {
            "name": self.experiment.problem.name,
            "data": self.experiment.order.data,
            "holdout": self.experiment.order.holdout,
            "seeds": ",".join(map(str, self.experiment.seeds)),
            "steps": self.experiment.steps,
            "batch_size": size.batch_size,
            "network": f"{size.build.__name__} {','.join(map(str, size.widths))}",
            "adam_rate": size.adam_rate,
            "sgd_rate": size.sgd_rate,
            "natural_rate": size.natural_rate,
            "test_images": size.test_images,
        }

    @contextmanager
    def truthful_end(self, rows: Sequence[Row]) -> Iterator[None]:
        """FINISHED, FAILED or KILLED, with a table over the finished systems either way."""
        try:
            yield
        except BaseException as error:
            status = "FAILED" if isinstance(error, Exception) else "KILLED"
            try:
                if self._child is not None:
                    self._child.finish(status)
                if rows:
                    self.table(rows)
            finally:
                self.parent.finish(status)
            raise
        self.table(rows)
        self.parent.finish("FINISHED")

    def seed(self, system: System, seed: int, found: Found) -> None:
        """One seed of a system: metrics at step `seed` of the system's own run."""
        if self._child is None:
            self._child = self.store.start_run(
                name=system.name,
                description=system.summary,
                params=self._settings() | {"system": system.name},
                tags=self.tags | {PARENT: self.parent.run_id, "system": system.name},
            )
        contexts = evaluation_contexts(self.experiment.problem)
        seen = in_range(self.experiment.problem, contexts).tolist()
        inside, outside = ranges(found.accuracy, seen)
        self._child.log_metrics(
            {
                "condition/in_range": inside,
                "condition/held_out": outside,
                "condition/wrong_context": found.wrong_context,
                "condition/seconds": found.seconds,
            },
            step=seed,
        )

    def system(self, row: Row) -> None:
        """All seeds of a system are done: close its run."""
        assert self._child is not None
        self._child.log_metrics({"condition/parameters": row.parameters})
        self._child.set_name(f"{row.system} {row.in_range:.3f} · held out {row.held_out:.3f}")
        self._child.finish("FINISHED")
        self._child = None
        here = {f"in_range/{row.system}": row.in_range, f"held_out/{row.system}": row.held_out}
        self.parent.log_metrics({legal_key(key): value for key, value in here.items()})

    def table(self, rows: Sequence[Row]) -> None:
        """Table, figure and sentences over the finished systems."""
        result = self.result(rows)
        plain = result.as_dict()
        self.parent.log_json(plain, "condition.json")
        self.parent.log_table(plain["systems"], "systems.json")
        contexts = evaluation_contexts(self.experiment.problem)
        self.parent.log_table(
            [
                {"system": row.system, "context": tuple(context), "accuracy": accuracy}
                for row in rows
                for context, accuracy in zip(contexts.tolist(), row.accuracy, strict=True)
            ],
            "accuracy_by_context.json",
        )
        figure = accuracy_figure(self.experiment.problem, rows)
        self.parent.log_figure(figure, "accuracy_by_context.png")
        first, *others = result.findings
        text = [f"**{first}**", *others, self.experiment.problem.summary]
        self.parent.set_description("\n\n".join(text))

    def result(self, rows: Sequence[Row]) -> ConditionResult:
        """The result over the finished systems."""
        experiment = self.experiment
        return ConditionResult(
            run_id=self.parent.run_id,
            name=experiment.problem.name,
            data=experiment.order.data,
            seeds=list(experiment.seeds),
            steps=experiment.steps,
            systems=list(rows),
            findings=sentences(experiment, rows),
        )
