"""What people see of an experiment on conditioning: progress, and the table at the end."""

from types import TracebackType
from typing import Any, final

from rich.box import SIMPLE_HEAD
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from cl_manifold.cli.display import console, program


@final
class ConditionDisplay:
    """A watcher that draws a live line on a terminal, or a line per system elsewhere."""

    def __init__(self) -> None:
        self._live = console().is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:.0f} %"),
            TimeElapsedColumn(),
            console=console(),
            disable=not self._live,
            transient=True,
        )
        self._bar: TaskID | None = None
        self._run: Any = None
        self._done = 0
        self._seeds: tuple[int, ...] = ()
        self._systems = 1

    def __enter__(self) -> "ConditionDisplay":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._progress.stop()
        if error is not None and self._run is not None:
            status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
            console().print(
                f"Run {self._run.run_id} is marked {status}; {self._done} finished systems "
                "are kept in it",
                soft_wrap=True,
            )

    # -- the watcher of an experiment --------------------------------------------------------

    def recording(self, run: Any) -> None:
        """Remember the MLflow run."""
        self._run = run

    def begin(self, experiment: Any) -> None:
        """Announce what is about to happen."""
        self._seeds, self._systems = experiment.seeds, len(experiment.systems)
        console().print(
            f"[bold]{experiment.problem.name}[/] on [bold]{experiment.pictures.name}[/]: "
            f"{self._systems} systems, seeds {', '.join(map(str, self._seeds))}, "
            f"{experiment.steps} steps of {experiment.size.batch_size}"
        )
        self._bar = self._progress.add_task("making the test images", total=self._systems)

    def training(self, system: str, seed: int, step: int, steps: int) -> None:
        """Advance the bar."""
        if self._bar is not None:
            share = (self._seeds.index(seed) + step / steps) / len(self._seeds)
            text = f"system {self._done + 1}/{self._systems} · {system}, seed {seed}"
            self._progress.update(self._bar, description=text, completed=self._done + share)

    def finished(self, row: Any) -> None:
        """Say how a system did."""
        self._done += 1
        console().print(
            f"  {self._done:>2}/{self._systems} {row.system:<20} {row.in_range:.3f} in range  "
            f"{row.held_out:.3f} held out  {row.seconds:5.1f} s  {row.summary}",
            soft_wrap=True,
        )

    # -- the end -----------------------------------------------------------------------------

    def summary(self, result: Any) -> None:
        """The table, what it says, and where to look."""
        console().print(table(result.systems))
        for sentence in result.findings:
            console().print(sentence)
        addresses = self._run.addresses()
        command = addresses.command.replace("cl-manifold", program(), 1)
        before = f"{command}   then open   " if command else "open   "
        console().print("Look at it in MLflow:", style="bold")
        console().print(f"  {before}{addresses.run}", soft_wrap=True)


def table(rows: Any) -> Table:
    """One line per system."""
    drawn = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    drawn.add_column("system", no_wrap=True)
    for name in ("in range", "held out", "told wrong", "weights", "seconds"):
        drawn.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        drawn.add_row(
            row.system,
            _with_spread(row.in_range, row.in_range_sd),
            _with_spread(row.held_out, row.held_out_sd),
            f"{row.wrong_context:.3f}",
            str(row.parameters),
            f"{row.seconds:.1f}",
        )
    return drawn


def _with_spread(value: float, sd: float | None) -> str:
    """Mean and standard deviation over seeds.

    >>> _with_spread(0.9391, 0.0042), _with_spread(0.5, None)
    ('0.939 ±.004', '0.500')
    """
    return f"{value:.3f}" if sd is None else f"{value:.3f} ±{sd:.3f}".replace("±0", "±")
