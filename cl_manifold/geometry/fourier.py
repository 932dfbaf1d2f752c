"""Harmonics on a circle. Knows nothing about weights."""

from math import pi
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from cl_manifold.geometry.basis import Basis, Growth
from cl_manifold.geometry.topology import Circle


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
