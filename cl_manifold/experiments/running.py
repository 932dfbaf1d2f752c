"""Running a trial to its end: recorded as it goes, stopped truthfully, gone on with later.

The one place that knows everybody. Nothing here is mathematics, nothing here prints.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from cl_manifold.errors import ClManifoldError
from cl_manifold.experiments import recording, snapshot
from cl_manifold.experiments.config import Resolved
from cl_manifold.experiments.observing import Observer, Silence
from cl_manifold.experiments.recording import Place, Recorder
from cl_manifold.experiments.result import Result
from cl_manifold.experiments.trial import Trial
from cl_manifold.tracking import (
    KeptRun,
    MlflowLogger,
    keeping,
    open_store,
    resolve_tracking_uri,
)


def run(resolved: Resolved, observer: Observer | None = None, place: Place | None = None) -> Result:
    """Train and evaluate; record everything in one MLflow run.

    Store, stream and strategy are opened and built before the MLflow run exists, so that wrong
    names, missing data and closed stores leave nothing behind.

    Args:
        resolved: the configuration.
        observer: is told how far it is.
        place: where it is recorded; default is the store of the configuration.

    Raises:
        ClManifoldError: anything that a user can correct.
    """
    place = place or own_place(resolved)
    trial = Trial(resolved, observer)
    return _finished(trial, place, recording.start(place, trial))


def go_on(
    resolved: Resolved, place: Place, folder: Path, observer: Observer | None = None
) -> Result:
    """Go on with a run that was stopped, from its last snapshot; without one, from the beginning.

    The run counts as running only once its snapshot has been taken up.

    Args:
        resolved: the configuration that the run was started with.
        place: where it is recorded.
        folder: of the run.
        observer: is told how far it is.

    Raises:
        ClManifoldError: anything that a user can correct.
    """
    trial = Trial(resolved, observer)
    _take_up(trial, folder)
    return _finished(trial, place, keeping.go_on(place.store, folder, trial.observer.say))


def own_place(resolved: Resolved) -> Place:
    """A run of its own, titled by its strategy."""
    config = resolved.config
    store = open_store(resolve_tracking_uri(config.tracking_uri), config.experiment)
    return Place(store, config.strategy.name)


def _finished(trial: Trial, place: Place, kept: KeptRun) -> Result:
    """Train what is missing; FINISHED, FAILED or KILLED, with a report over finished tasks."""
    watcher = trial.observer
    try:
        with _threads(trial.config.training.threads):
            recorder = Recorder(kept, place.title)
            recorder.put_aside(trial)
            run = kept.run
            trial.evaluator.loggers = [MlflowLogger(run.run_id, place.store.uri, client=run.client)]
            watcher.recording(run)
            if trial.progress.done:  # stopped between the snapshot and the record
                recorder.task(trial, trial.progress.done - 1)
            for step in trial.steps():
                recorder.keep(trial, step)
            result = recorder.end(trial)
    except BaseException as error:
        try:
            _end_of_stopped(trial, kept, place)
        except ClManifoldError as problem:  # must not hide why the run stopped
            watcher.say(f"the stopped run has no report: {problem}")
        finally:
            kept.finish("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    kept.finish("FINISHED")
    return result


def _end_of_stopped(trial: Trial, kept: KeptRun, place: Place) -> None:
    """The report over finished tasks, from the snapshot: the strategy may be in the middle."""
    if (kept.path / snapshot.FILE).exists():
        trial = Trial(trial.resolved, Silence())
        _take_up(trial, kept.path)
    if trial.progress.done:
        recorder = Recorder(kept, place.title)
        recorder.task(trial, trial.progress.done - 1)
        recorder.end(trial)


def _take_up(trial: Trial, folder: Path) -> None:
    """Go on where the snapshot in a folder was taken; from the beginning where there is none."""
    path = folder / snapshot.FILE
    if path.exists():
        trial.thaw(snapshot.load(path))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """So many threads inside, as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
