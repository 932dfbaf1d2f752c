"""Contexts as parameters: coordinates on a topology that are learned like weights."""

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cl_manifold.errors import ContextError
from cl_manifold.geometry import Topology


@final
class LearnedContexts(nn.Module):
    """One context per group of samples, learned by gradient.

        contexts = LearnedContexts(Circle(), groups, seed=0)
        optimizer = torch.optim.Adam([
            {"params": net.parameters()}, {"params": contexts.parameters(), "lr": 0.01}
        ])
        contexts.wrap_after(optimizer)
        loss(net(x, contexts(group)), y).backward(); optimizer.step()

    Attributes:
        topology: the space of the contexts.
        contexts: shape (count, dim), float64.
    """

    def __init__(
        self,
        topology: Topology,
        count: int,
        *,
        seed: int = 0,
        initial: Float[Tensor, "count dim"] | None = None,
    ) -> None:
        """Start at given contexts, or at independent ones from the uniform measure.

        Args:
            topology: the space.
            count: how many contexts there are.
            seed: of the draw.
            initial: where they start.
        """
        super().__init__()
        if initial is None:
            initial = topology.sample(count, torch.Generator().manual_seed(seed))
        if initial.shape != (count, topology.dim):
            raise ContextError(
                f"initial contexts have shape {tuple(initial.shape)}; "
                f"{count} contexts need ({count}, {topology.dim})"
            )
        self.topology = topology
        self.contexts = nn.Parameter(topology.wrap(initial.detach().double()).clone())

    def forward(self, index: Int[Tensor, " n"]) -> Float[Tensor, "n dim"]:
        """The contexts of the given groups."""
        return self.contexts[index]

    def wrap_after(self, optimizer: torch.optim.Optimizer) -> None:
        """Call `wrap_` after every step of the optimizer from now on."""
        optimizer.register_step_post_hook(lambda *_: self.wrap_())

    @torch.no_grad()
    def wrap_(self) -> None:
        """Take the contexts back onto the topology, in place."""
        self.contexts.copy_(self.topology.project(self.contexts))
