"""The report of a run: one HTML page that needs nothing else and shows inside MLflow.

Knows how to lay out what it is given; computes no metric and asks no store.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from numpy import ndarray

from cl_manifold.contexts.record import TaskRecord
from cl_manifold.errors import context_text
from cl_manifold.tracking.page import Section, Table, number, render

_LABELS = {
    "score": "final score",
    "rmse": "RMSE",
    "bwt": "backward transfer",
    "fwt": "forward transfer",
    "forgetting": "forgetting",
    "learning_score": "score when learned",
    "unseen_score": "unseen contexts",
    "control_points": "control points K",
    "stored_floats": "stored numbers",
    "model_floats": "numbers in the model",
    "train_seconds": "training (s)",
}
_NUMBERS = ("plasticity", "overshoot", "drift", "score before", "right after", "at the end")
_NOTE = (
    "Plasticity: freedom left at the context before training, 0 to 1. Overshoot: largest swing "
    "that the commit causes elsewhere. Drift: largest share of predictions at earlier contexts "
    "that the commit changed, or change of numbers relative to their spread. Of long "
    "coordinates the largest number and its place are shown; contexts.json has all."
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
_DRAWN = ("manifold", "score_by_context", "learning", "score_matrix")
_MOST_ROWS, _MOST_NUMBERS = 40, 12
"""Of a matrix and of a coordinate: pages grow no faster than streams."""


@dataclass(frozen=True)
class ReportData:
    """What a report shows.

    Attributes:
        metric: what a score is, "accuracy" or "R²".
        title: the run in a few words.
        sentence: its result in one sentence.
        metrics: key numbers in the order of display; None where there is none.
        records: one row per experience.
        matrix: R[i, j], the score on j after training on i; NaN where not measured.
        names: the contexts' names, one per experience.
        final_score: score on each experience at the end of the stream.
        unseen_names: names of contexts that were only evaluated.
        unseen_score: score at each of them.
        config: key, value and source of every setting.
        environment: versions and the like.
        figures: "manifold", "score_by_context", "learning", "score_matrix", each optional;
            others follow at the end under their own names.
    """

    metric: str
    title: str
    sentence: str
    metrics: Mapping[str, float | int | None]
    records: Sequence[TaskRecord]
    matrix: Float[ndarray, "T T"]
    names: Sequence[str]
    final_score: Float[ndarray, " T"]
    unseen_names: Sequence[str]
    unseen_score: Float[ndarray, " U"]
    config: Sequence[tuple[str, str, str]]
    environment: Mapping[str, str]
    figures: Mapping[str, Figure]


def render_report(data: ReportData) -> str:
    """The page as HTML text, without a reference to anything outside itself."""
    manifold, by_context, learning, matrix = map(data.figures.get, _DRAWN)
    unseen = zip(data.unseen_names, map(number, data.unseen_score.tolist()), strict=True)
    unseen = Table(("unseen context", data.metric), tuple(unseen))
    numbers, which = _matrix(data)
    metric = data.metric.capitalize()
    sections = [
        Section("The manifold", figure=manifold),
        Section(
            f"{metric} by context", unseen, (), by_context, folded="Unseen contexts in numbers"
        ),
        Section("Contexts and decisions", _decisions(data), (_NOTE,)),
        Section("Evidence", _evidence(data), (_WHY,)),
        Section(f"{metric} over the stream", figure=learning),
        Section(f"{metric} matrix", numbers, (), matrix, folded=f"The matrix in numbers{which}"),
        *(Section(name, figure=f) for name, f in data.figures.items() if name not in _DRAWN),
        Section("Configuration", Table(("setting", "value", "from"), data.config)),
        Section("Environment", Table(("what", "version"), tuple(data.environment.items()))),
    ]
    labels = _LABELS | {"score": f"final {data.metric}"}
    cards = [(labels.get(key, key), _metric(key, value)) for key, value in data.metrics.items()]
    texts = {"title": data.title, "sentence": data.sentence, "cards": cards}
    return render("run.html.jinja", sections=sections, **texts)


def _decisions(data: ReportData) -> Table:
    rows = [
        (
            *(str(r.experience), r.name, _coordinate(r.context)),
            *(r.context_source, r.decision),
            *map(
                number, (r.plasticity, r.overshoot, r.drift, r.zero_shot_score, r.score, float(end))
            ),
        )
        for r, end in zip(data.records, data.final_score, strict=True)
    ]
    head = ("experience", "context", "coordinate", "source", "decision", *_NUMBERS)
    return Table(head, rows, ("experience", "coordinate", *_NUMBERS), tagged="decision")


def _coordinate(context: tuple[float, ...]) -> str:
    """All numbers of a context if they are few, else the largest."""
    if len(context) <= _MOST_NUMBERS:
        return context_text(context) if context else "–"
    return f"{max(context):.4g} at {context.index(max(context))} of 0 to {len(context) - 1}"


def _evidence(data: ReportData) -> Table:
    """Why it was decided so, for experiences with evidence."""
    rows = [
        (
            *(str(r.experience), r.name, r.truth or "–", r.decision),
            *(number(getattr(r.evidence, key)) for key in _EVIDENCE),
        )
        for r in data.records
        if r.evidence is not None
    ]
    head = ("experience", "context", "truth", "decision", *_EVIDENCE.values())
    return Table(head, rows, ("experience", *_EVIDENCE.values()))


def _matrix(data: ReportData) -> tuple[Table, str]:
    """The matrix in numbers, of a long stream a part, and which part."""
    count = len(data.names)
    step = max(1, -(-count // _MOST_ROWS))
    places = sorted({*range(0, count, step), *range(count)[-1:]})
    which = f": one context in {step}, and the last; all {count} are in result.json"
    names = [data.names[place] for place in places]
    part = data.matrix[np.ix_(places, places)].tolist()
    rows = [(name, *map(number, row)) for name, row in zip(names, part, strict=True)]
    return Table(("", *names), rows, names), which * (step > 1)


def _metric(key: str, value: float | int | None) -> str:
    """A key number; times have one decimal."""
    timed = key.endswith("seconds") and value is not None
    return f"{value:.1f}" if timed else number(value)
