"""The report of a run: one HTML page that needs nothing else and shows inside MLflow.

Knows how to lay out what it is given; computes no metric and asks no store.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from jaxtyping import Float
from matplotlib.figure import Figure
from numpy import ndarray

from cl_manifold.contexts.record import TaskRecord
from cl_manifold.errors import context_text
from cl_manifold.tracking.page import cell, number, page, picture, section
from cl_manifold.tracking.style import DECISIONS, INK

_LABELS = {
    "acc": "final accuracy",
    "bwt": "backward transfer",
    "fwt": "forward transfer",
    "forgetting": "forgetting",
    "learning_acc": "accuracy when learned",
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
        section("The manifold", _picture(data, "manifold")),
        section("Accuracy by context", _picture(data, "accuracy_by_context") + _unseen(data)),
        section("Contexts and decisions", _decisions(data)),
        section("Evidence", _evidence(data)),
        section("Accuracy over the stream", _picture(data, "learning")),
        section("Accuracy matrix", _picture(data, "accuracy_matrix") + _matrix(data)),
        *(section(name, _picture(data, name)) for name in others),
        section("Configuration", _table(("setting", "value", "from"), data.config)),
        section("Environment", _table(("what", "version"), data.environment.items())),
    ]
    return page(data.title, parts)


def _numbers(metrics: Mapping[str, float | int | None]) -> str:
    cards = [
        f"<div><dt>{escape(_LABELS.get(key, key))}</dt><dd>{_metric(key, value)}</dd></div>"
        for key, value in metrics.items()
    ]
    return f'<dl class="numbers">{"".join(cards)}</dl>' if cards else ""


def _picture(data: ReportData, name: str) -> str:
    figure = data.figures.get(name)
    return "" if figure is None else picture(figure, name)


def _decisions(data: ReportData) -> str:
    rows = [
        "".join(
            (
                cell(str(record.experience), right=True),
                cell(record.name),
                cell(context_text(record.context) if record.context else "–", right=True),
                cell(record.context_source),
                f"<td>{_tag(record.decision)}</td>",
                *(
                    cell(number(value), right=True)
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
            *(number(getattr(e, key)) for key in _EVIDENCE),
        )
        for r, e in found
    ]
    table = _table(("experience", "context", "truth", "decision", *_EVIDENCE.values()), rows)
    return f'<div class="wide">{table}</div>\n<p class="note">{_WHY}</p>' if table else ""


def _unseen(data: ReportData) -> str:
    """Accuracy at contexts that were never trained, folded away."""
    pairs = zip(data.unseen_names, data.unseen_acc.tolist(), strict=True)
    table = _table(("unseen context", "accuracy"), ((name, number(acc)) for name, acc in pairs))
    return f"<details><summary>Unseen contexts in numbers</summary>{table}</details>" * bool(table)


def _matrix(data: ReportData) -> str:
    """The accuracy matrix in numbers, folded away."""
    if not data.names:
        return ""
    head = "".join(f'<th class="n">{escape(name)}</th>' for name in data.names)
    rows = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(cell(number(v), right=True) for v in row)}</tr>\n"
        for name, row in zip(data.names, data.matrix.tolist(), strict=True)
    )
    table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table>"
    folded = f'<summary>The matrix in numbers</summary><div class="wide">{table}</div>'
    return f"<details>{folded}</details>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = "".join(f"<tr>{''.join(cell(text) for text in row)}</tr>\n" for row in rows)
    if not body:
        return ""
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<table>\n<thead><tr>{names}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"


def _tag(decision: str) -> str:
    color = DECISIONS.get(decision, INK)
    return f'<span class="tag" style="background:{color}">{escape(decision)}</span>'


def _metric(key: str, value: float | int | None) -> str:
    """A key number; times have one decimal."""
    timed = key.endswith("seconds") and value is not None
    return f"{value:.1f}" if timed else number(value)
