"""Growth of a basis: one step after another, and by a new coordinate."""

import torch
from torch import Tensor

from cl_manifold.geometry.basis import Basis, Growth, same_context
from cl_manifold.geometry.product import TensorProduct

__all__ = ["Growth", "compose", "same_context", "times"]


def compose(first: Growth, second: Growth) -> Growth:
    """Two growths after one another: T = T_2 T_1 and e(c) = e_2(e_1(c))."""
    return Growth(
        second.basis,
        second.matrix @ first.matrix,
        lambda context: second.embed(first.embed(context)),
    )


def times(basis: Basis, factor: Basis) -> Growth:
    """A new coordinate, on which the weights do not depend yet.

    φ'(c, s) = φ(c) ⊗ ψ(s),   T = I ⊗ a with ψ(s)ᵀ a = 1,   e(c) = (c, s_0)

    where s_0 is the first point of the new topology's grid.

    Raises:
        ValueError: constants are not in the span of `factor`.
    """
    ones = factor.constant()
    if ones is None:
        raise ValueError(
            f"cannot multiply by {factor.spec()['kind']}: it needs to span the constants; "
            "take a basis on an interval or a circle"
        )
    start = factor.topology.grid(2)[0]

    def embed(context: Tensor) -> Tensor:
        place = start.to(context).expand(*context.shape[:-1], -1)
        return torch.cat([context, place], dim=-1)

    matrix = torch.kron(torch.eye(basis.size, dtype=torch.float64), ones[:, None])
    return Growth(TensorProduct(basis, factor), matrix, embed)
