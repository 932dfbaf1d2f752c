"""What every topology can do. Knows nothing about bases or weights."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cl_manifold.errors import ContextError
from cl_manifold.geometry.coordinates import parts_of, real_numbers, whole_number

ROUNDING = 1e-6
"""What float32 leaves uncertain, relative to the largest number of a space."""


class Topology(ABC):
    """A space of contexts with coordinates in R^dim and the uniform probability measure μ.

    Attributes:
        dim: how many numbers one context has.
        scale: one length ℓ_i per coordinate, chosen so that the slowest smooth variation along it
            has unit frequency: period / 2π on a circle, length / π on an interval.
        tolerance: contexts at most this far apart are the same; of a product, the largest one.
        mixes: whether a context is a mixture of pure tasks, with a coordinate for each of them; of
            a product, see its factors.
    """

    dim: int
    scale: tuple[float, ...]
    tolerance: float
    mixes: bool = False

    @abstractmethod
    def wrap(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """The same contexts in canonical coordinates.

        Raises:
            ContextError: a context lies outside the space.
        """

    @abstractmethod
    def project(self, numbers: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """The contexts that are nearest to any numbers, in canonical coordinates.

        Raises:
            ContextError: a number is not one.
        """

    @abstractmethod
    def distance(
        self, a: Float[Tensor, "*batch dim"], b: Float[Tensor, "*batch dim"]
    ) -> Float[Tensor, "*batch"]:
        """Length of the shortest path between contexts, in the units of the coordinates."""

    @abstractmethod
    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "count dim"]:
        """Independent contexts distributed as μ (float64)."""

    @abstractmethod
    def grid(self, count: int) -> Float[Tensor, "n dim"]:
        """About `count` contexts spread evenly over the space, borders included (float64)."""

    @abstractmethod
    def quadrature(self, order: int) -> tuple[Float[Tensor, "Q dim"], Float[Tensor, " Q"]]:
        """Nodes and weights with Σ_q ω_q f(c_q) = ∫ f dμ for polynomials f up to degree `order`.

        On a circle the polynomials are trigonometric.
        """

    @abstractmethod
    def order(self, nodes: int) -> int:
        """The highest order whose quadrature has at most so many nodes; never below 2."""

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """Plain numbers and strings from which `topology_from_spec` builds an equal space."""

    @property
    def factors(self) -> "tuple[Topology, ...]":
        """The spaces of which this one is the product; itself if it is none."""
        return (self,)

    def split(self, context: Float[Tensor, "*batch dim"]) -> list[Float[Tensor, "*batch _"]]:
        """The coordinates of each factor."""
        check_dim(self, context)
        return list(torch.split(context, [f.dim for f in self.factors], dim=-1))

    def metric(self) -> Float[Tensor, "dim dim"]:
        """M of the stiffness ∫ Σ_ij M_ij ∂_iφ ∂_jφᵀ dμ: diag(ℓ_i²)."""
        return torch.tensor(self.scale, dtype=torch.float64).square().diag()

    def same(
        self, a: Float[Tensor, "*#batch dim"], b: Float[Tensor, "*#batch dim"]
    ) -> Bool[Tensor, "*#batch"]:
        """Which contexts are equal up to the rounding of float32; the one test of equality.

        d_f(a_f, b_f) ≤ tolerance_f in every factor f. Batches broadcast.

        Raises:
            ContextError: a context lies outside the space.
        """
        check_dim(self, a)
        check_dim(self, b)
        shape = (a + b).shape
        sides = [self.split(side.double().expand(shape)) for side in (a, b)]
        parts = zip(self.factors, *sides, strict=True)
        return torch.stack([f.distance(x, y) <= f.tolerance for f, x, y in parts]).all(0)

    def embed(self, value: Any) -> Float[Tensor, " dim"]:
        """A context from any number type, in canonical coordinates (float64, on the CPU).

        Takes an int, a float, a list, an array or a tensor of any real type. A whole number on a
        simplex is the vertex of that index; a product also takes one such value per factor.

        Raises:
            ContextError: the value is not made of `dim` finite numbers of this space.
        """
        factors = self.factors
        parts = parts_of(value)
        if 1 < len(factors) < self.dim and len(parts) == len(factors):
            pairs = zip(factors, parts, strict=True)
            return torch.cat([factor.embed(part) for factor, part in pairs])
        index = whole_number(value) if self.mixes else None
        return self._number(value) if index is None else self._vertex(index)

    def _number(self, value: Any) -> Tensor:
        numbers = real_numbers(value)
        if numbers is None:
            raise self._refused(value, "is not made of real numbers")
        context = numbers.reshape(1) if numbers.ndim == 0 else numbers
        if context.shape != (self.dim,):
            raise self._refused(value, f"has the shape {tuple(numbers.shape)}")
        if not bool(context.isfinite().all()):
            raise self._refused(value, "is not finite")
        return self.wrap(context)

    def _vertex(self, index: int) -> Tensor:
        if not 0 <= index < self.dim:
            raise self._refused(index, "is no vertex")
        return torch.eye(self.dim, dtype=torch.float64)[index]

    def _refused(self, value: Any, problem: str) -> ContextError:
        text = " ".join(repr(value).split())
        text = text if len(text) <= 60 else f"{text[:57]}..."
        vertex = f", or the index of a vertex from 0 to {self.dim - 1}" if self.mixes else ""
        return ContextError(
            f"context {text} {problem}, but {self.spec()['kind']} needs {_count(self.dim)}; "
            f"give {'it' if self.dim == 1 else 'them'} as a list, an array or a tensor{vertex}"
        )


def check_dim(topology: Topology, context: Tensor) -> None:
    """Raise `ContextError` if the last axis of `context` is not `topology.dim` long."""
    got = context.shape[-1] if context.ndim else 0
    if got != topology.dim:
        raise ContextError(
            f"a context has {_count(got)}, but {topology.spec()['kind']} "
            f"needs {topology.dim}; choose a topology of that dimension or give other contexts"
        )


def _count(numbers: int) -> str:
    return f"{numbers} number{'s' if numbers != 1 else ''}"
