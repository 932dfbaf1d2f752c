"""EWC in three sums against the penalties of all experiences, one by one."""

from typing import Any

import torch
from avalanche.training.plugins import EWCPlugin
from avalanche.training.supervised import Naive
from torch import Tensor, nn

from cl_manifold.networks import mlp
from cl_manifold.strategies import InMemoryLoaderPlugin, SummedPenalties
from cl_manifold.streams import StreamOptions, rotated_digits


def test_three_sums_are_all_penalties() -> None:
    plugin = SummedPenalties(1.0)
    terms = []
    for _ in range(4):
        information = torch.rand(5).square() * (torch.rand(5) > 0.3)
        terms.append((information, torch.randn(5)))
        plugin.add({"w": information}, {"w": terms[-1][1]})
        w = torch.randn(5, requires_grad=True)
        expected = torch.stack([(f * (w - w_j).square()).sum() for f, w_j in terms]).sum()
        found = plugin.penalty({"w": w})
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
        (one,), (other,) = torch.autograd.grad(found, w), torch.autograd.grad(expected, w)
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


def learned(plugin: Any) -> list[Tensor]:
    stream = rotated_digits(StreamOptions(contexts=3, samples=60))
    torch.manual_seed(0)
    net = mlp(stream.input_shape, (8,), 10).float()
    strategy = Naive(
        model=net,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=10,
        plugins=[InMemoryLoaderPlugin(), plugin],
    )
    for experience in stream.train_stream:
        strategy.train(experience)
    return [p.detach() for p in net.parameters()]


def test_training_goes_where_avalanches_goes() -> None:
    ours, theirs, free = (
        learned(p) for p in (SummedPenalties(20.0), EWCPlugin(20.0), EWCPlugin(0))
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert max(float((a - b).abs().max()) for a, b in zip(ours, free, strict=True)) > 0.01
