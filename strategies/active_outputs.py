"""Active outputs: of every sample only the outputs of its own group of classes count.

This is the task-incremental scenario, in which the task of a sample is known in training and in
testing (van de Ven and Tolias, arXiv 1904.07734). The loss wears the mask, not the network, so that
whatever computes a loss (replay, importances, projected gradients) computes the same one.
"""

from collections.abc import Sequence
from typing import Any, final

import torch
from avalanche.core import SupervisedPlugin
from jaxtyping import Float, Int64
from torch import Tensor, nn


@final
class ActiveOutputs(nn.Module):
    """A loss over the outputs of each sample's own group.

    ℓ(x, y) = criterion(z', y),   z'_k = z_k if k is in the group of y, else −∞
    """

    def __init__(self, criterion: nn.Module, groups: Sequence[Sequence[int]]) -> None:
        """Wrap a criterion.

        Args:
            criterion: of logits and classes, for example cross-entropy.
            groups: disjoint groups that hold every class 0 … C − 1 once.
        """
        super().__init__()
        classes = sorted(label for group in groups for label in group)
        if classes != list(range(len(classes))):
            raise ValueError(f"groups must hold every class from 0 on exactly once, got {groups}")
        self.criterion = criterion
        active = torch.zeros(len(classes), len(classes), dtype=torch.bool)
        for group in groups:
            for label in group:
                active[label, list(group)] = True
        self.active = active

    def masked(
        self, logits: Float[Tensor, "N C"], labels: Int64[Tensor, " N"]
    ) -> Float[Tensor, "N C"]:
        """The logits, −∞ outside the group of each label."""
        self.active = self.active.to(labels.device)
        return logits.masked_fill(~self.active[labels], -torch.inf)

    def forward(
        self, logits: Float[Tensor, "N C"], labels: Int64[Tensor, " N"]
    ) -> Float[Tensor, ""]:
        """The loss."""
        return self.criterion(self.masked(logits, labels), labels)


@final
class ActiveOutputsPlugin(SupervisedPlugin, supports_distributed=True):
    """Mask the answers of an evaluation; put it before plugins that read them."""

    def __init__(self, outputs: ActiveOutputs) -> None:
        super().__init__()
        self.outputs = outputs

    def after_eval_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Last of all steps: other plugins may have replaced the answers."""
        strategy.mb_output = self.outputs.masked(strategy.mb_output, strategy.mb_y)
