"""What a comparison was, and what its table says in sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cl_manifold.comparison.rows import Row
from cl_manifold.strategies.methods.method import Method


@dataclass(frozen=True)
class About:
    """What a comparison was.

    Attributes:
        command: that repeats it.
        settings: what the user set for every strategy, by "section.key".
        methods: the strategies with their settings, by label.
        date: when, as text.
        tuned: values that tuning chose, by label and "section.key"; empty without tuning.
        problems: why a strategy has no result, by label.
    """

    stream: str
    description: str
    command: str
    settings: Mapping[str, str]
    versions: Mapping[str, str]
    seeds: tuple[int, ...]
    date: str
    tuned: Mapping[str, Mapping[str, Any]]
    problems: Mapping[str, str]
    methods: Mapping[str, Method]


def findings(about: About, rows: Sequence[Row]) -> list[str]:
    """What the table says, in sentences; the first is the result."""
    if not rows:
        return [f"No strategy has a result on {about.stream}."]
    count, found = len(about.seeds), list[str]()
    for data in dict.fromkeys(row.data for row in rows):
        where = f"{about.stream} with {data}" if data else about.stream
        found += _of_one(where, count, [row for row in rows if row.data == data])
    fewer = [f"{row.label} ({row.seeds} of {count})" for row in rows if row.seeds < count]
    found += [f"Fewer seeds than planned: {', '.join(fewer)}."] * bool(fewer)
    return [*found, *_tuning(about)]


def _of_one(stream: str, count: int, rows: Sequence[Row]) -> list[str]:
    """What the rows of the same data say."""
    top = rows[0]
    measure = top.measure
    rank = f"the highest {measure} of {len(rows)}" if len(rows) > 1 else f"an {measure}"
    found = [
        f"{top.label} has {rank} on {stream}: {score_text(top)} over {_seeds(top.seeds)}, "
        f"context at test {top.context}."
    ]
    blind = [row for row in rows if row.context != "given"]
    if top.context == "given" and blind:
        found.append(
            f"Of those that are not given the context, {blind[0].label} has the highest: "
            f"{score_text(blind[0])}, context {blind[0].context}."
        )
    tested = [row for row in rows if row.p_value is not None]
    if tested:
        below = sum(row.p_value < 0.05 for row in tested if row.p_value is not None)
        found.append(
            f"{below} of {len(tested)} tested strategies differ from {top.label} at p < 0.05 "
            f"(paired t-test over {_seeds(count)}, corrected by Holm's method); from so few seeds "
            "a small p is a hint and a large one no evidence of equality."
        )
    return found


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count != 1)}"


def _tuning(about: About) -> list[str]:
    """Where hyper-parameters come from, and on which data scores were measured."""
    chosen = [label for label, values in about.tuned.items() if values]
    found = (
        [
            f"Hyper-parameters of {', '.join(chosen)} were chosen on a validation part of the "
            "training data, never on test data; all others are defaults or were set by hand."
        ]
        if chosen
        else ["No hyper-parameter was tuned by this comparison."]
    )
    if about.settings.get("stream.holdout") == "validation":
        found.append(
            "Scores were measured on a validation part of the training data, not on test data."
        )
    return found


def score_text(row: Row) -> str:
    """Mean and, of several seeds, standard deviation."""
    return f"{row.score:.3f}" + ("" if row.score_sd is None else f" ± {row.score_sd:.3f}")
