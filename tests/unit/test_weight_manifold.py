"""WeightManifold: what it is made of, and what a commit does."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cl_manifold.errors import ContextError, InformationError, LayoutError
from cl_manifold.geometry import Basis, Bernstein, Fourier, Vertices, random_codes
from cl_manifold.manifold.belief import PRECISION
from cl_manifold.manifold.information import SHARED
from cl_manifold.manifold.layout import GRANULARITIES, Granularity
from cl_manifold.manifold.points import STORAGES, Storage
from cl_manifold.manifold.weight_manifold import WeightManifold
from tests.networks import (
    at,
    covariances,
    flat,
    move,
    points_of,
    random_information,
    shake,
    small_mlp,
    walked,
    weights_at,
)

INF = float("inf")


# -- what a manifold is made of ------------------------------------------------------------------


def test_stored_floats_are_control_points_and_little_else() -> None:
    net = nn.Sequential(nn.Linear(50, 60), nn.ReLU(), nn.Linear(60, 10))
    manifold = WeightManifold(net, Fourier(3), blocks="tensor")
    size = sum(p.numel() for p in net.parameters())
    for i in range(10):
        shake(manifold, at(i / 10), random_information(manifold))
    # four triangles and a prior in doubles; per task its context, φ and four numbers
    few = 4 * 2 * 28 + 2 * 49 + 10 * (2 * (1 + 7) + 4)
    assert manifold.stored_floats == 7 * size + few
    assert WeightManifold(net, Fourier(3), growable=True).stored_floats > 8 * size
    eight = WeightManifold(net, Fourier(3), blocks="tensor", storage="int8")
    assert eight.stored_floats < 1.9 * size


def test_a_basis_without_constants_keeps_the_initial_network() -> None:
    manifold = WeightManifold(small_mlp(), random_codes(2, 5, seed=0))
    assert manifold.points.offset is not None
    assert WeightManifold(small_mlp(), Vertices(3)).points.offset is None
    assert WeightManifold(small_mlp(), Vertices(3), growable=True).points.offset is not None


def test_rows_and_the_strength_of_the_basis_are_the_defaults() -> None:
    manifold = WeightManifold(small_mlp(), Fourier(1))
    assert (manifold.blocks, manifold.layout.blocks) == ("row", 13)
    assert manifold.strength == Fourier(1).strength == 10.0
    assert WeightManifold(small_mlp(), Vertices(2)).strength == Vertices(2).strength
    assert WeightManifold(small_mlp(), Fourier(1), strength=3.0).strength == 3.0
    for wrong in (0.0, -1.0, INF, float("nan")):
        with pytest.raises(ValueError, match="strength must be positive and finite, got"):
            WeightManifold(small_mlp(), Fourier(1), strength=wrong)


def test_a_selection_leaves_the_rest_to_the_network() -> None:
    net: Any = small_mlp()
    manifold = WeightManifold(net, Fourier(1), select=lambda name: name.startswith("2."))
    shake(manifold, at(0.1), 1.0)
    assert set(manifold.state(at(0.1))) == {"2.weight", "2.bias"}
    first = net[0].weight.detach().clone()
    manifold.check_out(at(0.5))
    assert torch.equal(net[0].weight, first)


def test_one_context_and_a_batch_agree() -> None:
    manifold = WeightManifold(small_mlp(), Fourier(2))
    shake(manifold, at(0.1), 1.0)
    contexts = torch.rand(3, 2, 1)
    batch = weights_at(manifold, contexts)
    assert batch.shape == (3, 2, 83)
    torch.testing.assert_close(batch[2, 1], weights_at(manifold, contexts[2, 1]))


def test_weights_have_the_module_s_dtype_and_gradients_in_the_context() -> None:
    net = small_mlp().half()
    manifold = WeightManifold(net, Fourier(1))
    shake(manifold, at(0.1), 1.0)
    state = manifold.state(at(0.3))
    assert all(t.dtype == torch.float16 for t in state.values())
    assert manifold.points.of("0.weight").read().dtype == torch.float32
    double = WeightManifold(small_mlp().double(), Fourier(1))
    shake(double, at(0.1), 1.0)
    c = at(0.3).requires_grad_()
    (slope,) = torch.autograd.grad(double.state(c)["0.weight"].sum(), c)
    h = 1e-6
    up, down = (double.state(at(0.3 + d))["0.weight"].sum() for d in (h, -h))
    assert float(slope) == pytest.approx(float((up - down) / (2 * h)), rel=1e-5)


def test_contexts_outside_are_refused() -> None:
    manifold = WeightManifold(small_mlp(), Bernstein(1))
    with pytest.raises(ContextError, match=r"1\.5 lies outside \[0, 1\]"):
        manifold.state(at(1.5))
    with pytest.raises(ContextError, match="has 2 numbers, but interval needs 1"):
        manifold.check_out(at(0.1, 0.2))
    assert manifold.visit is None


def test_manifolds_can_be_pickled_and_copied() -> None:
    manifold = walked(Fourier(1), [at(0.1), at(0.6)])
    for other in (pickle.loads(pickle.dumps(manifold)), copy.deepcopy(manifold)):
        torch.testing.assert_close(points_of(other), points_of(manifold))
        torch.manual_seed(1)
        a = flat(manifold, shake(other, at(0.3), 1.0))
        torch.testing.assert_close(weights_at(other, at(0.3)), a)
        assert len(other.atlas) == len(manifold.atlas) + 1


# -- commits -------------------------------------------------------------------------------------


def firmness(manifold: WeightManifold, raw: Tensor, sharpness: float) -> list[float]:
    """Each block's own F with a share of its tensor's mean; over the mean of all weights."""
    leaning: list[float] = []
    weights: list[int] = []
    for e in manifold.layout.entries:
        part = raw[e.part].tolist()
        leaning += [(1 - SHARED) * f + SHARED * sum(part) / len(part) for f in part]
        weights += e.blocks * [e.size // e.blocks]
    mean = sum(f * n for f, n in zip(leaning, weights, strict=True)) / sum(weights)
    return [sharpness * manifold.strength * 1e-4 * f / mean for f in leaning]


@pytest.mark.parametrize("blocks", GRANULARITIES)
def test_information_is_a_ratio_to_the_prior(blocks: Granularity) -> None:
    """f = s ρ ε F̄ / mean F̄, whatever the unit of F; Σ' = (Σ⁻¹ + f φφᵀ)⁻¹ by an explicit inverse."""
    manifold = WeightManifold(small_mlp().double(), Fourier(1), blocks=blocks, growable=True)
    raw = torch.rand(manifold.layout.blocks, dtype=torch.float64) * 1e-9
    shake(manifold, at(0.2), raw, sharpness=3.0)
    (task,) = manifold.atlas.tasks
    assert task.information is not None
    expected = firmness(manifold, raw, 3.0)
    assert task.information.tolist() == pytest.approx(expected, rel=1e-5)
    phi = Fourier(1)(at(0.2))
    near = 1e-5 * float(manifold.belief.prior.max())
    for f, found in zip(expected, covariances(manifold), strict=True):
        total = PRECISION * Fourier(1).prior() + f * torch.outer(phi, phi)
        torch.testing.assert_close(found, torch.linalg.inv(total), rtol=1e-4, atol=near)


def test_one_number_stands_for_all_blocks() -> None:
    manifold = WeightManifold(small_mlp(), Fourier(1))
    shake(manifold, at(0.2), 123.0)
    (task,) = manifold.atlas.tasks
    assert task.information is not None
    torch.testing.assert_close(task.information, torch.full((13,), 1e-3))
    assert task.information.untyped_storage().nbytes() == 4, "one number is kept"
    shake(manifold, at(0.6), INF)
    assert [t.exact for t in manifold.atlas.tasks] == [False, True]


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan")])
def test_information_that_says_nothing_is_refused_and_nothing_moves(wrong: float) -> None:
    manifold = walked(Fourier(1), [at(0.1)])
    points, belief = points_of(manifold), manifold.belief
    manifold.check_out(at(0.5))
    move(manifold)
    with pytest.raises(InformationError):
        manifold.commit(wrong)
    assert torch.equal(points_of(manifold), points)
    assert manifold.belief is belief
    assert len(manifold.atlas) == 1


def test_weights_that_are_not_finite_are_not_committed() -> None:
    net: Any = small_mlp()
    manifold = WeightManifold(net, Fourier(1))
    before = points_of(manifold)
    manifold.check_out(at(0.1))
    with torch.no_grad():
        net[0].bias[0] = float("nan")
    with pytest.raises(LayoutError, match=r"0\.bias holds weights that are not finite, so nothing"):
        manifold.commit(1.0)
    assert torch.equal(points_of(manifold), before)
    assert not manifold.atlas.tasks


def test_a_commit_reports_freedom_before_it_and_its_overshoot() -> None:
    manifold = walked(Fourier(1), [at(0.1), at(0.4)])
    manifold.check_out(at(0.5))
    free, swing = manifold.plasticity(at(0.5)), manifold.overshoot(at(0.5))
    move(manifold)
    report = manifold.commit(1.0)
    assert report.plasticity == pytest.approx(free)
    assert report.overshoot == pytest.approx(swing)
    assert manifold.plasticity(at(0.5)) < free


def test_plasticity_is_averaged_over_weights_and_overshoot_the_worst_of_a_grid() -> None:
    manifold = walked(Fourier(1), [at(0.1), at(0.4)])
    c, grid = at(0.3), torch.arange(257)[:, None].double() / 257
    phi, phis = Fourier(1)(c), Fourier(1)(grid)
    prior = phi @ torch.linalg.inv(PRECISION * Fourier(1).prior()) @ phi
    total, worst = 0.0, 0.0
    for e in manifold.layout.entries:
        for sigma in covariances(manifold)[e.part]:
            q = phi @ sigma @ phi
            total += float(q / prior) * e.size / e.blocks
            worst = max(worst, float((phis @ sigma @ phi / q).abs().max()))
    assert manifold.plasticity(c) == pytest.approx(total / 83)
    assert manifold.overshoot(c) == pytest.approx(worst)
    assert manifold.overshoot(c) > 1


@pytest.mark.parametrize("storage", STORAGES)
def test_storage_costs_little_at_the_context_that_was_committed(storage: Storage) -> None:
    manifold = WeightManifold(small_mlp(), Fourier(2), storage=storage)
    shake(manifold, at(0.1), 1.0)
    weights = flat(manifold, shake(manifold, at(0.6), 1.0))
    error = (weights_at(manifold, at(0.6)) - weights).abs().max()
    scale = float(points_of(manifold).abs().max())
    limits = {"float32": 1e-6, "bfloat16": 5 * 2**-9, "int8": 5 * (1 / 254 + 2**-8)}
    assert error <= limits[storage] * scale
    assert (error > 1e-4) == (storage != "float32")


@pytest.mark.parametrize("blocks", GRANULARITIES)
def test_a_preview_is_what_an_actual_commit_makes_of_a_copy(blocks: Granularity) -> None:
    places = [at(0.1), at(0.4), at(0.8)]
    manifold = walked(Fourier(2), places, blocks)
    manifold.check_out(at(0.55))
    live = move(manifold)
    before, others = points_of(manifold), [*places, at(0.3), at(0.55)]
    seen = [flat(manifold, manifold.preview(c, live)) for c in others]
    assert torch.equal(points_of(manifold), before)
    other = copy.deepcopy(manifold)
    other.commit(1.0)
    for c, preview in zip(others, seen, strict=True):
        torch.testing.assert_close(preview, weights_at(other, c), rtol=0, atol=1e-12)
        there = flat(manifold, manifold.preview_at(manifold.phi(c), live, manifold.open_visit))
        assert torch.equal(there, preview)
    torch.testing.assert_close(seen[-1], flat(manifold, live))


class Counted(Basis):
    """The ellipse, counting how often it is evaluated."""

    def __init__(self) -> None:
        self.inner = Fourier(1)
        self.topology, self.size = self.inner.topology, self.inner.size
        self.calls = 0

    def __call__(self, context: Tensor) -> Tensor:
        self.calls += 1
        return self.inner(context)


def test_phi_is_evaluated_once_for_a_check_out_and_its_commits() -> None:
    basis = Counted()
    manifold = WeightManifold(small_mlp(), basis)
    for c in (0.1, 0.6, 0.1):
        basis.calls = 0
        manifold.check_out(at(c))
        for _ in range(2):
            move(manifold)
            manifold.commit(1.0)
        manifold.absorb()
        manifold.check_out(at(c))
        assert basis.calls == 1


def test_one_block_and_any_strength_above_zero_will_do() -> None:
    manifold = WeightManifold(nn.Linear(2, 3, bias=False), Fourier(1), blocks="tensor",
                              strength=0.5)  # fmt: skip
    shake(manifold, at(0.1), torch.ones(1))
    assert float(manifold.atlas.information(1)) == pytest.approx(0.5 * PRECISION)
