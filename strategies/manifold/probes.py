"""Probes: short trainings that show where training would lead, with the price and without it."""

from dataclasses import dataclass
from itertools import chain, repeat
from math import ceil
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cl_manifold.contexts.statistics import assured_difference
from cl_manifold.contexts.sweep import logits_with
from cl_manifold.errors import ContextError
from cl_manifold.manifold.layout import State
from cl_manifold.manifold.watching import undrawn
from cl_manifold.manifold.weight_manifold import WeightManifold

from .price import Price
from .samples import arguments
from .support import Support


@dataclass(frozen=True)
class Probe:
    """What two short trainings from the same start found.

    Attributes:
        constrained: held-out losses after the one under the price.
        unconstrained: after the one without it.
        accuracy: held-out accuracy after the one without it.
        weights: where the one without it led.
    """

    constrained: Float[Tensor, " n"]
    unconstrained: Float[Tensor, " n"]
    accuracy: float
    weights: State

    def shortfall(self) -> float:
        """What the price surely costs, in nats."""
        return assured_difference(self.constrained, self.unconstrained)


def losses(logits: Float[Tensor, "n C"], y: Tensor) -> Float[Tensor, " n"]:
    """−log p(y|x) of each sample."""
    return F.cross_entropy(logits, y, reduction="none")


def probe(
    strategy: Any,
    manifold: WeightManifold,
    context: Tensor,
    support: Support,
    share: float,
    price: float,
) -> Probe:
    """Train twice from w(c) for a share of the experience's steps; the module's state is kept."""
    live = manifold.layout.read(manifold.module)
    steps = ceil(share * strategy.train_epochs * len(strategy.dataloader))
    start = manifold.state(context)
    manifold.write(start)
    with undrawn():
        _short_training(strategy, steps, None)
    free = manifold.layout.read(manifold.module)
    manifold.write(start)
    try:
        visit = manifold.look(context)
    except ContextError:  # nothing may move: the start is where the constraint leads
        held = start
    else:
        with undrawn():
            _short_training(strategy, steps, Price(manifold, visit, price))
        held = manifold.layout.read(manifold.module)
    manifold.write(live)
    ends = {name: torch.stack([held[name], free[name]]) for name in held}
    constrained, unconstrained = logits_with(manifold, ends, support.inputs)
    return Probe(
        losses(constrained, support.y),
        losses(unconstrained, support.y),
        float((unconstrained.argmax(-1) == support.y).float().mean()),
        free,
    )


def _short_training(strategy: Any, steps: int, price: Price | None) -> None:
    """So many steps of the strategy's own optimizer and loss, its rate falling to zero."""
    optimizer, model = strategy.optimizer, strategy.model
    rates = [group["lr"] for group in optimizer.param_groups]
    was_training = model.training
    model.train()
    optimizer.state.clear()
    batches = chain.from_iterable(repeat(strategy.dataloader))
    for step, batch in zip(range(steps), batches, strict=False):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (1 - step / steps)
        optimizer.zero_grad()
        x, y = batch[0].to(strategy.device), batch[1].to(strategy.device)
        labels = batch[-1].to(strategy.device) if len(batch) > 2 else None
        strategy._criterion(model(*arguments(strategy, x, labels)), y).backward()
        if price is not None:
            price.add(max(rates))
        optimizer.step()
    optimizer.zero_grad()
    optimizer.state.clear()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    model.train(was_training)
