"""Topologies: the spaces that contexts live on. Knows nothing about bases or weights."""

from math import comb, pi
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from cl_manifold.errors import ContextError, context_text
from cl_manifold.geometry.quadrature import combined, gauss_legendre, grundmann_moeller
from cl_manifold.geometry.space import ROUNDING, Topology, check_dim

__all__ = ["Circle", "Interval", "Product", "Simplex", "Topology", "topology_from_spec", "torus"]

FINEST = 512
"""Gauss–Legendre nodes on one interval at most: their eigenvalue problem grows with the cube."""


@final
class Interval(Topology):
    """The closed interval [low, high]: noise levels, time, strength of an effect."""

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        if not low < high:
            raise ValueError(f"an interval needs low < high, got [{low}, {high}]")
        self.low, self.high = float(low), float(high)
        self.dim = 1
        self.scale = ((self.high - self.low) / pi,)
        self.tolerance = ROUNDING * max(self.high - self.low, abs(self.low), abs(self.high))

    def wrap(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """The contexts unchanged; rounding beyond an end is clipped."""
        check_dim(self, context)
        slack = self.tolerance
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

    def project(self, numbers: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """min(max(c, low), high)."""
        return self.wrap(numbers.clamp(self.low, self.high))

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

    def order(self, nodes: int) -> int:
        """2n − 1 for n nodes, 2 at least; not more than 512 nodes."""
        return max(2, 2 * min(nodes, FINEST) - 1)

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
        self.tolerance = ROUNDING * self.period

    def wrap(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """The representative in [0, period)."""
        check_dim(self, context)
        if not bool(context.isfinite().all()):
            raise ContextError("a context on the circle is not a finite number; give an angle")
        angle = context.remainder(self.period)
        # just below zero the remainder rounds up to the period itself
        return torch.where(angle < self.period, angle, angle - self.period)

    def project(self, numbers: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """The numbers wrapped: every one is on the circle."""
        return self.wrap(numbers)

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

    def order(self, nodes: int) -> int:
        """One less than the nodes, 2 at least."""
        return max(2, nodes - 1)

    def spec(self) -> dict[str, Any]:
        """Kind and period."""
        return {"kind": "circle", "period": self.period}


@final
class Product(Topology):
    """The product of topologies: coordinates side by side, measures multiplied.

    A factor that is itself a product is replaced by its factors.
    """

    def __init__(self, *factors: Topology) -> None:
        if not factors:
            raise ValueError("a product needs at least one factor")
        self._factors = tuple(single for factor in factors for single in factor.factors)
        self.dim = sum(f.dim for f in self._factors)
        self.scale = tuple(length for f in self._factors for length in f.scale)
        self.tolerance = max(f.tolerance for f in self._factors)

    @property
    def factors(self) -> tuple[Topology, ...]:
        """The spaces side by side; none of them is a product."""
        return self._factors

    def wrap(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Each factor wraps its own coordinates."""
        parts = zip(self.factors, self.split(context), strict=True)
        return torch.cat([f.wrap(part) for f, part in parts], dim=-1)

    def project(self, numbers: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Each factor projects its own coordinates."""
        parts = zip(self.factors, self.split(numbers), strict=True)
        return torch.cat([f.project(part) for f, part in parts], dim=-1)

    def metric(self) -> Float[Tensor, "dim dim"]:
        """One block per factor."""
        metric, start = torch.zeros(self.dim, self.dim, dtype=torch.float64), 0
        for factor in self.factors:
            block = slice(start, start + factor.dim)
            metric[block, block] = factor.metric()
            start += factor.dim
        return metric

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

    def order(self, nodes: int) -> int:
        """What every factor reaches with its share, the d-th root of the nodes for d factors."""
        each = int(nodes ** (1 / len(self.factors)) + 1e-9)
        return min(f.order(each) for f in self.factors)

    def spec(self) -> dict[str, Any]:
        """Kind and the factors' specs."""
        return {"kind": "product", "factors": [f.spec() for f in self.factors]}


def torus(dim: int = 2, period: float = 1.0) -> Product:
    """The product of `dim` circles of equal period."""
    return Product(*(Circle(period) for _ in range(dim)))


@final
class Simplex(Topology):
    """Mixtures of n things: n non-negative numbers that sum to one. A vertex is a pure task."""

    mixes = True

    def __init__(self, vertices: int) -> None:
        if vertices < 1:
            raise ValueError(f"a simplex needs at least one vertex, got {vertices}")
        self.vertices = vertices
        self.dim = vertices
        self.scale = (1.0,) * vertices
        self.tolerance = ROUNDING

    def wrap(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """The contexts unchanged, after a check that they are mixtures (to 1e-6)."""
        check_dim(self, context)
        slack = self.tolerance
        inside = (context >= -slack).all(-1) & ((context.sum(-1) - 1).abs() <= slack)
        if not bool(inside.all()):
            raise ContextError(
                f"context {context_text(context[~inside][0])} is not a mixture: its "
                f"{self.vertices} numbers must be non-negative and sum to 1; "
                "normalise it, or give a one-hot vector for a pure task"
            )
        return context

    def project(self, numbers: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """max(u − θ, 0) with θ = max_k (Σ_{i≤k} u_i − 1)/k and u the numbers sorted downwards.

        Numbers are taken relative to the largest one, which changes nothing but the rounding.

        Source: Held, Wolfe and Crowder, Mathematical Programming 6 (1974), 62–88.
        """
        check_dim(self, numbers)
        u = numbers.double() - numbers.double().amax(-1, keepdim=True)
        down = u.sort(dim=-1, descending=True).values
        count = torch.arange(1, self.dim + 1, dtype=u.dtype, device=u.device)
        theta = ((down.cumsum(-1) - 1) / count).amax(-1, keepdim=True)
        return self.wrap((u - theta).clamp(min=0).to(numbers.dtype))

    def metric(self) -> Float[Tensor, "dim dim"]:
        """I − 11ᵀ/n: without the direction that leads out of the space."""
        return torch.eye(self.dim, dtype=torch.float64) - 1 / self.dim

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

    def order(self, nodes: int) -> int:
        """2s + 1 with the largest s whose C(n + s, s) nodes are few enough, 3 at least.

        Not beyond 15, where the weights' changing signs cost digits.
        """
        s = 1
        while s < 7 and comb(self.vertices + s + 1, s + 1) <= nodes:
            s += 1
        return 2 * s + 1

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
