"""Elastic weight consolidation with a penalty per experience, at the cost of one."""

from collections.abc import Mapping
from typing import Any, final

import torch
from avalanche.training.plugins import EWCPlugin
from torch import Tensor


@final
class SummedPenalties(EWCPlugin):
    """Avalanche's EWC in mode "separate": the same penalty in three sums.

    A sum of quadratic functions is one again. With importances F_j and weights w_j of experience j

        Σ_j F_j (w − w_j)² = A (w − m)² + C
        A ← A + F_j ;   C ← C + A F_j / (A + F_j) (w_j − m)² ;   m ← m + F_j / (A + F_j) (w_j − m)

    Avalanche keeps and adds all terms: memory and time of a step grow with every experience.

    Source: Kirkpatrick et al. 2017, eq. 3, one term per earlier task (there λ/2; Avalanche's λ is
    used without the ½); the product of Gaussians.

    Attributes:
        firmness: A, by the names of the parameters.
        anchors: m, likewise.
        rest: C, summed over parameters.
    """

    def __init__(self, strength: float) -> None:
        """`strength` is λ."""
        super().__init__(strength)
        self.firmness: dict[str, Tensor] = {}
        self.anchors: dict[str, Tensor] = {}
        self.rest = 0.0

    def add(self, importances: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
        """Another term F_j (w − w_j)²."""
        for name, information in importances.items():
            before = self.firmness.get(name, torch.zeros_like(information))
            anchor = self.anchors.get(name, weights[name])
            total, gap = before + information, weights[name] - anchor
            share = torch.where(total > 0, information / total, torch.zeros_like(total))
            self.rest += float((before * share * gap.square()).sum())
            self.firmness[name], self.anchors[name] = total, anchor + share * gap

    def penalty(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Σ A (w − m)² + C."""
        parts = [
            (a * (weights[name] - self.anchors[name]).square()).sum()
            for name, a in self.firmness.items()
        ]
        return torch.stack(parts).sum() + self.rest

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add λ times the penalty to the loss."""
        if self.firmness:
            weights = dict(strategy.model.named_parameters())
            strategy.loss = strategy.loss + self.ewc_lambda * self.penalty(weights)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Measure the importances as Avalanche does, and add their term."""
        found = self.compute_importances(
            strategy.model,
            strategy._criterion,
            strategy.optimizer,
            strategy.experience.dataset,
            strategy.device,
            strategy.train_mb_size,
        )
        weights = {name: p.detach().clone() for name, p in strategy.model.named_parameters()}
        self.add({name: kept.data for name, kept in found.items()}, weights)
