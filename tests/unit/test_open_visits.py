"""Open visits: going on, coming back, letting go, growth of the basis."""

import copy

import pytest
import torch

from cl_manifold.errors import ContextError, LayoutError
from cl_manifold.geometry import Fourier, Vertices
from cl_manifold.manifold.belief import PRECISION
from cl_manifold.manifold.layout import GRANULARITIES, Granularity
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
