"""The report of a run: one HTML page that needs nothing else and shows inside MLflow.

Knows how to lay out what it is given; computes no metric and asks no store.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite

import matplotlib as mpl
from jaxtyping import Float
from matplotlib.figure import Figure
from numpy import ndarray

from cl_manifold.contexts.record import TaskRecord
from cl_manifold.errors import context_text
from cl_manifold.tracking.style import DECISIONS, INK

_LABELS = {
    "acc": "final accuracy",
    "bwt": "backward transfer",
    "fwt": "forward transfer",
    "forgetting": "forgetting",
    "unseen_acc": "unseen contexts",
    "control_points": "control points K",
    "stored_floats": "stored numbers",
    "model_floats": "numbers in the model",
    "train_seconds": "training (s)",
}
_COLUMNS = (
    "experience",
    "context",
    "coordinate",
    "source",
    "decision",
    "plasticity",
    "overshoot",
    "drift",
    "accuracy before",
    "right after",
    "at the end",
)
_NOTE = (
    "Plasticity: freedom left at the context before training, 0 to 1. Overshoot: largest swing "
    "that the commit causes elsewhere. Drift: largest share of predictions at earlier contexts "
    "that the commit changed. Accuracies are in [0, 1]."
)
_EVIDENCE = {
    "zero_shot_loss": "zero-shot loss",
    "reference_loss": "reference loss",
    "p_value": "p of a return",
    "constrained_loss": "with price",
    "unconstrained_loss": "without",
    "gain": "gain",
    "shortfall": "shortfall",
    "drift": "drift of probe",
    "commit_drift": "of commit",
    "seconds": "seconds",
}
_WHY = (
    "Losses on held-out samples. p of a return: of the hypothesis that the task of lowest loss has "
    "come back. With price, without: after a short training with and without the price; gain and "
    "shortfall are what training and the price surely change. Drift: share of predictions at "
    "earlier contexts that committing would change. Truth is for scoring only."
)
_CSS = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 960px; padding: 28px 24px 56px; background: #fff; color: #1b1f24;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 6px; }
h2 { font-size: 17px; margin: 38px 0 10px; padding-bottom: 6px; border-bottom: 1px solid #e3e7ec; }
.sentence { font-size: 17px; margin: 0; color: #3b434d; max-width: 46em; }
.numbers { display: grid; grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)); gap: 10px;
  margin: 22px 0 0; padding: 0; }
.numbers div { background: #f5f7f9; border-radius: 8px; padding: 10px 14px; }
.numbers dt { font-size: 12.5px; color: #5b6470; }
.numbers dd { margin: 0; font-size: 21px; font-weight: 600; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th, td { padding: 5px 9px; text-align: left; vertical-align: top;
  border-bottom: 1px solid #edf0f3; }
th { font-weight: 600; color: #5b6470; border-bottom-color: #cbd2d9; vertical-align: bottom; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
td { overflow-wrap: anywhere; }
.wide td { overflow-wrap: normal; white-space: nowrap; }
.tag { display: inline-block; padding: 0 8px; border-radius: 9px; color: #fff; font-size: 12.5px; }
.note { font-size: 13px; color: #5b6470; }
img { display: block; width: 100%; height: auto; margin: 6px 0; }
details { margin-top: 12px; } summary { cursor: pointer; color: #0b6fb8; font-size: 14px; }
"""


@dataclass(frozen=True)
class ReportData:
    """What a report shows.

    Attributes:
        title: the run in a few words.
        sentence: its result in one sentence.
        metrics: key numbers in the order of display; None where there is none.
        records: one row per experience.
        matrix: R[i, j], accuracy on j after training on i; NaN where not measured.
        names: the contexts' names, one per experience.
        final_acc: accuracy on each experience at the end of the stream.
        unseen_names: names of contexts that were only evaluated.
        unseen_acc: accuracy at each of them.
        config: key, value and source of every setting.
        environment: versions and the like.
        figures: "manifold", "accuracy_by_context", "learning", "accuracy_matrix", each optional;
            others follow at the end under their own names.
    """

    title: str
    sentence: str
    metrics: Mapping[str, float | int | None]
    records: Sequence[TaskRecord]
    matrix: Float[ndarray, "T T"]
    names: Sequence[str]
    final_acc: Float[ndarray, " T"]
    unseen_names: Sequence[str]
    unseen_acc: Float[ndarray, " U"]
    config: Sequence[tuple[str, str, str]]
    environment: Mapping[str, str]
    figures: Mapping[str, Figure]


def render_report(data: ReportData) -> str:
    """The page as HTML text, without a reference to anything outside itself."""
    shown = ("manifold", "accuracy_by_context", "learning", "accuracy_matrix")
    others = {name: fig for name, fig in data.figures.items() if name not in shown}
    parts = [
        f"<h1>{escape(data.title)}</h1>",
        f'<p class="sentence">{escape(data.sentence)}</p>',
        _numbers(data.metrics),
        _section("The manifold", _picture(data, "manifold")),
        _section("Accuracy by context", _picture(data, "accuracy_by_context") + _unseen(data)),
        _section("Contexts and decisions", _decisions(data)),
        _section("Evidence", _evidence(data)),
        _section("Accuracy over the stream", _picture(data, "learning")),
        _section("Accuracy matrix", _picture(data, "accuracy_matrix") + _matrix(data)),
        *(_section(name, _picture(data, name)) for name in others),
        _section("Configuration", _table(("setting", "value", "from"), data.config)),
        _section("Environment", _table(("what", "version"), data.environment.items())),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(data.title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )


def _section(heading: str, content: str) -> str:
    return f"<section>\n<h2>{escape(heading)}</h2>\n{content}\n</section>" if content else ""


def _numbers(metrics: Mapping[str, float | int | None]) -> str:
    cards = [
        f"<div><dt>{escape(_LABELS.get(key, key))}</dt><dd>{_metric(key, value)}</dd></div>"
        for key, value in metrics.items()
    ]
    return f'<dl class="numbers">{"".join(cards)}</dl>' if cards else ""


def _picture(data: ReportData, name: str) -> str:
    """A figure as an image inside the page, with its title for those who cannot see it."""
    figure = data.figures.get(name)
    if figure is None:
        return ""
    file = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "cl-manifold"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    content = base64.b64encode(file.getvalue()).decode("ascii")
    alt = escape(figure.get_suptitle() or name)
    return f'<img alt="{alt}" src="data:image/svg+xml;base64,{content}">'


def _decisions(data: ReportData) -> str:
    rows = [
        "".join(
            (
                _cell(str(record.experience), number=True),
                _cell(record.name),
                _cell(context_text(record.context) if record.context else "–", number=True),
                _cell(record.context_source),
                f"<td>{_tag(record.decision)}</td>",
                *(
                    _cell(_number(value), number=True)
                    for value in (
                        record.plasticity,
                        record.overshoot,
                        record.drift,
                        record.zero_shot_acc,
                        record.acc,
                        float(final),
                    )
                ),
            )
        )
        for record, final in zip(data.records, data.final_acc, strict=True)
    ]
    if not rows:
        return ""
    numeric = {"experience", "coordinate", *_COLUMNS[5:]}
    head = "".join(
        f'<th class="n">{column}</th>' if column in numeric else f"<th>{column}</th>"
        for column in _COLUMNS
    )
    body = "".join(f"<tr>{row}</tr>\n" for row in rows)
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"
    return f'<div class="wide">{table}</div>\n<p class="note">{_NOTE}</p>'


def _evidence(data: ReportData) -> str:
    """Why it was decided so, for experiences with evidence."""
    found = [(r, r.evidence) for r in data.records if r.evidence is not None]
    rows = [
        (
            str(r.experience),
            r.name,
            r.truth or "–",
            r.decision,
            *(_number(getattr(e, key)) for key in _EVIDENCE),
        )
        for r, e in found
    ]
    table = _table(("experience", "context", "truth", "decision", *_EVIDENCE.values()), rows)
    return f'<div class="wide">{table}</div>\n<p class="note">{_WHY}</p>' if table else ""


def _unseen(data: ReportData) -> str:
    """Accuracy at contexts that were never trained, folded away."""
    pairs = zip(data.unseen_names, data.unseen_acc.tolist(), strict=True)
    table = _table(("unseen context", "accuracy"), ((name, _number(acc)) for name, acc in pairs))
    return f"<details><summary>Unseen contexts in numbers</summary>{table}</details>" * bool(table)


def _matrix(data: ReportData) -> str:
    """The accuracy matrix in numbers, folded away."""
    if not data.names:
        return ""
    head = "".join(f'<th class="n">{escape(name)}</th>' for name in data.names)
    rows = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(_cell(_number(v), number=True) for v in row)}</tr>\n"
        for name, row in zip(data.names, data.matrix.tolist(), strict=True)
    )
    table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table>"
    folded = f'<summary>The matrix in numbers</summary><div class="wide">{table}</div>'
    return f"<details>{folded}</details>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = "".join(f"<tr>{''.join(_cell(text) for text in row)}</tr>\n" for row in rows)
    if not body:
        return ""
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<table>\n<thead><tr>{names}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"


def _cell(text: str, *, number: bool = False) -> str:
    mark = ' class="n"' if number else ""
    return f"<td{mark}>{escape(text)}</td>"


def _tag(decision: str) -> str:
    color = DECISIONS.get(decision, INK)
    return f'<span class="tag" style="background:{color}">{escape(decision)}</span>'


def _metric(key: str, value: float | int | None) -> str:
    """A key number; times have one decimal."""
    timed = key.endswith("seconds") and value is not None
    return f"{value:.1f}" if timed else _number(value)


def _number(value: float | int | None) -> str:
    """Three decimals for fractions, grouped digits for counts, a dash for nothing."""
    if value is None or not isfinite(value):
        return "–"
    text = f"{value:,}" if isinstance(value, int) else f"{value:.3f}" if abs(value) < 100 else ""
    return (text or f"{value:,.1f}").replace("-", "−").replace(",", "\u202f")
