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
from cl_manifold.manifold.revision import weights_after_commit
from cl_manifold.manifold.weight_manifold import WeightManifold

from .support import Support
from .task import PricedTask, forward_batch

WATCHED = 3
"""Drift is measured at this many earlier contexts: those that a commit moves most."""


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
    weights: Float[Tensor, " D"]

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
    start = manifold.weights(context)
    manifold.layout.write(manifold.module, start)
    _short_training(strategy, steps, None)
    free = manifold.layout.read(manifold.module)
    manifold.layout.write(manifold.module, start)
    try:
        task = priced_task(manifold, context, price)
    except ContextError:  # nothing may move: the start is where the constraint leads
        held = start
    else:
        _short_training(strategy, steps, task)
        held = manifold.layout.read(manifold.module)
    manifold.layout.write(manifold.module, live)
    constrained, unconstrained = logits_with(manifold, torch.stack([held, free]), support.x)
    return Probe(
        losses(constrained, support.y),
        losses(unconstrained, support.y),
        float((unconstrained.argmax(-1) == support.y).float().mean()),
        free,
    )


def priced_task(manifold: WeightManifold, context: Tensor, price: float) -> PricedTask:
    """The price of moving the weights at a context, for the live module.

    Raises:
        ContextError: finished tasks leave no freedom at the context.
    """
    kappas = manifold.price(context)
    anchor = manifold.layout.split(manifold.weights(context))
    parameters = dict(manifold.module.named_parameters())
    trained = [e.name for e in manifold.layout.trained]
    return PricedTask(
        context=context,
        parameters=[parameters[name] for name in trained],
        anchors=[anchor[name] for name in trained],
        scales=[price * kappa for kappa in kappas],
        plasticity=manifold.plasticity(context),
    )


def drift_of_commit(manifold: WeightManifold, context: Tensor, weights: Tensor, x: Tensor) -> float:
    """Share of predictions on x that committing `weights` would change at an earlier context."""
    visited = most_moved(manifold, context)
    if not visited:
        return 0.0
    others = torch.stack(visited)
    before = logits_with(manifold, manifold.weights(others), x).argmax(-1)
    moved = weights_after_commit(manifold, context, weights, others)
    after = logits_with(manifold, moved, x).argmax(-1)
    return float((before != after).float().mean(-1).max())


def most_moved(manifold: WeightManifold, context: Tensor) -> list[Tensor]:
    """The visited contexts that a commit at `context` moves most."""
    visited = [v.context for v in manifold.visits]
    if not visited:
        return []
    moved = manifold.influence(context, torch.stack(visited)).abs().mean(-1)
    return [visited[i] for i in moved.argsort(descending=True)[:WATCHED].tolist()]


def _short_training(strategy: Any, steps: int, task: PricedTask | None) -> None:
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
        strategy._criterion(forward_batch(strategy, batch, x), y).backward()
        if task is not None:
            task.add_price(max(rates))
        optimizer.step()
    optimizer.zero_grad()
    optimizer.state.clear()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    model.train(was_training)
