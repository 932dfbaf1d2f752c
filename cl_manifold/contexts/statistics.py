"""The tests behind a decision: is this a task that was seen before, and would training help?"""

from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

PERMUTATIONS = 999
ONE_SIDED_5 = 1.645
"""The standard normal's 95 % quantile."""


def doubt(losses: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The probability given to wrong answers, 1 − p(y|x) = 1 − exp(−loss).

    Losses have heavy tails, in which a mean of few drowns; this is bounded.
    """
    return -torch.expm1(-losses)


def return_test(
    new: Float[Tensor, " n"],
    reference: Float[Tensor, " m"],
    generator: torch.Generator,
    permutations: int = PERMUTATIONS,
) -> float:
    """The p-value of the hypothesis that a task has come back, against: its values are higher.

        t = mean(new) − mean(reference),   p = (1 + #{t_π ≥ t}) / (1 + permutations)

    When the same task returns and its weights have not moved, held-out values of both visits are
    exchangeable, so p ≤ α happens in at most a share α of all returns, whatever their distribution
    and however few samples there are.

    Source: the permutation test, Pitman 1937; p-values of Phipson and Smyth 2010, eq. 2.

    Args:
        new: values of the new samples, such as `doubt` at the coordinate.
        reference: held-out values of the finished task there.
        generator: of the permutations.
        permutations: how many are drawn.
    """
    if len(new) == 0 or len(reference) == 0:
        raise ValueError(
            f"the return test got {len(new)} new and {len(reference)} reference values, "
            "but needs at least one of each"
        )
    pooled = torch.cat([new, reference]).double()
    count, total = len(new), float(pooled.sum())

    def difference(sums: Tensor) -> Tensor:
        return sums / count - (total - sums) / (len(pooled) - count)

    shuffled = torch.rand(permutations, len(pooled), generator=generator).argsort(1)[:, :count]
    drawn = difference(pooled[shuffled].sum(1))
    seen = float(difference(pooled[:count].sum()))
    slack = 1e-12 * float(pooled.abs().max())
    return (1 + int((drawn >= seen - slack).sum())) / (1 + permutations)


def assured_difference(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> float:
    """The paired mean of a − b, less 1.645 standard errors: positive when a is surely higher.

    One sample alone has no standard error and assures nothing: −∞.
    """
    if len(a) < 2:
        return float("-inf")
    paired = (a - b).double()
    return float(paired.mean() - ONE_SIDED_5 * paired.std() / sqrt(len(paired)))
