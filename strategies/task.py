"""One training experience as the weight manifold sees it: its price, its batches, its trace."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, final

import torch
from avalanche.models import avalanche_forward
from torch import Tensor, nn

from cl_manifold.contexts.evidence import Evidence


@dataclass(frozen=True)
class TaskTrace:
    """What the plugin saw around one training experience.

    Attributes:
        experience: position in the stream.
        context: shape (dim,), canonical coordinates.
        source: where the context came from.
        decision: "place", or "reuse" at a coordinate that was visited before.
        plasticity: κ_rel at the context before training.
        overshoot: of the commit.
        drift: largest share of changed predictions at the earlier contexts that the commit moved
            most, on the current task's inputs.
        evidence: why it was decided so, where a rule decided.
        topologies: evidence of each topology after the task, where it is watched.
    """

    experience: int
    context: Tensor
    source: str
    decision: str
    plasticity: float
    overshoot: float
    drift: float
    evidence: Evidence | None = None
    topologies: Mapping[str, float] = field(default_factory=dict)


@final
class PricedTask:
    """The experience in training: what the price needs at every step.

    The pull s w(c) is formed once, so that a step reads and writes each gradient twice and
    allocates nothing, unlike `torch._foreach` operations on w − w(c), which are slower on a CPU.
    """

    def __init__(
        self,
        context: Tensor,
        plasticity: float,
        parameters: list[nn.Parameter],
        anchors: list[Tensor],
        scales: list[Tensor],
    ) -> None:
        """The anchors are views of one buffer, which this object may overwrite."""
        self.context, self.plasticity, self.parameters = context, plasticity, parameters
        self._scales, self._pulls = scales, anchors
        self._limited = [torch.ones_like(s) for s in scales]
        self._factors: list[Tensor | float] = []
        self._rate = 0.0

    @torch.no_grad()
    def add_price(self, rate: float) -> None:
        """∇ += s w − s w(c) with s = min(λ κ, 1/η), outside the graph.

        At learning rate η a gradient step with s = 1/η leads just back to w(c); a heavier pull
        would overshoot it and, with plain SGD, diverge.
        """
        if rate > self._rate or not self._factors:
            self._limit(rate)
        for parameter, factor, pull in zip(
            self.parameters, self._factors, self._pulls, strict=True
        ):
            gradient = parameter.grad
            if gradient is None:
                continue
            if isinstance(factor, Tensor):
                gradient.addcmul_(parameter, factor).sub_(pull)
            else:
                gradient.add_(parameter, alpha=factor).sub_(pull)

    def _limit(self, rate: float) -> None:
        """Form s and s w(c) for a learning rate higher than before."""
        limited = [s.clamp(max=1 / rate) if rate > 0 else s for s in self._scales]
        for pull, old, new in zip(self._pulls, self._limited, limited, strict=True):
            pull.mul_(new / old)
        self._limited, self._rate = limited, rate
        self._factors = [float(s) if s.ndim == 0 else s for s in limited]


@dataclass(frozen=True)
class Batch:
    """Inputs of the current experience and the forward pass that fits them."""

    x: Tensor
    forward: Callable[[Tensor], Tensor]


def some_batches(strategy: Any, count: int) -> list[Batch]:
    """Random mini-batches of the current experience with `count` inputs, fewer if it has fewer."""
    batches: list[Batch] = []
    missing = count
    for batch in strategy.dataloader:
        x = batch[0][:missing].to(strategy.device)
        labels = batch[-1][:missing].to(strategy.device)
        batches.append(Batch(x, partial(_forward, strategy.model, labels)))
        missing -= len(x)
        if missing <= 0:
            break
    return batches


def forward_batch(strategy: Any, batch: Any, x: Tensor) -> Tensor:
    """The model's output on inputs of a mini-batch, whose last column holds task labels if any."""
    return _forward(strategy.model, batch[-1].to(strategy.device), x)


def _forward(model: nn.Module, labels: Tensor, x: Tensor) -> Tensor:
    return avalanche_forward(model, x, labels)
