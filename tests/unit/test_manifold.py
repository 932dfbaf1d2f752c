"""WeightManifold: bookkeeping, errors, growth of the module, saving and loading."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cl_manifold.errors import ContextError, LayoutError, StoreError
from cl_manifold.geometry import Bernstein, Fourier, Vertices, random_codes
from cl_manifold.manifold.layout import Granularity
from cl_manifold.manifold.saving import load_manifold, save_manifold
from cl_manifold.manifold.weight_manifold import WeightManifold
from tests.networks import random_information, shake, small_cnn, small_mlp

INF = float("inf")


def test_stored_floats_are_control_points_and_little_else() -> None:
    net = nn.Sequential(nn.Linear(50, 60), nn.ReLU(), nn.Linear(60, 10))
    manifold = WeightManifold(net, Fourier(3))
    size = sum(p.numel() for p in net.parameters())
    for i in range(10):
        shake(manifold, torch.tensor([i / 10]), random_information(manifold))
    few = 4 * 2 * 49 + 2 * 49 + 10 * 2 * (1 + 4)
    assert manifold.stored_floats == 7 * size + few
    assert WeightManifold(net, Fourier(3), growable=True).stored_floats > 8 * size


def test_a_basis_without_constants_keeps_the_initial_network() -> None:
    manifold = WeightManifold(small_mlp(), random_codes(2, 5, seed=0))
    assert manifold.offset is not None
    assert WeightManifold(small_mlp(), Vertices(3)).offset is None


def test_saturated_contexts_cannot_be_learned_exactly() -> None:
    manifold = WeightManifold(small_mlp(), Fourier(1))
    for x in (0.0, 0.3, 0.6):
        shake(manifold, torch.tensor([x]), INF)
    before = manifold.control_points.clone()
    with pytest.raises(ContextError, match=r"context 0\.8 cannot be learned.*3 control points"):
        manifold.commit(torch.tensor([0.8]), INF)
    assert torch.equal(manifold.control_points, before)
    manifold.grow(Fourier(1).grown())
    shake(manifold, torch.tensor([0.8]), INF)


def test_weights_that_are_not_finite_are_not_committed() -> None:
    net: Any = small_mlp()
    manifold = WeightManifold(net, Fourier(1))
    before = manifold.control_points.clone()
    with torch.no_grad():
        net[0].bias[0] = float("nan")
    with pytest.raises(LayoutError, match="not finite, so they were not committed"):
        manifold.commit(torch.tensor([0.1]), 1.0)
    assert torch.equal(manifold.control_points, before)
    assert not manifold.visits


def test_contexts_outside_are_refused() -> None:
    manifold = WeightManifold(small_mlp(), Bernstein(1))
    with pytest.raises(ContextError, match=r"1\.5 lies outside \[0, 1\]"):
        manifold.weights(torch.tensor([1.5]))
    with pytest.raises(ContextError, match="has 2 numbers, but interval needs 1"):
        manifold.check_out(torch.tensor([0.1, 0.2]))
    with pytest.raises(ValueError, match="strength must be positive"):
        WeightManifold(small_mlp(), Bernstein(1), strength=0.0)


def test_reembedding_asks_for_the_initial_network() -> None:
    manifold = WeightManifold(small_mlp(), Fourier(1))
    with pytest.raises(LayoutError, match="growable=True"):
        manifold.grow_and_reembed(Fourier(1).grown())
    weights = WeightManifold(small_mlp(), Fourier(1), blocks="weight")
    shake(weights, torch.tensor([0.1]), 1.0)
    with pytest.raises(LayoutError, match="blocks='weight' does not keep"):
        weights.grow(Fourier(1).grown())


@pytest.mark.parametrize("growable", [False, True])
def test_a_new_head_joins_with_its_own_start(growable: bool) -> None:
    net: Any = nn.ModuleDict({"body": nn.Linear(3, 3), "head0": nn.Linear(3, 2)})
    manifold = WeightManifold(net, Fourier(1), growable=growable)
    c = torch.tensor([0.2])
    kept = shake(manifold, c, random_information(manifold))
    net["head1"] = nn.Linear(3, 2)
    start = net["head1"].weight.detach().clone()
    assert manifold.extend() == ["head1.weight", "head1.bias"]
    assert manifold.extend() == []
    for where in (0.2, 0.7):
        torch.testing.assert_close(manifold.state(torch.tensor([where]))["head1.weight"], start)
    torch.testing.assert_close(manifold.weights(c)[: len(kept)], kept)
    assert manifold.plasticity(c) < 1
    shake(manifold, torch.tensor([0.7]), random_information(manifold))
    manifold.grow(Fourier(1).grown())


def test_one_context_and_a_batch_agree() -> None:
    manifold = WeightManifold(small_mlp(), Fourier(2))
    shake(manifold, torch.tensor([0.1]), 1.0)
    contexts = torch.rand(3, 2, 1)
    batch = manifold.weights(contexts)
    assert batch.shape == (3, 2, 83)
    torch.testing.assert_close(batch[2, 1], manifold.weights(contexts[2, 1]))


@pytest.mark.parametrize("blocks", ["tensor", "row", "weight"])
@pytest.mark.parametrize("growable", [False, True])
def test_saved_and_loaded_manifolds_go_on_alike(
    blocks: Granularity, growable: bool, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    manifold = WeightManifold(
        small_cnn(),
        Fourier(2),
        blocks=blocks,
        strength=1e-3,
        growable=growable,
    )
    for x in (0.1, 0.4):
        shake(manifold, torch.tensor([x]), random_information(manifold))
    path = tmp_path / "deep" / "manifold.safetensors"
    save_manifold(manifold, path)
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "manifold.json",
        "manifold.safetensors",
    ]
    assert len(json.loads(path.with_suffix(".json").read_text())["visits"]) == 2
    other = load_manifold(path, small_cnn())
    for m in (manifold, other):
        torch.manual_seed(5)
        shake(m, torch.tensor([0.8]), random_information(m))
    torch.testing.assert_close(manifold.control_points, other.control_points)
    torch.testing.assert_close(manifold.covariance, other.covariance)
    assert manifold.stored_floats == other.stored_floats
    c = torch.tensor([0.3])
    assert manifold.plasticity(c) == pytest.approx(other.plasticity(c))


def test_loading_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "manifold.safetensors"
    with pytest.raises(StoreError, match="is not a readable weight manifold"):
        load_manifold(path, small_mlp())
    save_manifold(WeightManifold(small_mlp(), Fourier(1)), path)
    with pytest.raises(LayoutError, match=r"0\.weight"):
        load_manifold(path, small_cnn())
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(StoreError, match="is not a readable weight manifold"):
        load_manifold(path, small_mlp())
