"""Publishing a walk: what of it goes into the MLflow run, and when.

After each task: metrics, the table of contexts, the manifold's state. At the end, also of a run
that failed or was stopped: figures, result and report over the finished tasks.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, final

import numpy as np
from matplotlib.figure import Figure

from cl_manifold.contexts import TaskRecord
from cl_manifold.experiments.config import Resolved
from cl_manifold.geometry import Simplex
from cl_manifold.manifold.saving import save_manifold
from cl_manifold.manifold.weight_manifold import WeightManifold
from cl_manifold.metrics import decision_f1
from cl_manifold.streams import TaskStream
from cl_manifold.tracking import Store, version_tags
from cl_manifold.tracking.figures import (
    accuracy_by_context_figure,
    accuracy_matrix_figure,
    learning_figure,
)
from cl_manifold.tracking.manifold_figure import manifold_figure
from cl_manifold.tracking.projection import project_weights
from cl_manifold.tracking.report import ReportData, render_report
from cl_manifold.walk import Walk, summary_metrics

GRID = 361
"""Contexts along the topology at which the weights are drawn."""


@final
@dataclass(frozen=True)
class Place:
    """Where a walk is recorded.

    Attributes:
        store: an open store.
        title: what the run is called before its result and seed.
        tags: beside those that every run has.
    """

    store: Store
    title: str
    tags: Mapping[str, str] = field(default_factory=dict)


@final
class Publisher:
    """The MLflow run of one walk."""

    def __init__(self, place: Place, resolved: Resolved, stream: TaskStream) -> None:
        """Start the run: name, description, configuration and where its values came from."""
        config = resolved.config
        self.resolved = resolved
        self.title = place.title
        self.versions = version_tags()
        rows = [row for row in resolved.rows() if row[0] not in ("tracking_uri", "experiment")]
        self.run = place.store.start_run(
            name=f"{place.title} · seed {config.seed}",
            description=f"{stream.description}\n\nIn progress.",
            params={key: value for key, value, _ in rows},
            tags=self.versions
            | {
                "stream": stream.name,
                "strategy": config.strategy.name,
                "seed": str(config.seed),
                "dataset_digest": stream.digest,
            }
            | dict(place.tags),
        )
        self.run.log_dataset(stream.name, stream.digest, config.stream.holdout)
        sources = {key: {"value": value, "source": source} for key, value, source in rows}
        self.run.log_json(sources, "configuration.json")

    @contextmanager
    def truthful_end(self, walk: Walk) -> Iterator[None]:
        """FINISHED, FAILED or KILLED; a report over finished tasks either way."""
        try:
            yield
        except BaseException as error:
            try:
                if walk.records:
                    self.end(walk)
            finally:
                self.run.finish("FAILED" if isinstance(error, Exception) else "KILLED")
            raise
        self.run.finish("FINISHED")

    def task(self, walk: Walk, step: int) -> None:
        """After one task: its metrics, the table so far, the manifold's state."""
        record = walk.records[-1]
        self.run.log_metrics(
            {f"continual/{key}": value for key, value in summary_metrics(walk, step).items()}
            | {
                "task/accuracy_after_training": record.acc,
                "task/accuracy_before_training": record.zero_shot_acc,
                "task/seconds": record.seconds,
                "manifold/plasticity": record.plasticity,
                "manifold/overshoot": record.overshoot,
                "manifold/drift": record.drift,
                "manifold/control_points": record.control_points,
                "manifold/stored_floats": record.stored_floats,
            }
            | _evidence_metrics(record)
            | {f"topology/{name}": value for name, value in record.topologies.items()},
            step=step,
        )
        self.run.log_table(_table(walk), "contexts.json")
        if (plugin := walk.manifold) and plugin.manifold:
            self._state(plugin.manifold)

    def end(self, walk: Walk) -> None:
        """Figures, result and report over the finished tasks."""
        done = len(walk.records)
        result = result_of(walk, self.run.run_id)
        self.run.log_json(result, "result.json")
        self.run.log_table(_table(walk), "contexts.json")
        figures = _figures(walk, done)
        for name, figure in figures.items():
            self.run.log_figure(figure, f"{name}.png")
        sentence = sentence_of(result, walk, done)
        self.run.log_text(self._report(walk, done, sentence, figures), "report.html")
        # MLflow's list of runs shows no metrics and cuts names: the result comes early
        seed = self.resolved.config.seed
        self.run.set_name(f"{self.title} {result['acc']:.3f} · seed {seed}")
        self.run.set_description(
            f"**{sentence}**\n\n{walk.stream.description}\n\n"
            "Open the artifact `report.html` for the whole story."
        )

    def _state(self, manifold: WeightManifold) -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "manifold.safetensors"
            save_manifold(manifold, path)
            self.run.log_file(path)
            self.run.log_file(path.with_suffix(".json"))

    def _report(self, walk: Walk, done: int, sentence: str, figures: Mapping[str, Figure]) -> str:
        stream, config = walk.stream, self.resolved.config
        row = _last_row(walk)
        return render_report(
            ReportData(
                title=f"{config.strategy.name} on {stream.name}, seed {config.seed}",
                sentence=sentence,
                metrics={
                    **summary_metrics(walk, done - 1),
                    "control_points": walk.records[-1].control_points,
                    "stored_floats": walk.records[-1].stored_floats,
                    "train_seconds": walk.train_seconds,
                },
                records=walk.records,
                matrix=walk.matrix[:done, :done],
                names=[r.name for r in walk.records],
                final_acc=walk.matrix[row, :done],
                unseen_names=[e.context_name for e in stream.unseen_stream],
                unseen_acc=walk.unseen[row],
                config=self.resolved.rows(),
                environment=self.versions,
                figures=figures,
            )
        )


def result_of(walk: Walk, run_id: str) -> dict[str, Any]:
    """The result of a walk as `run --json` prints it; over finished tasks if it was cut short."""
    step = len(walk.records) - 1
    row = _last_row(walk)
    last = walk.records[-1]
    matrix = [[None if isnan(a) else float(a) for a in values] for values in walk.matrix]
    return {
        "run_id": run_id,
        "stream": walk.stream.name,
        "strategy": walk.config.strategy.name,
        "seed": walk.config.seed,
        **summary_metrics(walk, step),
        "accuracy_matrix": matrix,
        "control_points": last.control_points,
        "stored_floats": last.stored_floats,
        "model_floats": sum(p.numel() for p in walk.network.parameters()),
        "replay_samples": kept.samples if (kept := walk.stored) else None,
        "train_seconds": walk.train_seconds,
        "context_at_test": walk.config.strategy.context_at_test(walk.config.contexts),
        "decision_f1": _decision_f1(walk),
        "decisions": [r | {"final_acc": matrix[row][i]} for i, r in enumerate(_records(walk))],
    }


def sentence_of(result: Mapping[str, Any], walk: Walk, done: int) -> str:
    """The result in one sentence, for the description and the report."""
    total = len(walk.stream.train_stream)
    part = f"{total} contexts" if done == total else f"stopped after {done} of {total} contexts"
    plugin = walk.manifold
    shape = f", {walk.config.topology.kind} K = {result['control_points']}" if plugin else ""
    unseen = result["unseen_acc"]
    return (
        f"{result['stream']}, {part}{shape}: ACC {result['acc']:.3f}"
        + ("" if result["bwt"] is None else _lost(result))
        + ("" if unseen is None else f", unseen contexts {unseen:.3f}")
        + (f", decisions F1 {result['decision_f1']:.3f}" if result["decision_f1"] else "")
        + f"; context at test {result['context_at_test']}, "
        f"stored {_times(result['stored_floats'], result['model_floats'])}"
    )


def _times(floats: int | None, model: int) -> str:
    return "not stated" if floats is None else f"{floats / model:.2f} × the model"


def _lost(result: Mapping[str, Any]) -> str:
    return f", BWT {result['bwt']:+.3f}, forgetting {result['forgetting']:.3f}"


def _decision_f1(walk: Walk) -> float | None:
    """None where the stream keeps no truth, or nothing is decided."""
    kinds = [r.kind for r in walk.records if r.kind is not None]
    if not kinds or not walk.manifold:
        return None
    return decision_f1([r.decision for r in walk.records], kinds)


def _evidence_metrics(record: TaskRecord) -> dict[str, float | None]:
    if record.evidence is None:
        return {}
    names = ("p_value", "gain", "shortfall", "drift", "commit_drift", "zero_shot_loss", "seconds")
    return {f"decision/{name}": getattr(record.evidence, name) for name in names}


def _records(walk: Walk) -> list[dict[str, Any]]:
    return [record.as_dict() for record in walk.records]


def _last_row(walk: Walk) -> int:
    """The last row of the matrix that was measured; of a joint run the only one."""
    return int(np.flatnonzero(np.isfinite(walk.matrix).any(1))[-1])


def _table(walk: Walk) -> list[dict[str, Any]]:
    """contexts.json: one row per task, the evidence in columns of its own."""
    rows: list[dict[str, Any]] = []
    for record in _records(walk):
        evidence = record.pop("evidence") or {}
        record.pop("topologies")
        named = {f"evidence.{key}": value for key, value in evidence.items() if key != "context"}
        rows.append(record | {"context": json.dumps(record["context"])} | named)
    return rows


def _figures(walk: Walk, done: int) -> dict[str, Figure]:
    """What can be drawn of the finished tasks."""
    names = [r.name for r in walk.records]
    stream, row = walk.stream, _last_row(walk)
    figures: dict[str, Figure] = {}
    plugin = walk.manifold
    if plugin and plugin.manifold:
        manifold = plugin.manifold
        topology = manifold.basis.topology
        projection = project_weights(manifold, topology.grid(GRID), plugin.coordinates())
        figures["manifold"] = manifold_figure(topology, manifold.basis, walk.records, projection)
    # where tasks are hidden the stream has no contexts: experiences stand side by side
    hidden = stream.hidden_tasks() is not None
    space = Simplex(done) if hidden else stream.topology
    places = np.eye(done) if hidden else stream.contexts().numpy()[:done]
    unseen = [e.context.numpy() for e in stream.unseen_stream]
    figures["accuracy_by_context"] = accuracy_by_context_figure(
        places,
        names,
        walk.matrix[row, :done],
        walk.matrix.diagonal()[:done],
        np.stack(unseen) if unseen else np.zeros((0, space.dim)),
        walk.unseen[row],
        space,
    )
    figures["learning"] = learning_figure(walk.matrix[:done, :done])
    figures["accuracy_matrix"] = accuracy_matrix_figure(walk.matrix[:done, :done], names)
    return figures
