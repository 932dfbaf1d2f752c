"""Laws that every basis obeys. A new basis joins by one line in BASES."""

import json
from collections.abc import Callable
from functools import reduce
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from cl_manifold.errors import ContextError
from cl_manifold.geometry import (
    Basis,
    Bernstein,
    BSpline,
    Codes,
    Fourier,
    Growth,
    Interval,
    PeriodicBSpline,
    Simplex,
    TensorProduct,
    Vertices,
    basis_from_spec,
    compose,
    gram_by_quadrature,
    random_codes,
    stiffness_by_quadrature,
    times,
)

BASES: dict[str, Callable[[], Basis]] = {
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
    "vertex": lambda: Vertices(1),
    "vertices": lambda: Vertices(4),
    "codes": lambda: random_codes(3, 6, seed=1),
    "codes-one": lambda: random_codes(1, 4, seed=1),
    "codes-wide": lambda: random_codes(4, 2, seed=3),
}
GROWING = 3


@pytest.fixture(params=BASES)
def basis(request: pytest.FixtureRequest) -> Basis:
    return BASES[request.param]()


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


def test_shape_and_batches_like_a_loop(basis: Basis) -> None:
    c = draw(basis, 20).reshape(4, 5, -1)
    one_by_one = torch.stack([basis(x) for x in c.reshape(20, -1)])
    assert basis(c).shape == (4, 5, basis.size)
    torch.testing.assert_close(basis(c), one_by_one.reshape(4, 5, -1), rtol=0, atol=1e-14)
    slopes = torch.stack([basis.derivative(x) for x in c.reshape(20, -1)])
    assert basis.derivative(c).shape == (4, 5, basis.topology.dim, basis.size)
    torch.testing.assert_close(basis.derivative(c).flatten(0, 1), slopes, rtol=1e-13, atol=1e-13)


def test_empty_batch(basis: Basis) -> None:
    none = draw(basis, 3)[:0]
    assert basis(none).shape == (0, basis.size)
    assert basis.derivative(none).shape == (0, basis.topology.dim, basis.size)


def test_keeps_dtype(basis: Basis) -> None:
    c = draw(basis, 50)
    single = c.float()
    assert basis(single).dtype == torch.float32
    assert basis.derivative(single).dtype == torch.float32
    torch.testing.assert_close(basis(single).double(), basis(c), rtol=0, atol=1e-5)
    integrals = [basis.gram(), basis.stiffness(), basis.prior(), basis.grown().matrix]
    assert all(m.dtype == torch.float64 for m in integrals)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_keeps_device(basis: Basis) -> None:
    c = draw(basis, 50)
    there = c.cuda()
    assert basis(there).is_cuda
    assert basis.derivative(there).is_cuda
    assert basis.grown().embed(there).is_cuda
    torch.testing.assert_close(basis(there).cpu(), basis(c), rtol=0, atol=1e-13)


def test_derivative_is_autograds(basis: Basis) -> None:
    for c in draw(basis, 5, seed=4):
        jacobian = torch.autograd.functional.jacobian(basis, c)
        assert isinstance(jacobian, Tensor)
        torch.testing.assert_close(basis.derivative(c), jacobian.mT, rtol=1e-11, atol=1e-11)


def test_gradcheck(basis: Basis) -> None:
    """Along a straight path between two contexts, which stays inside every topology."""
    a, b = draw(basis, 4, seed=5), draw(basis, 4, seed=6)

    def along(t: Tensor) -> Tensor:
        return basis(a + t * (b - a))

    t = torch.tensor([[0.21], [0.37], [0.58], [0.83]], requires_grad=True)
    assert torch.autograd.gradcheck(along, (t,))


def test_gradients_are_finite_at_corners(basis: Basis) -> None:
    c = basis.topology.grid(8).requires_grad_()
    assert basis(c).isfinite().all()
    (slope,) = torch.autograd.grad(basis(c)[:, 0].sum() + 0 * c.sum(), c)
    assert slope.isfinite().all()
    torch.testing.assert_close(slope, basis.derivative(c.detach())[..., 0])


def test_gram_is_symmetric_and_positive(basis: Basis) -> None:
    gram = basis.gram()
    torch.testing.assert_close(gram, gram.mT, rtol=0, atol=1e-15)
    lowest = float(torch.linalg.eigvalsh(gram)[0])
    assert lowest > (-1e-14 if fewer_tasks_than_codes(basis) else 1e-5)


def test_stiffness_is_symmetric_and_flat_on_constants(basis: Basis) -> None:
    stiffness, one = basis.stiffness(), basis.constant()
    torch.testing.assert_close(stiffness, stiffness.mT, rtol=0, atol=1e-14)
    assert torch.linalg.eigvalsh(stiffness)[0] > -1e-13
    if one is not None:
        torch.testing.assert_close(stiffness @ one, torch.zeros(basis.size), rtol=0, atol=1e-13)


def test_integrals_agree_with_quadrature(basis: Basis) -> None:
    order = {1: 600, 2: 120}[basis.topology.dim] if pieces(basis) else 10
    gap = 2e-3 if pieces(basis) else 1e-11
    gram, stiffness = gram_by_quadrature(basis, order), stiffness_by_quadrature(basis, order)
    torch.testing.assert_close(basis.gram(), gram, rtol=gap, atol=gap)
    torch.testing.assert_close(basis.stiffness(), stiffness, rtol=gap, atol=gap)


def test_gram_agrees_with_monte_carlo(basis: Basis) -> None:
    phi = basis(draw(basis, 40_000, seed=7))
    torch.testing.assert_close(basis.gram(), phi.mT @ phi / len(phi), rtol=0, atol=0.02)


def test_constant(basis: Basis) -> None:
    one = basis.constant()
    if one is None:
        phi = basis(draw(basis, 200))
        best = phi @ (torch.linalg.pinv(phi) @ torch.ones(200))
        assert (best - 1).abs().max() > 1e-3
    else:
        values = basis(draw(basis, 200)) @ one
        torch.testing.assert_close(values, torch.ones(200), rtol=0, atol=1e-12)


def test_prior_is_positive_definite(basis: Basis) -> None:
    """Also after growth, and also with fewer tasks than codes."""
    for larger in [basis, *(step.basis for step in growths(basis, 2))]:
        prior = larger.prior()
        torch.testing.assert_close(prior, prior.mT, rtol=0, atol=1e-14)
        assert torch.linalg.eigvalsh(prior)[0] > 1e-6


def test_growth_preserves_the_function(basis: Basis) -> None:
    c = draw(basis, 100, seed=8)
    for count, step in enumerate(growths(basis, GROWING), start=1):
        assert step.matrix.shape == (step.basis.size, basis.size)
        grown = step.basis(step.embed(c)) @ step.matrix
        torch.testing.assert_close(grown, basis(c), rtol=0, atol=1e-12 * 10**count)


def test_growth_adds_functions(basis: Basis) -> None:
    rank = torch.linalg.matrix_rank
    sizes = [basis.size, *(step.basis.size for step in growths(basis, GROWING))]
    assert all(a < b for a, b in pairwise(sizes))
    tasks = basis.topology.dim if isinstance(basis, Codes) else None
    for step in growths(basis, GROWING):
        assert rank(step.matrix) == basis.size
        independent = step.basis.size if tasks is None else min(step.basis.size, tasks)
        assert rank(step.basis.gram()) == independent


def test_growth_embeds_batches(basis: Basis) -> None:
    c = draw(basis, 6).reshape(2, 3, -1)
    step = growths(basis, GROWING)[-1]
    assert step.embed(c).shape == (2, 3, step.basis.topology.dim)
    assert step.embed(c.float()).dtype == torch.float32
    torch.testing.assert_close(step.embed(c)[1, 2], step.embed(c[1, 2]), rtol=0, atol=0)


@pytest.mark.parametrize("factor", [Fourier(1), Bernstein(2, 3.0, 4.0), PeriodicBSpline(3)])
def test_times_preserves_the_function(basis: Basis, factor: Basis) -> None:
    step, c = times(basis, factor), draw(basis, 50)
    assert step.basis.size == basis.size * factor.size
    torch.testing.assert_close(step.basis(step.embed(c)) @ step.matrix, basis(c))
    anywhere = torch.cat([c, draw(factor, 50)], dim=-1)
    torch.testing.assert_close(step.basis(anywhere) @ step.matrix, basis(c))
    assert step.embed(c.reshape(5, 10, -1)).shape == (5, 10, basis.topology.dim + 1)


def test_times_grows_again(basis: Basis) -> None:
    first = times(basis, Bernstein(1))
    both, c = compose(first, first.basis.grown()), draw(basis, 50)
    torch.testing.assert_close(both.basis(both.embed(c)) @ both.matrix, basis(c))


def test_spec_round_trip_through_json(basis: Basis) -> None:
    for one in [basis, *(step.basis for step in growths(basis, GROWING))]:
        again = basis_from_spec(json.loads(json.dumps(one.spec())))
        c = draw(one, 20)
        assert type(again) is type(one)
        assert again.spec() == one.spec()
        assert again.topology.spec() == one.topology.spec()
        assert torch.equal(again(c), one(c))
        assert torch.equal(again.gram(), one.gram())


def test_wrong_dimension(basis: Basis) -> None:
    for dim in (basis.topology.dim - 1, basis.topology.dim + 1):
        with pytest.raises(ContextError, match=f"{dim} number.*needs {basis.topology.dim}"):
            basis(torch.zeros(2, dim))
        with pytest.raises(ContextError):
            basis.derivative(torch.zeros(2, dim))


def test_beyond_the_topology(basis: Basis) -> None:
    if basis.topology.dim > 1 and not isinstance(basis.topology, Simplex):
        pytest.skip("the factors of a product check their own coordinates")
    if isinstance(basis.topology, Interval):
        with pytest.raises(ContextError, match="outside"):
            basis(torch.full((3, 1), basis.topology.high + 0.5))
    elif isinstance(basis.topology, Simplex):
        with pytest.raises(ContextError, match="not a mixture"):
            basis(torch.full((3, basis.topology.dim), 2.0))
    else:
        with pytest.raises(ContextError, match="finite"):
            basis(torch.full((3, 1), float("nan")))


def test_composition_is_associative() -> None:
    a = Vertices(2).grown()
    b = a.basis.grown()
    c = times(b.basis, Fourier(1))
    x = Vertices(2).topology.grid(3)
    left, right = compose(compose(a, b), c), compose(a, compose(b, c))
    torch.testing.assert_close(left.matrix, right.matrix)
    torch.testing.assert_close(left.embed(x), right.embed(x))
    assert reduce(compose, [a, b, c]).basis.spec() == left.basis.spec()
