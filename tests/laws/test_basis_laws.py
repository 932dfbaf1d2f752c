"""Laws that every basis obeys, a user's own included."""

import pytest
import torch
from torch import Tensor

from cl_manifold.errors import ContextError
from cl_manifold.geometry import Basis, Interval, Simplex
from tests.laws.bases import BASES, draw, fewer_tasks_than_codes


@pytest.fixture(params=BASES)
def basis(request: pytest.FixtureRequest) -> Basis:
    return BASES[request.param]()


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
    integrals = [basis.gram(), basis.stiffness(), basis.prior()]
    assert all(m.dtype == torch.float64 for m in integrals)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_keeps_device(basis: Basis) -> None:
    c = draw(basis, 50)
    there = c.cuda()
    assert basis(there).is_cuda
    assert basis.derivative(there).is_cuda
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
    prior = basis.prior()
    torch.testing.assert_close(prior, basis.prior(mean=1e-3), rtol=0, atol=0)
    torch.testing.assert_close(prior, prior.mT, rtol=0, atol=1e-14)
    assert torch.linalg.eigvalsh(prior)[0] > 1e-6


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


def test_numbers_are_double_whatever_torchs_default_is(basis: Basis) -> None:
    c = draw(basis, 5)

    def all_of_them() -> list[Tensor]:
        one = basis.constant()
        matrices = [basis(c), basis.derivative(c), basis.gram(), basis.stiffness(), basis.prior()]
        return matrices if one is None else [*matrices, one]

    expected = all_of_them()
    torch.set_default_dtype(torch.float32)
    for found, before in zip(all_of_them(), expected, strict=True):
        torch.testing.assert_close(found, before, rtol=0, atol=1e-13)
