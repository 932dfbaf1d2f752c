"""Products of bases on products of topologies. Knows nothing about weights."""

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from cl_manifold.geometry.basis import Basis, Growth
from cl_manifold.geometry.space import check_dim
from cl_manifold.geometry.topology import Product


@final
class TensorProduct(Basis):
    """All products of one function from each factor, K = Π_i K_i.

    φ(c) = φ_1(c_1) ⊗ φ_2(c_2) ⊗ …

    A factor that is itself a product is replaced by its factors.

    Attributes:
        factors: the bases φ_i; none of them is a product.
    """

    def __init__(self, *bases: Basis) -> None:
        self.factors = tuple(f for basis in bases for f in _factors_of(basis))
        self.topology = Product(*(f.topology for f in self.factors))
        self.size = prod(f.size for f in self.factors)
        self.strength = max(f.strength for f in self.factors)
        self.own_prior = any(f.own_prior for f in self.factors)

    def __call__(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch K"]:
        """φ(c) as in the class's formula."""
        parts = self._split(context)
        return _outer([f(part) for f, part in zip(self.factors, parts, strict=True)])

    def _split(self, context: Tensor) -> list[Tensor]:
        check_dim(self.topology, context)
        return list(torch.split(context, [f.topology.dim for f in self.factors], dim=-1))

    def derivative(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim K"]:
        """The product rule: only the factor that a coordinate belongs to is differentiated."""
        parts = self._split(context)
        pairs = list(zip(self.factors, parts, strict=True))
        values = [f(part).unsqueeze(-2) for f, part in pairs]
        slopes = [f.derivative(part) for f, part in pairs]
        return torch.cat(
            [_outer([*values[:i], slope, *values[i + 1 :]]) for i, slope in enumerate(slopes)],
            dim=-2,
        )

    def gram(self) -> Float[Tensor, "K K"]:
        """G = G_1 ⊗ G_2 ⊗ …."""
        return _kron([f.gram() for f in self.factors])

    def stiffness(self) -> Float[Tensor, "K K"]:
        """S = S_1 ⊗ G_2 ⊗ … + G_1 ⊗ S_2 ⊗ … + …."""
        grams = [f.gram() for f in self.factors]
        total = torch.zeros(self.size, self.size, dtype=torch.float64)
        for i, factor in enumerate(self.factors):
            total += _kron([*grams[:i], factor.stiffness(), *grams[i + 1 :]])
        return total

    def constant(self) -> Float[Tensor, " K"] | None:
        """The coefficients a_1 ⊗ a_2 ⊗ …, or None if a factor has no constant."""
        parts = [f.constant() for f in self.factors]
        known = [part for part in parts if part is not None]
        return _kron(known) if len(known) == len(parts) else None

    def prior(self, mean: float = 1e-3) -> Float[Tensor, "K K"]:
        """The energy's prior, or G₀ ⊗ G₀' ⊗ … where a factor has a prior of its own."""
        if self.own_prior:
            return _kron([f.prior(mean) for f in self.factors])
        return Basis.prior(self, mean)

    def grown(self) -> Growth:
        """Grows the factor with the fewest functions, the first one among equals."""
        chosen = min(range(len(self.factors)), key=lambda i: self.factors[i].size)
        step = self.factors[chosen].grown()
        factors, matrices = list(self.factors), [_eye(f.size) for f in self.factors]
        factors[chosen], matrices[chosen] = step.basis, step.matrix

        def embed(context: Tensor) -> Tensor:
            parts = self._split(context)
            parts[chosen] = step.embed(parts[chosen])
            return torch.cat(parts, dim=-1)

        return Growth(TensorProduct(*factors), _kron(matrices), embed)

    def spec(self) -> dict[str, Any]:
        """Kind and the factors' specs."""
        return {"kind": "product", "factors": [f.spec() for f in self.factors]}


def _factors_of(basis: Basis) -> tuple[Basis, ...]:
    return basis.factors if isinstance(basis, TensorProduct) else (basis,)


def _eye(size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64)


def _kron(parts: Sequence[Tensor]) -> Tensor:
    return reduce(torch.kron, parts)


def _outer(parts: Sequence[Tensor]) -> Tensor:
    """The Kronecker product along the last axis; the others broadcast."""
    return reduce(lambda a, b: (a[..., :, None] * b[..., None, :]).flatten(-2), parts)
