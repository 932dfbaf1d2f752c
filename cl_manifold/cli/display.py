"""What people see on standard error while a run goes on, and its table at the end."""

import os
import sys
from functools import cache
from pathlib import Path
from shutil import which
from types import TracebackType
from typing import Any, final

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from cl_manifold.contexts.record import TaskRecord

BARS = "▁▂▃▄▅▆▇█"
WIDE = 100
"""Columns of a terminal from which the progress has a bar."""


@cache
def console() -> Console:
    """The console of standard error; text is shown as it is, whatever stands in it."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


@final
class Display:
    """An observer that says a line per experience and, on a terminal, how far the next one is."""

    def __init__(self) -> None:
        shown = console()
        columns: list[ProgressColumn] = [
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.fields[state]}", markup=False),
        ]
        if shown.width >= WIDE:
            columns.insert(1, BarColumn(bar_width=24))
            columns.insert(2, TextColumn("{task.completed:.0f}/{task.total:.0f} epochs"))
        columns.append(TimeElapsedColumn())
        self._progress = Progress(
            *columns, console=shown, disable=not shown.is_terminal, transient=True
        )
        self._bar: TaskID | None = None
        self._total = self._epochs = 1
        self._so_far, self._measure = "", "acc"
        self._run: Any = None

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._progress.stop()
        if error is not None and self._run is not None and not self.safe:
            run_id = self._run.run_id
            console().print(
                f"Run {run_id} could not be written to its end; with room again go on with "
                f"{program()} resume {run_id[:8]}",
                soft_wrap=True,
            )
        elif error is not None and self._run is not None:
            status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
            console().print(
                f"Run {self._run.run_id} is marked {status}; finished tasks are kept: "
                f"{program()} show {self._run.run_id[:8]}; go on with "
                f"{program()} resume {self._run.run_id[:8]}",
                soft_wrap=True,
            )

    # -- the observer of a run -----------------------------------------------------------------

    @property
    def safe(self) -> bool:
        """Whether what the run found outlives this process."""
        return self._run is None or self._run.safe

    def recording(self, run: Any) -> None:
        """Remember the MLflow run."""
        self._run = run

    def begin(self, stream: Any, config: Any) -> None:
        """Announce what is about to happen."""
        self._total, self._epochs = len(stream.test_stream), config.training.epochs
        self._measure = "acc" if stream.metric == "accuracy" else stream.metric
        what = "contexts at once" if stream.at_once else "experiences"
        console().print(
            *(Text(config.strategy.name, "bold"), "on", Text(f"{stream.name}:", "bold")),
            f"{self._total} {what}, seed {config.seed}",
        )
        rounds = len(stream.train_stream) * self._epochs
        self._bar = self._progress.add_task(
            "measuring the untrained network", total=rounds, state=""
        )

    def task(self, experience: int, name: str) -> None:
        """Show which experience is being trained."""
        if self._bar is not None:
            text = f"experience {experience + 1}/{self._total} · {name}"
            self._progress.update(self._bar, description=text, state=self._so_far)

    def epoch(self, experience: int, epoch: int, loss: float) -> None:
        """Advance by one epoch."""
        if self._bar is not None:
            state = f"loss {loss:.3f} {self._so_far}"
            done = experience * self._epochs + epoch + 1
            self._progress.update(self._bar, completed=done, state=state)

    def learned(self, record: TaskRecord, score_so_far: float) -> None:
        """Show the score over what was learned."""
        so_far = f"so far {score_so_far:.3f}"
        self._so_far = f"· {so_far}"
        console().print(
            f"  {record.experience + 1:>3}/{self._total} {record.name:<16} "
            f"{self._measure} {record.score or 0:.3f}  {so_far}  {record.seconds:.1f} s",
            soft_wrap=True,
        )

    def say(self, sentence: str) -> None:
        """A line of its own."""
        console().print(sentence, soft_wrap=True, style="yellow")

    # -- the end -------------------------------------------------------------------------------

    def summary(self, result: Any) -> None:
        """The result as a table, a row of bars over contexts, and where to look."""
        table = Table(show_header=False)
        table.add_column()
        table.add_column(justify="right")
        for name, value in summary_cells(result):
            table.add_row(name, value)
        console().print(table)
        drawn = bars(result.score_matrix[-1])
        console().print(f"{result.metric} by experience, 0 to 1:  {drawn}", soft_wrap=True)
        addresses = self._run.addresses()
        command = addresses.command.replace("cl-manifold", program(), 1)
        before = f"{command}   then open   " if command else "open   "
        console().print("Look at it in MLflow:", style="bold")
        console().print(f"  {before}{addresses.run}", soft_wrap=True)


def program() -> str:
    """How to call this program again: by name where it is on the path, else as it was called."""
    here = Path(sys.argv[0])
    return "cl-manifold" if which("cl-manifold") or not here.is_file() else os.path.relpath(here)


def summary_cells(result: Any) -> list[tuple[str, str]]:
    """The columns of the final table."""
    points = "–" if result.control_points is None else str(result.control_points)
    return [
        (result.metric, f"{result.score:.3f}"),
        *([] if result.rmse is None else [("RMSE", f"{result.rmse:.4g}")]),
        ("unseen contexts", number(result.unseen_score)),
        ("BWT", number(result.bwt, "+.3f")),
        ("forgetting", number(result.forgetting)),
        ("FWT", number(result.fwt, "+.3f")),
        ("context at test", result.context_at_test),
        ("control points", points),
        ("stored ÷ model", ratio(result.stored_floats, result.model_floats)),
        ("training", f"{result.train_seconds:.1f} s"),
    ]


def number(value: float | None, form: str = ".3f") -> str:
    """A number with three decimals, or a dash where there is none.

    >>> number(0.25), number(None)
    ('0.250', '–')
    """
    return "–" if value is None else format(value, form)


def ratio(part: int | None, whole: int) -> str:
    """How many times the whole, or that nobody says.

    >>> ratio(3, 2), ratio(None, 2)
    ('1.50', 'not stated')
    """
    return "not stated" if part is None else f"{part / whole:.2f}"


def bars(values: list[float | None]) -> str:
    """One bar per value in [0, 1].

    >>> bars([0.0, 0.5, 1.0])
    '▁▅█'
    """
    top = len(BARS) - 1
    return "".join(" " if v is None else BARS[round(min(max(v, 0), 1) * top)] for v in values)
