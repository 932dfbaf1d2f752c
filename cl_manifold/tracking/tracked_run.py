"""One run in an MLflow store: what it accepts and how people find it in the browser.

Uses MLflow's client with the run's id only, never MLflow's global "active run", so that several
runs can be open at once and nothing leaks from one to the next.
"""

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from math import isfinite, nan
from pathlib import Path, PurePosixPath
from typing import Any, Literal, final

from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS, MLFLOW_RUN_NOTE
from sqlalchemy.exc import SQLAlchemyError

from cl_manifold.errors import StoreError, context_text, public
from cl_manifold.tracking.folder_client import FolderClient
from cl_manifold.tracking.interrupt import uninterrupted
from cl_manifold.tracking.keys import legal_key

DEFAULT_STORE = "sqlite:///mlruns/mlflow.db"
EXPERIMENT = "cl-manifold"
STORE_FAILURES = (MlflowException, OSError, ImportError, sqlite3.Error, SQLAlchemyError)


@dataclass(frozen=True)
class Addresses:
    """Where to look at a run.

    Attributes:
        command: what starts the user interface; empty where a server already serves the store.
        run: address of the run's page.
        report: address of its `report.html`, shown inside MLflow.
        experiment: address of the list of runs.
    """

    command: str
    run: str
    report: str
    experiment: str


@final
class TrackedRun:
    """A run that is being written. `Store.start_run` makes one, `finish` closes it.

    Every method raises `StoreError` where the store refuses.
    """

    def __init__(
        self, client: MlflowClient | FolderClient, experiment_id: str, run_id: str
    ) -> None:
        self.client = client
        self.experiment_id = experiment_id
        self.run_id = run_id

    @property
    def safe(self) -> bool:
        """Whether what was written so far outlives this process."""
        return not isinstance(self.client, FolderClient) or self.client.folder.safe

    def log_metrics(self, metrics: Mapping[str, float | int | None], step: int = 0) -> None:
        """All metrics in one batch; None is left out, NaN and infinities become NaN."""
        now = int(time.time() * 1000)
        batch = [
            Metric(legal_key(key), float(value) if isfinite(value) else nan, now, step)
            for key, value in metrics.items()
            if value is not None
        ]
        if batch:
            with self._writing("metrics"):
                self.client.log_batch(self.run_id, metrics=batch)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Settings of the run, shown on its overview page."""
        batch = [Param(legal_key(key), str(value)) for key, value in params.items()]
        if batch:
            with self._writing("params"):
                self.client.log_batch(self.run_id, params=batch)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set or replace tags."""
        if tags:
            with self._writing("tags"):
                batch = [RunTag(key, value) for key, value in tags.items()]
                self.client.log_batch(self.run_id, tags=batch)

    def set_description(self, text: str) -> None:
        """The Markdown text at the top of the run's page."""
        self.set_tags({MLFLOW_RUN_NOTE: text})

    def set_name(self, name: str) -> None:
        """Rename the run."""
        with self._writing("the name"):
            self.client.update_run(self.run_id, name=name)

    def log_dataset(self, name: str, digest: str, context: str) -> None:
        """The data that the run used, for the data-set column of MLflow's list of runs."""
        dataset = Dataset(name=name, digest=digest, source_type="local", source=name)
        tags = [InputTag("mlflow.data.context", context)]
        with self._writing("the data set"):
            self.client.log_inputs(self.run_id, [DatasetInput(dataset, tags)])

    def log_text(self, text: str, file: str) -> None:
        """A text file; Markdown and HTML are shown as pages."""
        with self._writing(file):
            self.client.log_text(self.run_id, text, file)

    def log_json(self, value: Any, file: str) -> None:
        """Numbers, text, lists and dicts as JSON; numbers that are not finite become null."""
        self.log_text(json.dumps(_plain(value), indent=1, ensure_ascii=False), file)

    def log_table(self, rows: Sequence[Mapping[str, Any]], file: str) -> None:
        """A table that MLflow shows and `mlflow.load_table` reads; replaces the file's old one."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        data = [[_cell(row.get(column)) for column in columns] for row in rows]
        self.log_text(json.dumps({"columns": columns, "data": data}, ensure_ascii=False), file)
        with self._writing(file):
            known = self.client.get_run(self.run_id).data.tags.get(MLFLOW_LOGGED_ARTIFACTS, "[]")
        tables = json.loads(known)
        entry = {"path": file, "type": "table"}
        if entry not in tables:
            self.set_tags({MLFLOW_LOGGED_ARTIFACTS: json.dumps([*tables, entry])})

    def log_figure(self, figure: Figure, file: str) -> None:
        """A figure as PNG or SVG, by the file's ending."""
        with self._writing(file):
            self.client.log_figure(self.run_id, figure, file, save_kwargs={"dpi": 150})

    def finish(self, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED") -> None:
        """Close the run. MLflow prints links here, with the password of an address that has one."""
        with self._writing("the end of the run"), redirect_stdout(StringIO()):
            self.client.set_terminated(self.run_id, status)

    def addresses(self, host: str = "127.0.0.1", port: int = 5000) -> Addresses:
        """Where to look at this run; host and port are those of `cl-manifold ui`.

        Without `workflowType` MLflow opens its pages for language models, which hide the charts.
        """
        uri = public(self.client.tracking_uri)
        served = uri.startswith(("http://", "https://"))
        site = uri.rstrip("/") if served else f"http://{host}:{port}"
        experiment = f"{site}/#/experiments/{self.experiment_id}/runs"
        training = "?workflowType=machine_learning"
        below = "" if self.run_id.startswith("local-") else f"/{self.run_id}"
        return Addresses(
            command="" if served else _ui_command(uri, host, port),
            run=f"{experiment}{below}{training}",
            report=f"{experiment}{below}/artifacts/report.html{training}" if below else "",
            experiment=f"{experiment}{training}",
        )

    def _writing(self, what: str) -> AbstractContextManager[None]:
        return store_errors(f"write {what} to run {self.run_id}")


@contextmanager
def store_errors(action: str) -> Iterator[None]:
    """Turn what MLflow, its database or the disk raise into one `StoreError` sentence.

    Signals that stop a run wait until the action is complete.
    """
    try:
        with uninterrupted():
            yield
    except STORE_FAILURES as error:
        raise StoreError(
            f"cannot {action}: {reason(error)}; check that the store is reachable and writable"
        ) from error


def reason(error: BaseException) -> str:
    """Why a store failed, in one line: what the disk, database or network said, if one did."""
    said, cause = error, error
    while cause := cause.__cause__ or cause.__context__:
        if isinstance(cause, OSError | sqlite3.Error) and str(cause):
            said = cause
    lines = str(said).strip().splitlines() or [type(said).__name__]
    return public(lines[0].split(". ")[0])[:200].rstrip(" .;")


def _ui_command(uri: str, host: str, port: int) -> str:
    words = [f"cl-manifold ui{named_store(uri)}"]
    words += [] if host == "127.0.0.1" else [f"--host {host}"]
    words += [] if port == 5000 else [f"--port {port}"]
    return " ".join(words)


def named_store(uri: str) -> str:
    """What a command needs to find the store from this folder: nothing for the default one."""
    default = DEFAULT_STORE.removeprefix("sqlite:///")
    ours = PurePosixPath(uri.removeprefix("sqlite:///")) == PurePosixPath(Path.cwd() / default)
    return "" if ours else f" --tracking-uri {uri}"


def _plain(value: Any) -> Any:
    """Dicts, lists and scalars that strict JSON accepts."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not isfinite(value):
        return None
    return value


def _cell(value: Any) -> Any:
    """One cell of a table: a sequence of numbers becomes text."""
    if isinstance(value, list | tuple):
        return context_text(value) if value else ""
    return _plain(value)
