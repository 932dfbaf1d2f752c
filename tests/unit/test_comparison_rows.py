"""Rows of a comparison: means and ratios by hand, gaps where something was not measured."""

from statistics import fmean
from typing import Any

import numpy as np
import pytest

from cl_manifold.comparison.outcome import Outcome
from cl_manifold.comparison.rows import learned_in_sequence, results_by_label, rows_of

IN_TURN: list[list[float | None]] = [[0.9, None], [0.5, 0.8]]
AT_ONCE: list[list[float | None]] = [[None, None], [0.7, 0.8]]


def outcome(label: str, seed: int, acc: float, **changes: Any) -> Outcome:
    result: dict[str, Any] = {
        "strategy": label.partition(":")[0],
        "metric": "accuracy",
        "score": acc,
        "bwt": -0.2,
        "forgetting": 0.2,
        "fwt": 0.1,
        "unseen_score": None,
        "learning_score": 0.85,
        "score_matrix": IN_TURN,
        "stored_floats": 100,
        "model_floats": 100,
        "replay_samples": 0,
        "train_seconds": 10.0,
        "context_at_test": "not used",
    }
    return Outcome(label, seed, result | changes)


def test_a_row_is_the_mean_over_seeds() -> None:
    values = [0.80, 0.83, 0.91]
    [row] = rows_of([outcome("ewc", i, a, bwt=-a, fwt=a / 2) for i, a in enumerate(values)])
    assert (row.label, row.strategy, row.seeds, row.context) == ("ewc", "ewc", 3, "not used")
    assert row.score == pytest.approx(np.mean(values))
    assert row.score_sd == pytest.approx(np.std(values, ddof=1))
    assert row.bwt == pytest.approx(-np.mean(values))
    assert row.fwt == pytest.approx(np.mean(values) / 2)
    assert (row.forgetting, row.learning_score, row.unseen_score) == (
        pytest.approx(0.2),
        pytest.approx(0.85),
        None,
    )
    assert row.best
    assert row.p_value is None


def test_rows_are_sorted_and_compared_with_the_best() -> None:
    outcomes = [outcome("naive", s, a) for s, a in enumerate((0.5, 0.52, 0.56))]
    outcomes += [outcome("weight-manifold:spline", s, a) for s, a in enumerate((0.95, 0.94, 0.96))]
    outcomes += [outcome("ewc", s, a) for s, a in enumerate((0.93, 0.96, 0.95))]
    rows = rows_of(outcomes)
    assert [row.label for row in rows] == ["weight-manifold:spline", "ewc", "naive"]
    assert [row.best for row in rows] == [True, False, False]
    assert rows[0].strategy == "weight-manifold"
    p_values = [row.p_value for row in rows]
    assert p_values[0] is None
    assert p_values[1] is not None
    assert p_values[1] > 0.5
    assert p_values[2] is not None
    assert p_values[2] < 0.01


def test_equal_rows_are_both_best() -> None:
    rows = rows_of([outcome(label, s, 0.9) for label in ("ewc", "si") for s in (0, 1)])
    assert [(row.label, row.best, row.p_value) for row in rows] == [
        ("ewc", True, None),
        ("si", True, 1.0),
    ]


def test_what_learns_everything_at_once_has_no_transfer() -> None:
    joint = outcome("joint", 0, 0.75, score_matrix=AT_ONCE, bwt=0.0, fwt=0.0, forgetting=0.0)
    [row] = rows_of([joint])
    assert (row.bwt, row.forgetting, row.fwt, row.learning_score) == (None, None, None, None)
    assert row.score == 0.75
    assert row.score_sd is None


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [(IN_TURN, True), (AT_ONCE, False), ([[float("nan")]], False), ([[0.9]], True)],
)
def test_the_diagonal_tells_whether_tasks_came_in_turn(matrix: Any, expected: bool) -> None:
    assert learned_in_sequence({"score_matrix": matrix}) is expected


def test_memory_replay_and_time_are_ratios_and_counts() -> None:
    outcomes = [outcome("naive", s, 0.5, train_seconds=float(s + 1)) for s in (0, 1)]
    seconds = {0: 3.0, 1: 4.0, 2: 99.0}
    outcomes += [
        outcome("replay", s, 0.8, train_seconds=t, stored_floats=150 + s, replay_samples=500 + s)
        for s, t in seconds.items()
    ]
    replay, naive = rows_of(outcomes)
    assert replay.memory_ratio == pytest.approx(fmean([1.5, 1.51, 1.52]))
    assert replay.replay_samples == 502
    # seed 2 has no naive run to compare with
    assert replay.time_ratio == pytest.approx(fmean([3 / 1, 4 / 2]))
    assert naive.time_ratio == 1.0


def test_without_naive_there_is_no_unit_of_time() -> None:
    [row] = rows_of([outcome("ewc", 0, 0.5)])
    assert row.time_ratio is None


def test_problems_and_missing_numbers_leave_gaps() -> None:
    outcomes = [
        outcome("ewc", 0, 0.6, bwt=None, fwt=float("nan"), train_seconds=None),
        Outcome("ewc", 1, None, "the loss is not finite"),
        outcome("si", 0, float("nan")),
        Outcome("packnet", 0, None, "needs a split stream"),
    ]
    del outcomes[0].result["replay_samples"], outcomes[0].result["learning_score"]  # type: ignore[index,attr-defined]
    [row] = rows_of(outcomes)
    assert (row.label, row.seeds) == ("ewc", 1)
    assert (row.bwt, row.fwt, row.replay_samples, row.learning_score) == (None, None, None, None)
    assert list(results_by_label(outcomes)) == ["ewc"]


def test_no_outcomes_give_no_rows() -> None:
    assert rows_of([]) == []


def test_as_dict_has_the_fields_of_the_json() -> None:
    [row] = rows_of([outcome("naive", 0, 0.5)])
    assert list(row.as_dict()) == [
        "label", "strategy", "data", "seeds", "metric", "score", "score_sd", "bwt", "forgetting",
        "fwt", "unseen_score", "learning_score", "context", "replay_samples", "memory_ratio",
        "time_ratio", "p_value", "best",
    ]  # fmt: skip


def test_ranks_and_tests_stay_within_equal_data() -> None:
    scores = {
        "naive small": (0.5, 0.6, 0.65),
        "ewc small": (0.7, 0.72, 0.73),
        "naive large": (0.8, 0.9, 0.91),
        "ewc large": (0.9, 0.93, 0.97),
    }
    outcomes = [
        outcome(label, s, a, strategy=label.split()[0], train_seconds=a)
        for label, accs in scores.items()
        for s, a in enumerate(accs)
    ]
    data = {label: label.split()[1] for label in scores}
    rows = rows_of(outcomes, data)
    assert [(row.label, row.data, row.best) for row in rows] == [
        ("ewc small", "small", True),
        ("naive small", "small", False),
        ("ewc large", "large", True),
        ("naive large", "large", False),
    ]
    parts = [rows_of([o for o in outcomes if data[o.label] == one]) for one in ("small", "large")]
    alone = [row for part in parts for row in part]
    assert [row.p_value for row in rows] == [row.p_value for row in alone]
    assert [row.time_ratio for row in rows] == [row.time_ratio for row in alone]
    assert None not in [row.time_ratio for row in rows]
