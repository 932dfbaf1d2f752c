"""What a comparison is asked to do, what it finds, and who watches it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, final, runtime_checkable

from cl_manifold.comparison.entries import Entry, Layers, of_stream
from cl_manifold.comparison.jobs import Progress
from cl_manifold.comparison.outcome import Outcome
from cl_manifold.comparison.rows import Row


@final
@dataclass(frozen=True)
class ComparisonOrder:
    """What was asked for.

    Attributes:
        entries: the strategies.
        seeds: every entry runs with each of them.
        layers: the user's settings for all runs, as for `config.resolve`.
        jobs: how many runs go on at once.
        engine: "processes" or "ray".
        tune: first choose each strategy's values from its grid, on validation data.
        tuned: further values to choose from, by "section.key"; they replace those of the strategy.
        tuned_by: "score", or "unseen_score", that of contexts that were left out.
        trials: candidates per strategy at most, drawn at random; None is all of them.
        fresh: begin anew, even where an unfinished comparison could be continued.
        command: that repeats the comparison, for the report.
    """

    entries: tuple[Entry, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    layers: Layers = ()
    jobs: int = 2
    engine: str = "processes"
    tune: bool = False
    tuned: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tuned_by: str = "score"
    trials: int | None = None
    fresh: bool = False
    command: str = ""

    def data(self) -> dict[str, str]:
        """By label the settings of the stream that the entry has for itself, as text."""
        own = {e.label: {k: v for k, v in e.values.items() if of_stream(k)} for e in self.entries}
        return {
            label: ", ".join(f"{key} = {value}" for key, value in values.items())
            for label, values in own.items()
        }


@final
@dataclass(frozen=True)
class ComparisonResult:
    """What a comparison found; fields as in `compare --json`.

    Attributes:
        rows: one per strategy that has a result, highest mean score first.
        problems: label, seed and one sentence for every run without a result.
        tuned: values that tuning chose, by label and "section.key".
    """

    run_id: str
    stream: str
    seeds: tuple[int, ...]
    rows: Sequence[Row]
    problems: Sequence[Mapping[str, Any]]
    tuned: Mapping[str, Mapping[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "run_id": self.run_id,
            "stream": self.stream,
            "seeds": list(self.seeds),
            "rows": [row.as_dict() for row in self.rows],
            "problems": [dict(problem) for problem in self.problems],
            "tuned": {label: dict(values) for label, values in self.tuned.items()},
        }


@final
@dataclass(frozen=True)
class Outlook:
    """What is about to happen.

    Attributes:
        labels: the entries.
        jobs: how many runs go on at once.
        total: runs of the comparison, those of tuning included.
        present: how many of them an earlier start has finished.
        resumed: whether there was an earlier start.
    """

    stream: str
    labels: tuple[str, ...]
    seeds: tuple[int, ...]
    jobs: int
    total: int
    present: int
    resumed: bool


@runtime_checkable
class Watcher(Protocol):
    """Who watches a comparison; the command line draws it. By itself it says nothing."""

    def recording(self, run: Any) -> None:
        """The MLflow run of the comparison, a `TrackedRun`, exists."""

    def begin(self, outlook: Outlook) -> None:
        """Everything is checked, runs start."""

    def progress(self, label: str, seed: int, progress: Progress | None) -> None:
        """A run is so far; None: it starts."""

    def say(self, sentence: str) -> None:
        """Something that the user should know; the comparison goes on."""

    def lost(self, label: str, seed: int) -> None:
        """The process of a run died; it is done again, or becomes a problem."""

    def finished(self, outcome: Outcome, earlier: bool) -> None:
        """A run is done, now or by an earlier start."""

    def tried(self, outcome: Outcome, candidate: str, earlier: bool) -> None:
        """A candidate of tuning is done, now or by an earlier start."""

    def tuned(self, label: str, values: Mapping[str, Any], tried: int) -> None:
        """So many candidates were tried for a strategy, and these values chosen."""


@final
class Nobody(Watcher):
    """A watcher that says nothing."""
