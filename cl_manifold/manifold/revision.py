"""What a commit would do, before it is made, and how a finished task is let go of."""

import torch
from jaxtyping import Float
from torch import Tensor

from cl_manifold.errors import LayoutError
from cl_manifold.manifold import belief as precision
from cl_manifold.manifold.weight_manifold import WeightManifold


@torch.no_grad()
def weights_after_commit(
    manifold: WeightManifold,
    context: Float[Tensor, " dim"],
    weights: Float[Tensor, " D"],
    others: Float[Tensor, "n dim"],
) -> Float[Tensor, "n D"]:
    """The weights at other contexts if `weights` were committed at `context`.

    w'(c_j) = w(c_j) + (φ_jᵀ v) κ (w − w(c)), block by block; nothing is committed.
    """
    moved = manifold.weights(others)
    share = manifold.influence(context, others).to(moved.dtype)
    displacement = weights - manifold.weights(context)
    pairs = zip(
        manifold.layout.by_block(moved), manifold.layout.by_block(displacement), strict=True
    )
    for (index, there), (_, here) in pairs:
        there.addcmul_(share[:, index, None], here[None])
    return moved


def release(manifold: WeightManifold, context: Float[Tensor, " dim"]) -> None:
    """Let go of the finished tasks at `context`: their weights stay, their precision is withdrawn.

    Σ = (εG₀ + Σ_j f_j φ_jφ_jᵀ)⁻¹ over the tasks that remain. A task that comes back with more data
    is then trained under the precision of the others, and committed again.

    Raises:
        LayoutError: the information of finished tasks was not kept.
    """
    distance = manifold.basis.topology.distance
    kept = [v for v in manifold.visits if float(distance(v.context, context)) > 1e-9]
    covariance = manifold.prior.expand(manifold.layout.blocks, -1, -1).clone()
    for visit in kept:
        if visit.information is None:
            raise LayoutError(
                "releasing a task needs the information of the others, which blocks='weight' does "
                "not keep by default; build the manifold with growable=True"
            )
        covariance = precision.condition(covariance, manifold.phi(visit.context), visit.information)
    manifold.covariance, manifold.visits = covariance, kept
