"""B-splines on an interval and on a circle: local bases. Knows nothing about weights.

Both classes work on an extended knot vector t with `degree` knots beyond each end of the domain,
so that every point of the domain lies under degree + 1 functions.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from cl_manifold.geometry.basis import Basis, Growth
from cl_manifold.geometry.quadrature import gauss_legendre
from cl_manifold.geometry.topology import Circle, Interval


@final
class BSpline(Basis):
    """Clamped B-splines of degree p on an interval, K = spans + p.

    φ_i is the B-spline over the knots t_i … t_{i+p+1}; both ends of the interval are knots p + 1
    times, so that the first and the last control point are the weights at the ends.
    """

    def __init__(
        self,
        spans: int = 4,
        degree: int = 3,
        low: float = 0.0,
        high: float = 1.0,
        knots: Sequence[float] | None = None,
    ) -> None:
        """A basis with equal spans, or with given knots.

        Args:
            spans: how many polynomial pieces; not used if `knots` are given.
            degree: p, at least 1.
            low: lower end of the interval.
            high: upper end of the interval.
            knots: the knots strictly between the ends, ascending.
        """
        if knots is None:
            _check_at_least(1, spans, "spans")
            knots = [low + (high - low) * k / spans for k in range(1, spans)]
        _check_at_least(1, degree, "degree")
        self.degree = degree
        self.low, self.high = float(low), float(high)
        self.topology = Interval(low, high)
        self.knots = tuple(float(k) for k in knots)
        _check_ascending(self._breaks())
        ends = degree + 1
        self._extended = torch.tensor(
            [self.low] * ends + list(self.knots) + [self.high] * ends, dtype=torch.float64
        )
        self.size = len(self._extended) - ends

    def _breaks(self) -> list[float]:
        return [self.low, *self.knots, self.high]

    def __call__(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch K"]:
        """φ(c) by the recurrence of Cox and de Boor."""
        x = self.topology.wrap(context)
        return _values(self._extended.to(x), self.degree, x, self.degree)

    def derivative(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim K"]:
        """Differences of the functions one degree lower; from the right where a kink is a knot."""
        x = self.topology.wrap(context)
        return _slopes(self._extended.to(x), self.degree, x).unsqueeze(-2)

    def gram(self) -> Float[Tensor, "K K"]:
        """G, exact: p + 1 Gauss–Legendre nodes in each span."""
        nodes, weights = _span_rule(self._breaks(), self.degree + 1)
        return _products(self(nodes), weights)

    def stiffness(self) -> Float[Tensor, "K K"]:
        """S, exact in the same way."""
        nodes, weights = _span_rule(self._breaks(), self.degree + 1)
        return _products(self.topology.scale[0] * self.derivative(nodes).squeeze(-2), weights)

    def constant(self) -> Float[Tensor, " K"]:
        """All ones: the functions sum to one."""
        return torch.ones(self.size, dtype=torch.float64)

    def grown(self) -> Growth:
        """A new knot in the middle of the longest span, the first one among equals."""
        knots = sorted([*self.knots, _middle_of_longest(self._breaks())])
        larger = BSpline(degree=self.degree, low=self.low, high=self.high, knots=knots)
        matrix = _refinement(self._extended, larger._extended, self.degree, larger.size)
        return Growth(larger, matrix)

    def spec(self) -> dict[str, Any]:
        """Kind, degree, ends and the knots between them."""
        ends = {"low": self.low, "high": self.high}
        return {"kind": "bspline", "degree": self.degree, **ends, "knots": list(self.knots)}


@final
class PeriodicBSpline(Basis):
    """B-splines of degree p on a circle, one for each of its K knots.

    φ_k(c) = Σ_j N_k(c + j · period),   N_k the B-spline over the knots u_k … u_{k+p+1}

    with u_{k+K} = u_k + period. Any K is allowed; K = 1 is a constant.
    """

    def __init__(
        self,
        size: int = 8,
        degree: int = 3,
        period: float = 1.0,
        knots: Sequence[float] | None = None,
    ) -> None:
        """A basis with equidistant knots, or with given ones.

        Args:
            size: K, the number of knots on the circle; not used if `knots` are given.
            degree: p, at least 1.
            period: circumference of the circle.
            knots: ascending, the last less than one period after the first.
        """
        if knots is None:
            _check_at_least(1, size, "size")
            knots = [period * k / size for k in range(size)]
        _check_at_least(1, len(knots), "size")
        _check_at_least(1, degree, "degree")
        self.degree = degree
        self.period = float(period)
        self.topology = Circle(period)
        self.knots = tuple(float(k) for k in knots)
        _check_ascending(self._breaks())
        self.size = len(self.knots)
        self._extended = torch.tensor(
            [self._knot(k) for k in range(-degree, self.size + degree + 1)], dtype=torch.float64
        )

    def _breaks(self) -> list[float]:
        return [*self.knots, self.knots[0] + self.period]

    def _knot(self, k: int) -> float:
        """u_k − u_0 for any integer k."""
        turns, index = divmod(k, self.size)
        return self.knots[index] - self.knots[0] + turns * self.period

    def _position(self, context: Tensor) -> Tensor:
        """How far each context lies after the first knot, in [0, period)."""
        return self.topology.wrap(context - self.knots[0])

    def _fold(self, values: Float[Tensor, "*batch K_plus_p"]) -> Float[Tensor, "*batch K"]:
        """Adds up the functions that are one period apart."""
        padded = torch.nn.functional.pad(values, (-self.degree % self.size, 0))
        turns = padded.shape[-1] // self.size
        return padded.reshape(*padded.shape[:-1], turns, self.size).sum(-2)

    def __call__(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch K"]:
        """φ(c) by the recurrence of Cox and de Boor."""
        x = self._position(context)
        return self._fold(_values(self._extended.to(x), self.degree, x, self.degree))

    def derivative(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim K"]:
        """Differences of the functions one degree lower; from the right where a kink is a knot."""
        x = self._position(context)
        return self._fold(_slopes(self._extended.to(x), self.degree, x)).unsqueeze(-2)

    def gram(self) -> Float[Tensor, "K K"]:
        """G, exact: p + 1 Gauss–Legendre nodes in each span."""
        nodes, weights = _span_rule(self._breaks(), self.degree + 1)
        return _products(self(nodes), weights)

    def stiffness(self) -> Float[Tensor, "K K"]:
        """S, exact in the same way."""
        nodes, weights = _span_rule(self._breaks(), self.degree + 1)
        return _products(self.topology.scale[0] * self.derivative(nodes).squeeze(-2), weights)

    def constant(self) -> Float[Tensor, " K"]:
        """All ones: the functions sum to one."""
        return torch.ones(self.size, dtype=torch.float64)

    def grown(self) -> Growth:
        """A new knot in the middle of the longest span, the first one among equals."""
        knots = sorted([*self.knots, _middle_of_longest(self._breaks())])
        larger = PeriodicBSpline(degree=self.degree, period=self.period, knots=knots)
        new = larger._extended[self.degree :]
        rows = _refinement(self._extended, new, self.degree, larger.size)
        return Growth(larger, self._fold(rows))

    def spec(self) -> dict[str, Any]:
        """Kind, degree, period and knots."""
        space = {"degree": self.degree, "period": self.period}
        return {"kind": "periodic-bspline", **space, "knots": list(self.knots)}


def _check_at_least(least: int, got: int, name: str) -> None:
    if got < least:
        raise ValueError(f"a B-spline basis needs {name} of {least} or more, got {got}")


def _check_ascending(breaks: list[float]) -> None:
    if any(b <= a for a, b in pairwise(breaks)):
        raise ValueError(
            f"knots must ascend strictly inside the interval or period, got {breaks} "
            "(ends included); sort them and drop repeated ones"
        )


def _middle_of_longest(breaks: list[float]) -> float:
    """The middle of the first span that is as long as the longest, up to rounding."""
    spans = [b - a for a, b in pairwise(breaks)]
    first = next(i for i, span in enumerate(spans) if span > max(spans) * (1 - 1e-9))
    return (breaks[first] + breaks[first + 1]) / 2


def _span_rule(breaks: list[float], count: int) -> tuple[Float[Tensor, "Q 1"], Float[Tensor, " Q"]]:
    """`count` Gauss–Legendre nodes in each span; the weights sum to one."""
    x, weight = gauss_legendre(count)
    edges = torch.tensor(breaks, dtype=torch.float64)
    spans = edges.diff()[:, None]
    nodes = edges[:-1, None] + spans * x
    return nodes.reshape(-1, 1), (spans / spans.sum() * weight).flatten()


def _products(values: Float[Tensor, "Q K"], weights: Float[Tensor, " Q"]) -> Float[Tensor, "K K"]:
    return values.mT @ (weights[:, None] * values)


def _inverse_gaps(knots: Float[Tensor, " m"], degree: int) -> Float[Tensor, " n"]:
    """1 / (t_{i+p} − t_i), and 0 where these knots coincide."""
    gap = knots[degree:] - knots[:-degree]
    return torch.where(gap > 0, gap.reciprocal(), 0.0)


def _indicator(
    knots: Float[Tensor, " m"], degree: int, x: Float[Tensor, "*batch 1"]
) -> Float[Tensor, "*batch n"]:
    """1 at the span t_i ≤ x < t_{i+1} of the domain, which ends with a closed span."""
    inner = knots[degree + 1 : len(knots) - degree - 1]
    span = degree + (x >= inner).sum(-1, keepdim=True)
    return (span == torch.arange(len(knots) - 1, device=x.device)).to(x.dtype)


def _raised(
    lower: Float[Tensor, "*batch n"],
    knots: Float[Tensor, " m"],
    degree: int,
    x: Float[Tensor, "*batch 1"],
) -> Float[Tensor, "*batch n1"]:
    """One step of the recurrence, to degree q.

    N_i^q = (x − t_i) / (t_{i+q} − t_i) N_i^{q−1}
            + (t_{i+q+1} − x) / (t_{i+q+1} − t_{i+1}) N_{i+1}^{q−1}
    """
    scaled = lower * _inverse_gaps(knots, degree)
    rising = (x - knots[:-degree]) * scaled
    falling = (knots[degree:] - x) * scaled
    return rising[..., :-1] + falling[..., 1:]


def _values(
    knots: Float[Tensor, " m"], degree: int, x: Float[Tensor, "*batch 1"], reached: int
) -> Float[Tensor, "*batch n"]:
    """All functions of degree `reached` on the knots of a basis of degree `degree`."""
    values = _indicator(knots, degree, x)
    for q in range(1, reached + 1):
        values = _raised(values, knots, q, x)
    return values


def _slopes(
    knots: Float[Tensor, " m"], degree: int, x: Float[Tensor, "*batch 1"]
) -> Float[Tensor, "*batch n"]:
    """∂N_i^p = p (N_i^{p−1} / (t_{i+p} − t_i) − N_{i+1}^{p−1} / (t_{i+p+1} − t_{i+1}))."""
    rate = degree * _inverse_gaps(knots, degree) * _values(knots, degree, x, degree - 1)
    return rate[..., :-1] - rate[..., 1:]


def _refinement(
    knots: Float[Tensor, " m"], finer: Float[Tensor, " m1"], degree: int, count: int
) -> Float[Tensor, "K1 n"]:
    """T with N_i = Σ_j T_ji N'_j: what knot insertion does to the control points.

    Row j is the recurrence for values, except that step q is taken at the new knot t'_{j+q}. For a
    single new knot this is Boehm's rule.

    Source: Cohen, Lyche and Riesenfeld 1980 (the Oslo algorithm).
    """
    rows = _indicator(knots, degree, finer[:count, None])
    for q in range(1, degree + 1):
        rows = _raised(rows, knots, q, finer[q : q + count, None])
    return rows
