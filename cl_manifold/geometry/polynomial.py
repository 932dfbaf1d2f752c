"""Bernstein polynomials on an interval. Knows nothing about weights."""

from math import comb, pi
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from cl_manifold.geometry.basis import Basis, Growth
from cl_manifold.geometry.topology import Interval


@final
class Bernstein(Basis):
    """Polynomials of degree n on an interval, K = n + 1; degree 1 is the line between two points.

    φ_i(c) = C(n, i) tⁱ (1 − t)ⁿ⁻ⁱ,   t = (c − low) / (high − low)
    """

    def __init__(self, degree: int, low: float = 0.0, high: float = 1.0) -> None:
        if degree < 0:
            raise ValueError(f"a polynomial needs a degree of 0 or more, got {degree}")
        self.degree = degree
        self.low, self.high = float(low), float(high)
        self.topology = Interval(low, high)
        self.size = degree + 1

    def _unit(self, context: Tensor) -> Tensor:
        return (self.topology.wrap(context) - self.low) / (self.high - self.low)

    def __call__(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch K"]:
        """φ(c) as in the class's formula."""
        return _bernstein(self._unit(context), self.degree)

    def derivative(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim K"]:
        """∂φ_i = n (φ_{i−1} − φ_i) / (high − low), with the functions of degree n − 1."""
        lower = _bernstein(self._unit(context), self.degree - 1)
        none = torch.zeros_like(context)
        step = torch.cat([none, lower], dim=-1) - torch.cat([lower, none], dim=-1)
        return (self.degree / (self.high - self.low) * step).unsqueeze(-2)

    def gram(self) -> Float[Tensor, "K K"]:
        """G_ij = C(n, i) C(n, j) / ((2n + 1) C(2n, i + j))."""
        return _bernstein_gram(self.degree)

    def stiffness(self) -> Float[Tensor, "K K"]:
        """S = (n / π)² Dᵀ G_{n−1} D, where D takes differences of neighbours."""
        difference = torch.eye(self.size, dtype=torch.float64).diff(dim=0)
        lower = _bernstein_gram(self.degree - 1)
        return (self.degree / pi) ** 2 * difference.mT @ lower @ difference

    def constant(self) -> Float[Tensor, " K"]:
        """All ones: the functions sum to one."""
        return torch.ones(self.size, dtype=torch.float64)

    def grown(self) -> Growth:
        """Degree elevation: φ_i = ((n + 1 − i) φ'_i + (i + 1) φ'_{i+1}) / (n + 1)."""
        share = torch.arange(self.size, dtype=torch.float64) / self.size
        matrix = torch.zeros(self.size + 1, self.size, dtype=torch.float64)
        matrix[:-1] += torch.diag(1 - share)
        matrix[1:] += torch.diag(share + 1 / self.size)
        return Growth(Bernstein(self.degree + 1, self.low, self.high), matrix)

    def spec(self) -> dict[str, Any]:
        """Kind, degree, ends."""
        return {"kind": "bernstein", "degree": self.degree, "low": self.low, "high": self.high}


def _bernstein(t: Float[Tensor, "*batch 1"], degree: int) -> Float[Tensor, "*batch K"]:
    """φ^n_i(t) = (1 − t) φ^{n−1}_i + t φ^{n−1}_{i−1}, from φ⁰ = 1; no functions below degree 0."""
    if degree < 0:
        return t[..., :0]
    values, none = torch.ones_like(t), torch.zeros_like(t)
    for _ in range(degree):
        stay = torch.cat([(1 - t) * values, none], dim=-1)
        values = stay + torch.cat([none, t * values], dim=-1)
    return values


def _bernstein_gram(degree: int) -> Float[Tensor, "K K"]:
    n, index = degree, range(degree + 1)
    rows = [
        [comb(n, i) * comb(n, j) / ((2 * n + 1) * comb(2 * n, i + j)) for j in index] for i in index
    ]
    return torch.tensor(rows, dtype=torch.float64).reshape(n + 1, n + 1)
