"""The price of one task, step by step."""

import torch
from cl_manifold.strategies.task import PricedTask
from torch import nn


def test_the_pull_follows_a_rising_rate_and_never_exceeds_one_step() -> None:
    """∇ = min(λκ, 1/η) (w − w(c)) at every rate, for number and tensor prices, unused ones left."""
    parameters = [nn.Parameter(torch.randn(3, 2)) for _ in range(3)]
    anchors = [torch.randn(3, 2) for _ in range(3)]
    prices = [torch.tensor(4.0), torch.tensor([[1.0], [8.0], [30.0]]), torch.tensor(1.0)]
    task = PricedTask(
        context=torch.tensor([0.5]),
        plasticity=1.0,
        parameters=parameters,
        anchors=[a.clone() for a in anchors],
        scales=prices,
    )
    highest = 0.0
    for rate in (0.0, 0.05, 0.5, 0.2):
        highest = max(highest, rate)
        for p in parameters[:2]:
            p.grad = torch.ones_like(p)
        task.add_price(rate)
        for p, anchor, price in zip(parameters[:2], anchors, prices, strict=False):
            limited = price.clamp(max=1 / highest) if highest else price
            expected = 1 + limited * (p.detach() - anchor)
            assert p.grad is not None
            torch.testing.assert_close(p.grad, expected)
    assert parameters[2].grad is None
