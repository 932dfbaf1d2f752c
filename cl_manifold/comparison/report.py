"""The report of a comparison: Markdown for people and GitHub, one HTML page for MLflow.

Both say the same: the result, the table, what was published elsewhere, what each strategy is, and
how to run it again. Computes no statistic and asks no store.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from matplotlib.figure import Figure

from cl_manifold.comparison.findings import About, acc_text, findings
from cl_manifold.comparison.outcome import Outcome
from cl_manifold.comparison.published import published_for
from cl_manifold.comparison.rows import Row
from cl_manifold.options import value_text
from cl_manifold.strategies.methods.method import Method
from cl_manifold.tracking.page import cell, number, page, picture, section
from cl_manifold.tracking.style import signed

_COLUMNS = (
    "strategy",
    "ACC",
    "BWT",
    "forgetting",
    "FWT",
    "unseen",
    "learning acc.",
    "context at test",
    "replay",
    "memory ×",
    "time ×",
    "p",
)
_READING = (
    "ACC: mean accuracy over all experiences at the end of the stream, in [0, 1], ± standard "
    "deviation over seeds. Unseen: at contexts that were never trained. Learning acc.: right after "
    "each experience. Replay: training samples kept. Memory ×: floats kept between experiences ÷ "
    "floats of the model. Time ×: training seconds ÷ those of naive with the same seed. A dash: "
    "not defined; what learns everything at once has no BWT, forgetting, FWT or learning acc."
)
_FAIRNESS = (
    "Context at test: a strategy with “given” is told which context an input belongs to, one with "
    "“inferred” finds it from a batch of inputs, one with “not used” does neither. Compare within "
    "these groups first."
)
_ELSEWHERE = (
    "These numbers are from the sources named, not from this comparison, and no mean here "
    "contains them. Settings differ where a difference is named, and may differ elsewhere."
)
_STYLE = """body { max-width: 1120px; }
tr.best td { font-weight: 600; }
td.n { white-space: nowrap; overflow-wrap: normal; }
pre { white-space: pre-wrap; font-size: 13px; }
"""


@dataclass(frozen=True)
class _Part:
    """One section: text, a figure and a table, each possibly empty; `strong` rows stand out."""

    heading: str
    text: tuple[str, ...] = ()
    code: str = ""
    figure: str = ""
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    numeric: tuple[str, ...] = ()
    strong: tuple[int, ...] = ()


def markdown_report(about: About, rows: Sequence[Row], outcomes: Sequence[Outcome]) -> str:
    """The report as GitHub Markdown, without figures."""
    first, *others = findings(about, rows)
    parts = [f"# {_title(about)}", about.description, f"**{_marked(first)}**"]
    parts += [_marked(" ".join(others))] if others else []
    for part in _parts(about, rows, outcomes):
        blocks = [
            f"```\n{part.code}\n```" if part.code else "",
            _markdown_rows(part),
            *map(_marked, part.text),
        ]
        content = [block for block in blocks if block]
        parts += [f"## {part.heading}", *content] if content else []
    return "\n\n".join(parts) + "\n"


def markdown_table(rows: Sequence[Row]) -> str:
    """The table alone, as GitHub Markdown; the rows of highest ACC are bold."""
    return _markdown_rows(_result(rows))


def html_report(
    about: About,
    rows: Sequence[Row],
    outcomes: Sequence[Outcome],
    figures: Mapping[str, Figure],
) -> str:
    """The report as one page of HTML, without a reference to anything outside itself.

    Args:
        about: what was compared.
        rows: the table.
        outcomes: every child, also those without a result.
        figures: by name, as `comparison_figures` makes them.
    """
    first, *others = findings(about, rows)
    body = [f"<h1>{escape(_title(about))}</h1>", f'<p class="sentence">{escape(first)}</p>']
    body += [
        f"<p>{escape(' '.join(others))}</p>",
        f'<p class="note">{escape(about.description)}</p>',
    ]
    for part in _parts(about, rows, outcomes):
        content = _html_rows(part)
        content += "".join(f'<p class="note">{escape(text)}</p>' for text in part.text)
        content += picture(figures[part.figure]) if part.figure in figures else ""
        content += f"<pre>{escape(part.code)}</pre>" if part.code else ""
        body.append(section(part.heading, content))
    return page(_title(about), body, _STYLE)


def _parts(about: About, rows: Sequence[Row], outcomes: Sequence[Outcome]) -> list[_Part]:
    return [
        _result(rows),
        _Part("Accuracy over the stream", figure="learning"),
        _Part("Memory", figure="memory"),
        _elsewhere(about.stream),
        _strategies(about, rows, outcomes),
        _problems(about, outcomes),
        _Part("Run it again", (f"Recorded {about.date}.",), code=about.command),
        _Part("Settings", head=("setting", "value"), rows=tuple(about.settings.items())),
        _Part("Environment", head=("what", "version"), rows=tuple(about.versions.items())),
    ]


def _result(rows: Sequence[Row]) -> _Part:
    return _Part(
        "Result",
        (_READING, _FAIRNESS) if rows else (),
        figure="acc",
        head=_COLUMNS,
        rows=tuple(map(_cells, rows)),
        numeric=tuple(c for c in _COLUMNS if c not in ("strategy", "context at test")),
        strong=tuple(place for place, row in enumerate(rows) if row.best),
    )


def _cells(row: Row) -> tuple[str, ...]:
    p = row.p_value
    return (
        row.label,
        acc_text(row),
        "–" if row.bwt is None else signed(row.bwt),
        number(row.forgetting),
        "–" if row.fwt is None else signed(row.fwt),
        number(row.unseen_acc),
        number(row.learning_acc),
        row.context,
        number(row.replay_samples),
        "–" if row.memory_ratio is None else f"{row.memory_ratio:.2f}",
        "–" if row.time_ratio is None else f"{row.time_ratio:.2f}",
        "–" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}",
    )


def _elsewhere(stream: str) -> _Part:
    rows = [
        (
            p.method,
            f"{p.acc:g}",
            "–" if p.bwt is None else f"{p.bwt:+g}".replace("-", "−"),
            p.context,
            p.setting,
            p.differs or "none known",
            p.source,
        )
        for p in published_for(stream)
    ]
    head = ("method", "ACC", "BWT", "context at test", "setting", "differs from ours", "source")
    text = (_ELSEWHERE,) if rows else ()
    return _Part("Published, not measured here", text, "", "", head, tuple(rows), ("ACC", "BWT"))


def _strategies(about: About, rows: Sequence[Row], outcomes: Sequence[Outcome]) -> _Part:
    labels = dict.fromkeys(
        [*(row.label for row in rows), *(o.label for o in outcomes), *about.problems]
    )
    body: list[tuple[str, ...]] = []
    for label in labels:
        method = about.methods.get(label)
        if method is None:
            body.append((label, "–", "–", "–"))
            continue
        what = (method.__doc__ or "–").partition("\n")[0].rstrip(".")
        values = _hyper_parameters(method, about.tuned.get(label, {}))
        body.append((label, what, method.source or "–", values or "–"))
    head = ("strategy", "what it is", "source", "hyper-parameters")
    return _Part("Strategies", head=head, rows=tuple(body))


def _hyper_parameters(method: Method, tuned: Mapping[str, Any]) -> str:
    """The strategy's settings, and which of them tuning chose."""
    parts: list[str] = []
    for key in (field for field in type(method).model_fields if field != "name"):
        tried = ", ".join(value_text(value) for value in method.tried.get(key, ()))
        how = f" (chosen from {tried})" if f"strategy.{key}" in tuned and tried else ""
        parts.append(f"{key} = {value_text(getattr(method, key))}{how}")
    return "; ".join(parts)


def _problems(about: About, outcomes: Sequence[Outcome]) -> _Part:
    """One row per strategy and reason."""
    found = list(about.problems.items())
    seeds: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes:
        if outcome.problem and about.problems.get(outcome.label) != outcome.problem:
            seeds.setdefault((outcome.label, outcome.problem), []).append(str(outcome.seed))
    found += [(label, f"seed {', '.join(s)}: {why}") for (label, why), s in seeds.items()]
    return _Part("Could not run", head=("strategy", "why"), rows=tuple(found))


def _title(about: About) -> str:
    return f"Comparison on {about.stream}"


# -- the two forms -------------------------------------------------------------------------------


def _marked(text: str) -> str:
    """Text that Markdown shows as it is, also inside a table."""
    return re.sub(r"[\\`*|]|<(?=[A-Za-z/!?])|(?<!\w)_|_(?!\w)", r"\\\g<0>", " ".join(text.split()))


def _markdown_rows(part: _Part) -> str:
    if not part.rows:
        return ""
    rule = ["---:" if name in part.numeric else "---" for name in part.head]
    lines = [" | ".join(part.head), " | ".join(rule)]
    for place, row in enumerate(part.rows):
        cells = list(map(_marked, row))
        if place in part.strong:
            cells[:2] = [f"**{cell}**" for cell in cells[:2]]
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def _html_rows(part: _Part) -> str:
    if not part.rows:
        return ""
    numeric = [name in part.numeric for name in part.head]
    head = "".join(
        f'<th class="n">{escape(name)}</th>' if right else f"<th>{escape(name)}</th>"
        for name, right in zip(part.head, numeric, strict=True)
    )
    body = "".join(
        ('<tr class="best">' if place in part.strong else "<tr>")
        + "".join(cell(text, right=n) for text, n in zip(row, numeric, strict=True))
        + "</tr>\n"
        for place, row in enumerate(part.rows)
    )
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"
    return f'<div class="wide">{table}</div>\n' if len(part.head) == len(_COLUMNS) else table
