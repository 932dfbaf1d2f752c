"""The table of a comparison: one row per strategy, over its seeds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from statistics import fmean, stdev
from typing import Any

from cl_manifold.comparison.outcome import Outcome
from cl_manifold.comparison.statistics import against_best
from cl_manifold.metrics import measure_of

NAIVE = "naive"
"""The strategy whose training time is the unit of time."""


@dataclass(frozen=True)
class Row:
    """One strategy; scores and transfers are means over its seeds, None where undefined.

    Attributes:
        label: as the comparison names it, e.g. "weight-manifold:spline".
        strategy: its name in the catalogue.
        data: settings of its stream that not all rows share; ranks and tests are of equal ones.
        seeds: how many of them have a result.
        metric: what a score is, "accuracy" or "R²".
        score_sd: sample standard deviation over seeds, s² = Σ (a_i − ā)² / (n − 1); None for one.
        bwt: None, like forgetting, fwt and learning_score, where all is learned at once.
        context: "given", "inferred" or "not used" at test.
        replay_samples: training samples kept, the most of any seed.
        memory_ratio: floats kept between experiences ÷ floats of the model, at the end.
        time_ratio: training seconds ÷ those of naive with the same seed, mean over common seeds.
        p_value: of the same mean score as the best row, see `comparison.statistics`.
        best: no row of the same data has a higher mean score.
    """

    label: str
    strategy: str
    data: str
    seeds: int
    metric: str
    score: float
    score_sd: float | None
    bwt: float | None
    forgetting: float | None
    fwt: float | None
    unseen_score: float | None
    learning_score: float | None
    context: str
    replay_samples: int | None
    memory_ratio: float | None
    time_ratio: float | None
    p_value: float | None
    best: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @property
    def measure(self) -> str:
        """What a table calls the score at the end."""
        return measure_of(self.metric)


def rows_of(outcomes: Sequence[Outcome], data: Mapping[str, str] | None = None) -> list[Row]:
    """The rows, highest mean score first; strategies without a result have none.

    Args:
        outcomes: of all runs.
        data: by label what is particular about a row's data; rows of equal data stand together.
    """
    of_label = {outcome.label: (data or {}).get(outcome.label, "") for outcome in outcomes}
    return [
        row
        for one in dict.fromkeys(of_label.values())
        for row in _ranked([o for o in outcomes if of_label[o.label] == one], one)
    ]


def _ranked(outcomes: Sequence[Outcome], data: str) -> list[Row]:
    """The rows of the same data."""
    found = results_by_label(outcomes)
    scores = {
        label: {seed: float(result["score"]) for seed, result in results.items()}
        for label, results in found.items()
    }
    p_values = against_best(scores)
    means = {label: fmean(values.values()) for label, values in scores.items()}
    naives = [results for results in found.values() if _first(results)["strategy"] == NAIVE]
    naive = naives[0] if len(naives) == 1 else {}
    return [
        _row(label, found[label], naive, p_values[label], means[label] == max(means.values()), data)
        for label in sorted(means, key=means.__getitem__, reverse=True)
    ]


def results_by_label(
    outcomes: Iterable[Outcome],
) -> dict[str, dict[int, Mapping[str, Any]]]:
    """Results with a finite score by label and seed, labels in order of appearance."""
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for outcome in outcomes:
        if outcome.result is not None and _number(outcome.result.get("score")) is not None:
            found.setdefault(outcome.label, {})[outcome.seed] = outcome.result
    return found


def learned_in_sequence(result: Mapping[str, Any]) -> bool:
    """Whether scores were measured right after each experience: not where all came at once."""
    matrix = result.get("score_matrix") or []
    return all(_number(row[j]) is not None for j, row in enumerate(matrix))


def _row(
    label: str,
    results: Mapping[int, Mapping[str, Any]],
    naive: Mapping[int, Mapping[str, Any]],
    p_value: float | None,
    best: bool,
    data: str,
) -> Row:
    first = _first(results)
    scores = [float(result["score"]) for result in results.values()]
    ordered = [result for result in results.values() if learned_in_sequence(result)]
    replay = [r["replay_samples"] for r in results.values() if r.get("replay_samples") is not None]
    return Row(
        label=label,
        strategy=str(first["strategy"]),
        data=data,
        seeds=len(scores),
        metric=str(first["metric"]),
        score=fmean(scores),
        score_sd=stdev(scores) if len(scores) > 1 else None,
        bwt=_mean(r.get("bwt") for r in ordered),
        forgetting=_mean(r.get("forgetting") for r in ordered),
        fwt=_mean(r.get("fwt") for r in ordered),
        unseen_score=_mean(r.get("unseen_score") for r in results.values()),
        learning_score=_mean(r.get("learning_score") for r in ordered),
        context=str(first["context_at_test"]),
        replay_samples=max(replay, default=None),
        memory_ratio=_mean(
            _ratio(r.get("stored_floats"), r.get("model_floats")) for r in results.values()
        ),
        time_ratio=_mean(
            _ratio(r.get("train_seconds"), naive[seed].get("train_seconds"))
            for seed, r in results.items()
            if seed in naive
        ),
        p_value=p_value,
        best=best,
    )


def _first(results: Mapping[int, Mapping[str, Any]]) -> Mapping[str, Any]:
    return next(iter(results.values()))


def _mean(values: Iterable[Any]) -> float | None:
    """Mean of the numbers among them; None without any."""
    known = [number for value in values if (number := _number(value)) is not None]
    return fmean(known) if known else None


def _ratio(part: Any, whole: Any) -> float | None:
    top, bottom = _number(part), _number(whole)
    return top / bottom if top is not None and bottom else None


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    return float(value) if value is not None and isfinite(value) else None
