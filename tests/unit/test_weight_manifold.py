"""WeightManifold: how visits, commits, growth and the ledger of tasks move together."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cl_manifold.errors import ContextError, InformationError, LayoutError
from cl_manifold.geometry import Basis, Bernstein, Fourier, Vertices, random_codes
from cl_manifold.manifold import belief as beliefs
from cl_manifold.manifold.belief import PRECISION
from cl_manifold.manifold.information import SHARED
from cl_manifold.manifold.layout import GRANULARITIES, Granularity
from cl_manifold.manifold.points import STORAGES, Storage
from cl_manifold.manifold.weight_manifold import WeightManifold
from tests.networks import (
    flat,
    move,
    points_of,
    random_information,
    shake,
    small_cnn,
    small_mlp,
    weights_at,
)

INF = float("inf")


def at(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def walked(
    basis: Basis,
    places: list[Tensor],
    blocks: Granularity = "row",
    information: float | None = None,
) -> WeightManifold:
    """A manifold after a task at each place, with random weights and information."""
    torch.manual_seed(0)
    manifold = WeightManifold(small_mlp().double(), basis, blocks=blocks, growable=True)
    for i, place in enumerate(places):
        generator = torch.Generator().manual_seed(round(1000 * float(place[0])) + i)
        f = torch.rand(manifold.layout.blocks, generator=generator) + 0.1
        shake(manifold, place, f if information is None else information)
    return manifold


def covariances(manifold: WeightManifold) -> Tensor:
    return manifold.belief.covariance()


def test_one_block_and_any_strength_above_zero_will_do() -> None:
    manifold = WeightManifold(nn.Linear(2, 3, bias=False), Fourier(1), blocks="tensor",
                              strength=0.5)  # fmt: skip
    shake(manifold, at(0.1), torch.ones(1))
    assert float(manifold.atlas.information(1)) == pytest.approx(0.5 * PRECISION)


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


# -- open visits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("information", [1.0, INF])
@pytest.mark.parametrize("blocks", GRANULARITIES)
def test_two_commits_in_one_visit_are_one_commit_of_the_last_weights(
    blocks: Granularity, information: float
) -> None:
    twice = walked(Fourier(2), [at(0.1), at(0.3)], blocks, information)
    once = copy.deepcopy(twice)
    first = twice.check_out(at(0.5))
    move(twice)
    twice.commit(information)
    assert twice.check_out(at(0.5)) is first
    assert twice.check_out(at(1.5)) is first, "once around the circle"
    weights = move(twice)
    twice.commit(information)
    once.check_out(at(0.5))
    once.write(weights)
    once.commit(information)
    # the steps of single weights are kept in float32
    near = 1e-6 if blocks == "weight" else 1e-9
    torch.testing.assert_close(points_of(twice), points_of(once), rtol=near, atol=near)
    assert torch.equal(twice.belief.triangle, once.belief.triangle)
    assert twice.atlas.contexts().flatten().tolist() == [0.1, 0.3, 0.5]
    assert len(once.atlas) == 3
    assert first.committed


def test_training_on_goes_on_from_what_was_committed_and_keeps_the_anchor() -> None:
    manifold = walked(Fourier(1), [at(0.1)])
    visit = manifold.check_out(at(0.5))
    anchor = flat(manifold, visit.anchor).clone()
    weights = flat(manifold, move(manifold))
    manifold.commit(1.0)
    manifold.check_out(at(0.5))
    torch.testing.assert_close(flat(manifold, manifold.layout.read(manifold.module)), weights)
    assert torch.equal(flat(manifold, visit.anchor), anchor)


def test_the_open_visit_is_left_where_it_is_without_a_commit() -> None:
    manifold = walked(Fourier(1), [at(0.1)])
    points = points_of(manifold)
    manifold.check_out(at(0.5))
    move(manifold)
    manifold.check_out(at(0.7))
    assert torch.equal(points_of(manifold), points)
    assert len(manifold.atlas) == 1
    torch.testing.assert_close(
        flat(manifold, manifold.layout.read(manifold.module)), weights_at(manifold, at(0.7))
    )


def test_opening_leaves_the_module_s_weights() -> None:
    manifold = walked(Fourier(1), [at(0.1)])
    live = move(manifold)
    visit = manifold.open(at(0.5))
    for name, weights in manifold.layout.read(manifold.module).items():
        assert torch.equal(weights, live[name])
    torch.testing.assert_close(flat(manifold, visit.anchor), weights_at(manifold, at(0.5)))


@pytest.mark.parametrize("information", [1.0, INF])
def test_looking_opens_nothing_and_lets_go_of_nothing(information: float) -> None:
    manifold = walked(Fourier(1), [at(0.1), at(0.5)], information=information)
    visit, tasks, belief = manifold.visit, manifold.atlas.tasks, manifold.belief
    seen = manifold.look(at(1.8))
    step = belief.step(manifold.phi(at(0.8)))
    assert float(seen.context) == pytest.approx(0.8)
    assert torch.equal(seen.step.q, step.q)
    torch.testing.assert_close(flat(manifold, seen.anchor), weights_at(manifold, at(0.8)))
    if information == INF:
        with pytest.raises(ContextError, match="cannot be learned"):
            manifold.look(at(0.1))
    else:  # on top of the committed task there, unlike the open visit
        assert float(manifold.look(at(0.5)).step.q.max()) < float(manifold.open_visit.step.q.min())
    assert manifold.visit is visit
    assert manifold.atlas.tasks is tasks
    assert manifold.belief is belief


def test_a_return_from_elsewhere_is_a_visit_of_its_own() -> None:
    manifold = walked(Fourier(1), [at(0.1), at(0.5), at(0.1)])
    assert manifold.atlas.contexts().flatten().tolist() == [0.1, 0.5, 0.1]
    once = walked(Fourier(1), [at(0.1), at(0.5)])
    assert manifold.plasticity(at(0.1)) < once.plasticity(at(0.1))


@pytest.mark.parametrize("blocks", GRANULARITIES)
def test_an_exact_task_that_comes_back_takes_its_own_place(blocks: Granularity) -> None:
    manifold = walked(Fourier(1), [at(0.0), at(0.3), at(0.6)], blocks, INF)
    others = weights_at(manifold, torch.stack([at(0.3), at(0.6)]))
    weights = flat(manifold, shake(manifold, at(1.0), INF))
    assert manifold.atlas.contexts().flatten().tolist() == [0.3, 0.6, 0.0]
    torch.testing.assert_close(weights_at(manifold, at(0.0)), weights, rtol=1e-5, atol=1e-5)
    found = weights_at(manifold, torch.stack([at(0.3), at(0.6)]))
    torch.testing.assert_close(found, others, rtol=1e-5, atol=1e-5)


def test_saturated_contexts_cannot_be_learned_exactly() -> None:
    manifold = walked(Fourier(1), [at(0.0), at(0.3), at(0.6)], information=INF)
    before = points_of(manifold)
    with pytest.raises(
        ContextError,
        match=r"context 0\.8 cannot be learned: its 3 control points are fixed by 3 finished",
    ):
        manifold.check_out(at(0.8))
    assert torch.equal(points_of(manifold), before)
    assert len(manifold.atlas) == 3
    manifold.grow(Fourier(1).grown())
    shake(manifold, at(0.8), INF)


@pytest.mark.parametrize("blocks", GRANULARITIES)
def test_much_finite_information_never_fixes_a_context(blocks: Granularity) -> None:
    """A single weight that holds nearly all information is firm, not fixed; it may come back."""
    manifold = WeightManifold(small_mlp(), Vertices(2), blocks=blocks, strength=1e5)
    peaked = torch.full((manifold.layout.blocks,), 1e-6)
    peaked[0] = 1.0
    for i in (0, 1, 0, 1, 0):
        weights = shake(manifold, torch.eye(2)[i], peaked)
    assert len(manifold.atlas) == 5
    torch.testing.assert_close(
        weights_at(manifold, torch.eye(2)[0]), flat(manifold, weights), rtol=1e-4, atol=1e-4
    )


def test_nothing_is_committed_without_a_visit() -> None:
    manifold = walked(Fourier(1), [at(0.1)])
    manifold.grow(manifold.basis.grown())
    assert manifold.visit is None
    for ask in (lambda: manifold.commit(1.0), lambda: manifold.preview(at(0.1), {})):
        with pytest.raises(ContextError, match=r"no context is checked out; call check_out"):
            ask()


def test_what_is_written_after_a_commit_is_absorbed() -> None:
    manifold = walked(Fourier(1), [at(0.1)])
    manifold.check_out(at(0.5))
    before = weights_at(manifold, at(0.5))
    move(manifold)
    manifold.absorb()
    assert torch.equal(weights_at(manifold, at(0.5)), before), "nothing was committed"
    manifold.commit(1.0)
    belief, tasks = manifold.belief, manifold.atlas.tasks
    weights = flat(manifold, move(manifold))
    manifold.absorb()
    torch.testing.assert_close(weights_at(manifold, at(0.5)), weights)
    assert manifold.belief is belief
    assert manifold.atlas.tasks is tasks
    manifold.visit = None
    move(manifold)
    manifold.absorb()
    torch.testing.assert_close(weights_at(manifold, at(0.5)), weights)


# -- letting go ----------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", GRANULARITIES)
def test_release_leaves_the_belief_as_if_the_task_had_never_been(blocks: Granularity) -> None:
    places = list(torch.eye(3, dtype=torch.float64))
    manifold = walked(Vertices(3), [*places, places[1]], blocks)
    weights = weights_at(manifold, torch.stack(places))
    kept = [manifold.atlas.tasks[0], manifold.atlas.tasks[2]]
    manifold.release(places[1])
    prior = PRECISION * Vertices(3).prior()
    for b, found in enumerate(covariances(manifold)):
        total = prior.clone()
        for task in kept:
            assert task.information is not None
            total += float(task.information[b]) * torch.outer(task.phi, task.phi)
        expected = torch.linalg.inv(total)
        near = 1e-6 * float(expected.abs().max())
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=near)
    assert list(manifold.atlas.tasks) == kept
    assert manifold.visit is None
    assert torch.equal(weights_at(manifold, torch.stack(places)), weights)


def test_release_needs_the_information_of_finished_tasks() -> None:
    manifold = WeightManifold(small_mlp(), Fourier(1), blocks="weight")
    for c in (0.2, 0.6):
        shake(manifold, at(c), random_information(manifold))
    with pytest.raises(LayoutError, match="build the manifold with growable=True"):
        manifold.release(at(0.2))


def test_reembedding_asks_for_the_initial_network() -> None:
    manifold = WeightManifold(small_mlp(), Fourier(1))
    with pytest.raises(LayoutError, match="growable=True"):
        manifold.grow_and_reembed(Fourier(1).grown())
    weights = WeightManifold(small_mlp(), Fourier(1), blocks="weight")
    shake(weights, at(0.1), random_information(weights))
    before = weights.basis
    with pytest.raises(LayoutError, match="blocks='weight' does not keep"):
        weights.grow(Fourier(1).grown())
    assert weights.basis is before


def test_growth_keeps_the_belief_of_the_same_tasks() -> None:
    """Σ' of the larger basis by an explicit inverse, and the ledger on the larger topology."""
    places = list(torch.eye(2, dtype=torch.float64))
    manifold = walked(Vertices(2), places)
    manifold.atlas.assigned = {0: places[0], 1: places[1]}
    growth = Vertices(2).grown()
    manifold.grow(growth)
    prior = PRECISION * growth.basis.prior()
    for b, found in enumerate(covariances(manifold)):
        total = prior.clone()
        for i, task in enumerate(manifold.atlas.tasks):
            assert task.information is not None
            total[i, i] += float(task.information[b])
        expected = torch.linalg.inv(total)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * float(expected.max()))
    assert manifold.atlas.topology is growth.basis.topology
    assert manifold.atlas.assigned[1].tolist() == [0, 1, 0]
    assert manifold.overshoot(torch.eye(3)[2].double()) >= 1


# -- buffers -------------------------------------------------------------------------------------


class Masked(nn.Module):
    """A network with every kind of buffer that must not be interpolated."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.register_buffer("mask", torch.full((4, 4), float("-inf")).triu(1))
        self.register_buffer("constant", torch.tensor([0.1, 1 / 3]))
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("index", torch.tensor([2, 0, 1]))
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("seen", torch.tensor([False, False]))
        self.register_buffer("phase", torch.zeros(2, dtype=torch.complex64))
        self.register_buffer("growing", torch.zeros(1))
        self.register_buffer("broken", torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.steps += 1
            self.seen[0] = True
            self.phase += 1j
            self.growing = torch.ones(2)
            self.broken += float("nan")
        return self.norm(self.layer(x))


RIDING = {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}


def train(net: nn.Module, seed: int, batches: int = 3) -> None:
    generator = torch.Generator().manual_seed(seed)
    net.train()
    for _ in range(batches):
        x = 2 * torch.randn(8, 4, generator=generator) + seed
        net(x.to(next(net.parameters())))
    net.eval()


def test_statistics_ride_after_the_first_training_that_moves_them_and_nothing_else_does() -> None:
    net = Masked()
    manifold = WeightManifold(net, Fourier(1))
    manifold.check_out(at(0.1))
    move(manifold)
    manifold.commit(1.0)
    assert all(e.trained for e in manifold.layout.entries)
    manifold.check_out(at(0.4))
    train(net, 1)
    outside = {n: b.clone() for n, b in net.named_buffers() if n not in RIDING}
    assert bool(outside["steps"] == 3)
    move(manifold)
    manifold.commit(1.0)
    assert {e.name for e in manifold.layout.entries if not e.trained} == RIDING
    for c in (0.1, 0.4, 0.7, 0.1):
        manifold.check_out(at(c))
        for name, before in outside.items():
            now = dict(net.named_buffers())[name]
            assert now.dtype == before.dtype
            assert torch.equal(now.nan_to_num(7), before.nan_to_num(7)), name
    assert manifold.take_up_buffers() is None


def test_each_context_has_its_own_statistics_and_count() -> None:
    net = Masked()
    manifold = WeightManifold(net, Vertices(3))
    kept: list[dict[str, Tensor]] = []
    for i in range(2):
        manifold.check_out(torch.eye(3)[i])
        train(net, i, batches=2 + i)
        manifold.commit(INF)
        kept.append({n: b.clone() for n, b in net.named_buffers() if n in RIDING})
    for i, before in enumerate(kept):
        manifold.check_out(torch.eye(3)[i])
        for name, value in before.items():
            now = dict(net.named_buffers())[name]
            torch.testing.assert_close(now, value)
            assert now.dtype == value.dtype
    assert int(kept[0]["norm.num_batches_tracked"]) == 2
    # the third vertex follows what all share; the second began where the third is
    assert int(manifold.state(torch.eye(3)[2])["norm.num_batches_tracked"]) >= 0
    assert bool((manifold.state(torch.eye(3)[2])["norm.running_var"] >= 0).all())


@pytest.mark.parametrize("information", [INF, 1.0])
def test_finished_tasks_hold_statistics_that_join_later(information: float) -> None:
    """They were there before: exactly where tasks are exact, like the average weight elsewhere."""
    net = Masked().double()
    manifold = WeightManifold(net, Fourier(1))
    shake(manifold, at(0.1), information)
    before = {n: b.clone() for n, b in net.named_buffers()}
    manifold.check_out(at(0.4))
    train(net, 1)
    now = net.get_buffer("norm.running_mean").clone()
    manifold.commit(information)
    rows = {e.name: e.block_start for e in manifold.layout.entries}
    first = manifold.atlas.tasks[0].information
    assert first is not None
    expected = INF if information == INF else PRECISION * manifold.strength
    assert float(first[rows["norm.running_mean"]]) == pytest.approx(expected)
    # the average weight's share of a commit at 0.4 arrives at 0.1
    f = 1e12 if information == INF else PRECISION * manifold.strength
    phi = Fourier(1)(torch.stack([at(0.1), at(0.4)]))
    total = PRECISION * Fourier(1).prior() + f * torch.outer(phi[0], phi[0])
    v = torch.linalg.solve(total, phi[1])
    share = float(phi[0] @ v / (phi[1] @ v))
    start = before["norm.running_mean"]
    found = manifold.state(at(0.1))["norm.running_mean"]
    torch.testing.assert_close(found, start + share * (now - start), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(manifold.state(at(0.4))["norm.running_mean"], now)


@pytest.mark.parametrize("information", [INF, 1.0])
def test_statistics_that_join_in_the_middle_of_a_visit_are_held_like_the_average_weight(
    information: float,
) -> None:
    """Information was measured block by block before they joined, tasks were committed before."""
    net = Masked().double()
    manifold = WeightManifold(net, Fourier(1), growable=True)
    for c in (0.1, 0.4):
        shake(manifold, at(c), torch.full((manifold.layout.blocks,), information))
    manifold.check_out(at(0.7))
    measured = torch.full((manifold.layout.blocks,), information)
    manifold.commit(measured)
    train(net, 1)
    manifold.commit(measured)
    manifold.commit(measured)
    found = manifold.atlas.information(manifold.layout.blocks)
    joined = slice(len(measured), None)
    expected = INF if information == INF else PRECISION * manifold.strength
    torch.testing.assert_close(found[:, joined], torch.full_like(found[:, joined], expected))
    posterior = beliefs.unvisited(Fourier(1).prior(), manifold.layout.blocks)
    for phi, f in zip(manifold.atlas.phis(3), found, strict=True):
        posterior = posterior.observe(phi, f)
    torch.testing.assert_close(covariances(manifold), posterior.covariance())


def test_interpolated_variances_and_counts_are_what_a_module_can_hold() -> None:
    net = small_cnn()
    manifold = WeightManifold(net, Fourier(2))
    for c in (0.0, 0.1):
        manifold.check_out(at(c))
        net.train()
        net(10 * (c + 0.1) * torch.randn(8, 1, 6, 6))
        manifold.commit(INF)
    for c in torch.arange(0, 1, 0.05):
        state = manifold.state(c[None])
        assert bool((state["1.running_var"] >= 0).all())
        count = state["1.num_batches_tracked"]
        assert count.dtype == torch.int64
        assert int(count) >= 0
    assert not manifold.state(at(0.3).requires_grad_())["1.running_mean"].requires_grad


def test_only_what_never_was_negative_is_kept_from_becoming_so() -> None:
    """A mean that is positive at first may be negative at another context."""
    net: Any = nn.Sequential(nn.BatchNorm1d(2, momentum=1.0))
    manifold = WeightManifold(net, Vertices(2))
    for i, mean in enumerate((3.0, -3.0)):
        manifold.check_out(torch.eye(2)[i])
        net.train()
        net(0.1 * torch.randn(64, 2) + mean)
        manifold.commit(INF)
    for i, mean in enumerate((3.0, -3.0)):
        found = manifold.state(torch.eye(2)[i])
        assert found["0.running_mean"].tolist() == pytest.approx([mean, mean], abs=0.1)
        assert found["0.running_var"].tolist() == pytest.approx([0.01, 0.01], abs=0.01)
        assert int(found["0.num_batches_tracked"]) == i + 1
    flags = {e.name: e.non_negative for e in manifold.layout.entries if not e.trained}
    expected = {"0.running_mean": False, "0.running_var": True, "0.num_batches_tracked": True}
    assert flags == expected


def test_a_selection_keeps_buffers_off_too() -> None:
    net = Masked()
    manifold = WeightManifold(net, Fourier(1), select=lambda name: name != "norm.running_mean")
    manifold.check_out(at(0.4))
    train(net, 1)
    manifold.commit(1.0)
    riding = {e.name for e in manifold.layout.entries if not e.trained}
    assert riding == RIDING - {"norm.running_mean"}


def test_a_preview_in_the_middle_of_training_knows_the_statistics() -> None:
    net = Masked().double()
    manifold = WeightManifold(net, Fourier(1))
    shake(manifold, at(0.1), 1.0)
    manifold.check_out(at(0.4))
    train(net, 1)
    manifold.take_up_buffers()
    live = manifold.layout.read(net)
    seen = manifold.preview(at(0.2), live)
    manifold.commit(torch.rand(manifold.layout.blocks) + 0.1)
    for name, values in manifold.state(at(0.2)).items():
        torch.testing.assert_close(seen[name], values)


# -- networks that grow --------------------------------------------------------------------------


def classifier(classes: int, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return nn.ModuleDict({"body": nn.Linear(3, 3), "head": nn.Linear(3, classes)}).double()


def widen(net: Any, classes: int) -> None:
    """As Avalanche's growing classifiers: old rows first."""
    old, new = net["head"], nn.Linear(3, classes).double()
    with torch.no_grad():
        new.weight[: len(old.weight)] = old.weight
        new.bias[: len(old.bias)] = old.bias
    net["head"] = new


@pytest.mark.parametrize("growable", [False, True])
def test_a_new_head_joins_with_its_own_start_and_free(growable: bool) -> None:
    net: Any = nn.ModuleDict({"body": nn.Linear(3, 3), "head0": nn.Linear(3, 2)})
    manifold = WeightManifold(net, Fourier(1), growable=growable)
    c = at(0.2)
    kept = shake(manifold, c, random_information(manifold))
    before = covariances(manifold)
    net["head1"] = nn.Linear(3, 2)
    start = net["head1"].weight.detach().clone()
    assert manifold.extend() == ["head1.weight", "head1.bias"]
    assert manifold.extend() == []
    for where in (0.2, 0.7):
        torch.testing.assert_close(manifold.state(at(where))["head1.weight"], start)
    state = manifold.state(c)
    for name, weights in kept.items():
        torch.testing.assert_close(state[name], weights)
    found = covariances(manifold)
    assert torch.equal(found[: len(before)], before)
    fresh = manifold.belief.prior.expand(len(found) - len(before), -1, -1)
    assert torch.equal(found[len(before) :], fresh)
    (task,) = manifold.atlas.tasks
    assert task.information is not None
    assert not task.information[len(before) :].any()
    # the visit goes on: what is committed now takes the place of what it committed before
    visit = manifold.open_visit
    again = shake(manifold, c, random_information(manifold))
    assert manifold.open_visit is visit
    assert len(manifold.atlas) == 1
    for name, weights in again.items():
        torch.testing.assert_close(manifold.state(c)[name], weights)
    shake(manifold, at(0.7), random_information(manifold))
    manifold.grow(Fourier(1).grown())


@pytest.mark.parametrize("blocks", GRANULARITIES)
def test_wider_tensors_keep_the_precision_of_old_rows_and_hold_new_ones_softly(
    blocks: Granularity,
) -> None:
    net = classifier(2)
    manifold = WeightManifold(net, Fourier(1), blocks=blocks, growable=True)
    shake(manifold, at(0.2), random_information(manifold))
    state, belief = manifold.state(at(0.6)), manifold.belief
    old = {e.name: e for e in manifold.layout.entries}
    widen(net, 5)
    new_rows = net["head"].weight[2:].detach().clone()
    assert manifold.extend() == ["head.weight", "head.bias"]
    manifold.check_out(at(0.6))
    torch.testing.assert_close(net["head"].weight[:2], state["head.weight"])
    torch.testing.assert_close(net["head"].weight[2:], new_rows)
    (task,) = manifold.atlas.tasks
    assert task.information is not None
    firm = PRECISION * manifold.strength
    total = PRECISION * Fourier(1).prior() + firm * torch.outer(task.phi, task.phi)
    held = torch.linalg.inv(total)
    near = 1e-5 * float(held.max())
    for e in manifold.layout.entries:
        before = belief.covariance(old[e.name].part)
        found = covariances(manifold)[e.part]
        if e.name.startswith("body"):
            assert torch.equal(found, before)
            continue
        # by weight, so that any cut into blocks is compared
        each = found.repeat_interleave(e.size // e.blocks, 0)
        was = before.repeat_interleave(old[e.name].size // old[e.name].blocks, 0)
        torch.testing.assert_close(each[: len(was)], was)
        expected = held.expand(len(each) - len(was), -1, -1)
        torch.testing.assert_close(each[len(was) :], expected, rtol=1e-4, atol=near)
        f = task.information[e.part].repeat_interleave(e.size // e.blocks)
        assert f[len(was) :].tolist() == pytest.approx((len(f) - len(was)) * [firm], rel=1e-5)


def test_exact_protection_holds_new_rows_at_finished_contexts_too() -> None:
    net = classifier(2)
    manifold = WeightManifold(net, Fourier(2))
    shake(manifold, at(0.2), INF)
    widen(net, 4)
    start = net["head"].weight.detach().clone()
    manifold.extend()
    before = manifold.state(at(0.2))
    torch.testing.assert_close(before["head.weight"][2:], start[2:])
    for c in (0.4, 0.9):
        shake(manifold, at(c), INF)
    after = manifold.state(at(0.2))
    for name, weights in before.items():
        torch.testing.assert_close(after[name], weights, rtol=1e-9, atol=1e-9)
    assert (manifold.state(at(0.4))["head.weight"] - start).abs().max() > 1e-3
    net["other"] = nn.Linear(3, 2).double()
    head = net["other"].weight.detach().clone()
    manifold.extend()
    shake(manifold, at(0.6), INF)
    torch.testing.assert_close(manifold.state(at(0.2))["other.weight"], head)


def test_buffers_that_ride_stay_when_a_tensor_becomes_wider() -> None:
    net: Any = nn.ModuleDict({"norm": nn.BatchNorm1d(4), "head": nn.Linear(3, 2)})
    manifold = WeightManifold(net, Fourier(1))
    manifold.check_out(at(0.1))
    net["norm"](torch.randn(8, 4) + 3)
    manifold.commit(1.0)
    state = manifold.state(at(0.1))
    net["head"] = nn.Linear(3, 4)
    manifold.extend()
    found = manifold.state(at(0.1))
    for name in ("norm.running_mean", "norm.running_var", "norm.num_batches_tracked"):
        torch.testing.assert_close(found[name], state[name])


def test_narrower_networks_are_refused() -> None:
    net = classifier(3)
    manifold = WeightManifold(net, Fourier(1))
    net["head"] = nn.Linear(3, 2).double()
    with pytest.raises(LayoutError, match=r"head\.weight has shape \(2, 3\)"):
        manifold.extend()


def test_another_module_of_the_same_architecture_is_followed() -> None:
    manifold = walked(Fourier(1), [at(0.1)])
    first, other = manifold.module, small_mlp().double()
    manifold.follow(other)
    manifold.check_out(at(0.1))
    assert manifold.module is other
    torch.testing.assert_close(other[0].weight, manifold.state(at(0.1))["0.weight"])
    with pytest.raises(LayoutError, match=r"0\.weight has shape \(4, 1, 3, 3\)"):
        manifold.follow(small_cnn())
    assert manifold.module is other
    assert first is not other
