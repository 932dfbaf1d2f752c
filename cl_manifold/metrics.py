"""Continual-learning metrics of an accuracy matrix. Numbers only: knows no strategy and no store.

R[i, j] is the score on experience j after training on experience i: accuracy in [0, 1], or R² up to
1; NaN where it was not measured. `initial[j]` is the score on experience j of the untrained
network. Every function needs the last row, the diagonal and the entries named in its formula, and
ignores other gaps.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

MEASURES = {"accuracy": "ACC", "R²": "R²"}


def measure_of(metric: str) -> str:
    """What tables call the mean score at the end of a stream."""
    return MEASURES[metric]


def average_accuracy(matrix: Float[ndarray, "T T"]) -> float:
    """ACC = (1/T) Σ_j R[T−1, j].

    Source: Lopez-Paz and Ranzato 2017, eq. (2).

    >>> average_accuracy(np.array([[0.9, 0.2], [0.5, 0.7]]))
    0.6
    """
    return float(matrix[-1].mean())


def backward_transfer(matrix: Float[ndarray, "T T"]) -> float:
    """BWT = (1/(T−1)) Σ_{j<T−1} (R[T−1, j] − R[j, j]); 0 for a single experience.

    Source: Lopez-Paz and Ranzato 2017, eq. (3).

    >>> round(backward_transfer(np.array([[0.9, 0.2], [0.5, 0.7]])), 12)
    -0.4
    """
    change = (matrix[-1] - matrix.diagonal())[:-1]
    return float(change.mean()) if change.size else 0.0


def forward_transfer(matrix: Float[ndarray, "T T"], initial: Float[ndarray, " T"]) -> float:
    """FWT = (1/(T−1)) Σ_{j>0} (R[j−1, j] − initial[j]); 0 for a single experience.

    Source: Lopez-Paz and Ranzato 2017, eq. (4).
    """
    change = matrix.diagonal(offset=1) - initial[1:]
    return float(change.mean()) if change.size else 0.0


def forgetting(matrix: Float[ndarray, "T T"]) -> float:
    """F = (1/(T−1)) Σ_{j<T−1} (max_{j≤i<T−1} R[i, j] − R[T−1, j]); 0 for a single experience.

    Source: Chaudhry et al. 2018 (Riemannian Walk), eq. (3). The maximum starts at the experience
    itself, so that a lucky score before it was learned does not count as something to forget.
    """
    count = len(matrix)
    lost = [np.nanmax(matrix[j:-1, j]) - matrix[-1, j] for j in range(count - 1)]
    return float(np.mean(lost)) if lost else 0.0


def learning_accuracy(matrix: Float[ndarray, "T T"]) -> float:
    """LA = (1/T) Σ_j R[j, j]: how well each experience was learned when it was its turn.

    Source: Riemer et al. 2019 (MER), section 6.

    >>> learning_accuracy(np.array([[0.9, 0.2], [0.5, 0.7]]))
    0.8
    """
    return float(matrix.diagonal().mean())


def accuracy_so_far(matrix: Float[ndarray, "T T"], step: int) -> float:
    """(1/(i+1)) Σ_{j≤i} R[i, j] at i = `step`, over the entries that were measured."""
    return float(np.nanmean(matrix[step, : step + 1]))


def decision_f1(decisions: Sequence[str], kinds: Sequence[str]) -> float:
    """How well first visits and returns were told apart: the mean F1 of the two, in [0, 1].

        F1 = 2 TP / (2 TP + FP + FN),   "reuse" says return, any other decision first visit

    Experiences of kind "related" are left out: both answers can be right for a variant of an
    earlier task. So is a kind that does not occur. Source: van Rijsbergen 1979, ch. 7.

    >>> decision_f1(["place", "grow", "reuse"], ["first", "first", "return"])
    1.0
    """
    scored = [(d, k) for d, k in zip(decisions, kinds, strict=True) if k != "related"]
    said = np.array([decision == "reuse" for decision, _ in scored])
    true = np.array([kind == "return" for _, kind in scored])
    scores = [
        2 * (a & b).sum() / (a.sum() + b.sum())
        for a, b in ((said, true), (~said, ~true))
        if b.any()
    ]
    return float(np.mean(scores))
