"""The same control points for joint training and for training one context after the other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from cl_manifold.errors import LayoutError
from cl_manifold.geometry import Basis, Fourier, Vertices, random_codes
from cl_manifold.manifold.layout import State
from cl_manifold.manifold.module import ManifoldModule
from cl_manifold.manifold.points import Storage
from cl_manifold.manifold.saving import load_manifold, save_manifold
from cl_manifold.manifold.sharing import as_manifold, as_module
from cl_manifold.manifold.weight_manifold import WeightManifold
from tests.networks import random_information, shake, small_cnn, small_mlp

INF = float("inf")
CASES: list[tuple[Basis, bool]] = [
    (Fourier(2), False),
    (Fourier(2), True),  # constants in the span, and an offset nevertheless
    (Vertices(3), False),
    (random_codes(2, 5, seed=0), False),  # no constants: an offset is needed
]
EVERY = pytest.mark.parametrize(("basis", "growable"), CASES)


def places(basis: Basis) -> Tensor:
    """Three contexts that are not on a coarse grid, as far as the topology has others."""
    return basis.topology.grid(7)[[0, 2, -1]].double()


def by_hand(points: State, offset: State | None, phi: Tensor) -> State:
    """w₀ + Σ_k φ_k P_k, one control point after the other."""
    weights: State = {}
    for name, p in points.items():
        total = torch.zeros_like(p[0]) if offset is None else offset[name].clone()
        for k in range(len(phi)):
            total = total + float(phi[k]) * p[k]
        weights[name] = total.detach()
    return weights


def close(found: State, wanted: State) -> None:
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-6)


def visited(basis: Basis, growable: bool, net: nn.Module | None = None) -> WeightManifold:
    """A manifold with two finished tasks."""
    manifold = WeightManifold(net or small_mlp(), basis, growable=growable)
    for c in places(basis)[:2]:
        shake(manifold, c, random_information(manifold))
    return manifold


def step(net: ManifoldModule, contexts: Tensor) -> None:
    """One step of Adam at a context per sample."""
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    x, y = torch.randn(len(contexts), 6), torch.arange(len(contexts)) % 3
    nn.functional.cross_entropy(net(x, contexts), y).backward()
    optimizer.step()


def shared(net: ManifoldModule, manifold: WeightManifold) -> bool:
    """Whether every number lies at one place in memory."""
    named = dict(net.module.named_parameters())
    return set(named) == manifold.layout.names and all(
        p.data_ptr() == manifold.points.of(n).read().data_ptr() for n, p in named.items()
    )


# -- as_module -----------------------------------------------------------------------------------


@EVERY
def test_the_module_answers_with_the_weights_of_the_manifold(basis: Basis, growable: bool) -> None:
    manifold, contexts = visited(basis, growable), places(basis)
    net, x = as_module(manifold), torch.randn(3, 6)
    assert shared(net, manifold)
    together = net(x, contexts)
    for i, c in enumerate(contexts):
        wanted = functional_call(manifold.module, manifold.state(c), (x[i : i + 1],))
        torch.testing.assert_close(together[i : i + 1], wanted, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(net(x[i : i + 1], c), wanted, rtol=1e-6, atol=1e-6)


@EVERY
def test_a_step_of_the_module_moves_the_manifold(basis: Basis, growable: bool) -> None:
    manifold, contexts = visited(basis, growable), places(basis)
    net = as_module(manifold)
    before = [manifold.state(c) for c in contexts]
    step(net, contexts)
    assert shared(net, manifold)
    for c, was in zip(contexts, before, strict=True):
        wanted = by_hand(dict(net.module.named_parameters()), net.offset(), basis(c))
        close(manifold.state(c), wanted)
        assert all(float((wanted[n] - was[n]).abs().max()) > 1e-3 for n in was)


@EVERY
def test_a_commit_moves_the_module(basis: Basis, growable: bool) -> None:
    manifold, contexts = visited(basis, growable), places(basis)
    net = as_module(manifold)
    kept = shake(manifold, contexts[2], random_information(manifold))
    assert shared(net, manifold)
    close(net.weights(contexts[2]), kept)
    for c in contexts:
        close(net.weights(c), manifold.state(c))
    close(dict(net.materialise(contexts[2]).named_parameters()), kept)


def test_both_are_what_they_were_before() -> None:
    manifold = visited(Fourier(1), False)
    live = manifold.layout.read(manifold.module)
    triangle, tasks = manifold.belief.triangle.clone(), manifold.atlas.tasks
    net = as_module(manifold)
    step(net, places(Fourier(1)))
    for name, tensor in manifold.layout.tensors(manifold.module).items():
        assert torch.equal(tensor, live[name])
    assert torch.equal(manifold.belief.triangle, triangle)
    assert manifold.atlas.tasks == tasks


def test_the_module_has_the_buffers_that_the_network_holds_now() -> None:
    """Statistics that ride on the manifold are not interpolated by the module."""
    live: Any = small_cnn()
    manifold = WeightManifold(live, Fourier(1))
    for i, c in enumerate((0.1, 0.6)):
        manifold.check_out(torch.tensor([c]))
        live.train()(torch.randn(4, 1, 6, 6) + i)
        manifold.commit(1.0)
    assert "1.running_mean" in manifold.layout.names
    net: Any = as_module(manifold)
    assert torch.equal(net.module[1].running_mean, live[1].running_mean)
    x, c = torch.randn(5, 1, 6, 6), torch.tensor([0.6])
    manifold.check_out(c)
    torch.testing.assert_close(net.eval()(x, c), live.eval()(x), rtol=1e-5, atol=1e-6)


def test_doubles_and_tied_weights_are_shared_too() -> None:
    plain: Any = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)).double()
    plain[2].weight = plain[0].weight
    manifold = visited(Fourier(1), False, plain)
    net: Any = as_module(manifold)
    assert shared(net, manifold)
    assert net.module[2].weight is net.module[0].weight
    assert net.module[0].weight.dtype == torch.float64


@pytest.mark.parametrize("storage", ["bfloat16", "int8"])
def test_points_in_fewer_bits_cannot_be_trained(storage: Storage) -> None:
    manifold = WeightManifold(small_mlp(), Fourier(1), storage=storage)
    with pytest.raises(LayoutError, match=rf"0\.weight are stored as {storage}.*use storage"):
        as_module(manifold)


def test_networks_in_half_precision_cannot_share() -> None:
    manifold = WeightManifold(small_mlp().half(), Fourier(1))
    with pytest.raises(LayoutError, match=r"0\.weight .*a network in that precision"):
        as_module(manifold)


def test_a_selection_cannot_share() -> None:
    manifold = WeightManifold(small_mlp(), Fourier(1), select=lambda name: name != "2.bias")
    with pytest.raises(LayoutError, match=r"2\.bias is not on the weight manifold.*leave out"):
        as_module(manifold)


# -- as_manifold ---------------------------------------------------------------------------------


def jointly(basis: Basis, make: Callable[[], nn.Module] = small_mlp) -> ManifoldModule:
    """A module that was trained at three contexts at once."""
    net = ManifoldModule(make(), basis)
    for _ in range(3):
        step(net, places(basis))
    return net


BASES = pytest.mark.parametrize("basis", [basis for basis, growable in CASES if not growable])


@BASES
def test_the_manifold_holds_the_weights_of_the_module(basis: Basis) -> None:
    net = jointly(basis)
    manifold = as_manifold(net)
    assert shared(net, manifold)
    assert not manifold.atlas.tasks
    for c in places(basis):
        close(
            manifold.state(c),
            by_hand(dict(net.module.named_parameters()), net.offset(), net._phi(c)),
        )


@BASES
def test_both_ways_after_as_manifold(basis: Basis) -> None:
    net, contexts = jointly(basis), places(basis)
    manifold = as_manifold(net)
    step(net, contexts)
    close(manifold.state(contexts[1]), net.weights(contexts[1]))
    kept = shake(manifold, contexts[1], random_information(manifold))
    assert shared(net, manifold)
    close(net.weights(contexts[1]), kept)


@BASES
def test_what_was_trained_jointly_is_held_where_it_is(basis: Basis) -> None:
    """Commits of untouched weights move nothing; later tasks leave exactly protected ones."""
    net, contexts = jointly(basis), places(basis)
    manifold = as_manifold(net)
    before = [p.detach().clone() for p in net.module.parameters()]
    held = contexts[:1]
    for c in held:
        manifold.check_out(c)
        manifold.commit(INF)
    for p, was in zip(net.module.parameters(), before, strict=True):
        torch.testing.assert_close(p.detach(), was, rtol=1e-6, atol=1e-6)
    kept = [net.weights(c) for c in held]
    moved = shake(manifold, contexts[1], INF)
    for c, weights in zip(held, kept, strict=True):
        close(net.weights(c), weights)
    close(net.weights(contexts[1]), moved)


def test_there_and_back_is_the_same_memory() -> None:
    net = jointly(random_codes(2, 5, seed=0))
    manifold = as_manifold(net)
    again = as_module(manifold)
    assert shared(again, manifold)
    x, c = torch.randn(4, 6), places(net.basis)[0]
    torch.testing.assert_close(again(x, c), net(x, c), rtol=0, atol=0)


def test_blocks_and_strength_are_the_manifold_s() -> None:
    manifold = as_manifold(jointly(Fourier(1)), blocks="tensor", strength=3.0)
    assert (manifold.layout.blocks, manifold.strength) == (4, 3.0)


def test_a_shared_manifold_is_saved_and_grows(tmp_path: Path) -> None:
    """Growth makes larger control points of its own; the module keeps the smaller ones."""
    net = jointly(Fourier(1))
    manifold, c = as_manifold(net), torch.tensor([0.3])
    shake(manifold, c, random_information(manifold))
    save_manifold(manifold, tmp_path / "m.safetensors")
    close(load_manifold(tmp_path / "m.safetensors", small_mlp()).state(c), net.weights(c))
    manifold.grow(manifold.basis.grown())
    close(manifold.state(c), net.weights(c))
    assert not shared(net, manifold)


@pytest.mark.parametrize("options", [{"storage": "int8"}, {"select": lambda name: True}])
def test_options_that_cannot_be_shared_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(LayoutError, match="leave out storage and select"):
        as_manifold(jointly(Fourier(1)), **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_module_in_half_precision_is_refused(dtype: torch.dtype) -> None:
    """Commits are computed in float32, so its numbers would be copies."""
    net = ManifoldModule(small_mlp().to(dtype), Fourier(1))
    with pytest.raises(LayoutError, match=r"0\.weight .*float32"):
        as_manifold(net)


def test_reembedding_needs_the_initial_network() -> None:
    with pytest.raises(LayoutError, match="needs the initial network"):
        as_manifold(jointly(Fourier(1)), growable=True)
    manifold = visited(Fourier(1), True)
    again = as_manifold(as_module(manifold), growable=True)
    close(again.points.offset or {}, manifold.points.offset or {})
    shake(again, torch.tensor([0.2]), 1.0)
    again.grow_and_reembed(again.basis.grown())
