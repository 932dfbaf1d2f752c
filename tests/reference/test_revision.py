"""What a commit would do, against the commit; letting go, against never having learned."""

import pytest
import torch
from cl_manifold.manifold.revision import release, weights_after_commit

from cl_manifold.errors import LayoutError
from cl_manifold.geometry import Basis, Fourier, Vertices
from cl_manifold.manifold.layout import Granularity
from cl_manifold.manifold.weight_manifold import WeightManifold
from tests.networks import small_mlp

BLOCKS: list[Granularity] = ["tensor", "row", "weight"]


def walked(basis: Basis, blocks: Granularity, places: list[torch.Tensor]) -> WeightManifold:
    """A manifold after a task at each place, with random weights and information."""
    torch.manual_seed(0)
    manifold = WeightManifold(small_mlp().double(), basis, blocks=blocks, growable=True)
    for place in places:
        change(manifold)
        manifold.commit(place, information(manifold, place))
    return manifold


def information(manifold: WeightManifold, place: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(
        int(1000 * float(place @ torch.arange(1.0, 1.0 + len(place)).double()))
    )
    return torch.rand(manifold.layout.blocks, generator=generator, dtype=torch.float64)


def change(manifold: WeightManifold) -> torch.Tensor:
    weights = manifold.layout.read(manifold.module)
    manifold.layout.write(manifold.module, weights + 0.1 * torch.randn_like(weights))
    return manifold.layout.read(manifold.module)


@pytest.mark.parametrize("blocks", BLOCKS)
def test_weights_after_commit_are_those_after_the_commit(blocks: Granularity) -> None:
    places = [torch.tensor([c], dtype=torch.float64) for c in (0.1, 0.4, 0.8)]
    manifold = walked(Fourier(2), blocks, places)
    here = torch.tensor([0.55], dtype=torch.float64)
    weights = change(manifold)
    others = torch.stack([*places, torch.tensor([0.3], dtype=torch.float64)])
    before = manifold.control_points.clone()
    predicted = weights_after_commit(manifold, here, weights, others)
    assert torch.equal(manifold.control_points, before)
    manifold.commit(here, 1.0)
    torch.testing.assert_close(predicted, manifold.weights(others), rtol=0, atol=1e-12)


@pytest.mark.parametrize("blocks", BLOCKS)
def test_release_leaves_the_precision_of_the_other_tasks(blocks: Granularity) -> None:
    places = list(torch.eye(3, dtype=torch.float64))
    manifold = walked(Vertices(3), blocks, [*places, places[1]])
    expected = walked(Vertices(3), blocks, [places[0], places[2]])
    weights = manifold.weights(torch.stack(places))
    release(manifold, places[1])
    torch.testing.assert_close(manifold.covariance, expected.covariance, rtol=1e-9, atol=1e-9)
    assert [v.context.tolist() for v in manifold.visits] == [places[0].tolist(), places[2].tolist()]
    assert torch.equal(manifold.weights(torch.stack(places)), weights)


def test_release_needs_the_information_of_finished_tasks() -> None:
    manifold = WeightManifold(small_mlp(), Fourier(1), blocks="weight")
    for c in (0.2, 0.6):
        manifold.commit(torch.tensor([c]), 1.0)
    with pytest.raises(LayoutError, match="build the manifold with growable=True"):
        release(manifold, torch.tensor([0.2], dtype=torch.float64))
