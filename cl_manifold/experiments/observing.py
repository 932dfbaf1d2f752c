"""Who watches a trial."""

from typing import TYPE_CHECKING, Any, Protocol, final, runtime_checkable

if TYPE_CHECKING:
    from cl_manifold.contexts import TaskRecord
else:  # takes seconds to load, which whoever only starts processes need not wait for
    TaskRecord = Any


@runtime_checkable
class Observer(Protocol):
    """Who watches a trial; the command line draws it. By itself it says nothing."""

    def recording(self, run: Any) -> None:
        """The MLflow run, a `TrackedRun`, exists."""

    def begin(self, stream: Any, config: Any) -> None:
        """Everything is built, training starts."""

    def task(self, experience: int, name: str) -> None:
        """Training on an experience starts."""

    def epoch(self, experience: int, epoch: int, loss: float) -> None:
        """An epoch (from 0) has ended."""

    def learned(self, record: TaskRecord, score_so_far: float) -> None:
        """An experience is learned and evaluated."""

    def say(self, sentence: str) -> None:
        """Something that the user should know; the trial goes on."""


@final
class Silence(Observer):
    """An observer that says nothing."""
