"""Claims about geometry for sizes, seeds and shifts that hypothesis draws."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cl_manifold.geometry import (
    Basis,
    Bernstein,
    BSpline,
    Circle,
    Fourier,
    PeriodicBSpline,
    TensorProduct,
    Vertices,
    random_codes,
    times,
)

few = settings(max_examples=40, deadline=None, database=None, derandomize=True)
degrees = st.integers(1, 4)
periods = st.sampled_from([1.0, 0.3, 24.0, 360.0])
seeds = st.integers(0, 2**31)
shares = st.lists(st.integers(1, 50), min_size=1, max_size=6)


def knots(parts: list[int], low: float, high: float) -> list[float]:
    """Where spans of these relative lengths begin, the first at `low`."""
    edges = [sum(parts[:i]) / sum(parts) for i in range(len(parts))]
    return [low + (high - low) * edge for edge in edges]


@st.composite
def interval_bases(draw: st.DrawFn) -> Basis:
    low = draw(st.sampled_from([-3.0, 0.0, 0.7]))
    high = low + draw(st.sampled_from([0.5, 1.0, 10.0]))
    if draw(st.booleans()):
        return Bernstein(draw(st.integers(0, 6)), low, high)
    inner = knots(draw(shares), low, high)[1:]
    return BSpline(degree=draw(degrees), low=low, high=high, knots=inner)


@st.composite
def circle_bases(draw: st.DrawFn) -> Basis:
    period = draw(periods)
    if draw(st.booleans()):
        return Fourier(draw(st.integers(0, 5)), period)
    start = period * draw(st.sampled_from([0.0, 0.25, 0.9]))
    given_knots = knots(draw(shares), start, start + period)
    return PeriodicBSpline(degree=draw(degrees), period=period, knots=given_knots)


@st.composite
def simplex_bases(draw: st.DrawFn) -> Basis:
    tasks = draw(st.integers(1, 6))
    if draw(st.booleans()):
        return Vertices(tasks)
    return random_codes(draw(st.integers(1, 5)), tasks, draw(st.integers(0, 99)))


single = interval_bases() | circle_bases() | simplex_bases()
bases = single | st.builds(TensorProduct, single, interval_bases() | circle_bases())


def sample(basis: Basis, seed: int, count: int = 30) -> Tensor:
    return basis.topology.sample(count, torch.Generator().manual_seed(seed))


@few
@given(bases, seeds, st.integers(1, 3))
def test_growth_leaves_every_context_where_it_was(basis: Basis, seed: int, steps: int) -> None:
    points = torch.randn(basis.size, 5, generator=torch.Generator().manual_seed(seed))
    c = sample(basis, seed)
    weights = basis(c) @ points
    for _ in range(steps):
        growth = basis.grown()
        basis, points, c = growth.basis, growth.matrix @ points, growth.embed(c)
        torch.testing.assert_close(basis(c) @ points, weights, rtol=0, atol=1e-10)


@few
@given(bases, interval_bases() | circle_bases(), seeds)
def test_new_coordinates_change_nothing(basis: Basis, factor: Basis, seed: int) -> None:
    growth, c = times(basis, factor), sample(basis, seed)
    torch.testing.assert_close(growth.basis(growth.embed(c)) @ growth.matrix, basis(c))


@few
@given(circle_bases(), seeds, st.integers(-5, 5))
def test_circle_has_no_seam(basis: Basis, seed: int, turns: int) -> None:
    circle = basis.topology
    assert isinstance(circle, Circle)
    c = sample(basis, seed)
    torch.testing.assert_close(basis(c + turns * circle.period), basis(c), rtol=0, atol=1e-9)
    step = 1e-9 * circle.period
    sides = basis(torch.tensor([[-step], [0.0], [step], [circle.period - step]]))
    torch.testing.assert_close(sides, sides[1].expand_as(sides), rtol=0, atol=1e-6)


@few
@given(circle_bases(), seeds, st.floats(-2, 2))
def test_circle_distance_ignores_rotation(basis: Basis, seed: int, shift: float) -> None:
    circle = basis.topology
    a, b = sample(basis, seed), sample(basis, seed + 1)
    moved = circle.distance(a + shift, b + shift)
    torch.testing.assert_close(moved, circle.distance(a, b), rtol=0, atol=1e-9)


@few
@given(bases, seeds)
def test_constants_are_constant(basis: Basis, seed: int) -> None:
    one = basis.constant()
    if one is not None:
        values = basis(sample(basis, seed)) @ one
        torch.testing.assert_close(values, torch.ones(30), rtol=0, atol=1e-8)


@few
@given(interval_bases() | circle_bases().filter(lambda b: isinstance(b, PeriodicBSpline)), seeds)
def test_partition_of_unity(basis: Basis, seed: int) -> None:
    """Polynomial and spline functions are non-negative and sum to one."""
    phi = basis(sample(basis, seed))
    assert phi.min() >= -1e-12
    torch.testing.assert_close(phi.sum(-1), torch.ones(30), rtol=0, atol=1e-12)


@few
@given(bases, seeds)
def test_integrals_are_energies(basis: Basis, seed: int) -> None:
    """pᵀGp and pᵀSp are integrals of squares, and the prior is positive definite."""
    p = torch.randn(basis.size, generator=torch.Generator().manual_seed(seed))
    assert p @ basis.gram() @ p >= -1e-12
    assert p @ basis.stiffness() @ p >= -1e-12
    assert torch.linalg.eigvalsh(basis.prior())[0] > 0


@few
@given(interval_bases() | circle_bases(), seeds)
def test_growth_keeps_integrals(basis: Basis, seed: int) -> None:
    """TᵀG'T = G and TᵀS'T = S: the same functions have the same integrals."""
    growth = basis.grown()
    gram = growth.matrix.mT @ growth.basis.gram() @ growth.matrix
    stiffness = growth.matrix.mT @ growth.basis.stiffness() @ growth.matrix
    torch.testing.assert_close(gram, basis.gram(), rtol=0, atol=1e-12)
    torch.testing.assert_close(stiffness, basis.stiffness(), rtol=1e-9, atol=1e-9)


@few
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 5), seeds)
def test_more_codes_continue_the_sequence(size: int, tasks: int, more: int, seed: int) -> None:
    first, longer = random_codes(size, tasks, seed), random_codes(size, tasks + more, seed)
    assert torch.equal(first.vectors, longer.vectors[:tasks])


def test_codes_are_drawn_in_double_precision_whatever_torchs_default_is() -> None:
    codes = random_codes(4, 4, seed=1)
    torch.set_default_dtype(torch.float32)
    again = random_codes(4, 4, seed=1)
    assert torch.equal(again.vectors, codes.vectors)
    length = again.grown().basis(torch.eye(4, dtype=torch.float64)).square().sum(-1)
    torch.testing.assert_close(length, torch.ones_like(length), rtol=0, atol=1e-14)
