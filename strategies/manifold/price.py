"""The price of moving weights, added to the gradients once per step of the optimizer."""

from typing import Any, final

import torch
from torch import Tensor, nn

from cl_manifold.manifold.visits import Visit
from cl_manifold.manifold.weight_manifold import WeightManifold

RATIO = 10.0
"""ρ at which a price of λ counts in full."""


@final
class Price:
    """λ κ (10/ρ) (w − w(c)) for the weights of an open visit.

    κ grows with the information ρ of the tasks that hold the weights; divided by it, one λ means
    the same on every basis. See docs/mathematics.md, eq. (8).

    A hook of the optimizer adds it right before each step: once however many backward passes came
    before, and to gradients that a GradScaler has unscaled. The pull s w(c) is formed once, so that
    a step reads and writes each gradient twice and allocates nothing.

    Attributes:
        visit: whose weights are priced.
    """

    def __init__(self, manifold: WeightManifold, visit: Visit, weight: float) -> None:
        """Price the weights that the manifold's module holds.

        Args:
            manifold: with an open visit.
            visit: the open visit.
            weight: λ.
        """
        self.visit = visit
        named = dict(manifold.module.named_parameters())
        entries = manifold.layout.trained
        self.parameters: list[nn.Parameter] = [named[e.name] for e in entries]
        kappa = weight * RATIO / manifold.strength * visit.step.kappa
        self._scales = [
            e.broadcast(kappa[e.part]).to(p.device, visit.anchor[e.name].dtype)
            for e, p in zip(entries, self.parameters, strict=True)
        ]
        self._anchors = [visit.anchor[e.name] for e in entries]
        self._factors: list[Tensor | float] = []
        self._pulls: list[Tensor] = []
        self._rate = -1.0
        self._hook: Any = None
        self._optimizer: torch.optim.Optimizer | None = None

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """From now on every step of this optimizer pays, and of no other."""
        if self._optimizer is not optimizer:
            self.detach()
            self._optimizer = optimizer
            self._hook = optimizer.register_step_pre_hook(self._before_step)

    def detach(self) -> None:
        """The inverse of `attach`; a model's worth of memory is let go of."""
        self._factors, self._pulls, self._rate = [], [], -1.0
        if self._hook is not None:
            self._hook.remove()
        self._hook = self._optimizer = None

    def _before_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        # a fused optimizer divides by the scale itself, after this hook
        scale = getattr(optimizer, "grad_scale", None)
        self.add(max(group["lr"] for group in optimizer.param_groups), scale)

    @torch.no_grad()
    def add(self, rate: float | Tensor, scale: Tensor | None = None) -> None:
        """∇ += s w − s w(c) with s = min(λ κ 10/ρ, 1/η), outside the graph.

        At learning rate η a gradient step with s = 1/η leads just back to w(c); a heavier pull
        would overshoot it and, with plain SGD, diverge.
        """
        if float(rate) > self._rate:
            self._limit(float(rate))
        for parameter, factor, pull in zip(
            self.parameters, self._factors, self._pulls, strict=True
        ):
            gradient = parameter.grad
            if gradient is None:
                continue
            if scale is not None:
                gradient.add_((parameter * factor - pull) * scale)
            elif isinstance(factor, Tensor):
                gradient.addcmul_(parameter, factor).sub_(pull)
            else:
                gradient.add_(parameter, alpha=factor).sub_(pull)

    def _limit(self, rate: float) -> None:
        """Form s and s w(c) for a learning rate higher than before."""
        limited = [s.clamp(max=1 / rate) if rate > 0 else s for s in self._scales]
        pairs = zip(limited, self._anchors, self.parameters, strict=True)
        self._pulls = [(s * anchor).to(p.dtype) for s, anchor, p in pairs]
        self._factors = [
            float(s) if s.ndim == 0 else s.to(p.dtype)
            for s, p in zip(limited, self.parameters, strict=True)
        ]
        self._rate = rate
