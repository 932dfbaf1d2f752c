"""A basis rewritten so that its Gram matrix is the identity."""

from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from cl_manifold.geometry.basis import Basis, Growth

linalg: Any = torch.linalg  # without types


@final
class Orthonormal(Basis):
    """The same functions as another basis, orthonormal over the uniform measure.

    φ̃(c) = L⁻¹ φ(c),   L Lᵀ = G = ∫ φ φᵀ dμ

    Here the natural step G⁻¹∇ is the gradient itself. So any optimizer takes natural steps, also
    one that scales every coordinate by its own history: after Adam, the G⁻¹ of another basis is
    mostly gone (of diag(1, 2, 2) nothing is left).

    Attributes:
        basis: φ.
    """

    def __init__(self, basis: Basis) -> None:
        self.basis, self.topology, self.size = basis, basis.topology, basis.size
        self.strength, self.own_prior = basis.strength, basis.own_prior
        self._factor: Tensor = linalg.cholesky(basis.gram())

    def __call__(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch K"]:
        """φ̃(c) as in the class's formula."""
        return self._solved(self.basis(context))

    def derivative(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim K"]:
        """L⁻¹ ∂φ."""
        return self._solved(self.basis.derivative(context))

    def gram(self) -> Float[Tensor, "K K"]:
        """The identity."""
        return torch.eye(self.size, dtype=torch.float64)

    def stiffness(self) -> Float[Tensor, "K K"]:
        """L⁻¹ S L⁻ᵀ."""
        return self._solved(self._solved(self.basis.stiffness()).mT)

    def constant(self) -> Float[Tensor, " K"] | None:
        """Lᵀ a."""
        a = self.basis.constant()
        return None if a is None else self._factor.mT @ a

    def prior(self, mean: float = 1e-3) -> Float[Tensor, "K K"]:
        """L⁻¹ G₀ L⁻ᵀ: the same belief about the same functions."""
        return self._solved(self._solved(self.basis.prior(mean)).mT)

    def grown(self) -> Growth:
        """As the basis grows: T̃ = L'ᵀ T L⁻ᵀ."""
        growth = self.basis.grown()
        larger = Orthonormal(growth.basis)
        return Growth(larger, larger._factor.mT @ self._solved(growth.matrix), growth.embed)

    def spec(self) -> dict[str, Any]:
        """Kind and the basis' spec."""
        return {"kind": "orthonormal", "basis": self.basis.spec()}

    def _solved(self, rows: Tensor) -> Tensor:
        """L⁻¹ on the last axis: r ↦ r L⁻ᵀ."""
        flat = rows.reshape(-1, self.size)
        factor = self._factor.to(rows)
        return linalg.solve_triangular(factor, flat.mT, upper=False).mT.reshape(rows.shape)
