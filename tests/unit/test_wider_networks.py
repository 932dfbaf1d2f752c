"""Networks that grow after the manifold was laid through them."""

from typing import Any

import pytest
import torch
from torch import nn

from cl_manifold.errors import LayoutError
from cl_manifold.geometry import Fourier
from cl_manifold.manifold.belief import PRECISION
from cl_manifold.manifold.layout import GRANULARITIES, Granularity
from cl_manifold.manifold.weight_manifold import WeightManifold
from tests.networks import (
    at,
    covariances,
    random_information,
    shake,
    small_cnn,
    small_mlp,
    walked,
)

INF = float("inf")


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
