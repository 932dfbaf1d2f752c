"""Is a strategy worse than the best one, or were the seeds kind? Paired tests over seeds.

Three seeds say little. The paired t-test assumes that differences between seeds are normal, which
three numbers can neither show nor refute; a test by exact sign flips assumes less, but from three
seeds its two-sided p is never below 2/2³ = 0.25, so it could find nothing. A small p here is a
hint, a large one is no evidence that two strategies are equal. The strategy that others are
compared with is chosen by the same seeds, which makes small p a little too frequent.
"""

from collections.abc import Mapping, Sequence
from math import fsum, sqrt

_SAME = 1e-9
"""Differences of scores that vary by less are equal up to rounding."""


def paired_p_value(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Two-sided p of the hypothesis that the mean of the differences d = first − second is zero.

        t = d̄ / (s / √n),   s² = Σ (d_i − d̄)² / (n − 1),   p = 2 P(T_{n−1} > |t|)

    Source: Student 1908, The probable error of a mean.

    1 where every difference is zero. None for fewer than two pairs, and where all differences are
    the same number other than zero: s would be 0 and p as well, which no few seeds can claim.

    >>> round(paired_p_value([0.9, 0.92, 0.94], [0.8, 0.85, 0.9]), 4)
    0.0561
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    count = len(differences)
    if count < 2:
        return None
    mean = fsum(differences) / count
    spread = sqrt(fsum((d - mean) ** 2 for d in differences) / (count - 1))
    if spread <= _SAME:
        return 1.0 if abs(mean) <= _SAME else None
    from scipy import stats  # takes a second

    return float(2 * stats.t.sf(abs(mean) / (spread / sqrt(count)), count - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number m, in the order given.

        p̃_(i) = max_{j ≤ i} min(1, (m − j + 1) p_(j))      for p_(1) ≤ … ≤ p_(m)

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.

    >>> holm([0.04, 0.01, 0.03])
    [0.06, 0.03, 0.06]
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def against_best(scores: Mapping[str, Mapping[int, float]]) -> dict[str, float | None]:
    """Corrected p of every label against the one of highest mean, paired over common seeds.

    Args:
        scores: by label and seed; no label without a seed.

    Returns:
        p by label; None for the best itself and where there is no test (`paired_p_value`). Such
        labels do not count in the correction.
    """
    if not scores:
        return {}
    best = max(scores, key=lambda label: fsum(scores[label].values()) / len(scores[label]))
    found: dict[str, float | None] = {}
    for label, values in scores.items():
        common = [seed for seed in scores[best] if seed in values]
        pairs = [scores[best][seed] for seed in common], [values[seed] for seed in common]
        found[label] = None if label == best else paired_p_value(*pairs)
    tested = {label: p for label, p in found.items() if p is not None}
    corrected = zip(tested, holm(list(tested.values())), strict=True)
    return found | dict(corrected)
