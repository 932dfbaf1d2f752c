"""A gate at the commit: how much it would change what the network answers at earlier contexts."""

from collections.abc import Sequence
from math import sqrt
from typing import Any, Literal, final
from warnings import warn

import torch
from avalanche.models import MultiTaskModule
from torch import Tensor, nn

from cl_manifold.contexts.sweep import logits_with
from cl_manifold.errors import DriftError, IncompatibleError
from cl_manifold.manifold.atlas import Task
from cl_manifold.manifold.layout import Inputs, State
from cl_manifold.manifold.likelihood import Likelihood, likelihood_of
from cl_manifold.manifold.visits import Visit
from cl_manifold.manifold.weight_manifold import WeightManifold

from .measure import trained_head
from .samples import Samples
from .trace import Gate

OnDrift = Literal["warn", "grow", "refuse"]

WATCHED = 3
"""Drift is measured at this many earlier contexts: those that a commit moves most."""


FAR = 100.0
"""How far weights may move, next to their size or to 1, before the learning rate is doubted."""


class DriftWarning(UserWarning):
    """A commit changed much of what the network answers at an earlier context."""


class LearningRateWarning(UserWarning):
    """Training moved the weights so far that nothing can be told about them."""


@final
class DriftGate:
    """Measures drift before a commit, and acts where it is above a limit."""

    def __init__(self, on_drift: OnDrift, limit: float) -> None:
        if on_drift not in ("warn", "grow", "refuse"):
            raise ValueError(f"on_drift is {on_drift!r}; choose warn, grow or refuse")
        if not limit >= 0:
            raise ValueError(f"drift_limit must be 0 or more, got {limit}")
        self.on_drift, self.limit = on_drift, limit

    def check_network(self, network: nn.Module) -> None:
        """Raise `IncompatibleError` where the gate is to act on drift that cannot be measured."""
        if self.on_drift != "warn" and isinstance(network, MultiTaskModule):
            raise IncompatibleError(
                f"on_drift is {self.on_drift!r}, but the network has a head per task, and that of "
                "a new task answers nothing at earlier contexts, so drift cannot be measured; "
                "leave on_drift at 'warn'"
            )

    def check(
        self, strategy: Any, manifold: WeightManifold, samples: Samples, index: int
    ) -> tuple[float, Gate]:
        """The drift that committing the module's weights would cause, and what was done about it.

        Raises:
            DriftError: it is above the limit and must be refused.
        """
        if len(samples.inputs) > 1:  # the head of this task answers for no earlier context
            return 0.0, "unmeasured"
        likelihood, live = likelihood_of(strategy._criterion), manifold.layout.read(manifold.module)
        drift = self._drift(manifold, live, samples, likelihood)
        if drift <= self.limit:
            return drift, "passed"
        text = (
            f"committing experience {index} would change outputs at an earlier context by "
            f"{drift:.2f} (limit {self.limit:g})"
        )
        if self.on_drift == "refuse":
            raise DriftError(
                f"{text}, so it was not committed; grow the basis, give it a context farther "
                "away, or raise drift_limit"
            )
        if self.on_drift == "warn":
            warn(
                f"{text}; grow the basis, or choose on_drift='grow' or 'refuse'",
                DriftWarning,
                stacklevel=3,
            )
            return drift, "warned"
        return self._grown(manifold, live, samples, likelihood), "grown"

    def _grown(
        self, manifold: WeightManifold, live: State, samples: Samples, likelihood: Likelihood
    ) -> float:
        """Grow until the drift is within the limit; at most one control point per task."""
        visit = manifold.open_visit
        tasks, drift = len(manifold.atlas) + (not visit.committed), torch.inf
        while drift > self.limit and manifold.basis.size < tasks:
            context, growth = manifold.open_visit.context, manifold.basis.grown()
            manifold.grow_and_reembed(growth)
            manifold.open(growth.embed(context))
            drift = self._drift(manifold, live, samples, likelihood)
        return drift

    def _drift(
        self, manifold: WeightManifold, live: State, samples: Samples, likelihood: Likelihood
    ) -> float:
        """At other coordinates: at its own a commit replaces what was there."""
        visit = manifold.open_visit
        others = manifold.atlas.without(visit.context)
        return drift_of_commit(manifold, visit, live, others, samples.inputs, likelihood)


def warn_of_far_moves(manifold: WeightManifold, index: int) -> None:
    """Say so where training moved the weights of the open visit beyond all measure.

    Outputs then are so large that their information and their gradients are rounding: what was
    learned there cannot be held by either.
    """
    anchor, live = manifold.open_visit.anchor, manifold.layout.tensors(manifold.module)
    names = [e.name for e in manifold.layout.trained]
    count = sum(live[n].numel() for n in names)
    size = sqrt(sum(_energy(anchor[n]) for n in names) / count)
    moved = sqrt(sum(_energy(live[n].detach() - anchor[n]) for n in names) / count)
    if moved > FAR * max(size, 1.0):
        warn(
            f"experience {index} moved the weights by {moved:.3g} on average, from a size of "
            f"{size:.3g}, so that what it learned cannot be held; lower the learning rate",
            LearningRateWarning,
            stacklevel=3,
        )


def _energy(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values.float())) ** 2


def drift_of_commit(
    manifold: WeightManifold,
    visit: Visit,
    live: State,
    tasks: Sequence[Task],
    inputs: Inputs,
    likelihood: Likelihood,
) -> float:
    """The largest change of outputs at those contexts of earlier tasks that a commit moves most.

    Args:
        manifold: with finished tasks.
        visit: where the commit would be.
        live: what would be committed there.
        tasks: some of the finished ones.
        inputs: of the current task: nothing of earlier tasks is stored.
        likelihood: says what a change of outputs is.
    """
    return max(
        (
            likelihood.change(
                _answer(manifold, manifold.points.at(task.phi), inputs),
                _answer(manifold, manifold.preview_at(task.phi, live, visit), inputs),
            )
            for task in most_moved(visit, tasks)
        ),
        default=0.0,
    )


def most_moved(visit: Visit, tasks: Sequence[Task]) -> list[Task]:
    """Those of the tasks that a commit of the visit moves most."""
    if not tasks:
        return []
    shares = visit.step.influence(torch.stack([t.phi for t in tasks])).abs().mean(-1)
    return [tasks[i] for i in shares.argsort(descending=True)[:WATCHED].tolist()]


def _answer(manifold: WeightManifold, state: State, inputs: Inputs) -> Tensor:
    usable = manifold.usable(state)
    with trained_head(manifold.module):
        return logits_with(manifold, {n: w[None] for n, w in usable.items()}, inputs)[0]
