"""Recording that outlives its store: training goes on where a tracking server goes away.

Whoever uses this keeps the result elsewhere and sends it later; nothing here does.
"""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, final

from mlflow import MlflowClient
from mlflow.entities import Run, RunData, RunInfo

from cl_manifold.tracking.store import Store, environment
from cl_manifold.tracking.tracked_run import STORE_FAILURES, reason

_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""A server that is gone costs seconds, not the minutes of MLflow's own settings."""


@final
class ForgivingClient(MlflowClient):
    """Writes until the store refuses once, and nothing from then on.

    A run that is started after the refusal, or refused itself, gets an id that no store knows.

    Attributes:
        refusal: why the store refused, in one line; None while it accepts.
        invented: ids of runs that no store knows.
    """

    def __init__(self, tracking_uri: str) -> None:
        super().__init__(tracking_uri)
        self.refusal: str | None = None
        self.invented: set[str] = set()

    def create_run(self, experiment_id: str, *rest: Any, **named: Any) -> Run:
        """Start a run, of the store or invented."""
        run = self._attempt(super().create_run, experiment_id, *rest, **named)
        if run is None:
            run = _unknown_run(uuid.uuid4().hex, experiment_id)
            self.invented.add(run.info.run_id)
        return run

    def get_run(self, run_id: str) -> Run:
        """A run of the store, or an empty one."""
        return self._attempt(super().get_run, run_id) or _unknown_run(run_id, "")

    def log_batch(self, *words: Any, **named: Any) -> Any:
        """Metrics, params and tags."""
        return self._attempt(super().log_batch, *words, **named)

    def log_inputs(self, *words: Any, **named: Any) -> None:
        """The data set."""
        self._attempt(super().log_inputs, *words, **named)

    def update_run(self, *words: Any, **named: Any) -> None:
        """Name or status."""
        self._attempt(super().update_run, *words, **named)

    def set_terminated(self, *words: Any, **named: Any) -> None:
        """The end of a run."""
        self._attempt(super().set_terminated, *words, **named)

    def log_text(self, *words: Any, **named: Any) -> None:
        """A text file."""
        self._attempt(super().log_text, *words, **named)

    def log_figure(self, *words: Any, **named: Any) -> None:
        """A figure."""
        self._attempt(super().log_figure, *words, **named)

    def log_artifact(self, *words: Any, **named: Any) -> None:
        """A file."""
        self._attempt(super().log_artifact, *words, **named)

    def _attempt(self, write: Callable[..., Any], *words: Any, **named: Any) -> Any:
        if self.refusal is not None:
            return None
        try:
            with patience():
                return write(*words, **named)
        except STORE_FAILURES as error:
            self.refusal = reason(error)
            return None


@contextmanager
def patience() -> Iterator[None]:
    """Wait seconds for a server inside, unless the user chose how long."""
    with environment({key: value for key, value in _PATIENCE.items() if key not in os.environ}):
        yield


def forgiving(store: Store) -> tuple[Store, ForgivingClient]:
    """The same store behind a client of its own that forgives, and this client."""
    client = ForgivingClient(store.uri)
    return replace(store, client=client), client


def _unknown_run(run_id: str, experiment_id: str) -> Run:
    return Run(RunInfo(run_id, experiment_id, "", "RUNNING", 0, None, "active"), RunData())
