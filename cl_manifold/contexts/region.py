"""The region that training visited, from the manifold alone.

Outside it the network may be confidently wrong, so that a low entropy says nothing there. How much
the finished tasks leave open at a context is the posterior variance of its weights

    q(c) = φ(c)ᵀ Σ̄ φ(c),   Σ̄ = Σ_b s_b Σ_b          s_b: share of the weights that are in block b

and the region is where it is about as small as at the visited contexts themselves:

    q(c) ≤ max(2 max_j q(c_j), v₀/5),   v₀ = ∫ (φ − φ̄)ᵀ Σ₀ (φ − φ̄) dμ,   φ̄ = ∫ φ dμ

v₀ is how much weights vary over the topology before any task. The second bound matters where
finished tasks are held exactly, q(c_j) = 0.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cl_manifold.errors import ContextError
from cl_manifold.geometry import Topology
from cl_manifold.manifold.belief import unpacked
from cl_manifold.manifold.weight_manifold import WeightManifold

BEYOND = 2.0
"""How many times the largest variance of a visited context still counts as visited."""

OPEN = 0.2
"""Which share of the prior's variation may be left open where tasks are held exactly."""

GRID = 257


@dataclass(frozen=True)
class Region:
    """The contexts that training visited, with everything between that the basis connects.

    Attributes:
        phi: φ.
        covariance: Σ̄, shape (K, K).
        bound: the largest q(c) inside.
        missing: per coordinate, whether it is a pure task of a simplex that no visited context
            contains, shape (dim,); mixtures with it are outside.
    """

    phi: Callable[[Tensor], Tensor]
    covariance: Tensor
    bound: float
    missing: Tensor

    def contains(self, contexts: Float[Tensor, "n dim"]) -> Bool[Tensor, " n"]:
        """Which contexts are inside."""
        phi = self.phi(contexts)
        known = ((phi @ self.covariance) * phi).sum(-1) <= self.bound
        return known & ((contexts.abs() <= 1e-9) | ~self.missing).all(-1).to(known.device)

    def log_prior(self, contexts: Float[Tensor, "n dim"]) -> Float[Tensor, " n"]:
        """Log p(c) over candidates: equal inside, −∞ outside; −∞ everywhere if none is inside."""
        inside = self.contains(contexts)
        weight = torch.where(inside, 0.0, -torch.inf).to(torch.float64)
        return weight - inside.sum().clamp(min=1).log()


def region_of(manifold: WeightManifold) -> Region:
    """The region that the manifold's finished tasks visited; reads no data.

    Raises:
        ContextError: no task is finished.
    """
    if not manifold.atlas.tasks:
        raise ContextError(
            "no context can be inferred before the first task is learned; train one, "
            "or give the context"
        )
    visited = manifold.atlas.contexts()
    topology, covariance = manifold.basis.topology, average_covariance(manifold)
    phis = manifold.atlas.phis(manifold.basis.size)
    largest = float(_squares(phis, covariance).max())
    bound = max(BEYOND * largest, OPEN * variation(manifold))
    missing = pure_tasks(topology) & (visited.abs() <= 1e-9).all(0)
    return Region(manifold.phi, covariance, bound, missing)


def average_covariance(manifold: WeightManifold) -> Float[Tensor, "K K"]:
    """Σ̄ = Σ_b s_b Σ_b with the shares s_b of the weights in each block."""
    share = manifold.layout.sizes() / manifold.layout.size
    size = manifold.basis.size
    return unpacked((share @ manifold.belief.triangle.double())[None], size)[0]


def variation(manifold: WeightManifold) -> float:
    """v₀ over a grid of the topology."""
    phi = manifold.phi(manifold.basis.topology.grid(GRID))
    return float(_squares(phi - phi.mean(0), manifold.belief.prior).mean())


def pure_tasks(topology: Topology) -> Bool[Tensor, " dim"]:
    """Which coordinates are the shares of pure tasks in a mixture."""
    return torch.cat([torch.full((f.dim,), f.mixes) for f in topology.factors])


def _squares(phi: Float[Tensor, "n K"], matrix: Float[Tensor, "K K"]) -> Float[Tensor, " n"]:
    return ((phi @ matrix) * phi).sum(-1)
