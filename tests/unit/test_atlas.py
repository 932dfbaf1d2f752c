"""The one ledger of finished tasks."""

import pytest
import torch
from torch import Tensor

from cl_manifold.errors import LayoutError
from cl_manifold.geometry import Circle, Fourier, Simplex, Vertices
from cl_manifold.manifold.atlas import Atlas, Reference, Task

INF = float("inf")


def context(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def atlas_of(*places: float, basis: Fourier | None = None) -> Atlas:
    basis = basis or Fourier(1)
    atlas = Atlas(basis.topology)
    atlas.tasks = tuple(
        Task(context(c), basis(context(c)), torch.full((4,), float(i + 1)))
        for i, c in enumerate(places)
    )
    return atlas


def test_an_empty_atlas_has_shapes() -> None:
    atlas = Atlas(Simplex(3))
    assert len(atlas) == 0
    assert atlas.contexts().shape == (0, 3)
    assert atlas.contexts().dtype == torch.float64
    assert atlas.phis(5).shape == (0, 5)
    assert atlas.phis(5).dtype == torch.float64
    assert atlas.information(7).shape == (0, 7)
    assert not atlas.visited(context(1, 0, 0))
    assert atlas.reference(context(1, 0, 0)) is None
    assert atlas.nbytes == 0


def test_tasks_are_in_order() -> None:
    atlas = atlas_of(0.3, 0.1)
    assert len(atlas) == 2
    assert atlas.contexts().flatten().tolist() == [0.3, 0.1]
    torch.testing.assert_close(atlas.phis(3), Fourier(1)(atlas.contexts()))
    assert atlas.information(4).tolist() == [4 * [1.0], 4 * [2.0]]


def test_a_coordinate_is_the_same_on_the_topology_and_in_single_precision() -> None:
    atlas = Atlas(Circle(360.0))
    atlas.tasks = (Task(context(350.0), torch.zeros(1), None),)
    turned = torch.tensor([-10.0]).double()
    assert atlas.visited(turned)
    assert atlas.visited(turned + 1e-5)
    assert not atlas.visited(context(351.0))
    assert atlas.same(context(0.0), context(360.0))
    assert [len(atlas.without(context(c))) for c in (350.0, -10.0, 10.0)] == [0, 0, 1]


def test_tasks_at_other_coordinates() -> None:
    atlas = atlas_of(0.1, 0.5, 1.1, 0.9)
    rest = atlas.without(context(0.1))
    assert [float(t.context) for t in rest] == [0.5, 0.9]
    assert len(atlas) == 4, "nothing is removed"


def test_information_that_was_not_kept_is_asked_for() -> None:
    atlas = atlas_of(0.1, 0.2)
    first, second = atlas.tasks
    atlas.tasks = (first, Task(second.context, second.phi, None))
    with pytest.raises(LayoutError, match=r"blocks='weight' does not keep.*growable=True"):
        atlas.information(4)


def test_a_task_is_exact_if_its_information_is_infinite_everywhere() -> None:
    place = context(0.1)
    assert Task(place, place, torch.full((2,), INF)).exact
    assert not Task(place, place, torch.tensor([INF, 1.0])).exact
    assert not Task(place, place, None).exact


def test_one_reference_per_coordinate() -> None:
    atlas = atlas_of()
    first = Reference(context(0.1), torch.rand(5), 10)
    second = Reference(context(0.6), torch.rand(5), 20)
    again = Reference(context(1.1), torch.rand(5), 30)
    for reference in (first, second, again):
        atlas.remember(reference)
    assert atlas.references == (second, again)
    assert atlas.reference(context(0.1)) is again
    assert atlas.reference(context(0.3)) is None


def test_growth_moves_everything_to_its_place_on_the_larger_topology() -> None:
    basis = Vertices(2)
    atlas = Atlas(basis.topology)
    places = torch.eye(2, dtype=torch.float64)
    f = torch.rand(3)
    atlas.tasks = tuple(Task(c, basis(c), f) for c in places)
    atlas.remember(Reference(places[1], torch.rand(5), 10))
    atlas.assigned = {4: places[0], 2: places[1]}
    growth = basis.grown()
    atlas.move(growth)
    assert atlas.topology is growth.basis.topology
    assert torch.equal(atlas.contexts(), torch.eye(3, dtype=torch.float64)[:2])
    assert torch.equal(atlas.phis(3), torch.eye(3, dtype=torch.float64)[:2])
    assert all(t.information is f for t in atlas.tasks)
    assert atlas.references[0].context.tolist() == [0, 1, 0]
    assert atlas.references[0].trained == 10
    assert {i: c.tolist() for i, c in atlas.assigned.items()} == {4: [1, 0, 0], 2: [0, 1, 0]}


def test_tasks_keep_their_places_when_blocks_change() -> None:
    atlas = atlas_of(0.3, 0.1)
    new = [torch.rand(6), None]
    atlas.reblock(new)
    assert [t.information for t in atlas.tasks] == new
    assert atlas.contexts().flatten().tolist() == [0.3, 0.1]


def test_bytes_kept() -> None:
    """Doubles for contexts and φ; information that is one number for all blocks counts once."""
    atlas = atlas_of(0.3, 0.1)
    tasks = 2 * (8 + 3 * 8 + 4 * 4)
    assert atlas.nbytes == tasks
    atlas.reblock([torch.ones(1).expand(4), None])
    assert atlas.nbytes == 2 * (8 + 3 * 8) + 4
    atlas.remember(Reference(context(0.3), torch.rand(5), 10))
    atlas.assigned[0] = context(0.3)
    assert atlas.nbytes == 2 * (8 + 3 * 8) + 4 + 8 + 5 * 4 + 8
