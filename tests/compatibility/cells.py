"""A cell of the matrix and how it is judged."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import checks, interface
from .recording import Run, Score, accuracy, perform
from .scenarios import Scenario

RIGHT, REFUSED, WITHOUT, WRONG, RAW = (
    "right", "refused", "fails without us", "WRONG", "RAW ERROR",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Cell:
    """One strategy, network or loss in one scenario.

    Attributes:
        table: strategies, networks or losses.
        row: for the table.
        column: for the table.
        scenario: builds the stream anew.
        build: the strategy from (scenario, plugins, loggers).
        score: of outputs and targets.
        jointly: one training on the whole stream.
        whole: whether a network's answers follow from its parameters and buffers alone.
        logged: whether the logger is tried alone as well.
        options: of `train` and `eval`.
        skip: why the cell cannot run on this machine, or nothing.
    """

    table: str
    row: str
    column: str
    scenario: Callable[[], Scenario]
    build: Callable[[Scenario, list[Any], list[Any]], Any]
    score: Score = accuracy
    jointly: bool = False
    whole: bool = True
    logged: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    skip: str = ""

    @property
    def name(self) -> str:
        """Table, row and column, readable."""
        return " | ".join((self.table, self.row, self.column))


@dataclass(frozen=True)
class Outcome:
    """How a cell ended.

    Attributes:
        kind: one of the five words above.
        notes: sentences: refusals, errors, which check failed.
    """

    kind: str
    notes: tuple[str, ...] = ()


def judge(cell: Cell) -> Outcome:
    """Run the cell without and with the plugin, and check what can be checked."""
    bare = perform(cell, None)
    if bare.error is not None:
        return Outcome(WITHOUT, (told(bare.error),))
    runs = {way: perform(cell, way) for way in interface.INFORMATION}
    if raw := [f"{way}: {_raw(run)}" for way, run in runs.items() if _raw(run)]:
        return Outcome(RAW, tuple(raw))
    faults = checks.logger_only_looks(cell, bare) if cell.logged else []
    for way, run in runs.items():
        faults += [] if run.error is not None else _faults(cell, way, run, bare)
    if faults:
        return Outcome(WRONG, tuple(faults))
    refusals = [told(run.error) for run in runs.values() if run.error is not None]
    if refusals:
        return Outcome(REFUSED, tuple(dict.fromkeys(refusals)))
    return Outcome(RIGHT, tuple(s for run in runs.values() for s in run.warned))


def _faults(cell: Cell, way: str, run: Run, bare: Run) -> list[str]:
    faults = [f"{way}: {f}" for f in checks.trained_is_evaluated(run, bare, cell.jointly)]
    faults += [f"{way}: {f}" for f in checks.nothing_added_late(run, bare)]
    faults += [f"{way}: {f}" for f in checks.still_learns(run, bare)]
    if cell.jointly:
        return faults
    return faults + (checks.earlier_stay if way == "exact" else checks.earlier_remembered)(run)


def _raw(run: Run) -> str:
    """The error, unless it is a refusal from before the first training step."""
    if run.error is None:
        return ""
    if not isinstance(run.error, interface.Refusal):
        return told(run.error)
    return "" if run.recorder.steps == 0 else f"after {run.recorder.steps} steps: {told(run.error)}"


def told(error: Exception) -> str:
    """Type and the first line of the message; a refusal is its sentence."""
    text = " ".join(str(error).split())
    return text if isinstance(error, interface.Refusal) else f"{type(error).__name__}: {text[:160]}"
