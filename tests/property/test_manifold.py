"""What holds for every basis, module and context: drawn by hypothesis, tensors from the seed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_manifold.geometry import (
    Basis,
    Bernstein,
    BSpline,
    Fourier,
    PeriodicBSpline,
    TensorProduct,
    Vertices,
    random_codes,
)
from cl_manifold.manifold.weight_manifold import WeightManifold
from tests.networks import random_information, shake, small_mlp

BASES = {
    "point": lambda: Fourier(0),
    "ellipse": lambda: Fourier(1),
    "harmonics": lambda: Fourier(3, period=360.0),
    "line": lambda: Bernstein(1),
    "polynomial": lambda: Bernstein(3, -1.0, 2.0),
    "spline": lambda: BSpline(3),
    "periodic spline": lambda: PeriodicBSpline(6),
    "torus": lambda: TensorProduct(Fourier(1), Fourier(1)),
    "cylinder": lambda: TensorProduct(Fourier(1), Bernstein(1)),
    "simplex": lambda: Vertices(4),
    "codes": lambda: random_codes(3, 5, seed=1),
}
seeds = st.integers(0, 2**31)
few = settings(max_examples=8, deadline=None)


def walked(basis: Basis, seed: int, growable: bool = True) -> tuple[WeightManifold, torch.Tensor]:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    manifold = WeightManifold(small_mlp().double(), basis, growable=growable)
    contexts = basis.topology.sample(3, generator)
    for c in contexts:
        shake(manifold, c, random_information(manifold))
    return manifold, basis.topology.sample(16, generator)


@pytest.mark.parametrize("name", BASES)
@given(seed=seeds)
@few
def test_a_new_manifold_is_the_initial_network_everywhere(name: str, seed: int) -> None:
    basis = BASES[name]()
    net = small_mlp().double()
    for growable in (False, True):
        manifold = WeightManifold(net, basis, growable=growable)
        c = basis.topology.sample(5, torch.Generator().manual_seed(seed))
        start = manifold.layout.read(net)
        torch.testing.assert_close(manifold.weights(c), start.expand(5, -1))


@pytest.mark.parametrize("name", BASES)
@given(seed=seeds)
@few
def test_a_commit_is_what_check_out_returns(name: str, seed: int) -> None:
    manifold, contexts = walked(BASES[name](), seed)
    weights = shake(manifold, contexts[0], random_information(manifold))
    torch.testing.assert_close(manifold.weights(contexts[0]), weights, atol=1e-9, rtol=1e-9)
    manifold.check_out(contexts[0])
    torch.testing.assert_close(manifold.layout.read(manifold.module), weights)


@pytest.mark.parametrize("growable", [False, True])
@pytest.mark.parametrize("name", BASES)
@given(seed=seeds)
@few
def test_function_preserving_growth_moves_nothing(name: str, growable: bool, seed: int) -> None:
    basis = BASES[name]()
    manifold, contexts = walked(basis, seed, growable)
    before = manifold.weights(contexts)
    growth = basis.grown()
    manifold.grow(growth)
    assert manifold.basis.size > basis.size
    embedded = torch.stack([growth.embed(c) for c in contexts])
    torch.testing.assert_close(manifold.weights(embedded), before, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", BASES)
@given(seed=seeds)
@few
def test_reembedding_is_the_batch_posterior_of_the_larger_basis(name: str, seed: int) -> None:
    """P' = Λ'⁻¹ Σ_j f_j φ'_j w(c_j)ᵀ, solved densely block by block."""
    basis = BASES[name]()
    manifold, _ = walked(basis, seed)
    growth = basis.grown()
    visits = manifold.visits
    assert manifold.offset is not None
    observed = torch.stack([manifold.weights(v.context) - manifold.offset for v in visits])
    phi = torch.stack([growth.basis(growth.embed(v.context)) for v in visits])
    manifold.grow_and_reembed(growth)
    inverse = torch.linalg.inv(manifold.prior)
    for index, points in manifold.layout.by_block(manifold.control_points):
        (entry,) = (e for e in manifold.layout.entries if e.block_start == index.start)
        f = torch.stack([v.information[index.start] for v in visits if v.information is not None])
        total = inverse + phi.mT @ (f[:, None] * phi)
        y = observed[:, entry.start : entry.start + entry.size]
        expected = torch.linalg.solve(total, phi.mT @ (f[:, None] * y))
        torch.testing.assert_close(points.flatten(1), expected, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("name", BASES)
@given(seed=seeds)
@few
def test_weights_are_linear_in_control_points(name: str, seed: int) -> None:
    manifold, contexts = walked(BASES[name](), seed)
    assert manifold.offset is not None
    first = manifold.weights(contexts) - manifold.offset
    manifold.control_points *= -2.5
    torch.testing.assert_close(manifold.weights(contexts) - manifold.offset, -2.5 * first)


@given(seed=seeds)
@few
def test_plasticity_never_rises(seed: int) -> None:
    manifold, contexts = walked(Fourier(2), seed)
    before = [manifold.plasticity(c) for c in contexts]
    shake(manifold, contexts[0], random_information(manifold))
    after = [manifold.plasticity(c) for c in contexts]
    assert all(0 <= a <= b + 1e-12 for a, b in zip(after, before, strict=True))
