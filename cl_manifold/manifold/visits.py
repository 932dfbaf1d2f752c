"""A visit: the weights of one context are out, to be trained and committed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from .belief import Belief, Step
from .layout import Layout, State


@final
@dataclass(eq=False)
class Visit:
    """An open visit: the weights of one context are out, to be trained and committed.

    It stays open until another context is checked out. Training on at the same context, and
    committing again, replaces what this visit committed before.

    Attributes:
        context: canonical coordinates, shape (dim,), float64, on the CPU.
        step: what moving the weights here does, from the belief before the visit.
        anchor: w(c) when the visit began, by name.
        before: the belief without this visit.
        outside: buffers of the module that were not on the manifold when the visit began.
        committed: whether the atlas' last task is this visit.
    """

    context: Tensor
    step: Step
    anchor: State
    before: Belief
    outside: State
    committed: bool = False


@dataclass(frozen=True)
class Commit:
    """What a commit did, averaged (plasticity) or maximal (overshoot) over blocks."""

    plasticity: float
    overshoot: float


def outside(module: nn.Module, layout: Layout) -> State:
    """Copies of the module's buffers that are not on the manifold."""
    buffers = module.named_buffers()
    return {n: b.detach().clone() for n, b in buffers if n not in layout.names}


def moved_buffers(
    module: nn.Module, before: State, select: Callable[[str], bool]
) -> dict[str, tuple[Tensor, bool]]:
    """Buffers that training moved: what they were, and whether they never were negative."""
    moved: dict[str, tuple[Tensor, bool]] = {}
    for name, now in module.named_buffers():
        was = before.get(name)
        if was is not None and select(name) and _moved(name, was, now):
            moved[name] = (was, bool((was >= 0).all() and (now >= 0).all()))
    return moved


def _moved(name: str, was: Tensor, now: Tensor) -> bool:
    """Whether training moved a buffer that can be interpolated: statistics, or their count."""
    if was.shape != now.shape or was.is_complex():
        return False
    if not was.is_floating_point() and name.rpartition(".")[2] != "num_batches_tracked":
        return False
    finite = bool(was.isfinite().all() and now.isfinite().all())
    return finite and not torch.equal(was, now)
