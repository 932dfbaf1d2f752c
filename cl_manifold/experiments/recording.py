"""Recording a trial: what of it goes into its MLflow run and its folder, and when.

After each task a snapshot, then metrics, the table of contexts and the manifold's state, all of the
same moment. At the end, also of a run that failed or was stopped: figures, result and report over
the finished tasks.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Any, final

import numpy as np
from matplotlib.figure import Figure
from safetensors import SafetensorError

from cl_manifold.contexts import TaskRecord
from cl_manifold.errors import ClManifoldError, DataError, IncompatibleError, StoreError
from cl_manifold.experiments import snapshot
from cl_manifold.experiments.architecture import described
from cl_manifold.experiments.model_files import servable, write_model
from cl_manifold.experiments.progress import Progress
from cl_manifold.experiments.result import Result
from cl_manifold.experiments.trial import Trial
from cl_manifold.geometry import Simplex
from cl_manifold.manifold.saving import saved
from cl_manifold.tracking import KeptRun, Store, keeping, version_tags
from cl_manifold.tracking.figures import (
    learning_figure,
    score_by_context_figure,
    score_matrix_figure,
)
from cl_manifold.tracking.keys import score_key
from cl_manifold.tracking.manifold_figure import manifold_figure
from cl_manifold.tracking.page import markdown
from cl_manifold.tracking.projection import project_weights
from cl_manifold.tracking.report import ReportData, render_report

PATIENCE = 60.0
"""Seconds that a run waits for room on the disk before it stops."""
PAUSE = 1.0
"""Seconds between two attempts."""
GRID = 361
"""Contexts along the topology at which the weights are drawn."""


@final
@dataclass(frozen=True)
class Place:
    """Where a trial is recorded.

    Attributes:
        store: an open store.
        title: what the run is called before its result and seed.
        tags: beside those that every run has.
    """

    store: Store
    title: str
    tags: Mapping[str, str] = field(default_factory=dict)


def start(place: Place, trial: Trial) -> KeptRun:
    """A new MLflow run: name, description, configuration and where its values came from."""
    resolved, stream, config = trial.resolved, trial.stream, trial.config
    rows = [row for row in resolved.rows() if row[0] not in ("tracking_uri", "experiment")]
    kept = keeping.start(
        place.store,
        name=f"{place.title} · seed {config.seed}",
        description=f"{markdown(stream.description)}\n\nIn progress.",
        rows=rows,
        tags=version_tags()
        | {
            "stream": stream.name,
            "strategy": config.strategy.name,
            "seed": str(config.seed),
            "dataset_digest": stream.digest,
            "context_at_test": config.strategy.context_at_test(config.contexts),
        }
        | dict(place.tags),
        say=trial.observer.say,
    )
    kept.run.log_dataset(stream.name, stream.digest, config.stream.holdout)
    sources = {key: {"value": value, "source": source} for key, value, source in rows}
    kept.run.log_json(sources, "configuration.json")
    network = described(config.network, trial.network, stream.input_shape, stream.outputs)
    kept.run.log_json(network, "network.json")
    kept.run.log_text(f"{trial.network}\n", "network.txt")
    return kept


@final
class Recorder:
    """Writes down what a trial finds."""

    def __init__(self, kept: KeptRun, title: str) -> None:
        """Record into a run that was started, or opened again.

        Args:
            kept: the run.
            title: what the run is called before its result and seed.
        """
        self.run, self._kept, self._title = kept.run, kept, title
        self._resumable = True

    @property
    def snapshot(self) -> Path:
        """Where the trial is put aside."""
        return self._kept.path / snapshot.FILE

    def task(self, trial: Trial, step: int) -> None:
        """After one task: what is known at that moment."""
        progress = trial.progress
        with self._kept.group():
            self.run.log_metrics(_metrics(trial), step=step)
            self.run.log_table(_table(progress), "contexts.json")
            if (plugin := trial.manifold) and plugin.manifold:
                content, header = saved(plugin.manifold)
                self._kept.log_bytes(content, "manifold.safetensors")
                self.run.log_text(header, "manifold.json")

    def end(self, trial: Trial) -> Result:
        """Figures, result and report over the finished tasks."""
        result = trial.result(self.run.run_id)
        config, stream, progress = trial.config, trial.stream, trial.progress
        sentence = result.sentence(config.topology.kind, len(stream.test_stream))
        figures = _figures(trial)
        with self._kept.group():
            self.run.log_json(result.as_dict(), "result.json")
            self.run.log_table(_table(progress), "contexts.json")
            for name, figure in figures.items():
                self.run.log_figure(figure, f"{name}.png")
            self.run.log_text(_report(trial, sentence, figures), "report.html")
            self._model(trial)
            # MLflow's list of runs shows no metrics and cuts names: the result comes early
            self.run.set_name(f"{self._title} {result.score:.3f} · seed {config.seed}")
            self.run.set_description(
                f"**{markdown(sentence)}**\n\n{markdown(stream.description)}\n\n"
                "Open the artifact `report.html` for the whole story."
            )
        return result

    def keep(self, trial: Trial, step: int) -> None:
        """What an experience found, put aside and recorded; waits for a while where no room is.

        A run that went on without room would lose, if it were stopped, all that it finds from here.

        Raises:
            ClManifoldError: there was no room in time.
        """
        try:
            self._patiently(trial, lambda: self.put_aside(trial))
        except ClManifoldError:
            trial.observer.say(f"experience {step + 1} is not kept; who goes on trains it again")
            raise
        self.task(trial, step)
        self._patiently(trial, self._kept.secure)

    def put_aside(self, trial: Trial) -> None:
        """The snapshot; a trial that cannot be put aside goes on without, and that is said once.

        Raises:
            ClManifoldError: the disk takes nothing.
        """
        self._kept.secure()  # a run that goes on from here has no other place for it
        if not self._resumable:
            return
        try:
            snapshot.save(self.snapshot, trial.freeze())
        except IncompatibleError as error:
            self._resumable = False
            self.snapshot.unlink(missing_ok=True)
            trial.observer.say(f"this run cannot be resumed if it is stopped: {error}")

    def _patiently(self, trial: Trial, write: Callable[[], None]) -> None:
        """Write, again and again until it works; a run that cannot be resumed goes on without."""
        end, told = monotonic() + PATIENCE, False
        while True:
            try:
                return write()
            except (DataError, StoreError) as error:
                if not self._resumable:
                    return None
                if monotonic() > end:
                    raise
                if not told:
                    trial.observer.say(f"{error}; training waits {PATIENCE:.0f} s for it")
                told = True
            sleep(PAUSE)

    def _model(self, trial: Trial) -> None:
        """The model, in the folder `model` of the run's artifacts; a run ends well without."""
        if not servable(trial):
            return
        try:
            with TemporaryDirectory() as place:
                folder = Path(place) / "model"
                write_model(trial, folder)
                for file in sorted(path for path in folder.rglob("*") if path.is_file()):
                    name = file.relative_to(place).as_posix()
                    self._kept.log_bytes(file.read_bytes(), name)
        except (ClManifoldError, SafetensorError, OSError, RuntimeError, ValueError) as error:
            trial.observer.say(f"the run has no model: {error}")


def _metrics(trial: Trial) -> dict[str, float | None]:
    """What is plotted over the tasks."""
    progress = trial.progress
    record, stored = progress.records[-1], progress.records[-1].stored_floats
    size = sum(p.numel() for p in trial.network.parameters())
    return {
        **continual_metrics(trial.stream.metric, progress.summary()),
        "continual/rmse": trial.rmse,
        "task/score_after_training": record.score,
        "task/score_before_training": record.zero_shot_score,
        "task/seconds": record.seconds,
        "manifold/plasticity": record.plasticity,
        "manifold/overshoot": record.overshoot,
        "manifold/drift": record.drift,
        "manifold/control_points": record.control_points,
        "manifold/stored_floats": stored,
        "manifold/stored_ratio": None if stored is None else stored / size,
        **_evidence(record),
        **{f"topology/{name}": value for name, value in record.topologies.items()},
    }


def continual_metrics(metric: str, summary: Mapping[str, float | None]) -> dict[str, float | None]:
    """Metrics over finished tasks by key; the score goes by what it is."""
    others = {key: value for key, value in summary.items() if key != "score"}
    return {score_key(metric): summary["score"]} | {f"continual/{k}": v for k, v in others.items()}


def _evidence(record: TaskRecord) -> dict[str, float | None]:
    if record.evidence is None:
        return {}
    names = ("p_value", "gain", "shortfall", "drift", "commit_drift", "zero_shot_loss", "seconds")
    return {f"decision/{name}": getattr(record.evidence, name) for name in names}


def _table(progress: Progress) -> list[dict[str, Any]]:
    """contexts.json: one row per task, the evidence in columns of its own."""
    rows: list[dict[str, Any]] = []
    for record in progress.records:
        row = record.as_dict()
        evidence = row.pop("evidence") or {}
        row.pop("topologies")
        named = {f"evidence.{key}": value for key, value in evidence.items() if key != "context"}
        rows.append(row | {"context": json.dumps(row["context"])} | named)
    return rows


def _report(trial: Trial, sentence: str, figures: Mapping[str, Figure]) -> str:
    stream, config, progress = trial.stream, trial.config, trial.progress
    done, last = progress.done, progress.records[-1]
    return render_report(
        ReportData(
            metric=stream.metric,
            title=f"{config.strategy.name} on {stream.name}, seed {config.seed}",
            sentence=sentence,
            metrics={
                **progress.summary(),
                "rmse": trial.rmse,
                "control_points": last.control_points,
                "stored_floats": last.stored_floats,
                "train_seconds": progress.train_seconds,
            },
            records=progress.records,
            matrix=progress.matrix[:done, :done],
            names=[r.name for r in progress.records],
            final_score=progress.final,
            unseen_names=[e.context_name for e in stream.unseen_stream],
            unseen_score=progress.unseen[progress.last_row],
            config=trial.resolved.rows(),
            environment=version_tags(),
            figures=figures,
        )
    )


def _figures(trial: Trial) -> dict[str, Figure]:
    """What can be drawn of the finished tasks."""
    stream, progress = trial.stream, trial.progress
    done, names = progress.done, [r.name for r in progress.records]
    figures: dict[str, Figure] = {}
    plugin = trial.manifold
    if plugin and plugin.manifold:
        manifold = plugin.manifold
        topology = manifold.basis.topology
        projection = project_weights(manifold, topology.grid(GRID), plugin.coordinates())
        figures["manifold"] = manifold_figure(
            topology, manifold.basis, progress.records, projection
        )
    # where tasks are hidden the stream has no contexts: experiences stand side by side
    hidden = stream.hidden_tasks() is not None
    space = Simplex(done) if hidden else stream.topology
    places = np.eye(done) if hidden else stream.contexts().numpy()[:done]
    unseen = [e.context.numpy() for e in stream.unseen_stream]
    after = np.full(done, np.nan) if progress.at_once else progress.matrix.diagonal()[:done]
    figures["score_by_context"] = score_by_context_figure(
        places,
        names,
        (progress.final, after),
        np.stack(unseen) if unseen else np.zeros((0, space.dim)),
        progress.unseen[progress.last_row],
        space,
        stream.metric,
    )
    matrix = progress.matrix[:done, :done]
    figures["learning"] = learning_figure(matrix, stream.metric)
    figures["score_matrix"] = score_matrix_figure(matrix, names, stream.metric)
    return figures
