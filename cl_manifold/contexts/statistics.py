"""The tests behind a decision: is this a task that was seen before, and would training help?"""

from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

PERMUTATIONS = 999
ONE_SIDED_5 = 1.645
"""The standard normal's 95 % quantile."""


def return_test(
    new: Float[Tensor, " n"],
    reference: Float[Tensor, " m"],
    generator: torch.Generator,
    permutations: int = PERMUTATIONS,
) -> float:
    """The p-value of the hypothesis that a task has come back, against: its loss is higher.

        e = 1 − exp(−loss) = 1 − p(y|x)
        t = mean(e_new) − mean(e_reference),   p = (1 + #{t_π ≥ t}) / (1 + permutations)

    Losses have heavy tails, in which a mean of few drowns; the probability e that the network gives
    to wrong answers is bounded.

    When the same task returns and its weights have not moved, held-out losses of both visits are
    exchangeable, so p ≤ α happens in at most a share α of all returns, whatever the distribution
    of losses and however few samples there are.

    Source: the permutation test, Pitman 1937; p-values of Phipson and Smyth 2010, eq. 2.

    Args:
        new: losses of the new support at the coordinate.
        reference: held-out losses of the finished task there.
        generator: of the permutations.
        permutations: how many are drawn.
    """
    if len(new) == 0 or len(reference) == 0:
        raise ValueError(
            f"the return test got {len(new)} new and {len(reference)} reference losses, "
            "but needs at least one of each"
        )
    pooled = -torch.expm1(-torch.cat([new, reference]).double())
    count, total = len(new), float(pooled.sum())

    def difference(sums: Tensor) -> Tensor:
        return sums / count - (total - sums) / (len(pooled) - count)

    shuffled = torch.rand(permutations, len(pooled), generator=generator).argsort(1)[:, :count]
    drawn = difference(pooled[shuffled].sum(1))
    seen = float(difference(pooled[:count].sum()))
    slack = 1e-12 * max(1.0, abs(seen))
    return (1 + int((drawn >= seen - slack).sum())) / (1 + permutations)


def assured_difference(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> float:
    """The paired mean of a − b, less 1.645 standard errors: positive when a is surely higher.

    One sample alone has no standard error and assures nothing: −∞.
    """
    if len(a) < 2:
        return float("-inf")
    paired = (a - b).double()
    return float(paired.mean() - ONE_SIDED_5 * paired.std() / sqrt(len(paired)))
