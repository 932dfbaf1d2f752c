"""The engine of a Ray cluster: a local one, or the one at RAY_ADDRESS."""

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, final

from cl_manifold.comparison.engines import (
    Agenda,
    Ended,
    Event,
    Failed,
    Started,
    Work,
    sentence_of,
)
from cl_manifold.errors import ConfigError, StoreError

_GRACE = 60.0


@final
class RayEngine:
    """So many Ray tasks at once, one CPU each; messages from work are not passed on.

    Every machine of the cluster needs this package, the data and a way to the tracking server.
    """

    def __init__(self, jobs: int) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            ray: Any = import_module("ray")
        except ImportError:
            raise ConfigError(
                "the engine ray needs Ray; install it with pip install 'cl-manifold[ray]'"
            ) from None
        self._ray = ray
        self._jobs = jobs
        self._running: dict[Any, int] = {}
        address = os.environ.get("RAY_ADDRESS") or None
        local: dict[str, Any] = {} if address else {"num_cpus": jobs, "include_dashboard": False}
        main = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address=address, log_to_driver=False, logging_level="error", **local)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise StoreError(
                f"no Ray cluster could be reached ({error}); start one, correct RAY_ADDRESS, or "
                "use --engine processes"
            ) from error
        finally:
            if main:
                signal.signal(signal.SIGTERM, before)

    def perform(self, works: Sequence[Work]) -> Iterator[Event]:
        """Do all of it; work whose process dies is handed out again."""
        ray, agenda = self._ray, Agenda(len(works))
        task = ray.remote(num_cpus=1, max_retries=0)(_do)
        while agenda or self._running:
            while agenda and len(self._running) < self._jobs:
                index = agenda.take()
                self._running[task.remote(works[index])] = index
                yield Started(index)
            done, _ = ray.wait(list(self._running), num_returns=1, timeout=1.0)
            for reference in done:
                index = self._running.pop(reference)
                yield from self._outcome(reference, index, agenda)

    def _outcome(self, reference: Any, index: int, agenda: Agenda) -> Iterator[Event]:
        errors = self._ray.exceptions
        try:
            yield Ended(index, self._ray.get(reference))
        except errors.RayTaskError as error:
            yield Failed(index, sentence_of(error.cause))
        except errors.RayError:
            yield from agenda.died(index)

    def close(self) -> None:
        """Stop the tasks, which close their runs first, and leave the cluster."""
        if not self._ray.is_initialized():
            return
        left = list(self._running)
        for reference in left:
            self._ray.cancel(reference, force=False)
        if left:
            self._ray.wait(left, num_returns=len(left), timeout=_GRACE)
        self._running.clear()
        self._ray.shutdown()


def _do(work: Work) -> Any:
    return work(_silence)


def _silence(message: Any) -> None:
    """Ray has no way back before the result."""
