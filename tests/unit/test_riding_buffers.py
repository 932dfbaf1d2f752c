"""Buffers on the manifold: which ride, when they join, what holds them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cl_manifold.geometry import Fourier, Vertices
from cl_manifold.manifold import belief as beliefs
from cl_manifold.manifold.belief import PRECISION
from cl_manifold.manifold.weight_manifold import WeightManifold
from tests.networks import (
    at,
    covariances,
    move,
    shake,
    small_cnn,
)

INF = float("inf")


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
