"""The MLflow store of this project: found, created, opened, searched.

Runs go to one sqlite file and their artifacts to a folder beside it, unless a tracking server or
another database is named. Nothing here changes MLflow's global tracking address.
"""

import getpass
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import (
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_RUN_NOTE,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
    MLFLOW_USER,
)

from cl_manifold.errors import StoreError, public
from cl_manifold.tracking.database import SQLITE, alone, artifact_folder, beside, database_of, make
from cl_manifold.tracking.living import process_tags
from cl_manifold.tracking.moving import refuse_moved
from cl_manifold.tracking.tracked_run import (
    DEFAULT_STORE,
    STORE_FAILURES,
    TrackedRun,
    reason,
    store_errors,
)
from cl_manifold.tracking.view import view_tag

_KIND = {"mlflow.experimentKind": "custom_model_development"}
_QUICK = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
_NO_BARS = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
RESULTS = ("result.json", "comparison.json")
"""The files that hold what a run or a comparison found."""


@final
@dataclass(frozen=True)
class Store:
    """An open store and the experiment that runs are filed under.

    Attributes:
        client: MLflow's client of this store.
        uri: the store's address, absolute.
        experiment: name of the experiment.
        experiment_id: its id.
    """

    client: MlflowClient
    uri: str
    experiment: str
    experiment_id: str

    @property
    def folder(self) -> Path:
        """The folder `mlruns`: that of the database; of a server the one here."""
        database = database_of(self.uri)
        return Path.cwd() / "mlruns" if database is None else beside(database)

    def start_run(
        self,
        name: str,
        description: str = "",
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> TrackedRun:
        """A new run. For a run below another, tag it `mlflow.parentRunId`.

        Raises:
            StoreError: the store refuses.
        """
        known = run_tags(description, tags or {})
        with store_errors(f"start run {name!r}"):
            run = self.client.create_run(self.experiment_id, tags=known, run_name=name)
        tracked = TrackedRun(self.client, self.experiment_id, run.info.run_id)
        tracked.log_params(params or {})
        return tracked

    def reopen_run(self, run_id: str) -> TrackedRun:
        """An earlier run of this store, marked as running again.

        Raises:
            StoreError: there is no such run, or the store refuses.
        """
        with store_errors(f"reopen run {run_id}"):
            self.client.update_run(run_id, status="RUNNING")
            found = self.client.get_run(run_id)
        tracked = TrackedRun(self.client, found.info.experiment_id, run_id)
        tracked.set_tags(process_tags())
        return tracked


def run_tags(description: str, tags: Mapping[str, str]) -> dict[str, str]:
    """The tags of a new run: who writes it, what it is, and its own."""
    known = {MLFLOW_USER: _user(), MLFLOW_SOURCE_NAME: "cl-manifold"}
    known |= {MLFLOW_SOURCE_TYPE: "LOCAL"} | process_tags() | dict(tags)
    return known | ({MLFLOW_RUN_NOTE: description} if description else {})


def resolve_tracking_uri(explicit: str | None = None) -> str:
    """The store to use: `explicit`, else MLFLOW_TRACKING_URI, else ./mlruns/mlflow.db.

    The path of a sqlite address is made absolute, so that it survives a change of folder.
    """
    uri = explicit or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE
    database, (_, mark, options) = database_of(uri), uri.partition("?")
    return uri if database is None else f"{SQLITE}{database}{mark}{options}"


def connect(uri: str, experiment: str) -> Store:
    """Open the store, creating database, folder and experiment where they are missing.

    Raises:
        StoreError: the address is not one of a store, or the store cannot be reached or written, or
            its folder was moved.
    """
    database = database_of(uri)
    try:
        with _quiet(), environment(_QUICK), alone(database):
            make(database)
            client = MlflowClient(tracking_uri=uri)
            found = client.get_experiment_by_name(experiment)
            found = found or _create_experiment(client, experiment, database)
            if found.lifecycle_stage == "active":
                for key, value in _tags().items():
                    if key not in found.tags:
                        client.set_experiment_tag(found.experiment_id, key, value)
    except STORE_FAILURES as error:
        raise StoreError(
            f"cannot open the tracking store {public(uri)}: {reason(error)}; give the "
            "address of a running server or of a database that can be written, "
            f"such as {DEFAULT_STORE}"
        ) from error
    if found.lifecycle_stage != "active":
        raise StoreError(
            f"experiment {experiment!r} was deleted; restore it with "
            f"`mlflow experiments restore -x {found.experiment_id}` or choose another name"
        )
    if database is not None:
        refuse_moved(database, experiment, found.artifact_location, uri)
    return Store(client, uri, experiment, found.experiment_id)


def find_run(store: Store, text: str) -> str:
    """The id of the run meant by `text`: an id, the unique start of one, or "last".

    "last" is the run of this experiment that was started last, not counting the children of a
    comparison; ids are searched in all experiments.

    Raises:
        StoreError: no run or more than one run fits.
    """
    with store_errors("search for runs"):
        if text == "last":
            found = _newest(store)
        else:
            found = _runs_starting_with(store.client, text.lower())
    if len(found) == 1:
        return found[0]
    if found:
        raise StoreError(f"{len(found)} runs start with {text!r}; give more characters of the id")
    wanted = f"experiment {store.experiment!r} has no run" if text == "last" else f"no run {text!r}"
    raise StoreError(
        f"{wanted} in {public(store.uri)}; "
        "look up the id with `cl-manifold ui`, or name the store with --tracking-uri"
    )


def read_result(store: Store, run_id: str) -> tuple[str, str]:
    """The name and the text of the file that holds a run's result.

    Raises:
        StoreError: the run has no result yet, or never will; says how far it came.
    """
    with store_errors(f"list the files of run {run_id}"):
        present = {entry.path for entry in store.client.list_artifacts(run_id)}
    file = next((name for name in RESULTS if name in present), None)
    if file is None:
        raise StoreError(
            f"run {run_id} {_how_far(store, run_id)}; look at it with `cl-manifold ui`"
        )
    return file, read_artifact(store, run_id, file)


def _how_far(store: Store, run_id: str) -> str:
    """Status of a run without a result, and how many of its experiences are learned."""
    with store_errors(f"look at run {run_id}"):
        run = store.client.get_run(run_id)
        done = len(store.client.get_metric_history(run_id, "task/seconds"))
    total = run.data.params.get("stream.contexts", "?")
    return f"is {run.info.status} and has no result; {done} of {total} experiences are learned"


def read_artifact(store: Store, run_id: str, file: str) -> str:
    """The text of one of a run's files.

    Raises:
        StoreError: the run or the file does not exist; the message lists the files there are.
    """
    with store_errors(f"list the files of run {run_id}"):
        folder = file.rpartition("/")[0] or None
        present = [entry.path for entry in store.client.list_artifacts(run_id, folder)]
    if file not in present:
        raise StoreError(
            f"run {run_id} has no file {file!r}; it has {', '.join(present) or 'none'}"
        )
    with (
        store_errors(f"read {file} of run {run_id}"),
        environment(_NO_BARS),
        tempfile.TemporaryDirectory() as folder,
    ):
        path = store.client.download_artifacts(run_id, file, folder)
        return Path(path).read_text(encoding="utf-8")


def _newest(store: Store) -> list[str]:
    """The id of the newest run that is nobody's child, if there is one."""
    order, token = ["attributes.start_time DESC"], None
    while True:
        page = store.client.search_runs(
            [store.experiment_id], order_by=order, max_results=100, page_token=token
        )
        for run in page:
            if MLFLOW_PARENT_RUN_ID not in run.data.tags:
                return [run.info.run_id]
        token = page.token
        if not token:
            return []


def _runs_starting_with(client: MlflowClient, start: str) -> list[str]:
    """Ids of the runs, in any experiment, that start so; none for text that is not of an id."""
    if not re.fullmatch(r"[0-9a-f]{1,32}", start):
        return []
    experiments = [found.experiment_id for found in client.search_experiments()]
    fits = f"attributes.run_id LIKE '{start}%'"
    return [run.info.run_id for run in client.search_runs(experiments, fits)]


def _create_experiment(client: MlflowClient, name: str, database: Path | None) -> Experiment:
    """The new experiment, or the one that another process created in the meantime."""
    place = None if database is None else str(artifact_folder(database, name))
    try:
        return client.get_experiment(client.create_experiment(name, place, tags=_tags()))
    except MlflowException:
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return found


def _tags() -> dict[str, str]:
    """What MLflow's pages need to know of an experiment."""
    return _KIND | view_tag()


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what MLflow and alembic report about creating tables, unless the user chose a level."""
    names = [] if "MLFLOW_LOGGING_LEVEL" in os.environ else ["mlflow", "alembic"]
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables that MLflow reads, for a moment."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key)
            else:
                os.environ[key] = value


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
