"""Where the work of a comparison is done: a process per piece on this machine, or a Ray cluster.

Knows nothing about runs. Several pieces go on at once, and what becomes of them is told as it
happens. Work whose process dies is done again, twice at most.
"""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any, Protocol, final, runtime_checkable

from cl_manifold.errors import ConfigError

Tell = Callable[[Any], None]
"""Sends a message from where the work is done; messages may be lost, results never."""

Work = Callable[[Tell], Any]
"""A piece of work: picklable, takes a `Tell`, returns something picklable."""

ATTEMPTS = 3
GRACE = 60.0
"""Seconds in which stopped work may write down what it had finished."""
_PRELOADED = ["cl_manifold.experiments.running", "cl_manifold.comparison.jobs"]
_SHARING = {"OMP_NUM_THREADS": "1"}
"""One thread per process, unless the user says otherwise: several share the cores."""
_SOMEBODY = -1


@final
@dataclass(frozen=True)
class Started:
    """Work number `index` is under way."""

    index: int


@final
@dataclass(frozen=True)
class Told:
    """Work number `index` sent a message."""

    index: int
    message: Any


@final
@dataclass(frozen=True)
class Ended:
    """Work number `index` returned `value`."""

    index: int
    value: Any


@final
@dataclass(frozen=True)
class Lost:
    """The process of work number `index` died; it is done again, or `Failed` follows."""

    index: int


@final
@dataclass(frozen=True)
class Failed:
    """Work number `index` has no result; `problem` says why in one sentence."""

    index: int
    problem: str


Event = Started | Told | Ended | Lost | Failed


@runtime_checkable
class Place(Protocol):
    """Where pieces of work can be started."""

    def start(self, work: Work) -> Any:
        """Begin it; returns a handle."""
        ...

    def heard(self, running: Sequence[Any]) -> Iterator[tuple[Any, Event]]:
        """Handles and what they said since, after a second at most; `Lost` where one died."""
        ...

    def close(self, running: Sequence[Any]) -> None:
        """Stop what is under way, wait for its clean end, leave no process behind."""
        ...


def workers(name: str, jobs: int) -> "Workers":
    """Workers on this machine ("processes") or on a cluster ("ray").

    Raises:
        ConfigError: no such place, fewer than one job, or Ray is not installed.
    """
    if jobs < 1:
        raise ConfigError(f"got {jobs} jobs, but needs 1 or more; give --jobs 2")
    if name == "processes":
        return Workers(Processes(), jobs)
    if name == "ray":
        from cl_manifold.comparison.on_ray import Ray

        return Workers(Ray(jobs), jobs)
    raise ConfigError(f"unknown engine {name!r}; choose processes or ray")


@final
class Workers:
    """Does so many pieces of work at once."""

    def __init__(self, place: Place, jobs: int) -> None:
        self._place, self._jobs = place, jobs
        self._running: dict[Any, int] = {}

    def perform(self, works: Sequence[Work]) -> Iterator[Event]:
        """Do all of it; every piece ends with `Ended` or `Failed`."""
        waiting, attempts = deque(range(len(works))), Counter[int]()
        while waiting or self._running:
            while waiting and len(self._running) < self._jobs:
                index = waiting.popleft()
                attempts[index] += 1
                self._running[self._place.start(works[index])] = index
                yield Started(index)
            for handle, said in self._place.heard(list(self._running)):
                index = self._running[handle]
                if not isinstance(said, Told):
                    del self._running[handle]
                yield replace(said, index=index)
                if isinstance(said, Lost) and attempts[index] < ATTEMPTS:
                    waiting.append(index)
                elif isinstance(said, Lost):
                    yield Failed(
                        index,
                        f"its process died {ATTEMPTS} times without a word; it may need more "
                        "memory than there is: try fewer --jobs",
                    )

    def close(self) -> None:
        """Stop what is under way and leave no process behind."""
        running, self._running = list(self._running), {}
        self._place.close(running)


def sentence_of(error: BaseException) -> str:
    """What is said of an error that nobody foresaw.

    >>> sentence_of(KeyError("a"))
    "KeyError: 'a'; this is a mistake in the program, its traceback is on standard error"
    """
    lines = str(error).strip().splitlines() or [""]
    said = f"{type(error).__name__}: {lines[0]}".rstrip(" .:")
    return f"{said}; this is a mistake in the program, its traceback is on standard error"


# -- processes of this machine ---------------------------------------------------------------------


@final
class Processes:
    """A process for every piece of work, so that no run can leave anything to the next.

    Where the system can fork, a server process loads the libraries once and all others start from
    it; elsewhere every process loads them. Results do not depend on the number of processes: also
    one job runs in a process of its own.
    """

    def __init__(self) -> None:
        begin_loading()
        self._context: Any = multiprocessing.get_context("forkserver" if _forks() else "spawn")
        self._environment = _SHARING | dict(os.environ)

    def start(self, work: Work) -> "_Process":
        """A process for it."""
        return _Process(self._context, work, self._environment)

    def heard(self, running: Sequence["_Process"]) -> Iterator[tuple["_Process", Event]]:
        """What the processes said."""
        wait([sign for one in running for sign in one.signs()], 1.0)
        for one in running:
            for event in one.heard():
                yield one, event

    def close(self, running: Sequence["_Process"]) -> None:
        """Stop all; those at work close their runs first."""
        for one in running:
            one.stop()
        for one in running:
            one.end()


@final
class _Process:
    """A process that does one piece of work."""

    def __init__(self, context: Any, work: Work, environment: Mapping[str, str]) -> None:
        self._ours, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=_serve, args=(work, theirs, environment))
        self._process.daemon = True
        self._process.start()
        theirs.close()

    def signs(self) -> tuple[Any, Any]:
        """What `multiprocessing.connection.wait` waits for."""
        return self._ours, self._process.sentinel

    def heard(self) -> Iterator[Event]:
        """What it said; after its result, or its death, it is gone."""
        dead = not self._process.is_alive()
        try:
            while self._ours.poll():
                event = self._ours.recv()
                if isinstance(event, Ended | Failed):
                    self.end()
                    yield event
                    return
                yield event
        except (EOFError, OSError):
            dead = True
        if dead:
            self.end()
            yield Lost(_SOMEBODY)

    def stop(self) -> None:
        """Tell it to."""
        self._process.terminate()

    def end(self) -> None:
        """Wait until it is gone; it is killed where that takes too long."""
        self._process.join(GRACE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._ours.close()


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


def _serve(work: Work, connection: Connection, environment: Mapping[str, str]) -> None:
    """Do the work, in the process of its own.

    Ctrl-C reaches all processes of a terminal at once; only the parent listens to it, and stops
    the others with SIGTERM. A process whose parent dies stops as if it had been told to.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    os.environ.clear()
    os.environ.update(environment)
    warnings.simplefilter("ignore")
    try:
        threading.Thread(target=_follow_parent, daemon=True).start()
        try:
            value = work(lambda message: connection.send(Told(_SOMEBODY, message)))
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            sys.stderr.flush()
            connection.send(Failed(_SOMEBODY, sentence_of(error)))
        else:
            connection.send(Ended(_SOMEBODY, value))
    except (BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        return


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
