"""Paired tests against scipy and closed forms; Holm's correction against closed testing."""

from itertools import combinations
from math import atan, pi, sqrt

import numpy as np
import pytest
from scipy import stats

from cl_manifold.comparison.statistics import against_best, holm, paired_p_value


@pytest.mark.parametrize("count", [2, 3, 5, 10])
@pytest.mark.parametrize("shift", [0.0, 0.01, -0.3])
def test_the_paired_test_is_that_of_scipy(count: int, shift: float) -> None:
    generator = np.random.default_rng(count)
    first = generator.normal(0.9, 0.01, count)
    second = first + shift + generator.normal(0, 0.005, count)
    ours = paired_p_value(first.tolist(), second.tolist())
    assert ours == pytest.approx(stats.ttest_rel(first, second).pvalue, rel=1e-9)
    assert ours == paired_p_value(second.tolist(), first.tolist())


def test_two_and_three_seeds_by_hand() -> None:
    # differences 0.1, 0.3: t = 2 with one degree of freedom, whose law is Cauchy's
    assert paired_p_value([0.6, 0.9], [0.5, 0.6]) == pytest.approx(1 - 2 / pi * atan(2))
    # two degrees of freedom: P(|T| > t) = 1 − t/√(t² + 2)
    differences = [0.1, 0.07, 0.04]
    mean, squares = 0.0, 0.0
    for d in differences:
        mean += d / 3
    for d in differences:
        squares += (d - mean) ** 2
    t = mean / sqrt(squares / 2 / 3)
    found = paired_p_value(differences, [0.0, 0.0, 0.0])
    assert found == pytest.approx(1 - t / sqrt(t * t + 2))


def test_where_there_is_no_test() -> None:
    assert paired_p_value([], []) is None
    assert paired_p_value([0.9], [0.8]) is None
    assert paired_p_value([0.9, 0.8, 0.7], [0.9, 0.8, 0.7]) == 1.0
    # the same difference everywhere, up to rounding: no p of exactly 0 from three seeds
    assert paired_p_value([0.9, 0.8, 0.7], [0.8, 0.7, 0.6]) is None


def closed_testing(p_values: list[float]) -> list[float]:
    """Holm's method is the closed test by Bonferroni: p̃_i = max over sets S ∋ i of |S| min_S p."""
    everyone = range(len(p_values))
    sets = [s for size in range(1, len(p_values) + 1) for s in combinations(everyone, size)]
    return [
        max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in sets if i in s)
        for i in everyone
    ]


@pytest.mark.parametrize("seed", range(8))
def test_holm_is_the_closed_test_by_bonferroni(seed: int) -> None:
    generator = np.random.default_rng(seed)
    p_values = (generator.random(1 + seed) ** 3).tolist()
    assert holm(p_values) == pytest.approx(closed_testing(p_values), rel=1e-12)


def test_holm_by_hand() -> None:
    # 3 × 0.01, then 2 × 0.03, then 1 × 0.04 raised to the one before
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_pairs_are_made_by_seed_and_corrected_together() -> None:
    best = {0: 0.95, 1: 0.96, 2: 0.94}
    scores = {
        "worse": {2: 0.80, 1: 0.85, 0: 0.83},
        "best": best,
        "close": {0: 0.94, 1: 0.97, 2: 0.92},
        "one seed": {1: 0.7},
        "other seeds": {7: 0.7, 8: 0.6},
    }
    found = against_best(scores)
    pairs: dict[str, float] = {}
    for label in ("worse", "close"):
        ours, theirs = ([values[seed] for seed in (0, 1, 2)] for values in (best, scores[label]))
        pairs[label] = float(stats.ttest_rel(ours, theirs).pvalue)
    expected = closed_testing(list(pairs.values()))
    assert [found["worse"], found["close"]] == pytest.approx(expected)
    assert found["best"] is found["one seed"] is found["other seeds"] is None
    assert against_best({}) == {}
