"""Work on a Ray cluster: a local one, or the one at RAY_ADDRESS."""

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, final

from cl_manifold.comparison.workers import GRACE, Ended, Event, Failed, Lost, Work, sentence_of
from cl_manifold.errors import ConfigError, StoreError


@final
class Ray:
    """A task for every piece of work, one CPU each; messages from work are not passed on.

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
        address = os.environ.get("RAY_ADDRESS") or "local"
        own = {"num_cpus": jobs, "include_dashboard": False} if address == "local" else {}
        main = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address=address, log_to_driver=False, logging_level="error", **own)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise StoreError(
                f"no Ray cluster could be reached ({error}); start one, correct RAY_ADDRESS, or "
                "use --engine processes"
            ) from error
        finally:
            if main:
                signal.signal(signal.SIGTERM, before)
        self._task = ray.remote(num_cpus=1, max_retries=0)(_do)

    def start(self, work: Work) -> Any:
        """A task for it."""
        return self._task.remote(work)

    def heard(self, running: Sequence[Any]) -> Iterator[tuple[Any, Event]]:
        """What ended."""
        done, _ = self._ray.wait(list(running), num_returns=1, timeout=1.0)
        for reference in done:
            yield reference, self._outcome(reference)

    def close(self, running: Sequence[Any]) -> None:
        """Stop the tasks, which close their runs first, and leave the cluster."""
        if not self._ray.is_initialized():
            return
        for reference in running:
            self._ray.cancel(reference, force=False)
        if running:
            self._ray.wait(list(running), num_returns=len(running), timeout=GRACE)
        self._ray.shutdown()

    def _outcome(self, reference: Any) -> Event:
        errors = self._ray.exceptions
        try:
            return Ended(-1, self._ray.get(reference))
        except errors.RayTaskError as error:
            return Failed(-1, sentence_of(error.cause))
        except errors.RayError:
            return Lost(-1)


def _do(work: Work) -> Any:
    return work(_silence)


def _silence(message: Any) -> None:
    """Ray has no way back before the result."""
