"""Where the work of a comparison is done: in processes of this machine, or on a Ray cluster.

An engine knows nothing about runs. It takes pieces of work, does several at once and tells what
became of them as it happens. Work whose process dies is done again, twice at most.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final, runtime_checkable

from cl_manifold.errors import ConfigError

Tell = Callable[[Any], None]
"""Sends a message from where the work is done; messages may be lost, results never."""

Work = Callable[[Tell], Any]
"""A piece of work: picklable, takes a `Tell`, returns something picklable."""

ATTEMPTS = 3


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
class Engine(Protocol):
    """Does work; keeps its processes until it is closed."""

    def perform(self, works: Sequence[Work]) -> Iterator[Event]:
        """Do all of it; every piece ends with `Ended` or `Failed`."""
        ...

    def close(self) -> None:
        """Stop what is under way, wait for its clean end, leave no process behind."""
        ...


def engine_named(name: str, jobs: int) -> Engine:
    """The engine of that name, doing so many pieces of work at once.

    Raises:
        ConfigError: no such engine, fewer than one job, or Ray is not installed.
    """
    if jobs < 1:
        raise ConfigError(f"got {jobs} jobs, but needs 1 or more; give --jobs 2")
    if name == "processes":
        from cl_manifold.comparison.processes import ProcessEngine

        return ProcessEngine(jobs)
    if name == "ray":
        from cl_manifold.comparison.ray_engine import RayEngine

        return RayEngine(jobs)
    raise ConfigError(f"unknown engine {name!r}; choose processes or ray")


@final
class Agenda:
    """Which work waits, and how often each piece was begun."""

    def __init__(self, count: int) -> None:
        self._waiting = deque(range(count))
        self._attempts: Counter[int] = Counter()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def take(self) -> int:
        """The next piece."""
        index = self._waiting.popleft()
        self._attempts[index] += 1
        return index

    def died(self, index: int) -> Iterator[Lost | Failed]:
        """Its process died: it is put back, unless that happened too often."""
        yield Lost(index)
        if self._attempts[index] < ATTEMPTS:
            self._waiting.append(index)
        else:
            yield Failed(
                index,
                f"its process died {ATTEMPTS} times without a word; it may need more memory than "
                "there is: try fewer --jobs",
            )


def sentence_of(error: BaseException) -> str:
    """What is said of an error that nobody foresaw.

    >>> sentence_of(KeyError("a"))
    "KeyError: 'a'; this is a mistake in the program, its traceback is on standard error"
    """
    lines = str(error).strip().splitlines() or [""]
    said = f"{type(error).__name__}: {lines[0]}".rstrip(" .:")
    return f"{said}; this is a mistake in the program, its traceback is on standard error"
