"""Bases: K smooth functions on a topology. Knows nothing about weights.

Every basis φ spans a space of functions; the weight manifold is w(c) = Σ_k φ_k(c) P_k.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import pi
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from cl_manifold.geometry.topology import Circle, Topology


class Basis(ABC):
    """K smooth functions φ_k on a topology.

    Attributes:
        topology: the space the functions live on.
        size: K, the number of functions and of control points.
    """

    topology: Topology
    size: int
    strength: float = 10.0

    def prior(self, mean: float = 1e-3) -> Tensor:
        """Stopgap."""
        from cl_manifold.geometry.gram import hierarchical_prior

        return hierarchical_prior(self, mean)

    @abstractmethod
    def __call__(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch K"]:
        """φ(c) for each context, in the context's dtype.

        Raises:
            ContextError: a context lies outside the topology.
        """

    @abstractmethod
    def derivative(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim K"]:
        """∂φ_k/∂c_i for each context."""

    @abstractmethod
    def gram(self) -> Float[Tensor, "K K"]:
        """G = ∫ φ φᵀ dμ over the uniform measure of the topology (float64)."""

    @abstractmethod
    def stiffness(self) -> Float[Tensor, "K K"]:
        """S = ∫ Σ_i ℓ_i² ∂_iφ ∂_iφᵀ dμ with the topology's lengths ℓ_i (float64)."""

    @abstractmethod
    def constant(self) -> Float[Tensor, " K"] | None:
        """Coefficients a with φ(c)ᵀa = 1 for all c, or None if constants are not in the span."""

    @abstractmethod
    def grown(self) -> "Growth":
        """The next larger basis of the same family, whose span contains this one."""

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """Plain numbers and strings from which `basis_from_spec` builds an equal basis."""


def same_context(context: Tensor) -> Tensor:
    """The identity: growth left the coordinates of contexts as they are."""
    return context


@dataclass(frozen=True)
class Growth:
    """A larger basis φ' and the matrix T with φ'(e(c))ᵀ T = φ(c)ᵀ for all c.

    Applied to the control points, P' = T P, it leaves every w(c) where it was.

    Attributes:
        basis: the larger basis, K' functions.
        matrix: T, shape (K', K), float64.
        embed: e, which takes an old context to its place on the larger basis' topology.
    """

    basis: Basis
    matrix: Float[Tensor, "K1 K"]
    embed: Callable[[Tensor], Tensor] = same_context


def compose(first: Growth, second: Growth) -> Growth:
    """Two growths after one another: T = T_2 T_1 and e(c) = e_2(e_1(c))."""
    return Growth(
        second.basis,
        second.matrix @ first.matrix,
        lambda context: second.embed(first.embed(context)),
    )


@final
class Fourier(Basis):
    """H harmonics on a circle, K = 2H + 1; H = 0 is a constant, H = 1 an ellipse.

    φ(c) = (1, cos θ, sin θ, cos 2θ, sin 2θ, …, sin Hθ),   θ = 2πc / period
    """

    def __init__(self, harmonics: int = 3, period: float = 1.0) -> None:
        if harmonics < 0:
            raise ValueError(f"harmonics must be 0 or more, got {harmonics}")
        self.harmonics = harmonics
        self.period = float(period)
        self.topology = Circle(period)
        self.size = 2 * harmonics + 1

    def _angles(self, context: Tensor) -> Tensor:
        h = torch.arange(1, self.harmonics + 1, dtype=context.dtype, device=context.device)
        return 2 * pi / self.period * self.topology.wrap(context) * h

    def __call__(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch K"]:
        """φ(c) as in the class's formula."""
        angle = self._angles(context)
        waves = torch.stack([angle.cos(), angle.sin()], dim=-1).flatten(-2)
        return torch.cat([torch.ones_like(context), waves], dim=-1)

    def derivative(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim K"]:
        """(0, −ω sin θ, ω cos θ, …) with ω = 2πh / period."""
        angle = self._angles(context)
        h = torch.arange(1, self.harmonics + 1, dtype=context.dtype, device=context.device)
        rate = 2 * pi / self.period * h
        waves = torch.stack([-rate * angle.sin(), rate * angle.cos()], dim=-1).flatten(-2)
        return torch.cat([torch.zeros_like(context), waves], dim=-1).unsqueeze(-2)

    def _frequencies(self) -> Tensor:
        return torch.arange(1, self.harmonics + 1, dtype=torch.float64).repeat_interleave(2)

    def gram(self) -> Float[Tensor, "K K"]:
        """diag(1, ½, ½, …)."""
        h = self._frequencies()
        return torch.cat([torch.ones(1, dtype=torch.float64), torch.full_like(h, 0.5)]).diag()

    def stiffness(self) -> Float[Tensor, "K K"]:
        """diag(0, ½, ½, …, ½h², ½h²)."""
        h = self._frequencies()
        return torch.cat([torch.zeros(1, dtype=torch.float64), h.square() / 2]).diag()

    def constant(self) -> Float[Tensor, " K"]:
        """The first function is the constant."""
        return torch.eye(self.size, dtype=torch.float64)[0]

    def grown(self) -> Growth:
        """The next harmonic; its control points start at zero."""
        larger = Fourier(self.harmonics + 1, self.period)
        return Growth(larger, torch.eye(larger.size, self.size, dtype=torch.float64))

    def spec(self) -> dict[str, Any]:
        """Kind, harmonics, period."""
        return {"kind": "fourier", "harmonics": self.harmonics, "period": self.period}
