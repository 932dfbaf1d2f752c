"""Laws of growth: the function stays, functions are added."""

from functools import reduce
from itertools import pairwise

import pytest
import torch

from cl_manifold.geometry import (
    Basis,
    Bernstein,
    Codes,
    Fourier,
    PeriodicBSpline,
    TensorProduct,
    Vertices,
    compose,
    times,
)
from tests.laws.bases import BASES, GROWING, STEPS, draw, growths


@pytest.fixture(params=GROWING)
def basis(request: pytest.FixtureRequest) -> Basis:
    return GROWING[request.param]()


def test_growth_preserves_the_function(basis: Basis) -> None:
    c = draw(basis, 100, seed=8)
    for count, step in enumerate(growths(basis, STEPS), start=1):
        assert step.matrix.shape == (step.basis.size, basis.size)
        grown = step.basis(step.embed(c)) @ step.matrix
        torch.testing.assert_close(grown, basis(c), rtol=0, atol=1e-12 * 10**count)


def test_growth_adds_functions(basis: Basis) -> None:
    rank = torch.linalg.matrix_rank
    sizes = [basis.size, *(step.basis.size for step in growths(basis, STEPS))]
    assert all(a < b for a, b in pairwise(sizes))
    tasks = basis.topology.dim if isinstance(basis, Codes) else None
    for step in growths(basis, STEPS):
        assert rank(step.matrix) == basis.size
        independent = step.basis.size if tasks is None else min(step.basis.size, tasks)
        assert rank(step.basis.gram()) == independent


def test_growth_embeds_batches(basis: Basis) -> None:
    c = draw(basis, 6).reshape(2, 3, -1)
    step = growths(basis, STEPS)[-1]
    assert step.embed(c).shape == (2, 3, step.basis.topology.dim)
    assert step.embed(c.float()).dtype == torch.float32
    torch.testing.assert_close(step.embed(c)[1, 2], step.embed(c[1, 2]), rtol=0, atol=0)


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("factor", [Fourier(1), Bernstein(2, 3.0, 4.0), PeriodicBSpline(3)])
def test_times_preserves_the_function(name: str, factor: Basis) -> None:
    basis = BASES[name]()
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


def test_composition_is_associative() -> None:
    a = Vertices(2).grown()
    b = a.basis.grown()
    c = times(b.basis, Fourier(1))
    x = Vertices(2).topology.grid(3)
    left, right = compose(compose(a, b), c), compose(a, compose(b, c))
    torch.testing.assert_close(left.matrix, right.matrix)
    torch.testing.assert_close(left.embed(x), right.embed(x))
    assert reduce(compose, [a, b, c]).basis.spec() == left.basis.spec()


def test_prior_stays_positive_definite(basis: Basis) -> None:
    """Also with fewer tasks than codes."""
    for step in growths(basis, 2):
        prior = step.basis.prior()
        torch.testing.assert_close(prior, prior.mT, rtol=0, atol=1e-14)
        assert torch.linalg.eigvalsh(prior)[0] > 1e-6


def test_growth_keeps_the_family(basis: Basis) -> None:
    larger = basis.grown().basis
    assert type(larger) is type(basis)
    assert larger.strength == basis.strength
    assert larger.own_prior == basis.own_prior
    assert basis.grown().matrix.dtype == torch.float64


def test_growth_is_double_whatever_torchs_default_is(basis: Basis) -> None:
    before, c = basis.grown(), draw(basis, 4)
    torch.set_default_dtype(torch.float32)
    for step in (basis.grown(), times(basis, Fourier(1))):
        torch.testing.assert_close(step.basis(step.embed(c)) @ step.matrix, basis(c))
        assert step.basis(step.embed(c)).dtype == step.matrix.dtype == torch.float64
    torch.testing.assert_close(basis.grown().matrix, before.matrix, rtol=0, atol=1e-14)


def test_a_new_coordinate_begins_at_the_first_point_of_its_grid() -> None:
    c = torch.rand(2, 3, 1)
    line = times(Fourier(1), Bernstein(1, 3.0, 5.0))
    torch.testing.assert_close(line.embed(c), torch.cat([c, torch.full_like(c, 3.0)], dim=-1))
    box = times(Fourier(1), TensorProduct(Bernstein(1, 3.0, 5.0), Bernstein(1, -2.0, 0.0)))
    torch.testing.assert_close(box.embed(c)[..., 1:], torch.tensor([3.0, -2.0]).expand(2, 3, 2))
