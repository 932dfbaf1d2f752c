"""Detectron: does an unlabelled batch come from a task that was learned, or from a new one?

A function that agrees with the old one on everything that task j showed may still disagree with it
on an input x. Among changes v·ψ(x) that are linear in random features the largest disagreement is

    h_j(x) = max_v (vᵀψ(x))²  subject to  vᵀ(A_j + ρ tr(A_j)/n I) v ≤ 1,   A_j = mean of ψψᵀ
           = ψ(x)ᵀ (A_j + ρ tr(A_j)/n I)⁻¹ ψ(x)

the leverage of x: what task j does not determine. A permutation test compares its mean over the
batch with that over held-out inputs of task j, and p = max_j p_j. A batch of a finished task is
thus called new with probability α at most, whatever its size, whatever other tasks there are and
however far later commits moved the weights: what is stored is no input and depends on no weight.

Source: Detectron, Ginsberg et al. 2023, where the disagreeing function is an ensemble trained for
every batch. Searching the coordinates of the manifold instead was measured and fails: on rotated
digits returns raised false alarms, because later commits shift the null, and new tasks raised few.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from cl_manifold.contexts.features import RandomFeatures, add_moments, packed, unpacked
from cl_manifold.contexts.statistics import return_test
from cl_manifold.errors import ContextError
from cl_manifold.geometry.space import ROUNDING

HELD_OUT = 256
"""Inputs of a task at most that make up the null, a quarter of a small task."""


@dataclass(frozen=True)
class TaskSummary:
    """What is kept of a finished task.

    Attributes:
        context: shape (dim,).
        triangle: upper triangle of A_j, shape (n(n + 1)/2,).
        null: leverages of held-out inputs, ascending.
    """

    context: Tensor
    triangle: Tensor
    null: Tensor


@dataclass(frozen=True)
class Shift:
    """The verdict on one batch.

    Attributes:
        p_value: of the hypothesis that the batch comes from a finished task.
        context: of the finished task that the batch fits best.
        excess: mean leverage there, divided by that of the task's own inputs.
        harmful: whether p ≤ α: what was learned says little about this batch.
    """

    p_value: float
    context: Tensor
    excess: float
    harmful: bool


@final
class Detectron:
    """Remembers finished tasks by moments of random features and tests unlabelled batches.

        detectron.remember(context, x)          # when a task is finished
        shift = detectron.test(batch)

    Attributes:
        tasks: one summary per context, in the order of the tasks.
    """

    def __init__(
        self,
        *,
        level: float = 0.05,
        features: int = 128,
        ridge: float = 1e-2,
        seed: int = 0,
    ) -> None:
        """A detectron that remembers nothing.

        Args:
            level: α.
            features: n.
            ridge: ρ.
            seed: of features and permutations.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, got {level}")
        if not 0 < ridge < float("inf"):
            raise ValueError(f"ridge must be positive and finite, got {ridge}")
        self.level, self.ridge = level, ridge
        self.features = RandomFeatures(features, seed)
        self.tasks: list[TaskSummary] = []

    @torch.no_grad()
    def remember(self, context: Float[Tensor, " dim"], x: Float[Tensor, "N ..."]) -> None:
        """Keep a summary of a finished task; an earlier one at the same context is replaced.

        Raises:
            ContextError: there are fewer than eight inputs, or they have another size than before.
        """
        if len(x) < 8:
            raise ContextError(
                f"the detectron got {len(x)} inputs of a task, but needs at least 8, part of them "
                "for the null; give more"
            )
        generator = torch.Generator().manual_seed(self.features.seed + len(self.tasks))
        flat = x[torch.randperm(len(x), generator=generator).to(x.device)].flatten(1)
        self.features.adapt(flat)
        held_out = min(HELD_OUT, len(flat) // 4)
        psi = self.features(flat[held_out:])
        square = psi.new_zeros(psi.shape[1], psi.shape[1])
        add_moments(square, psi)
        triangle = packed(square / len(psi)).cpu()
        null = self._leverage(triangle, flat[:held_out]).sort().values
        context = context.detach().cpu().double().clone()
        kept = [t for t in self.tasks if not _same(t.context, context)]
        self.tasks = [*kept, TaskSummary(context, triangle, null)]

    @torch.no_grad()
    def test(self, x: Float[Tensor, "N ..."]) -> Shift:
        """Whether all of x comes from one of the tasks that are remembered.

        Raises:
            ContextError: x is empty or of another size than before, or nothing is remembered.
        """
        if not len(x) or not self.tasks:
            raise ContextError(
                f"the detectron got {len(x)} inputs and remembers {len(self.tasks)} tasks, but "
                "needs at least one of each; remember a finished task first"
            )
        generator = torch.Generator().manual_seed(self.features.seed)
        found: list[Shift] = []
        for task in self.tasks:
            leverage = self._leverage(task.triangle, x.flatten(1))
            p = return_test(leverage, task.null, generator)
            excess = float(leverage.mean() / task.null.mean())
            found.append(Shift(p, task.context, excess, p <= self.level))
        return max(found, key=lambda shift: (shift.p_value, -shift.excess))

    def _leverage(self, triangle: Tensor, flat: Float[Tensor, "N d"]) -> Float[Tensor, " N"]:
        """The h_j of each row, in float64."""
        a = unpacked(triangle).double()
        a.diagonal().add_(self.ridge * a.trace() / len(a))
        psi = self.features(flat).cpu().double()
        half = torch.linalg.solve_triangular(torch.linalg.cholesky(a), psi.mT, upper=False)
        return half.square().sum(0)

    @property
    def stored_floats(self) -> int:
        """Moments, nulls, contexts and the scale of the features, in units of 32 bits."""
        kept = [t for task in self.tasks for t in (task.context, task.triangle, task.null)]
        return sum(t.numel() * t.element_size() for t in kept) // 4 + 1


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=ROUNDING)
