"""The weight manifold as people can see it: its weights in the plane of two main directions."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from cl_manifold.manifold.weight_manifold import WeightManifold


@dataclass(frozen=True)
class WeightProjection:
    """Weights projected on the two main directions of a manifold.

    Attributes:
        grid: w(c) for a grid of contexts, in that order.
        visited: w(c) for the contexts of experiences, in order.
        shares: of the grid's variance that each of the two directions holds, in [0, 1].
    """

    grid: Float[ndarray, "n 2"]
    visited: Float[ndarray, "T 2"]
    shares: tuple[float, float]


def project_weights(
    manifold: WeightManifold,
    grid: Float[Tensor, "n dim"],
    visited: Sequence[Float[Tensor, " dim"]] | None = None,
) -> WeightProjection:
    """Principal components of w(c) over a grid, with the visited contexts: finished tasks if None.

    Distances in weight space only need the K×K matrix P Pᵀ = Q diag(s) Qᵀ: the rows of
    (φ(c) − φ̄)ᵀ Q √s lie at the same distances from each other as the weights themselves.
    """
    values, vectors = torch.linalg.eigh(manifold.points.gram())
    root = vectors * values.clamp(min=0).sqrt()
    phi = manifold.phi(grid).double()
    mean = phi.mean(0)
    along = (phi - mean) @ root
    _, singular, directions = torch.linalg.svd(along, full_matrices=False)
    missing = max(0, 2 - len(directions))
    plane = torch.nn.functional.pad(directions, (0, 0, 0, missing))[:2].mT
    variance = torch.nn.functional.pad(singular.square(), (0, missing))
    shares = variance[:2] / variance.sum().clamp(min=1e-300)
    visited = list(manifold.atlas.contexts()) if visited is None else visited
    stops = manifold.phi(torch.stack(list(visited))).double() if visited else phi[:0]
    return WeightProjection(
        (along @ plane).cpu().numpy(),
        ((stops - mean) @ root @ plane).cpu().numpy(),
        (float(shares[0]), float(shares[1])),
    )
