"""The plane of main directions against a singular value decomposition of the weights themselves."""

import torch

from cl_manifold.geometry import Fourier, Vertices
from cl_manifold.manifold.weight_manifold import WeightManifold
from cl_manifold.tracking.projection import project_weights
from tests.networks import shake, small_mlp, weights_at


def test_projected_distances_are_those_of_the_weights_in_their_main_plane() -> None:
    manifold = WeightManifold(small_mlp().double(), Fourier(3), growable=True)
    for x in (0.1, 0.5, 0.8):
        shake(manifold, torch.tensor([x]), 1.0)
    grid = manifold.basis.topology.grid(40)
    weights = weights_at(manifold, grid)
    centred = weights - weights.mean(0)
    _, singular, directions = torch.linalg.svd(centred, full_matrices=False)
    plane = directions[:2].mT
    found = project_weights(manifold, grid)
    torch.testing.assert_close(
        torch.cdist(torch.tensor(found.grid), torch.tensor(found.grid)),
        torch.cdist(centred @ plane, centred @ plane),
        atol=1e-6,
        rtol=1e-6,
    )
    visited = weights_at(manifold, manifold.atlas.contexts()) - weights.mean(0)
    torch.testing.assert_close(
        torch.tensor(found.visited).norm(dim=-1), (visited @ plane).norm(dim=-1)
    )
    shares = singular.square() / singular.square().sum()
    torch.testing.assert_close(torch.tensor(found.shares), shares[:2])
    one = project_weights(manifold, grid, [torch.tensor([0.5])])
    torch.testing.assert_close(torch.tensor(one.visited[0]), torch.tensor(found.visited[1]))


def test_a_constant_manifold_is_a_point() -> None:
    manifold = WeightManifold(small_mlp(), Fourier(0))
    found = project_weights(manifold, manifold.basis.topology.grid(5))
    assert not found.grid.any()
    assert found.visited.shape == (0, 2)
    two = WeightManifold(small_mlp(), Vertices(2))
    shake(two, torch.tensor([1.0, 0.0]), 1.0)
    assert project_weights(two, two.basis.topology.grid(5)).shares[1] < 1e-6
