"""The report of a comparison: Markdown for people and GitHub, one HTML page for MLflow.

Both say the same: the result, the table, what was published elsewhere, what each strategy is, and
how to run it again. Computes no statistic and asks no store.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from cl_manifold.comparison.findings import About, findings, score_text
from cl_manifold.comparison.outcome import Outcome
from cl_manifold.comparison.published import published_for
from cl_manifold.comparison.rows import Row
from cl_manifold.options import value_text
from cl_manifold.strategies.methods.method import Method
from cl_manifold.tracking.page import Section, Table, number, render
from cl_manifold.tracking.style import signed

_READING = (
    "ACC: mean accuracy over all experiences at the end of the stream, in [0, 1], and R², up to 1, "
    "the same of numbers; ± standard deviation over seeds. Unseen: at contexts that were never "
    "trained. Learning acc.: right after each experience. Replay: training samples kept. Memory ×: "
    "floats kept between experiences ÷ floats of the model. Time ×: training seconds ÷ those of "
    "naive with the same seed. A dash: not defined; what learns everything at once has no BWT, "
    "forgetting, FWT or learning acc."
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


def markdown_report(about: About, rows: Sequence[Row], outcomes: Sequence[Outcome]) -> str:
    """The report as GitHub Markdown, without figures."""
    return render("comparison.md.jinja", **_values(about, rows, outcomes, {}))


def markdown_table(rows: Sequence[Row]) -> str:
    """The table alone, as GitHub Markdown; the rows of the highest score are bold."""
    return render("table.md.jinja", table=_result(rows)).rstrip()


def html_report(
    about: About, rows: Sequence[Row], outcomes: Sequence[Outcome], figures: Mapping[str, Figure]
) -> str:
    """The report as one page of HTML that needs nothing else, with `comparison_figures`."""
    return render("comparison.html.jinja", **_values(about, rows, outcomes, figures))


def _values(
    about: About, rows: Sequence[Row], outcomes: Sequence[Outcome], figures: Mapping[str, Figure]
) -> dict[str, Any]:
    """What the templates show."""
    first, *others = findings(about, rows)
    settings, versions = tuple(about.settings.items()), tuple(about.versions.items())
    sections = [
        Section("Result", _result(rows), (_READING, _FAIRNESS), figures.get("score")),
        Section("Accuracy over the stream", figure=figures.get("learning")),
        Section("Memory", figure=figures.get("memory")),
        Section("Published, not measured here", _elsewhere(about.stream), (_ELSEWHERE,)),
        Section("Strategies", _strategies(about, rows, outcomes)),
        Section("Could not run", _problems(about, outcomes)),
        Section("Run it again", notes=(f"Recorded {about.date}.",), code=about.command),
        Section("Settings", Table(("setting", "value"), settings)),
        Section("Environment", Table(("what", "version"), versions)),
    ]
    return {
        "title": f"Comparison on {about.stream}",
        "sentence": first,
        "others": others,
        "description": about.description,
        "sections": sections,
    }


def _known(value: float | None, text: Callable[[float], str]) -> str:
    return "–" if value is None else text(value)


_COLUMNS: Mapping[str, Callable[[Row], str]] = {
    "strategy": lambda row: row.label,
    "ACC": score_text,
    "BWT": lambda row: _known(row.bwt, signed),
    "forgetting": lambda row: number(row.forgetting),
    "FWT": lambda row: _known(row.fwt, signed),
    "unseen": lambda row: number(row.unseen_score),
    "learning acc.": lambda row: number(row.learning_score),
    "context at test": lambda row: row.context,
    "replay": lambda row: number(row.replay_samples),
    "memory ×": lambda row: _known(row.memory_ratio, "{:.2f}".format),
    "time ×": lambda row: _known(row.time_ratio, "{:.2f}".format),
    "p": lambda row: _known(row.p_value, lambda p: "<0.001" if p < 0.001 else f"{p:.3f}"),
}


def _result(rows: Sequence[Row]) -> Table:
    head = [rows[0].measure if rows and name == "ACC" else name for name in _COLUMNS]
    return Table(
        head,
        [[text(row) for text in _COLUMNS.values()] for row in rows],
        numeric=[name for name in head if name not in ("strategy", "context at test")],
        strong=[place for place, row in enumerate(rows) if row.best],
    )


def _elsewhere(stream: str) -> Table:
    rows = [
        (
            *(p.method, f"{p.acc:g}", _known(p.bwt, lambda v: f"{v:+g}".replace("-", "−"))),
            *(p.context, p.setting, p.differs or "none known", p.source),
        )
        for p in published_for(stream)
    ]
    head = ("method", "ACC", "BWT", "context at test", "setting", "differs from ours", "source")
    return Table(head, rows, ("ACC", "BWT"))


def _strategies(about: About, rows: Sequence[Row], outcomes: Sequence[Outcome]) -> Table:
    labels = [*(row.label for row in rows), *(o.label for o in outcomes), *about.problems]
    body = [
        (label, *_described(about.methods.get(label), about.tuned.get(label, {})))
        for label in dict.fromkeys(labels)
    ]
    return Table(("strategy", "what it is", "source", "hyper-parameters"), body)


def _described(method: Method | None, tuned: Mapping[str, Any]) -> tuple[str, str, str]:
    """What a strategy is, its source, and its settings with those that tuning chose."""
    if method is None:
        return "–", "–", "–"
    parts: list[str] = []
    for key in (field for field in type(method).model_fields if field != "name"):
        tried = ", ".join(value_text(value) for value in method.tried.get(key, ()))
        how = f" (chosen from {tried})" if f"strategy.{key}" in tuned and tried else ""
        parts.append(f"{key} = {value_text(getattr(method, key))}{how}")
    what = (method.__doc__ or "–").partition("\n")[0].rstrip(".")
    return what, method.source or "–", "; ".join(parts) or "–"


def _problems(about: About, outcomes: Sequence[Outcome]) -> Table:
    """One row per strategy and reason."""
    found = list(about.problems.items())
    seeds: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes:
        if outcome.problem and about.problems.get(outcome.label) != outcome.problem:
            seeds.setdefault((outcome.label, outcome.problem), []).append(str(outcome.seed))
    found += [(label, f"seed {', '.join(s)}: {why}") for (label, why), s in seeds.items()]
    return Table(("strategy", "why"), found)
