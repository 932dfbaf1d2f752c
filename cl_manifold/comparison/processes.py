"""The engine of this machine: a few processes that stay, so that libraries are loaded once."""

import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any, final

from cl_manifold.comparison.engines import (
    Agenda,
    Ended,
    Event,
    Failed,
    Started,
    Told,
    Work,
    sentence_of,
)

_PRELOADED = ["cl_manifold.experiments.running", "cl_manifold.comparison.jobs"]
_SHARING = {"OMP_NUM_THREADS": "1"}
"""One thread per process, unless the user says otherwise: several share the cores."""

_GRACE = 60.0
"""Seconds in which a stopped worker may write down what it had finished."""


@final
class ProcessEngine:
    """So many processes at once, each doing one piece of work after the other.

    Where the system can fork, a server process loads the libraries once and all workers start from
    it; elsewhere every worker loads them. Results do not depend on the number of processes: also
    one job runs in a process of its own.
    """

    def __init__(self, jobs: int) -> None:
        begin_loading()
        self._context: Any = multiprocessing.get_context("forkserver" if _forks() else "spawn")
        self._jobs = jobs
        self._workers: list[_Worker] = []
        self._environment = _SHARING | dict(os.environ)

    def perform(self, works: Sequence[Work]) -> Iterator[Event]:
        """Do all of it; a process that dies is replaced."""
        agenda = Agenda(len(works))
        while agenda or self._busy():
            for worker in self._idle(len(works)):
                if agenda:
                    index = agenda.take()
                    worker.begin(index, works[index])
                    yield Started(index)
            for worker in self._busy():
                dead = worker.gone()
                event = worker.heard()
                if event is not None:
                    yield event
                elif dead:
                    yield from agenda.died(worker.taken())
                if (event is None and dead) or isinstance(event, Failed):
                    self._discard(worker)
            wait([thing for worker in self._busy() for thing in worker.waited_for()], 1.0)

    def close(self) -> None:
        """Stop all processes; those at work close their runs first."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.stop()
        deadline = time.monotonic() + _GRACE
        for worker in workers:
            worker.wait_for_end(max(0.0, deadline - time.monotonic()))

    def _idle(self, wanted: int) -> list["_Worker"]:
        """Workers without work; as many as are useful are started."""
        for worker in [w for w in self._workers if w.index is None and w.gone()]:
            self._discard(worker)
        while len(self._workers) < min(self._jobs, wanted):
            self._workers.append(_Worker(self._context, self._environment))
        return [worker for worker in self._workers if worker.index is None]

    def _busy(self) -> list["_Worker"]:
        return [worker for worker in self._workers if worker.index is not None]

    def _discard(self, worker: "_Worker") -> None:
        """A worker that died, or is about to."""
        if worker in self._workers:
            self._workers.remove(worker)
            worker.wait_for_end(_GRACE)


def begin_loading() -> None:
    """Start the server of processes now: it loads libraries while this one does other things."""
    if not _forks():
        return
    from multiprocessing import forkserver

    multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOADED)
    added = [key for key in _SHARING if key not in os.environ]
    os.environ.update({key: _SHARING[key] for key in added})
    try:
        forkserver.ensure_running()
    finally:
        for key in added:
            del os.environ[key]


def _forks() -> bool:
    return "forkserver" in multiprocessing.get_all_start_methods()


@final
class _Worker:
    """One process and the work it has, if any."""

    def __init__(self, context: Any, environment: Mapping[str, str]) -> None:
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, environment), daemon=True)
        self._process.start()
        theirs.close()
        self.index: int | None = None

    def begin(self, index: int, work: Work) -> None:
        self.index = index
        try:
            self._ours.send(work)
        except OSError:
            self._process.join()  # it died idle; `gone` will find it

    def heard(self) -> Event | None:
        """The next thing it said; None where it said nothing or is dead."""
        index = self.taken()
        try:
            if not self._ours.poll():
                return None
            event = self._ours.recv()
        except (EOFError, OSError):
            self._process.join(_GRACE)
            return None
        if isinstance(event, Ended | Failed):
            self.index = None
        return _numbered(event, index)

    def taken(self) -> int:
        """The number of the work it has."""
        assert self.index is not None
        return self.index

    def gone(self) -> bool:
        return not self._process.is_alive()

    def waited_for(self) -> tuple[Any, Any]:
        return self._ours, self._process.sentinel

    def stop(self) -> None:
        self._process.terminate()

    def wait_for_end(self, seconds: float) -> None:
        self._process.join(seconds)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._ours.close()


def _numbered(event: Event, index: int) -> Event:
    if isinstance(event, Told):
        return Told(index, event.message)
    if isinstance(event, Ended):
        return Ended(index, event.value)
    return Failed(index, event.problem) if isinstance(event, Failed) else event


# -- in the worker ---------------------------------------------------------------------------------


def serve(connection: Connection, environment: Mapping[str, str]) -> None:
    """Do work until the other side hangs up, stops this process or dies.

    Ctrl-C reaches all processes of a terminal at once; only the parent listens to it, and stops
    its workers with SIGTERM.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    os.environ.clear()
    os.environ.update(environment)
    warnings.simplefilter("ignore")
    try:
        threading.Thread(target=_follow_parent, daemon=True).start()
        while True:
            work = connection.recv()
            _do(work, connection)
    except (EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        return


def _do(work: Work, connection: Connection) -> None:
    """One piece of work; after an error that nobody foresaw this process is not used again."""
    try:
        value = work(lambda message: connection.send(Told(-1, message)))
    except Exception as error:
        connection.send(Failed(-1, sentence_of(error)))
        raise
    connection.send(Ended(-1, value))


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _follow_parent() -> None:
    """A worker whose parent died stops as if it had been told to."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
