"""What a commit would do, against the commit; letting go, against never having learned."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor

from cl_manifold.errors import LayoutError
from cl_manifold.geometry import Basis, Fourier, Vertices
from cl_manifold.manifold.layout import Granularity, State
from cl_manifold.manifold.weight_manifold import WeightManifold
from tests.networks import fit, move, points_of, shake, small_cnn, small_mlp, weights_at

BLOCKS: list[Granularity] = ["tensor", "row", "weight"]


def walked(basis: Basis, blocks: Granularity, places: list[Tensor]) -> WeightManifold:
    """A manifold after a task at each place, with random weights and information."""
    torch.manual_seed(0)
    manifold = WeightManifold(small_mlp().double(), basis, blocks=blocks, growable=True)
    for place in places:
        shake(manifold, place, information(manifold, place))
    return manifold


def information(manifold: WeightManifold, place: Tensor) -> Tensor:
    seed = int(1000 * float(place @ torch.arange(1.0, 1.0 + len(place))))
    return torch.rand(manifold.layout.blocks, generator=torch.Generator().manual_seed(seed))


def close(found: State, expected: State, near: float = 1e-12) -> None:
    assert found.keys() == expected.keys()
    for name, weights in expected.items():
        torch.testing.assert_close(found[name], weights, rtol=0, atol=near)


@pytest.mark.parametrize("blocks", BLOCKS)
def test_a_preview_is_what_the_commit_does(blocks: Granularity) -> None:
    places = [torch.tensor([c]) for c in (0.1, 0.4, 0.8)]
    manifold = walked(Fourier(2), blocks, places)
    manifold.check_out(torch.tensor([0.55]))
    live = move(manifold)
    before = points_of(manifold).clone()
    others = [*places, torch.tensor([0.3]), torch.tensor([0.55])]
    by_phi = [manifold.preview_at(manifold.phi(c), live, manifold.open_visit) for c in others]
    by_context = [manifold.preview(c, live) for c in others]
    assert torch.equal(points_of(manifold), before)
    committed = deepcopy(manifold)
    committed.commit(1.0)
    for c, one, other in zip(others, by_phi, by_context, strict=True):
        close(one, committed.state(c))
        close(other, committed.state(c))
    close(by_phi[-1], live)


def test_a_preview_after_a_commit_in_the_same_visit_starts_from_that_commit() -> None:
    manifold = walked(Fourier(2), "row", [torch.tensor([0.1])])
    manifold.check_out(torch.tensor([0.55]))
    move(manifold)
    manifold.commit(1.0)
    live = move(manifold)
    predicted = manifold.preview(torch.tensor([0.2]), live)
    manifold.commit(1.0)
    close(predicted, manifold.state(torch.tensor([0.2])))


def test_a_preview_holds_no_negative_variance_and_whole_counts() -> None:
    net = small_cnn().double()
    manifold = WeightManifold(net, Fourier(2))
    for c in (0.0, 0.05):
        manifold.check_out(torch.tensor([c]))
        fit(net, (9 * c + 1) * torch.randn(32, 1, 6, 6), torch.randint(3, (32,)), steps=3)
        manifold.commit(1.0)
    manifold.check_out(torch.tensor([0.1]))
    fit(net, 0.1 * torch.randn(32, 1, 6, 6), torch.randint(3, (32,)))
    live = manifold.layout.read(net)
    grid = manifold.basis.topology.grid(40)
    previews = [manifold.preview(c, live) for c in grid]
    assert all(float(p["1.running_var"].min()) >= 0 for p in previews)
    assert any(float(p["1.running_var"].min()) == 0 for p in previews)
    assert {p["1.num_batches_tracked"].dtype for p in previews} == {torch.int64}
    committed = deepcopy(manifold)
    committed.commit(1.0)
    for c, preview in zip(grid, previews, strict=True):
        close(preview, committed.state(c), 1e-9)


@pytest.mark.parametrize("blocks", BLOCKS)
def test_release_leaves_the_precision_of_the_other_tasks(blocks: Granularity) -> None:
    places = list(torch.eye(3))
    manifold = walked(Vertices(3), blocks, [*places, places[1]])
    expected = walked(Vertices(3), blocks, [places[0], places[2]])
    weights = weights_at(manifold, torch.stack(places))
    manifold.release(places[1])
    found, wanted = manifold.belief.covariance(), expected.belief.covariance()
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    left = [task.context.tolist() for task in manifold.atlas.tasks]
    assert left == [places[0].tolist(), places[2].tolist()]
    assert torch.equal(weights_at(manifold, torch.stack(places)), weights)
    assert manifold.visit is None


def test_release_needs_the_information_of_finished_tasks() -> None:
    manifold = WeightManifold(small_mlp(), Fourier(1), blocks="weight")
    for c in (0.2, 0.6):
        shake(manifold, torch.tensor([c]), 1.0)
    with pytest.raises(LayoutError, match="build the manifold with growable=True"):
        manifold.release(torch.tensor([0.2]))
