"""Probes against training a copy by hand, with the price as a penalty of its loss."""

import copy
from math import ceil
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.models import MultiTaskModule
from torch import Tensor, nn

from cl_manifold.geometry import Fourier, Vertices
from cl_manifold.manifold.weight_manifold import WeightManifold
from cl_manifold.strategies.manifold.probes import Probe, probe
from cl_manifold.strategies.manifold.support import Support
from tests.networks import move, random_information, shake, small_mlp

C = torch.tensor([0.3])
RATES = (0.3, 0.1)


class Labelled(MultiTaskModule):
    """A network whose answer depends on the task label."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.scale = small_mlp(), nn.Parameter(torch.tensor([1.0, -2.0]))

    def forward(self, x: Tensor, task_labels: Tensor) -> Tensor:
        return self.net(x) * self.scale[task_labels][:, None]


def dropping() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Dropout(), nn.Linear(8, 3))


def batches(labelled: bool) -> list[tuple[Tensor, ...]]:
    g = torch.Generator().manual_seed(2)
    made: list[tuple[Tensor, ...]] = []
    for _ in range(3):
        x, y = torch.randn(10, 6, generator=g), torch.randint(3, (10,), generator=g)
        made.append((x, y, torch.arange(10) % 2) if labelled else (x, y))
    return made


def strategy_of(net: nn.Module, labelled: bool = False) -> Any:
    first, *rest = net.parameters()
    groups: Any = [{"params": [first], "lr": RATES[1]}, {"params": rest, "lr": RATES[0]}]
    return SimpleNamespace(
        model=net,
        optimizer=torch.optim.SGD(groups, momentum=0.9),
        dataloader=batches(labelled),
        device=torch.device("cpu"),
        train_epochs=10,
        experience=SimpleNamespace(task_labels=[0, 1] if labelled else None),
        _criterion=nn.CrossEntropyLoss(),
    )


def support_of(labelled: bool = False) -> Support:
    g = torch.Generator().manual_seed(3)
    x, y = torch.randn(25, 6, generator=g), torch.randint(3, (25,), generator=g)
    return Support((x, torch.arange(25) % 2) if labelled else (x,), y, 100, 3)


def visited(net: nn.Module) -> WeightManifold:
    """With a finished task beside the context, and weights of another place in the module."""
    manifold = WeightManifold(net, Fourier(1), strength=10.0)
    shake(manifold, torch.tensor([0.25]), random_information(manifold))
    move(manifold)
    return manifold


def felt(manifold: WeightManifold) -> float:
    """λ at which about half of the weights are pulled as hard as a step of 0.3 allows."""
    return 3 * manifold.strength / 10 / float(manifold.look(C).step.kappa.median())


def by_hand(strategy: Any, manifold: WeightManifold, share: float, price: float) -> nn.Module:
    """A fresh optimizer on a copy that starts at w(c); the pull min(λκ10/ρ, 1/η) (w − w(c))."""
    net = copy.deepcopy(strategy.model).train()
    net.load_state_dict(manifold.state(C))
    first, *rest = net.parameters()
    groups: Any = [{"params": [first], "lr": RATES[1]}, {"params": rest, "lr": RATES[0]}]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    step, anchor = manifold.look(C).step, manifold.state(C)
    data, steps = strategy.dataloader, ceil(share * 10 * 3)
    for k in range(steps):
        for group, rate in zip(optimizer.param_groups, (RATES[1], RATES[0]), strict=True):
            group["lr"] = rate * (steps - k) / steps
        optimizer.zero_grad()
        x, y, *labels = data[k % 3]
        nn.functional.cross_entropy(net(x, *labels), y).backward()
        for e in manifold.layout.trained:
            p = net.get_parameter(e.name)
            s = (price * step.kappa * 10 / manifold.strength).clamp(max=1 / max(RATES))
            assert p.grad is not None
            p.grad += e.broadcast(s[e.part]) * (p.detach() - anchor[e.name])
        optimizer.step()
    return net.eval()


def held_out(net: nn.Module, support: Support) -> tuple[Tensor, float]:
    logits = net(*support.inputs).detach()
    chosen = logits.log_softmax(1)[torch.arange(25), support.y]
    return -chosen, float((logits.argmax(1) == support.y).double().mean())


@pytest.mark.parametrize("share", [0.01, 0.35])
@pytest.mark.parametrize("make", [small_mlp, dropping, Labelled])
def test_a_probe_is_what_training_a_copy_finds_and_leaves_no_trace(make: Any, share: float) -> None:
    net = make()
    manifold, strategy = visited(net), strategy_of(net, make is Labelled)
    support = support_of(make is Labelled)
    for p in net.parameters():  # what an earlier experience left in the optimizer
        strategy.optimizer.state[p]["momentum_buffer"] = torch.ones_like(p)
    net.eval()
    live, price = manifold.layout.read(net), felt(manifold)
    torch.manual_seed(5)
    nets = [by_hand(strategy, manifold, share, 0.0)]
    torch.manual_seed(5)
    nets.append(by_hand(strategy, manifold, share, price))
    torch.manual_seed(5)
    found = probe(strategy, manifold, C, support, share, price)
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3))
    (free, accuracy), (priced, _) = (held_out(n, support) for n in nets)
    # one step from w(c) pays nothing yet
    assert (float((free - priced).abs().max()) > 1e-3) == (share == 0.35)
    torch.testing.assert_close(found.unconstrained, free, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.constrained, priced, rtol=1e-4, atol=1e-5)
    assert found.accuracy == pytest.approx(accuracy)
    for name, p in nets[0].named_parameters():
        torch.testing.assert_close(found.weights[name], p.detach(), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(t, live[n]) for n, t in manifold.layout.tensors(net).items())
    assert [g["lr"] for g in strategy.optimizer.param_groups] == [RATES[1], RATES[0]]
    assert not strategy.optimizer.state
    assert all(p.grad is None for p in net.parameters())
    assert not any(m.training for m in net.modules())
    assert manifold.visit is None or float(manifold.visit.context) == pytest.approx(0.25)


def test_where_nothing_may_move_the_price_leads_nowhere() -> None:
    net = small_mlp()
    manifold = WeightManifold(net, Vertices(1))
    shake(manifold, torch.ones(1), torch.inf)
    support, start = support_of(), manifold.state(torch.ones(1))
    found = probe(strategy_of(net), manifold, torch.ones(1), support, 0.2, 1.0)
    net.load_state_dict(start)
    losses, _ = held_out(net.eval(), support)
    torch.testing.assert_close(found.constrained, losses)
    assert float((found.unconstrained - losses).abs().max()) > 1e-3


def test_the_shortfall_is_what_the_price_surely_costs() -> None:
    priced, free = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0.5, 1.0, 1.0])
    expected = 1.5 - 1.645 * (1.75 / 3) ** 0.5  # mean and variance of 0.5, 1 and 3
    assert Probe(priced, free, 0.0, {}).shortfall() == pytest.approx(expected)
