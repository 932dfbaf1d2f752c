"""Affine functions of free numbers: the basis of a hypernetwork's last layer."""

from math import pi
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from cl_manifold.geometry.basis import Basis, Growth
from cl_manifold.geometry.topology import Interval, Product


@final
class Affine(Basis):
    """A constant and n coordinates on the box [−1, 1]ⁿ, K = n + 1.

    φ(z) = (1, z_1, …, z_n)
    """

    def __init__(self, inputs: int) -> None:
        self.topology = Product(*(Interval(-1.0, 1.0) for _ in range(inputs)))
        self.inputs, self.size = inputs, inputs + 1

    def __call__(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch K"]:
        """φ(z) as in the class's formula."""
        z = self.topology.wrap(context)
        return torch.cat([torch.ones_like(z[..., :1]), z], dim=-1)

    def derivative(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim K"]:
        """∂φ_k/∂z_i = 1 for k = i + 1, otherwise 0."""
        z = self.topology.wrap(context)
        slope = torch.eye(self.size)[1:]
        return slope.to(z).expand(*z.shape[:-1], -1, -1)

    def gram(self) -> Float[Tensor, "K K"]:
        """diag(1, ⅓, …, ⅓)."""
        return self._diagonal(1.0, 1 / 3)

    def stiffness(self) -> Float[Tensor, "K K"]:
        """diag(0, ℓ², …, ℓ²) with ℓ = 2 / π."""
        return self._diagonal(0.0, (2 / pi) ** 2)

    def constant(self) -> Float[Tensor, " K"]:
        """The first function is the constant."""
        return torch.eye(self.size, dtype=torch.float64)[0]

    def grown(self) -> Growth:
        """One more coordinate; old contexts have 0 there."""
        matrix = torch.eye(self.size + 1, self.size, dtype=torch.float64)
        return Growth(Affine(self.inputs + 1), matrix, _with_zero)

    def spec(self) -> dict[str, Any]:
        """Kind and number of coordinates."""
        return {"kind": "affine", "inputs": self.inputs}

    def _diagonal(self, first: float, others: float) -> Tensor:
        values = [first] + [others] * self.inputs
        return torch.tensor(values, dtype=torch.float64).diag()


def _with_zero(context: Tensor) -> Tensor:
    return torch.nn.functional.pad(context, (0, 1))
