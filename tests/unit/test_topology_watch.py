"""What the watch over topologies measures and answers, on drives that the tests make up."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.benchmarks.utils import AvalancheDataset
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from cl_manifold.contexts.topology_choice import candidates, topology_evidence
from cl_manifold.geometry import Circle, Fourier, Vertices
from cl_manifold.manifold.weight_manifold import WeightManifold
from cl_manifold.strategies import TopologyWatch
from tests.networks import move, small_mlp

CONTEXTS = (torch.randperm(12, generator=torch.Generator().manual_seed(0)) / 12)[:, None].double()


def strategy_of(net: nn.Module, x: Tensor, y: Tensor, criterion: Any) -> Any:
    return SimpleNamespace(
        model=net,
        _criterion=criterion,
        device=torch.device("cpu"),
        experience=SimpleNamespace(current_experience=0),
        adapted_dataset=AvalancheDataset([TensorDataset(x, y)]),
    )


def driven(net: nn.Module, drive: Tensor) -> Any:
    """One sample whose loss −wᵀd has the drive d."""
    return strategy_of(net, drive[None], torch.ones(1, 1), lambda out, y: -(out * y).mean())


def draws(name: str, count: int = 3000) -> Tensor:
    torch.manual_seed(2)
    covariance = 0.9 * candidates(CONTEXTS)[name].kernel() + 0.1 * torch.eye(12).double()
    return (torch.linalg.cholesky(covariance) @ torch.randn(12, count).double()).float()


def linear(count: int) -> WeightManifold:
    return WeightManifold(nn.Linear(count, 1, bias=False), Vertices(1), growable=True)


def placed(watch: TopologyWatch, manifold: WeightManifold, context: Tensor) -> Tensor:
    place, growth = watch.place(manifold, context)
    if growth is not None:
        manifold.grow(growth)
    assert place.dtype == torch.float64
    return place


@pytest.mark.parametrize("truth", ["circle", "codes"])
def test_from_the_eighth_task_on_the_best_explanation_of_the_drives_is_turned_into(
    truth: str,
) -> None:
    d, manifold, found = draws(truth, 900), linear(900), None
    watch = TopologyWatch(follows=True)
    for j in range(8):
        assert (watch.topology, bool(watch.evidence)) == ("", j > 1)
        place = placed(watch, manifold, CONTEXTS[j])
        assert torch.equal(place, torch.eye(j + 1).double()[j])
        assert manifold.basis.size == j + 1
        found = watch.watch(driven(manifold.module, d[j]), manifold, CONTEXTS[j])
        assert found is None or j == 7
        gram = d[: j + 1] @ d[: j + 1].mT
        if j:
            known = candidates(CONTEXTS[: j + 1])
            expected = topology_evidence(gram[None], torch.tensor([900.0]), known)
            assert watch.evidence == pytest.approx(expected, abs=1e-4)
    assert watch.topology == truth
    assert watch.stored_floats == 8 * 900 + 8 * 2
    if truth == "codes":
        assert found is None
        assert placed(watch, manifold, CONTEXTS[2]).tolist() == torch.eye(8)[2].tolist()
        somewhere = watch.somewhere(manifold, torch.tensor([0.123]).double())
        assert torch.equal(somewhere, torch.full((8,), 1 / 8).double())
        assert somewhere.dtype == torch.float64
        return
    assert found is not None
    assert isinstance(found.basis, Fourier)
    assert found.basis.size == 7
    # each vertex goes to its context, and P' is the least-squares fit of one point per vertex
    for j, vertex in enumerate(torch.eye(8).double()):
        assert torch.equal(found.embed(vertex), CONTEXTS[j])
    phi = found.basis(CONTEXTS[:8])
    torch.testing.assert_close(found.matrix, torch.linalg.lstsq(phi, torch.eye(8).double())[0])
    manifold.grow_and_reembed(found)
    elsewhere = torch.tensor([0.123]).double()
    assert watch.place(manifold, elsewhere) == (elsewhere, None)
    assert watch.somewhere(manifold, elsewhere) is elsewhere


def test_after_the_first_turn_only_larger_bases_are_turned_into(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = ["ellipse", "point", "ellipse", "codes", "circle"]
    monkeypatch.setattr(
        "cl_manifold.strategies.manifold.shaping.winner", lambda *_: said[len(watch.contexts) - 8]
    )
    d, manifold = draws("circle", 50), linear(50)
    watch, idle = TopologyWatch(4.0, follows=True), TopologyWatch(4.0)
    sizes: list[int | None] = []
    for j in range(12):
        placed(watch, manifold, CONTEXTS[j])
        found = watch.watch(driven(manifold.module, d[j]), manifold, CONTEXTS[j])
        assert idle.watch(driven(manifold.module, d[j]), manifold, CONTEXTS[j]) is None
        assert idle.topology == watch.topology == ("" if j < 7 else said[j - 7])
        sizes.append(None if found is None else found.basis.size)
        if found is None:
            continue
        assert isinstance(found.basis.topology, Circle)
        assert found.basis.topology.period == 4
        if j > 7:  # the smaller harmonics are among the larger ones: no weight changes anywhere
            c = torch.rand(9, 1).double()
            assert torch.equal(found.embed(c[0]), c[0])
            torch.testing.assert_close(found.basis(c) @ found.matrix, manifold.basis(c))
        manifold.grow_and_reembed(found)
    assert sizes == [None] * 7 + [3, None, None, None, 7]


def test_drives_are_those_of_the_initial_network_and_nothing_else_changes() -> None:
    net: Any = small_mlp()
    net.append(nn.Dropout())
    manifold = WeightManifold(net, Fourier(0), growable=True)
    x, y = torch.randn(30, 6), torch.randint(3, (30,))
    first = copy.deepcopy(net).eval()
    criterion = nn.CrossEntropyLoss()
    gradients = torch.autograd.grad(criterion(first(x), y), list(first.parameters()))
    move(manifold)
    net.train()
    live, watch = copy.deepcopy(net.state_dict()), TopologyWatch()
    torch.manual_seed(3)
    with torch.no_grad():
        watch.watch(strategy_of(net, x, y, criterion), manifold, CONTEXTS[0])
    after = torch.rand(2)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(2))
    for g, gram in zip(gradients, watch.gram.gram, strict=True):
        assert float(gram) == pytest.approx(float(g.square().sum()), rel=1e-5)
    assert all(torch.equal(v, live[k]) for k, v in net.state_dict().items())
    assert all(m.training for m in net.modules())
    assert all(p.grad is None for p in net.parameters())


def test_a_drive_is_measured_on_at_most_1024_samples() -> None:
    manifold, seen = linear(3), list[int]()
    manifold.module.register_forward_hook(lambda m, i, o: seen.append(len(i[0])))
    x, y = torch.randn(1100, 3), torch.randn(1100, 1)
    TopologyWatch().watch(strategy_of(manifold.module, x, y, nn.MSELoss()), manifold, CONTEXTS[0])
    assert seen == [1024]


def test_sketches_and_samples_are_drawn_by_the_seed() -> None:
    """Of large tensors and data sets; the same again for the same seed."""
    x, y = torch.randn(1100, 1), torch.randn(1100, 1)

    def grams(seed: int) -> list[float]:
        wide, narrow = TopologyWatch(seed=seed), TopologyWatch(seed=seed)
        manifold, other = linear(2000), linear(1)
        drive = torch.arange(2000.0) / 2000
        wide.watch(driven(manifold.module, drive), manifold, CONTEXTS[0])
        narrow.watch(
            strategy_of(other.module, x, y, lambda o, y: (o * y).mean()), other, CONTEXTS[0]
        )
        return [float(wide.gram.gram), float(narrow.gram.gram)]

    one, again, other = grams(0), grams(0), grams(1)
    assert one == again
    assert one[0] != other[0]
    assert one[1] != other[1]


def test_contexts_a_millionth_apart_share_a_vertex() -> None:
    watch, manifold = TopologyWatch(follows=True), linear(1)
    base = torch.tensor([0.5, 100.0]).double()
    assert watch.place(manifold, base)[1] is None
    assert watch.place(manifold, base + 5e-7)[0].tolist() == [1.0]
    place, growth = watch.place(manifold, base + 2e-6)
    assert place.tolist() == [0.0, 1.0]
    assert growth is not None
