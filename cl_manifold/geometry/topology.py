"""Topologies: the spaces that contexts live on. Knows nothing about bases or weights."""

from abc import ABC, abstractmethod
from math import pi
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from cl_manifold.errors import ContextError, context_text
from cl_manifold.geometry.quadrature import combined, gauss_legendre, grundmann_moeller


class Topology(ABC):
    """A space of contexts with coordinates in R^dim and the uniform probability measure μ.

    Attributes:
        dim: how many numbers one context has.
        scale: one length ℓ_i per coordinate, chosen so that the slowest smooth variation along it
            has unit frequency: period / 2π on a circle, length / π on an interval.
    """

    dim: int
    scale: tuple[float, ...]

    @abstractmethod
    def wrap(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """The same contexts in canonical coordinates.

        Raises:
            ContextError: a context lies outside the space.
        """

    @abstractmethod
    def distance(
        self, a: Float[Tensor, "*batch dim"], b: Float[Tensor, "*batch dim"]
    ) -> Float[Tensor, "*batch"]:
        """Length of the shortest path between contexts, in the units of the coordinates."""

    def same(self, a: Tensor, b: Tensor) -> Tensor:
        """Stopgap."""
        return self.distance(a.double(), b.double()) <= 1e-6 * min(self.scale)

    def embed(self, value: Any) -> Tensor:
        """Stopgap."""
        t = torch.as_tensor(value)
        if isinstance(self, Simplex) and t.ndim == 0:
            return torch.eye(self.dim, dtype=torch.float64)[int(t)]
        return t.detach().cpu().double().reshape(-1)

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
    def spec(self) -> dict[str, Any]:
        """Plain numbers and strings from which `topology_from_spec` builds an equal space."""


def check_dim(topology: Topology, context: Tensor) -> None:
    """Raise `ContextError` if the last axis of `context` is not `topology.dim` long."""
    got = context.shape[-1] if context.ndim else 0
    if got != topology.dim:
        raise ContextError(
            f"a context has {got} number{'s' if got != 1 else ''}, but {topology.spec()['kind']} "
            f"needs {topology.dim}; choose a topology of that dimension or give other contexts"
        )


@final
class Interval(Topology):
    """The closed interval [low, high]: noise levels, time, strength of an effect."""

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        if not low < high:
            raise ValueError(f"an interval needs low < high, got [{low}, {high}]")
        self.low, self.high = float(low), float(high)
        self.dim = 1
        self.scale = ((self.high - self.low) / pi,)

    def wrap(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """The contexts unchanged; rounding beyond an end (1e-6 of the length) is clipped."""
        check_dim(self, context)
        slack = 1e-6 * (self.high - self.low)
        inside = (context >= self.low - slack) & (context <= self.high + slack)
        if not bool(inside.all()):
            raise ContextError(
                f"context {context_text(context[~inside][:1])} lies outside "
                f"[{self.low:g}, {self.high:g}]; rescale it, widen the interval, "
                "or use a circle if contexts repeat"
            )
        # not `clamp`, whose gradient vanishes at the ends themselves
        above = torch.where(context < self.low, self.low, context)
        return torch.where(above > self.high, self.high, above)

    def distance(
        self, a: Float[Tensor, "*batch dim"], b: Float[Tensor, "*batch dim"]
    ) -> Float[Tensor, "*batch"]:
        """|a − b|."""
        return (self.wrap(a) - self.wrap(b)).abs().squeeze(-1)

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "count dim"]:
        """Uniform on [low, high]."""
        u = torch.rand(count, 1, generator=generator, dtype=torch.float64)
        return self.low + (self.high - self.low) * u

    def grid(self, count: int) -> Float[Tensor, "n dim"]:
        """`count` equidistant points with both ends."""
        return torch.linspace(self.low, self.high, count, dtype=torch.float64)[:, None]

    def quadrature(self, order: int) -> tuple[Float[Tensor, "Q dim"], Float[Tensor, " Q"]]:
        """Gauss–Legendre nodes: n of them are exact up to degree 2n − 1."""
        x, weight = gauss_legendre(order // 2 + 1)
        return self.low + (self.high - self.low) * x[:, None], weight

    def spec(self) -> dict[str, Any]:
        """Kind and ends."""
        return {"kind": "interval", "low": self.low, "high": self.high}


@final
class Circle(Topology):
    """The circle of circumference `period`; contexts one period apart are the same."""

    def __init__(self, period: float = 1.0) -> None:
        if not period > 0:
            raise ValueError(f"a circle needs a period > 0, got {period}")
        self.period = float(period)
        self.dim = 1
        self.scale = (self.period / (2 * pi),)

    def wrap(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """The representative in [0, period)."""
        check_dim(self, context)
        if not bool(context.isfinite().all()):
            raise ContextError("a context on the circle is not a finite number; give an angle")
        angle = context.remainder(self.period)
        # just below zero the remainder rounds up to the period itself
        return torch.where(angle < self.period, angle, angle - self.period)

    def distance(
        self, a: Float[Tensor, "*batch dim"], b: Float[Tensor, "*batch dim"]
    ) -> Float[Tensor, "*batch"]:
        """The shorter of the two arcs, at most period / 2."""
        arc = self.wrap(a - b).squeeze(-1)
        return torch.minimum(arc, self.period - arc)

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "count dim"]:
        """Uniform on [0, period)."""
        return self.period * torch.rand(count, 1, generator=generator, dtype=torch.float64)

    def grid(self, count: int) -> Float[Tensor, "n dim"]:
        """`count` equidistant points; the last lies one step before the first."""
        return self.period * torch.arange(count, dtype=torch.float64)[:, None] / count

    def quadrature(self, order: int) -> tuple[Float[Tensor, "Q dim"], Float[Tensor, " Q"]]:
        """The trapezoidal rule: n equidistant nodes are exact below harmonic n."""
        count = order + 1
        return self.grid(count), torch.full((count,), 1 / count, dtype=torch.float64)

    def spec(self) -> dict[str, Any]:
        """Kind and period."""
        return {"kind": "circle", "period": self.period}


@final
class Product(Topology):
    """The product of topologies: coordinates side by side, measures multiplied."""

    def __init__(self, *factors: Topology) -> None:
        if not factors:
            raise ValueError("a product needs at least one factor")
        self.factors = factors
        self.dim = sum(f.dim for f in factors)
        self.scale = tuple(length for f in factors for length in f.scale)

    def split(self, context: Float[Tensor, "*batch dim"]) -> list[Float[Tensor, "*batch _"]]:
        """The coordinates of each factor."""
        check_dim(self, context)
        return list(torch.split(context, [f.dim for f in self.factors], dim=-1))

    def wrap(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Each factor wraps its own coordinates."""
        parts = zip(self.factors, self.split(context), strict=True)
        return torch.cat([f.wrap(part) for f, part in parts], dim=-1)

    def distance(
        self, a: Float[Tensor, "*batch dim"], b: Float[Tensor, "*batch dim"]
    ) -> Float[Tensor, "*batch"]:
        """√(Σ d_i²) over the factors."""
        parts = zip(self.factors, self.split(a), self.split(b), strict=True)
        return torch.stack([f.distance(x, y) for f, x, y in parts]).square().sum(0).sqrt()

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "count dim"]:
        """Factors sampled independently."""
        return torch.cat([f.sample(count, generator) for f in self.factors], dim=-1)

    def grid(self, count: int) -> Float[Tensor, "n dim"]:
        """All combinations of the factors' grids, about `count` in total."""
        each = max(2, round(count ** (1 / len(self.factors))))
        return combined([f.grid(each) for f in self.factors])

    def quadrature(self, order: int) -> tuple[Float[Tensor, "Q dim"], Float[Tensor, " Q"]]:
        """The product rule."""
        rules = [f.quadrature(order) for f in self.factors]
        weights = combined([weight[:, None] for _, weight in rules]).prod(-1)
        return combined([nodes for nodes, _ in rules]), weights

    def spec(self) -> dict[str, Any]:
        """Kind and the factors' specs."""
        return {"kind": "product", "factors": [f.spec() for f in self.factors]}


def torus(dim: int = 2, period: float = 1.0) -> Product:
    """The product of `dim` circles of equal period."""
    return Product(*(Circle(period) for _ in range(dim)))


@final
class Simplex(Topology):
    """Mixtures of n things: n non-negative numbers that sum to one. A vertex is a pure task."""

    def __init__(self, vertices: int) -> None:
        if vertices < 1:
            raise ValueError(f"a simplex needs at least one vertex, got {vertices}")
        self.vertices = vertices
        self.dim = vertices
        self.scale = (1.0,) * vertices

    def wrap(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """The contexts unchanged, after a check that they are mixtures (to 1e-6)."""
        check_dim(self, context)
        slack = 1e-6
        inside = (context >= -slack).all(-1) & ((context.sum(-1) - 1).abs() <= slack)
        if not bool(inside.all()):
            raise ContextError(
                f"context {context_text(context[~inside][0])} is not a mixture: its "
                f"{self.vertices} numbers must be non-negative and sum to 1; "
                "normalise it, or give a one-hot vector for a pure task"
            )
        return context

    def distance(
        self, a: Float[Tensor, "*batch dim"], b: Float[Tensor, "*batch dim"]
    ) -> Float[Tensor, "*batch"]:
        """‖a − b‖."""
        return (self.wrap(a) - self.wrap(b)).square().sum(-1).sqrt()

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "count dim"]:
        """Dirichlet(1, …, 1): normalised exponentials."""
        u = torch.rand(count, self.vertices, generator=generator, dtype=torch.float64)
        waiting = -torch.log1p(-u)
        return waiting / waiting.sum(-1, keepdim=True)

    def grid(self, count: int) -> Float[Tensor, "n dim"]:
        """The vertices, the midpoints of the edges and the centre, whatever `count` is."""
        eye = torch.eye(self.vertices, dtype=torch.float64)
        pairs = torch.combinations(torch.arange(self.vertices), 2)
        middle = (eye[pairs[:, 0]] + eye[pairs[:, 1]]) / 2
        return torch.cat([eye, middle, eye.mean(0, keepdim=True)])

    def quadrature(self, order: int) -> tuple[Float[Tensor, "Q dim"], Float[Tensor, " Q"]]:
        """The rule of Grundmann and Möller."""
        return grundmann_moeller(self.vertices, order)

    def spec(self) -> dict[str, Any]:
        """Kind and number of vertices."""
        return {"kind": "simplex", "vertices": self.vertices}


def topology_from_spec(spec: dict[str, Any]) -> Topology:
    """The inverse of `Topology.spec`.

    >>> topology_from_spec(Circle(360.0).spec()).spec()
    {'kind': 'circle', 'period': 360.0}
    """
    kinds: dict[str, Any] = {"interval": Interval, "circle": Circle, "simplex": Simplex}
    values = {key: value for key, value in spec.items() if key != "kind"}
    if spec["kind"] == "product":
        return Product(*(topology_from_spec(f) for f in values["factors"]))
    return kinds[spec["kind"]](**values)
