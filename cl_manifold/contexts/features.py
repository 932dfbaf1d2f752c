"""Random features of inputs and their packed second moments; nothing but a seed is stored."""

from math import isqrt, pi
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from cl_manifold.errors import ContextError

BLOCK = 256
"""Rows of a moment matrix that are formed together."""


@final
class RandomFeatures:
    """Cosines of random projections, for a Gaussian kernel as wide as inputs are long.

    ψ_i(x) = cos(w_iᵀx/(s√d) + b_i),   w_i ~ N(0, I), b_i ~ U[0, 2π];   ψ_0 = 1

    Source: Rahimi and Recht 2007, sec. 3.1; the constant serves as intercept.

    Attributes:
        count: n.
        seed: of w and b, which are the same on every machine.
        scale: s, the root mean square of the first inputs; 0 before they came.
    """

    def __init__(self, count: int, seed: int) -> None:
        if count < 2:
            raise ValueError(f"features must be 2 or more, got {count}")
        self.count, self.seed = count, seed
        self.scale = 0.0
        self._projection: tuple[Tensor, Tensor] | None = None

    def adapt(self, x: Float[Tensor, "N d"]) -> None:
        """Take s from the first inputs that come; later ones change nothing."""
        if not self.scale:
            self.scale = max(float(x.square().mean().sqrt()), 1e-12)

    def restore(self, scale: float) -> None:
        """Take s as it was."""
        self.scale, self._projection = scale, None

    def __call__(self, x: Float[Tensor, "N d"]) -> Float[Tensor, "N n"]:
        """ψ(x) of each row.

        Raises:
            ContextError: x has another size than before.
        """
        if self._projection is None:
            generator, real = torch.Generator().manual_seed(self.seed), torch.float32
            w = torch.randn(x.shape[1], self.count, generator=generator, dtype=real)
            b = torch.rand(self.count, generator=generator, dtype=real)
            shrink = 1 / (self.scale * x.shape[1] ** 0.5)
            self._projection = (shrink * w.to(x), 2 * pi * b.to(x))
        w, b = self._projection
        if x.shape[1] != len(w):
            raise ContextError(
                f"an input has {x.shape[1]} numbers, but earlier ones had {len(w)}; "
                "give inputs of one size"
            )
        psi = (x @ w.to(x) + b.to(x)).cos_()
        psi[:, 0] = 1
        return psi


def add_moments(square: Float[Tensor, "n n"], psi: Float[Tensor, "N n"]) -> None:
    """Add Σ ψψᵀ to the blocks of `square` on and above the diagonal, in place."""
    for start in range(0, len(square), BLOCK):
        rows = psi[:, start : start + BLOCK]
        square[start : start + BLOCK, start:].addmm_(rows.mT, psi[:, start:])


def packed(square: Float[Tensor, "n n"]) -> Float[Tensor, " m"]:
    """The upper triangle, row by row."""
    rows, columns = torch.triu_indices(*square.shape, device=square.device)
    return square[rows, columns]


def unpacked(triangle: Float[Tensor, " m"]) -> Float[Tensor, "n n"]:
    """The symmetric matrix of an upper triangle: n(n + 1)/2 = m."""
    size = (isqrt(8 * len(triangle) + 1) - 1) // 2
    rows, columns = torch.triu_indices(size, size, device=triangle.device)
    square = triangle.new_empty(size, size)
    square[rows, columns] = triangle
    square[columns, rows] = triangle
    return square
