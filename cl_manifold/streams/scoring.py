"""How good answers are: each sample has a score, and the score of an experience is their mean."""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Literal, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Metric = Literal["accuracy", "R²"]

Score = Callable[[Tensor, Tensor], Tensor]
"""Outputs and targets of N samples to N scores, of which 1 is the best."""


def right(outputs: Float[Tensor, "N C"], targets: Int64[Tensor, " N"]) -> Float[Tensor, " N"]:
    """1 where the class of the highest output is the right one, else 0: the mean is accuracy."""
    return (outputs.argmax(-1) == targets).float()


@final
@dataclass(frozen=True)
class Regression:
    """Numbers that are predicted, and what their score R² is measured with.

        R² = 1 − (1/T) Σ_t MSE_t / V_t

    V_t is the mean squared distance of the test targets of all contexts to the mean of the training
    targets: R² is 0 for who always answers that mean, and a difference of R² is one of errors in
    the same unit, whatever the context.

    Attributes:
        targets: names of the T numbers, such as "log(1 + count)".
        variance: V_t, in the units that the network is trained in.
        units: the size of such a unit in units of the target.
    """

    targets: tuple[str, ...]
    variance: tuple[float, ...]
    units: tuple[float, ...]

    def explained(
        self, outputs: Float[Tensor, "N T"], targets: Float[Tensor, "N T"]
    ) -> Float[Tensor, " N"]:
        """1 − (1/T) Σ_t (y_t − ŷ_t)² / V_t of every sample: the mean is R²."""
        variance = torch.tensor(self.variance, dtype=outputs.dtype, device=outputs.device)
        return 1 - ((outputs - targets) ** 2 / variance).mean(-1)

    def rmse(self, score: float) -> float | None:
        """√(V (1 − R²)), in units of the target; None where there are several targets."""
        if len(self.targets) > 1:
            return None
        return self.units[0] * sqrt(max(0.0, self.variance[0] * (1 - score)))
