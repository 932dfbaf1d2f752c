"""What a finished run or comparison found, as tables in the terminal."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cl_manifold.cli import compare_display
from cl_manifold.cli.display import number, ratio
from cl_manifold.comparison.order import ComparisonResult
from cl_manifold.contexts.replay import Replayed
from cl_manifold.experiments.result import Decision, Result

MATRIX_COLUMNS = 24
"""Wider accuracy matrices show bars instead of numbers."""
WIDE = 132
NUMBERS = {
    "plast.": ("plasticity", 4),
    "over.": ("overshoot", 2),
    "drift": ("drift", 2),
    "before": ("zero_shot_score", 3),
    "after": ("score", 3),
    "final": ("final_score", 3),
}
"""Columns of the decisions: heading, key and decimal places."""


def print_result(result: Result) -> None:
    """Accuracy matrix, contexts and decisions of `result.json` on standard output."""
    console = _console()
    console.print(
        *(Text(result.strategy, "bold"), "on", Text(f"{result.stream},", "bold")),
        f"seed {result.seed}, context at test: {result.context_at_test}",
    )
    console.print(
        f"{result.metric} {result.score:.3f}   unseen {number(result.unseen_score)}   "
        f"BWT {number(result.bwt, '+.3f')}   forgetting {number(result.forgetting)}   "
        f"FWT {number(result.fwt, '+.3f')}   stored ÷ model "
        f"{ratio(result.stored_floats, result.model_floats)}"
    )
    if result.decision_f1 is not None:
        console.print(f"first visits and returns told apart: F1 {result.decision_f1:.3f}")
    title = (
        f"\n{result.metric.capitalize()} on each experience (columns) after training on each (rows)"
    )
    console.print(title, style="bold")
    for row in _matrix_rows(result.score_matrix):
        console.print(row, soft_wrap=True)
    console.print("\nContexts and decisions", style="bold")
    console.print(_decisions(result.decisions))


def print_comparison(result: ComparisonResult) -> None:
    """The table of `comparison.json` on standard output."""
    console = _console()
    seeds = ", ".join(map(str, result.seeds))
    console.print(Text(f"{result.stream},", "bold"), f"seeds {seeds}")
    console.print(compare_display.table(result.rows, console.width))
    for label, at, problem in compare_display.problems_by_reason(result.problems):
        console.print(f"{label} could not run (seed {at}): {problem}", soft_wrap=True)


def print_replay(rows: Sequence[Replayed], rule: Any) -> None:
    """Which decisions another rule would have changed, on standard output."""
    console = _console()
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for column in ("#", "context", "the run's rule", "then"):
        table.add_column(column, no_wrap=True)
    for row in rows:
        then = row.after or "needs a probe"
        style = "" if row.after == row.before else "yellow"
        table.add_row(str(row.experience), row.name, row.before or "–", Text(then, style))
    changed = sum(row.after != row.before for row in rows)
    console.print(table)
    console.print(f"{changed} of {len(rows)} decisions would have been others under {rule}")


def _console() -> Console:
    """Standard output; wide enough for all columns where it is not a terminal."""
    width = None if sys.stdout.isatty() else WIDE
    return Console(highlight=False, markup=False, emoji=False, width=width)


def _matrix_rows(matrix: list[list[float | None]]) -> list[Text]:
    rows: list[Text] = []
    narrow = len(matrix) <= MATRIX_COLUMNS
    for index, values in enumerate(matrix):
        if all(value is None for value in values):
            continue
        row = Text(f"{index:>3} ")
        for value in values:
            text = ("  · " if narrow else "·") if value is None else _cell(value, narrow)
            row.append(text, style="" if value is None else _colour(value))
        rows.append(row)
    return rows


def _cell(value: float, narrow: bool) -> str:
    return f" {round(value * 100):>3}" if narrow else "▁▂▃▄▅▆▇█"[round(min(value, 1) * 7)]


def _colour(value: float) -> str:
    return "green" if value >= 0.9 else "yellow" if value >= 0.6 else "red"


def _vertex(decision: Decision) -> str:
    context = decision["context"]
    return f"vertex {context.index(max(context))}" if max(context) == 1 else "mixture"


def _decisions(decisions: list[Decision]) -> Table:
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    untold = all(d["truth"] is None for d in decisions)
    for column in ("#", "context", "at", "source", *(() if untold else ("truth",)), "decision"):
        table.add_column(column, no_wrap=True)
    for column in NUMBERS:
        table.add_column(column, justify="right", no_wrap=True)
    for d in decisions:
        at = " ".join(f"{x:.3g}" for x in d["context"]) if len(d["context"]) <= 2 else _vertex(d)
        table.add_row(
            str(d["experience"]),
            d["name"],
            at or "–",
            d["context_source"],
            *(() if untold else (d["kind"],)),
            d["decision"],
            *(
                "–" if d[key] is None else f"{d[key]:.{places}f}"
                for key, places in NUMBERS.values()
            ),
        )
    return table


PRINTERS: Mapping[str, tuple[Any, Callable[[Any], None]]] = {
    "result.json": (Result, print_result),
    "comparison.json": (ComparisonResult, print_comparison),
}
"""What each file that holds a result is, and how it is printed."""
