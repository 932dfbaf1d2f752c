"""What holds for every basis, module and context: drawn by hypothesis, tensors from the seed."""

from collections.abc import Callable

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
from cl_manifold.manifold.points import Dense
from cl_manifold.manifold.weight_manifold import WeightManifold
from tests.networks import (
    flat,
    move,
    points_of,
    random_information,
    shake,
    small_mlp,
    weights_at,
)

BASES: dict[str, Callable[[], Basis]] = {
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
few = settings(max_examples=5, deadline=None)


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
        start = flat(manifold, manifold.layout.read(net))
        torch.testing.assert_close(weights_at(manifold, c), start.expand(5, -1))


@pytest.mark.parametrize("name", BASES)
@given(seed=seeds)
@few
def test_a_commit_is_what_check_out_returns(name: str, seed: int) -> None:
    manifold, contexts = walked(BASES[name](), seed)
    weights = flat(manifold, shake(manifold, contexts[0], random_information(manifold)))
    torch.testing.assert_close(weights_at(manifold, contexts[0]), weights, atol=1e-9, rtol=1e-9)
    manifold.check_out(contexts[1])
    manifold.check_out(contexts[0])
    torch.testing.assert_close(flat(manifold, manifold.layout.read(manifold.module)), weights)


@pytest.mark.parametrize("name", BASES)
@given(seed=seeds)
@few
def test_a_preview_is_what_the_commit_makes_of_every_context(name: str, seed: int) -> None:
    manifold, contexts = walked(BASES[name](), seed)
    manifold.check_out(contexts[0])
    live = move(manifold)
    seen = torch.stack([flat(manifold, manifold.preview(c, live)) for c in contexts])
    manifold.commit(random_information(manifold))
    torch.testing.assert_close(weights_at(manifold, contexts), seen, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("growable", [False, True])
@pytest.mark.parametrize("name", BASES)
@given(seed=seeds)
@few
def test_function_preserving_growth_moves_nothing(name: str, growable: bool, seed: int) -> None:
    basis = BASES[name]()
    manifold, contexts = walked(basis, seed, growable)
    before = weights_at(manifold, contexts)
    growth = basis.grown()
    manifold.grow(growth)
    assert manifold.basis.size > basis.size
    embedded = torch.stack([growth.embed(c) for c in contexts])
    torch.testing.assert_close(weights_at(manifold, embedded), before, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", BASES)
@given(seed=seeds)
@few
def test_reembedding_is_the_batch_posterior_of_the_larger_basis(name: str, seed: int) -> None:
    """P' = Λ'⁻¹ Σ_j f_j φ'_j w(c_j)ᵀ, solved densely block by block."""
    basis = BASES[name]()
    manifold, _ = walked(basis, seed)
    growth = basis.grown()
    tasks, offset = manifold.atlas.tasks, manifold.points.offset
    assert offset is not None
    observed = manifold.state(manifold.atlas.contexts())
    phi = torch.stack([growth.basis(growth.embed(t.context)) for t in tasks])
    manifold.grow_and_reembed(growth)
    inverse = torch.linalg.inv(manifold.belief.prior)
    for e in manifold.layout.entries:
        y = e.by_block(observed[e.name] - offset[e.name])
        points = e.by_block(manifold.points.of(e.name).read())
        for b in range(e.blocks):
            f = torch.stack(
                [t.information[e.block_start + b] for t in tasks if t.information is not None]
            ).double()
            total = inverse + phi.mT @ (f[:, None] * phi)
            expected = torch.linalg.solve(total, phi.mT @ (f[:, None] * y[:, b]))
            torch.testing.assert_close(points[:, b], expected, atol=1e-8, rtol=1e-8)
            covariance = manifold.belief.covariance(slice(e.block_start + b, e.block_start + b + 1))
            scale = float(manifold.belief.prior.abs().max())
            torch.testing.assert_close(
                covariance[0], torch.linalg.inv(total), atol=1e-8 * scale, rtol=1e-6
            )


@pytest.mark.parametrize("name", BASES)
@given(seed=seeds)
@few
def test_weights_are_linear_in_control_points(name: str, seed: int) -> None:
    manifold, contexts = walked(BASES[name](), seed)
    assert manifold.points.offset is not None
    offset = flat(manifold, manifold.points.offset)
    first = weights_at(manifold, contexts) - offset
    expected = manifold.phi(contexts) @ points_of(manifold)
    torch.testing.assert_close(first, expected, atol=1e-9, rtol=1e-9)
    for e in manifold.layout.entries:
        stored = manifold.points.of(e.name)
        assert isinstance(stored, Dense)
        stored.values *= -2.5
    torch.testing.assert_close(weights_at(manifold, contexts) - offset, -2.5 * first)


@given(seed=seeds)
@few
def test_plasticity_never_rises(seed: int) -> None:
    manifold, contexts = walked(Fourier(2), seed)
    before = [manifold.plasticity(c) for c in contexts]
    shake(manifold, contexts[0], random_information(manifold))
    after = [manifold.plasticity(c) for c in contexts]
    assert all(0 <= a <= b + 1e-12 for a, b in zip(after, before, strict=True))
