"""What people see of a comparison: a table that fills while it runs, and the one at the end."""

import time
from collections.abc import Callable, Mapping
from statistics import mean
from types import TracebackType
from typing import Any, final

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cl_manifold.cli.display import console, program

_PAUSE = 0.25


@final
class CompareDisplay:
    """A watcher that draws a live table on a terminal, or a line per run elsewhere."""

    def __init__(self) -> None:
        self._live = Live(console=console(), auto_refresh=False, transient=True)
        self._drawing = console().is_terminal
        self._run: Any = None
        self._outlook: Any = None
        self._accs: dict[str, dict[int, float | None]] = {}
        self._seconds: dict[str, list[float]] = {}
        self._running: dict[tuple[str, int], str] = {}
        self._done = self._kept = 0
        self._start = self._drawn = time.monotonic()

    def __enter__(self) -> "CompareDisplay":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._live.stop()
        if error is not None and self._outlook is not None:
            status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
            console().print(
                f"Run {self._run.run_id} is marked {status}; {self._done} finished runs are kept "
                "in it; the same command runs the others",
                soft_wrap=True,
            )

    # -- the watcher of a comparison -----------------------------------------------------------

    def recording(self, run: Any) -> None:
        """Remember the MLflow run."""
        self._run = run

    def begin(self, outlook: Any) -> None:
        """Announce what is about to happen."""
        self._outlook = outlook
        self._accs = {label: {} for label in outlook.labels}
        seeds = ", ".join(map(str, outlook.seeds))
        console().print(
            f"comparing {len(outlook.labels)} strategies on",
            Text(f"{outlook.stream},", "bold"),
            f"seeds {seeds}, {_runs(outlook.total)}, {outlook.jobs} at once",
        )
        if outlook.resumed:
            console().print(
                f"continuing run {self._run.run_id}: {outlook.present} of {outlook.total} "
                "children are there; --fresh begins anew",
                soft_wrap=True,
            )
        if self._drawing:
            self._live.start()
            self._draw(now=True)

    def progress(self, label: str, seed: int, progress: Any) -> None:
        """A run starts, or is so far."""
        state = "started"
        if progress is not None:
            so_far = "" if progress.score is None else f", so far {progress.score:.3f}"
            state = f"{100 * progress.share:.0f} %{so_far}"
        self._running[label, seed] = state
        self._draw(now=progress is None)

    def say(self, sentence: str) -> None:
        """A line of its own."""
        console().print(sentence, soft_wrap=True, style="yellow")

    def lost(self, label: str, seed: int) -> None:
        """Say that a process died."""
        self._running.pop((label, seed), None)
        console().print(f"  the process of {label}, seed {seed} died", soft_wrap=True)

    def finished(self, outcome: Any, earlier: bool) -> None:
        """Say how a run did."""
        result = outcome.result
        self._accs[outcome.label][outcome.seed] = None if result is None else result["score"]
        if result is not None:
            self._seconds.setdefault(outcome.label, []).append(result["train_seconds"])
        self._count(outcome, earlier, f"{outcome.label}, seed {outcome.seed}")

    def tried(self, outcome: Any, candidate: str, earlier: bool) -> None:
        """Say how a candidate of tuning did."""
        self._count(outcome, earlier, f"{outcome.label} with {candidate} on validation")

    def tuned(self, label: str, values: Mapping[str, Any], tried: int) -> None:
        """Say what was chosen."""
        for line in toml_lines(values):
            chosen = Text(line, "bold")
            console().print(f"  {label}:", chosen, f"(of {tried} candidates)", soft_wrap=True)

    def _count(self, outcome: Any, earlier: bool, name: str) -> None:
        self._done += outcome.result is not None
        self._kept += 1
        self._running.pop((outcome.label, outcome.seed), None)
        if outcome.problem is not None:
            console().print(f"  {name}: {outcome.problem}", soft_wrap=True)
        elif not self._drawing and not earlier:
            result, total = outcome.result, self._outlook.total
            console().print(
                f"  {self._kept:>3}/{total} {name:<34} {result['score']:.3f}  "
                f"{result['train_seconds']:5.1f} s",
                soft_wrap=True,
            )
        self._draw(now=True)

    # -- the live table --------------------------------------------------------------------------

    def _draw(self, now: bool) -> None:
        if not self._drawing or self._outlook is None:
            return
        moment = time.monotonic()
        if now or moment - self._drawn >= _PAUSE:
            self._drawn = moment
            self._live.update(self._picture(), refresh=True)

    def _picture(self) -> Group:
        table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        table.add_column("strategy", overflow="fold", min_width=14)
        table.add_column("seeds", no_wrap=True)
        table.add_column("score so far", justify="right", no_wrap=True)
        table.add_column("training", justify="right", no_wrap=True)
        table.add_column("now", no_wrap=True, overflow="ellipsis", min_width=24)
        for label, accs in self._accs.items():
            known = [acc for acc in accs.values() if acc is not None]
            seconds = self._seconds.get(label, [])
            at = [f"seed {s}: {t}" for (name, s), t in self._running.items() if name == label]
            table.add_row(
                label,
                seed_marks(self._outlook.seeds, accs, {s for n, s in self._running if n == label}),
                f"{mean(known):.3f}" if known else "",
                f"{mean(seconds):.1f} s" if seconds else "",
                Text("  ".join(at), style="cyan"),
            )
        minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
        left = f"{self._kept} of {_runs(self._outlook.total)}, {minutes}:{seconds:02d}"
        return Group(table, Text(left, style="dim"))

    # -- the end -----------------------------------------------------------------------------------

    def summary(self, result: Any) -> None:
        """The table, what did not work, and where to look."""
        if result.rows:
            console().print(table(result.rows, console().width))
        for label, values in result.tuned.items():
            chosen = "; ".join(toml_lines(values))
            console().print(f"tuned {label}: {chosen}", soft_wrap=True)
        for label, seeds, problem in problems_by_reason(result.problems):
            why = f"could not run (seed {seeds}): {problem}"
            console().print(Text(label, "bold"), why, soft_wrap=True)
        addresses = self._run.addresses()
        command = addresses.command.replace("cl-manifold", program(), 1)
        before = f"{command}   then open   " if command else "open   "
        console().print("Look at it in MLflow:", style="bold")
        console().print(f"  {before}{addresses.run}", soft_wrap=True)


def _runs(count: int) -> str:
    return f"{count} run{'s' if count != 1 else ''}"


def seed_marks(seeds: Any, accs: Mapping[int, float | None], running: set[int]) -> str:
    """One mark per seed: done, failed, running or waiting.

    >>> seed_marks((0, 1, 2, 3), {0: 0.9, 1: None}, {2})
    '●✗◐·'
    """
    return "".join(
        ("✗" if accs[seed] is None else "●") if seed in accs else "◐" if seed in running else "·"
        for seed in seeds
    )


def toml_lines(values: Mapping[str, Any]) -> list[str]:
    """Settings as lines of TOML, with dotted keys.

    >>> toml_lines({"strategy.penalty": 10.0, "topology.kind": "circle"})
    ['strategy.penalty = 10.0', 'topology.kind = "circle"']
    """
    return [
        f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {str(value).lower()}"
        for key, value in values.items()
    ]


def problems_by_reason(problems: Any) -> list[tuple[str, str, str]]:
    """Label, seeds and sentence, once for all seeds with the same sentence.

    >>> problems_by_reason([{"label": "a", "seed": s, "problem": "no"} for s in (0, 2)])
    [('a', '0, 2', 'no')]
    """
    found: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        key = problem["label"], problem["problem"]
        found.setdefault(key, []).append(str(problem["seed"]))
    return [(label, ", ".join(seeds), reason) for (label, reason), seeds in found.items()]


def table(rows: Any, width: int) -> Table:
    """One line per strategy, the best in bold; a narrow terminal gets fewer columns."""
    names = next(names for least, names in _SHOWN if width >= least)
    columns = {name: _COLUMNS[name] for name in names}
    drawn = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    drawn.add_column("strategy", overflow="fold", min_width=14)
    for name in columns:
        heading = rows[0].measure if rows and name == "ACC" else name
        drawn.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        cells = [cell(row) for cell in columns.values()]
        drawn.add_row(row.label, *cells, style="bold" if row.best else "")
    return drawn


def _number(value: Any, form: str = ".3f") -> str:
    return "–" if value is None else format(value, form)


def _with_spread(value: float, sd: float | None) -> str:
    return f"{value:.3f}" if sd is None else f"{value:.3f} ±{sd:.3f}".replace("±0", "±")


_COLUMNS: Mapping[str, Callable[[Any], str]] = {
    "ACC": lambda row: _with_spread(row.score, row.score_sd),
    "BWT": lambda row: _number(row.bwt, "+.3f"),
    "forgetting": lambda row: _number(row.forgetting),
    "FWT": lambda row: _number(row.fwt, "+.3f"),
    "unseen": lambda row: _number(row.unseen_score),
    "learning": lambda row: _number(row.learning_score),
    "context": lambda row: row.context,
    "replay": lambda row: _number(row.replay_samples, "d"),
    "memory": lambda row: _number(row.memory_ratio, ".2f"),
    "time": lambda row: _number(row.time_ratio, ".1f"),
    "p": lambda row: _number(row.p_value),
}
_SHOWN: tuple[tuple[int, tuple[str, ...]], ...] = (
    (120, tuple(_COLUMNS)),
    (76, ("ACC", "BWT", "unseen", "context", "replay", "memory")),
    (0, ("ACC", "BWT", "context")),
)
"""Columns of a terminal, and what of the table is shown from that width on."""
