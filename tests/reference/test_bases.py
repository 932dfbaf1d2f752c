"""Bases against somebody else's mathematics: exact fractions, scipy, printed matrices."""

from fractions import Fraction
from math import pi

import numpy as np
import pytest
import torch
from scipy import interpolate
from torch import Tensor

from cl_manifold.geometry import (
    Affine,
    Basis,
    Bernstein,
    BSpline,
    Circle,
    Codes,
    Fourier,
    Interval,
    Orthonormal,
    PeriodicBSpline,
    Product,
    Simplex,
    TensorProduct,
    Vertices,
    random_codes,
    smooth_basis,
    torus,
)
from cl_manifold.geometry.quadrature import gauss_legendre

Polynomial = list[Fraction]


def exactly(actual: Tensor, expected: object, atol: float = 1e-13) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(expected), rtol=0, atol=atol)


def times_polynomial(a: Polynomial, b: Polynomial) -> Polynomial:
    total = [Fraction(0)] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            total[i + j] += x * y
    return total


def bernstein_monomials(degree: int) -> list[Polynomial]:
    """The Bernstein polynomials as coefficients of 1, t, t², …, by expanding products."""
    rows = [[Fraction(1)]]
    for n in range(1, degree + 1):
        t, s = [Fraction(0), Fraction(1)], [Fraction(1), Fraction(-1)]
        zero = [Fraction(0)] * n
        stay = [times_polynomial(s, row) for row in [*rows, zero]]
        move = [times_polynomial(t, row) for row in [zero, *rows]]
        rows = [[x + y for x, y in zip(a, b, strict=True)] for a, b in zip(stay, move, strict=True)]
    return rows


def integral(p: Polynomial) -> Fraction:
    return sum((x / (k + 1) for k, x in enumerate(p)), Fraction(0))


@pytest.mark.parametrize("degree", [0, 1, 2, 5])
def test_bernstein_gram_by_exact_integration(degree: int) -> None:
    rows = bernstein_monomials(degree)
    exact = [[float(integral(times_polynomial(a, b))) for b in rows] for a in rows]
    exactly(Bernstein(degree, low=-3.0, high=4.0).gram(), exact)


@pytest.mark.parametrize("degree", [1, 2, 5])
def test_bernstein_stiffness_by_exact_integration(degree: int) -> None:
    """In units of the slowest half wave, (length / π)², whatever the length."""
    slopes = [[k * x for k, x in enumerate(row)][1:] for row in bernstein_monomials(degree)]
    exact = [[float(integral(times_polynomial(a, b))) / pi**2 for b in slopes] for a in slopes]
    exactly(Bernstein(degree, low=-3.0, high=4.0).stiffness(), exact)


def test_quadratic_bezier_gram_as_printed() -> None:
    exactly(Bernstein(2).gram() * 30, [[6.0, 3.0, 1.0], [3.0, 4.0, 3.0], [1.0, 3.0, 6.0]])


def test_line_interpolates() -> None:
    c = torch.tensor([[10.0], [12.5], [20.0]])
    exactly(Bernstein(1, 10.0, 20.0)(c), [[1.0, 0.0], [0.75, 0.25], [0.0, 1.0]])
    exactly(Bernstein(1).gram() * 6, [[2.0, 1.0], [1.0, 2.0]])


@pytest.mark.parametrize("degree", [1, 3])
def test_degree_elevation_against_monomials(degree: int) -> None:
    old, new = bernstein_monomials(degree), bernstein_monomials(degree + 1)
    square = np.array(new, dtype=float).T
    padded = np.array([[*row, Fraction(0)] for row in old], dtype=float).T
    exactly(Bernstein(degree).grown().matrix, np.linalg.solve(square, padded), atol=1e-12)


SPLINES = {
    "cubic": BSpline(),
    "uneven": BSpline(degree=3, low=-1.0, high=3.0, knots=[-0.7, 0.4, 0.5, 2.0]),
    "quadratic": BSpline(spans=3, degree=2, low=5.0, high=6.0),
    "hats": BSpline(spans=4, degree=1),
}


@pytest.fixture(params=SPLINES)
def spline(request: pytest.FixtureRequest) -> BSpline:
    return SPLINES[request.param]


def scipy_spline(basis: BSpline, coefficients: np.ndarray | None = None) -> interpolate.BSpline:
    ends = basis.degree + 1
    knots = [basis.low] * ends + list(basis.knots) + [basis.high] * ends
    c = np.eye(basis.size) if coefficients is None else coefficients
    return interpolate.BSpline(np.array(knots), c, basis.degree)


def test_bspline_against_scipy(spline: BSpline) -> None:
    c = spline.topology.grid(41)
    theirs = scipy_spline(spline)
    exactly(spline(c), theirs(c[:, 0].numpy()))
    inside = spline.topology.sample(50, torch.Generator().manual_seed(0))
    slopes = theirs.derivative()(inside[:, 0].numpy())
    exactly(spline.derivative(inside)[:, 0], slopes, atol=1e-12)


def test_bspline_integrals_against_scipy(spline: BSpline) -> None:
    """∫ of each function is exact in scipy; it is the row sum of G, as the functions add to 1."""
    length = spline.high - spline.low
    whole = scipy_spline(spline).integrate(spline.low, spline.high)
    exactly(spline.gram().sum(1), whole / length)


def test_bspline_interpolates_its_ends(spline: BSpline) -> None:
    ends = spline(torch.tensor([[spline.low], [spline.high]]))
    exactly(ends, np.eye(spline.size)[[0, -1]])


def test_hat_gram_as_printed() -> None:
    expected = torch.diag(torch.tensor([2.0, 4, 4, 4, 2]))
    expected += torch.diag(torch.ones(4), 1) + torch.diag(torch.ones(4), -1)
    exactly(BSpline(spans=4, degree=1).gram(), expected / 24)


def test_hat_stiffness_as_printed() -> None:
    """The second difference: (1/h) tridiag(−1, 2, −1), corners 1."""
    expected = torch.diag(torch.tensor([1.0, 2, 2, 1]))
    expected -= torch.diag(torch.ones(3), 1) + torch.diag(torch.ones(3), -1)
    exactly(BSpline(spans=3, degree=1).stiffness() * pi**2, 3 * expected, atol=1e-12)


def test_one_span_is_bernstein() -> None:
    one, other = BSpline(spans=1, degree=3, high=2.0), Bernstein(3, high=2.0)
    c = one.topology.grid(9)
    exactly(one(c), other(c))
    exactly(one.gram(), other.gram())
    exactly(one.stiffness(), other.stiffness())


def test_knot_insertion_against_scipy(spline: BSpline) -> None:
    growth = spline.grown()
    assert isinstance(growth.basis, BSpline)
    (new,) = set(growth.basis.knots) - set(spline.knots)
    theirs = scipy_spline(spline).insert_knot(new)
    exactly(growth.matrix, theirs.c[: spline.size + 1])


def test_knots_go_to_the_middle_of_the_longest_span() -> None:
    uneven = BSpline(degree=2, knots=[0.2, 0.3]).grown().basis
    equal = BSpline(spans=3, degree=2).grown().basis
    wrapped = PeriodicBSpline(degree=2, knots=[0.3, 0.5, 0.7]).grown().basis
    assert isinstance(uneven, BSpline)
    assert isinstance(equal, BSpline)
    assert isinstance(wrapped, PeriodicBSpline)
    assert uneven.knots == pytest.approx((0.2, 0.3, 0.65))
    assert equal.knots == pytest.approx((1 / 6, 1 / 3, 2 / 3))
    assert wrapped.knots == pytest.approx((0.3, 0.5, 0.7, 1.0))


PERIODIC = {
    "cubic": PeriodicBSpline(8),
    "few": PeriodicBSpline(2),
    "one": PeriodicBSpline(1, degree=2),
    "hats": PeriodicBSpline(3, degree=1, period=360.0),
    "uneven": PeriodicBSpline(degree=3, period=2.0, knots=[0.1, 0.2, 0.9, 1.1, 1.6, 2.05]),
}


@pytest.mark.parametrize("name", PERIODIC)
def test_periodic_bspline_against_scipy(name: str) -> None:
    """Each function is one scipy element, repeated every period."""
    basis = PERIODIC[name]
    c = basis.topology.sample(60, torch.Generator().manual_seed(1))
    turns = range(-2 * basis.degree - 3, basis.degree + 4)
    line = sorted(k + basis.period * turn for k in basis.knots for turn in turns)
    for k, knot in enumerate(basis.knots):
        start = line.index(knot)
        support = np.array(line[start : start + basis.degree + 2])
        element = interpolate.BSpline.basis_element(support, extrapolate=False)
        slope = element.derivative()
        x = c.numpy() + basis.period * np.array(turns)
        exactly(basis(c)[:, k], np.nan_to_num(element(x)).sum(1))
        slopes = np.nan_to_num(slope(x)).sum(1)
        exactly(basis.derivative(c)[:, 0, k], slopes, atol=1e-11)


def circulant(row: list[float]) -> Tensor:
    return torch.stack([torch.tensor(row).roll(k) for k in range(len(row))])


def test_periodic_cubic_gram_as_printed() -> None:
    """(h / 5040) (2416, 1191, 120, 1), the values of the B-spline of degree 7."""
    row = [2416.0, 1191, 120, 1, 0, 0, 1, 120, 1191]
    exactly(PeriodicBSpline(9, period=7.0).gram(), circulant(row) / 5040 / 9)


def test_periodic_cubic_stiffness_as_printed() -> None:
    """(1 / 120 h) (80, −15, −24, −1), the second difference of the B-spline of degree 5."""
    row = [80.0, -15, -24, -1, 0, 0, -1, -24, -15]
    exactly(PeriodicBSpline(9, period=7.0).stiffness(), circulant(row) / 120 * 9 / (2 * pi) ** 2)


def test_many_periodic_splines_reproduce_slow_waves() -> None:
    """A smooth function has the same mean square and energy in either basis."""
    basis, wave = PeriodicBSpline(32), Fourier(1)
    c = basis.topology.grid(320)
    p = torch.linalg.lstsq(basis(c), wave(c)).solution
    exactly(p.mT @ basis.gram() @ p, wave.gram(), atol=1e-6)
    exactly(p.mT @ basis.stiffness() @ p, wave.stiffness(), atol=1e-6)


def test_fourier_integrals_by_hand() -> None:
    exactly(Fourier(2, 360.0).gram(), np.diag([1, 0.5, 0.5, 0.5, 0.5]))
    exactly(Fourier(2, 360.0).stiffness(), np.diag([0, 0.5, 0.5, 2, 2]))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_simplex_gram_inverse_as_printed(count: int) -> None:
    """G⁻¹ = K (K + 1) (I − 11ᵀ / (K + 1))."""
    inverse = count * (count + 1) * (torch.eye(count) - 1 / (count + 1))
    exactly(Vertices(count).gram() @ inverse, np.eye(count))


def test_two_vertices_are_the_line() -> None:
    exactly(Vertices(2).gram(), Bernstein(1).gram())
    # ‖e_1 − e_2‖ = √2 where the line has the length π in units of its scale
    exactly(Vertices(2).stiffness() * 2, Bernstein(1).stiffness() * pi**2)


def test_codes_at_pure_tasks_and_mixtures() -> None:
    basis = random_codes(3, 4, seed=0)
    assert torch.equal(basis(torch.eye(4)), basis.vectors)
    exactly(basis.vectors.square().sum(1), np.ones(4))
    half = torch.tensor([0.5, 0, 0.5, 0])
    exactly(basis(half), (basis.vectors[0] + basis.vectors[2]) / 2)


def test_one_hot_codes_are_vertices() -> None:
    codes, vertices = Codes(torch.eye(3)), Vertices(3)
    exactly(codes.gram(), vertices.gram())
    exactly(codes.stiffness(), vertices.stiffness())
    one = codes.constant()
    assert one is not None
    exactly(one, np.ones(3))


def test_grown_codes_stay_unit_and_orthogonal() -> None:
    """From one code for all, four steps give the Hadamard matrix over √K."""
    basis = random_codes(1, 4, seed=0)
    for _ in range(3):
        basis = basis.grown().basis
    assert isinstance(basis, Codes)
    exactly(basis.vectors @ basis.vectors.mT, np.eye(4))


def test_codes_with_a_new_task() -> None:
    basis = random_codes(3, 4, seed=0)
    growth = basis.with_task(torch.tensor([0.6, 0.0, -0.8]))
    c = basis.topology.sample(20, torch.Generator().manual_seed(0))
    exactly(growth.basis(growth.embed(c)) @ growth.matrix, basis(c))
    exactly(growth.basis(torch.eye(5)[4]), [0.6, 0.0, -0.8])


def test_codes_must_be_unit() -> None:
    with pytest.raises(ValueError, match=r"length 1, got 2; divide"):
        Codes(torch.tensor([[0.6, 0.8], [2.0, 0.0]]))
    with pytest.raises(ValueError, match=r"length 1, got 0.5; divide"):
        Codes(torch.tensor([[0.6, 0.8], [0.3, 0.4]]))


def test_prior_of_harmonics() -> None:
    for mean in (1e-3, 0.5):
        expected = np.diag([mean, 1.0, 1.0, 2.5, 2.5, 5.0, 5.0])
        exactly(Fourier(3, period=24.0).prior(mean), expected)


def test_prior_of_the_torus() -> None:
    """Products of harmonics: (½)^{waves} (1 + h² + g²), and the mean in the corner."""
    basis = TensorProduct(Fourier(1), Fourier(2))
    assert basis.topology.spec() == torus(2).spec()
    weight = [
        [(1 + h * h + g * g) * 0.5 ** ((h > 0) + (g > 0)) for g in (0, 1, 1, 2, 2)]
        for h in (0, 1, 1)
    ]
    expected = torch.tensor(weight).flatten()
    expected[0] = 1e-3
    exactly(basis.prior(), expected.diag())


@pytest.mark.parametrize(
    "basis",
    [Bernstein(3, -1.0, 4.0), Bernstein(2, 0.0, 0.5)],
    ids=["long", "short"],
)
def test_prior_is_the_energy(basis: Bernstein) -> None:
    """∫ (w − w̄)² + ℓ² w'² dμ + mean · w̄² for one weight, with w' by finite differences."""
    points = torch.tensor([0.3, -1.1, 2.0, 0.7])[: basis.size]
    x, weight = gauss_legendre(8)
    length, step = basis.high - basis.low, 1e-5

    def w(t: Tensor) -> Tensor:
        return basis((basis.low + length * t)[:, None]) @ points

    average = weight @ w(x)
    slope = (w(x + step) - w(x - step)) / (2 * step * pi)
    energy = weight @ (w(x) - average) ** 2 + weight @ slope**2 + 0.2 * average**2
    exactly(points @ basis.prior(mean=0.2) @ points, energy, atol=1e-8)


def test_prior_of_codes() -> None:
    codes, circle = random_codes(4, 2, seed=0), Fourier(1)
    exactly(codes.prior(), np.eye(4) / 4)
    both = TensorProduct(codes, circle).prior(mean=0.2)
    exactly(both, np.kron(np.eye(4) / 4, np.diag([0.2, 1, 1])))


def test_a_product_grows_its_smallest_factor() -> None:
    basis = TensorProduct(Bernstein(3), Bernstein(1), Fourier(1), Bernstein(1))
    sizes = []
    for _ in range(3):
        grown = basis.grown().basis
        assert isinstance(grown, TensorProduct)
        basis = grown
        sizes.append([factor.size for factor in basis.factors])
    assert sizes == [[4, 3, 3, 2], [4, 3, 3, 3], [4, 4, 3, 3]]


def test_a_smooth_basis_fits_its_space() -> None:
    assert smooth_basis(Circle(360.0), 3).spec() == Fourier(3, 360.0).spec()
    assert smooth_basis(Interval(-1.0, 2.0), 4).spec() == Bernstein(4, -1.0, 2.0).spec()
    assert smooth_basis(Simplex(5), 2).spec() == Vertices(5).spec()
    space = Product(Simplex(2), torus(2, 24.0))
    both = TensorProduct(Vertices(2), Fourier(1, 24.0), Fourier(1, 24.0))
    assert smooth_basis(space, 1).spec() == both.spec()
    assert smooth_basis(space, 1).topology.spec() == space.spec()


@pytest.mark.parametrize(
    ("basis", "size"),
    [
        *((Fourier(2), 7), (Bernstein(2), 4), (BSpline(2, 2), 5), (PeriodicBSpline(4), 5)),
        *((Vertices(2), 3), (random_codes(2, 3, seed=0), 3), (Affine(2), 4)),
        *((TensorProduct(Fourier(0), Vertices(2)), 6), (Orthonormal(Fourier(0)), 3)),
    ],
)
def test_growth_is_the_next_step(basis: Basis, size: int) -> None:
    assert basis.grown().basis.size == size


def test_sizes_that_nobody_chose() -> None:
    assert [b.size for b in (Fourier(), BSpline(), PeriodicBSpline())] == [7, 7, 8]
