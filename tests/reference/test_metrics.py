"""Metrics against sums written out by hand, on a matrix without coincidences."""

import numpy as np
import pytest

from cl_manifold import metrics

NAN = np.nan
R = np.array(
    [
        [0.91, 0.23, 0.17, 0.05],
        [0.82, 0.88, 0.31, 0.12],
        [0.79, 0.89, 0.97, 0.44],
        [0.61, 0.75, 0.93, 0.86],
    ]
)
INITIAL = np.array([0.11, 0.07, 0.13, 0.02])


def test_average_accuracy() -> None:
    assert metrics.average_accuracy(R) == pytest.approx((0.61 + 0.75 + 0.93 + 0.86) / 4)


def test_backward_transfer() -> None:
    expected = ((0.61 - 0.91) + (0.75 - 0.88) + (0.93 - 0.97)) / 3
    assert metrics.backward_transfer(R) == pytest.approx(expected)


def test_forward_transfer() -> None:
    expected = ((0.23 - 0.07) + (0.31 - 0.13) + (0.44 - 0.02)) / 3
    assert metrics.forward_transfer(R, INITIAL) == pytest.approx(expected)


def test_forgetting_takes_the_best_that_was_ever_learned() -> None:
    expected = ((0.91 - 0.61) + (0.89 - 0.75) + (0.97 - 0.93)) / 3
    assert metrics.forgetting(R) == pytest.approx(expected)


def test_forgetting_can_be_negative_where_later_tasks_helped() -> None:
    assert metrics.forgetting(np.array([[0.5, 0.1], [0.7, 0.9]])) == pytest.approx(-0.2)


def test_a_lucky_score_before_learning_is_not_forgotten() -> None:
    lucky = np.array([[0.9, 0.99, 0.1], [0.9, 0.8, 0.1], [0.9, 0.8, 0.7]])
    assert metrics.forgetting(lucky) == pytest.approx(0)


def test_gaps_are_ignored_where_the_formula_does_not_need_them() -> None:
    gaps = R.copy()
    gaps[2, :2] = NAN
    gaps[0, 2:] = NAN
    assert metrics.backward_transfer(gaps) == metrics.backward_transfer(R)
    assert metrics.forgetting(gaps) == pytest.approx(((0.91 - 0.61) + (0.88 - 0.75) + 0.04) / 3)
    assert metrics.accuracy_so_far(gaps, 2) == pytest.approx(0.97)


def test_accuracy_so_far_counts_only_what_was_seen() -> None:
    assert metrics.accuracy_so_far(R, 1) == pytest.approx((0.82 + 0.88) / 2)


def test_a_single_experience_transfers_nothing() -> None:
    one = np.array([[0.9]])
    assert metrics.backward_transfer(one) == 0
    assert metrics.forgetting(one) == 0
    assert metrics.forward_transfer(one, np.array([0.1])) == 0


def test_decision_f1_against_sklearn() -> None:
    from sklearn.metrics import f1_score

    kinds = ["first", "first", "return", "return", "related", "first", "return"]
    decisions = ["place", "reuse", "reuse", "grow", "reuse", "grow", "reuse"]
    said = [d == "reuse" for d, k in zip(decisions, kinds, strict=True) if k != "related"]
    true = [k == "return" for k in kinds if k != "related"]
    assert metrics.decision_f1(decisions, kinds) == pytest.approx(
        f1_score(true, said, average="macro")
    )
    assert metrics.decision_f1(["place", "grow"], ["first", "first"]) == 1.0
    assert metrics.decision_f1(["place", "reuse"], ["first", "first"]) == pytest.approx(2 / 3)
