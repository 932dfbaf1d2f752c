"""The bases that every law is checked on. A new basis joins by one line in BASES."""

from collections.abc import Callable
from itertools import combinations_with_replacement
from math import pi

import torch
from torch import Tensor

from cl_manifold.geometry import (
    Affine,
    Basis,
    Bernstein,
    BSpline,
    Circle,
    Codes,
    Fourier,
    Growth,
    Interval,
    Orthonormal,
    PeriodicBSpline,
    Product,
    Simplex,
    TensorProduct,
    Topology,
    Vertices,
    compose,
    random_codes,
)


class Bumps(Basis):
    """A user's own: bumps on a circle, whose span has no constants."""

    def __init__(self, count: int, width: float = 0.6, *, period: float = 1.0) -> None:
        self.count, self.width, self.period = count, width, period
        self.topology, self.size = Circle(period), count

    def __call__(self, context: Tensor) -> Tensor:
        c = self.topology.wrap(context)
        centre = torch.arange(self.count, dtype=c.dtype, device=c.device) / self.count
        return torch.exp(((2 * pi * (c / self.period - centre)).cos() - 1) / self.width**2)


class Powers(Basis):
    """A user's own on a given space: 1, x, x², …."""

    def __init__(self, space: Topology, powers: list[int]) -> None:
        self.space, self.powers = space, powers
        self.topology, self.size = space, len(powers)

    def __call__(self, context: Tensor) -> Tensor:
        c = self.topology.wrap(context)
        return torch.cat([c**power for power in self.powers], dim=-1)


class Pairs(Basis):
    """A user's own on a simplex: c_i c_j, whose sum with the right weights is one."""

    def __init__(self, tasks: int) -> None:
        self.tasks, self.topology = tasks, Simplex(tasks)
        self.pairs = list(combinations_with_replacement(range(tasks), 2))
        self.size = len(self.pairs)

    def __call__(self, context: Tensor) -> Tensor:
        c = self.topology.wrap(context)
        i, j = torch.tensor(self.pairs).T
        return c[..., i] * c[..., j]


class Spiral(Basis):
    """A user's own on a cylinder, no product of two bases."""

    def __init__(self) -> None:
        self.topology, self.size = Product(Interval(1.0, 2.0), Circle(4.0)), 3

    def __call__(self, context: Tensor) -> Tensor:
        height, place = self.topology.wrap(context).unbind(-1)
        turn = 2 * pi * (place / 4 + height)
        return torch.stack([torch.ones_like(turn), height * turn.cos(), turn.sin()], dim=-1)


class Plain(Basis):
    """Any basis with nothing but its values, so that everything else is a default."""

    def __init__(self, basis: Basis) -> None:
        self.basis, self.topology, self.size = basis, basis.topology, basis.size

    def __call__(self, context: Tensor) -> Tensor:
        return self.basis(context)


OWN: dict[str, Callable[[], Basis]] = {
    "own-bumps": lambda: Bumps(4, period=24.0),
    "own-powers": lambda: Powers(Interval(-1.0, 1.0), [0, 1, 3]),
    "own-pairs": lambda: Pairs(3),
    "own-spiral": lambda: Spiral(),
    "own-around-another": lambda: Plain(Fourier(1)),
}
GROWING: dict[str, Callable[[], Basis]] = {
    "fourier-0": lambda: Fourier(0),
    "fourier-3": lambda: Fourier(3),
    "fourier-2-degrees": lambda: Fourier(2, period=360.0),
    "constant": lambda: Bernstein(0),
    "line": lambda: Bernstein(1),
    "bernstein-4": lambda: Bernstein(4, low=-1.0, high=2.5),
    "bspline": lambda: BSpline(),
    "bspline-one-span": lambda: BSpline(spans=1, degree=2),
    "bspline-hats": lambda: BSpline(spans=3, degree=1, low=2.0, high=5.0),
    "bspline-uneven": lambda: BSpline(degree=3, high=3.0, knots=[0.3, 1.7, 1.9]),
    "periodic": lambda: PeriodicBSpline(7),
    "periodic-constant": lambda: PeriodicBSpline(1),
    "periodic-fewer-than-degree": lambda: PeriodicBSpline(2, degree=3),
    "periodic-uneven": lambda: PeriodicBSpline(degree=2, period=4.0, knots=[0.5, 1.0, 2.25, 4.25]),
    "torus": lambda: TensorProduct(Fourier(1), Fourier(2)),
    "cylinder": lambda: TensorProduct(BSpline(spans=2, degree=2), Fourier(1, period=7.0)),
    "box": lambda: TensorProduct(Bernstein(1), Bernstein(2, -1.0, 1.0), Bernstein(1)),
    "mixture-by-angle": lambda: TensorProduct(Vertices(3), Fourier(1)),
    "codes-by-strength": lambda: TensorProduct(random_codes(3, 5, seed=2), Bernstein(1)),
    "affine": lambda: Affine(2),
    "affine-by-angle": lambda: TensorProduct(Affine(2), Fourier(1)),
    "orthonormal": lambda: Orthonormal(Bernstein(3, 1.0, 3.0)),
    "vertex": lambda: Vertices(1),
    "vertices": lambda: Vertices(4),
    "codes": lambda: random_codes(3, 6, seed=1),
    "codes-one": lambda: random_codes(1, 4, seed=1),
    "codes-wide": lambda: random_codes(4, 2, seed=3),
}
BASES = GROWING | OWN
STEPS = 3


def draw(basis: Basis, count: int, seed: int = 0) -> Tensor:
    return basis.topology.sample(count, torch.Generator().manual_seed(seed))


def growths(basis: Basis, count: int) -> list[Growth]:
    """1, 2, … `count` steps of growth, each from the basis itself."""
    steps = [basis.grown()]
    for _ in range(count - 1):
        steps.append(compose(steps[-1], steps[-1].basis.grown()))
    return steps


def fewer_tasks_than_codes(basis: Basis) -> bool:
    return isinstance(basis, Codes) and basis.size > basis.topology.dim


def pieces(basis: Basis) -> bool:
    """Whether φ is only piecewise smooth, so that one rule for the whole space is inexact."""
    parts = basis.factors if isinstance(basis, TensorProduct) else (basis,)
    return any(isinstance(part, (BSpline, PeriodicBSpline)) for part in parts)
