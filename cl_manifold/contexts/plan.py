"""A plan: what a topology will leave free for each task of a stream, before any data.

What finished tasks hold, κ = 1/(φᵀ Σ φ), depends on contexts only, once every task is taken to be
worth the same information. What tasks will want is taken from a smooth kernel on the space of the
contexts; on a simplex tasks are unrelated. One block stands for all weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from cl_manifold.geometry import Basis, Topology, smooth_basis
from cl_manifold.manifold.belief import PRECISION, unvisited

ROOMY, CROWDED = 0.1, 0.25
"""What a good plan refuses at most, and from where on a plan is crowded."""
SWINGS = 10.0
"""Overshoot from which on the weights between contexts are not to be trusted."""


@final
@dataclass(frozen=True)
class PlannedTask:
    """One task of a plan.

    Attributes:
        context: of the task.
        plasticity: κ_rel as in `WeightManifold.plasticity`.
        refused: how much of what the task wants it will not get; 1 is all that tells it apart.
        overshoot: the largest movement elsewhere when this task moves by one.
        stored_floats: kept when the task is finished, in units of 32 bits.
    """

    context: tuple[float, ...]
    plasticity: float
    refused: float
    overshoot: float
    stored_floats: int


@final
@dataclass(frozen=True)
class TopologyPlan:
    """The plan of one topology.

    Attributes:
        name: what people call it.
        control_points: K.
        model_floats: D, the size of one network.
        tasks: in the order they are learned; at least one.
    """

    name: str
    control_points: int
    model_floats: int
    tasks: tuple[PlannedTask, ...]

    @property
    def refused(self) -> float:
        """Mean over the tasks.

        Of several statistics without data the one that follows what a stream costs its tasks
        (`tests/benchmark/test_plan_benchmark.py`); the mean plasticity does not.
        """
        return sum(task.refused for task in self.tasks) / len(self.tasks)

    @property
    def plasticity(self) -> float:
        """Mean over the tasks."""
        return sum(task.plasticity for task in self.tasks) / len(self.tasks)

    @property
    def lowest_plasticity(self) -> float:
        """The plasticity of the least free task."""
        return min(task.plasticity for task in self.tasks)

    @property
    def overshoot(self) -> float:
        """The worst overshoot."""
        return max(task.overshoot for task in self.tasks)

    @property
    def stored_ratio(self) -> float:
        """Stored floats at the end ÷ one network."""
        return self.tasks[-1].stored_floats / self.model_floats

    @property
    def verdict(self) -> str:
        """`crowded`, `swings` (between contexts), `tight` or `roomy`."""
        if self.refused >= CROWDED:
            return "crowded"
        if self.overshoot >= SWINGS:
            return "swings"
        return "roomy" if self.refused <= ROOMY else "tight"


def plan(
    contexts: Float[Tensor, "T dim"],
    basis: Basis,
    *,
    name: str,
    space: Topology | None = None,
    strength: float | None = None,
    model: tuple[int, int] = (1, 1),
) -> TopologyPlan:
    """What a `WeightManifold` will do at these contexts if all tasks are worth as much.

        refused_j = (1 − g_j)² E |w*_j − w(c_j)|²,    g_j = 1 / (1 + (κ_j − κ⁰_j) / f),   f = ρ ε
        commit w(c_j) + g_j (w*_j − w(c_j)) at c_j,   E w*_i w*_j = k(c_i, c_j)

    κ_j = 1/(φ_jᵀ Σ_j φ_j) after j tasks, κ⁰_j before any: where n earlier tasks hold a context in
    full, a task gets 1/(1 + n) of the way to its own wish w*. k is `relation`.

    Args:
        contexts: of the tasks, in the order they are learned; at least one.
        basis: topology and functions.
        name: what people call the basis.
        space: where the stream's contexts live; the topology of the basis by default.
        strength: ρ, the information of every task relative to the prior; the basis' own by default.
        model: number of weights, and of blocks that have a covariance of their own.

    Raises:
        ContextError: a context lies outside the topology.
        ValueError: there is no context, or the strength is not positive and finite.
    """
    strength = basis.strength if strength is None else strength
    if not len(contexts) or not 0 < strength < float("inf"):
        raise ValueError(
            f"a plan needs contexts and a positive, finite strength, got {len(contexts)} and "
            f"{strength}; give both"
        )
    contexts = contexts.double()
    related = relation(space or basis.topology, contexts)
    phis, grid = basis(contexts), basis(basis.topology.grid(257))
    belief = unvisited(basis.prior(), blocks=1)
    f = torch.tensor([PRECISION * strength], dtype=torch.float64)
    learned = torch.zeros(basis.size, len(contexts), dtype=torch.float64)
    tasks: list[PlannedTask] = []
    for index, phi in enumerate(phis):
        step = belief.step(phi)
        plasticity = float(step.freedom)
        held = (1 / max(plasticity, step.saturated) - 1) / float(phi @ belief.prior @ phi)
        gain = 1 / (1 + held / float(f))
        wish = torch.eye(len(contexts), dtype=torch.float64)[index] - phi @ learned
        tasks.append(
            PlannedTask(
                tuple(contexts[index].tolist()),
                plasticity,
                (1 - gain) ** 2 * float(wish @ related @ wish),
                step.overshoot(torch.cat([grid, phi[None]])),
                _stored(index + 1, basis, model),
            )
        )
        learned = learned + torch.outer(step.coefficient()[0], gain * wish)
        belief = belief.observe(phi, f)
    return TopologyPlan(name, basis.size, model[0], tuple(tasks))


def relation(space: Topology, contexts: Float[Tensor, "T dim"]) -> Float[Tensor, "T T"]:
    """How alike tasks are taken to be: correlations of a smooth function on the space.

    The kernel φᵀ G₀⁻¹ φ of eight harmonics or of degree 8 with the mean weighted like any other
    direction; the product over the factors of a product; c_iᵀc_j on a simplex.
    """
    parts = zip(space.factors, space.split(contexts), strict=True)
    return torch.stack([_related(factor, part) for factor, part in parts]).prod(0)


def _related(factor: Topology, contexts: Float[Tensor, "T dim"]) -> Float[Tensor, "T T"]:
    if factor.mixes:
        return contexts @ contexts.mT
    basis = smooth_basis(factor, 8)
    phi = basis(contexts)
    k = phi @ torch.linalg.solve(basis.prior(1.0), phi.mT)
    scale = k.diagonal().sqrt()
    return k / scale[:, None] / scale


def _stored(visits: int, basis: Basis, model: tuple[int, int]) -> int:
    """What `WeightManifold.stored_floats` will be.

    Control points in float32; Σ's triangles, Σ₀, contexts and φ in float64; information in float32.
    Codes keep the initial network too, because constants are not in their span.
    """
    weights, blocks = model
    size = basis.size
    models = size + (basis.constant() is None)
    doubles = blocks * size * (size + 1) // 2 + size**2 + visits * (basis.topology.dim + size)
    return models * weights + 2 * doubles + visits * blocks


def recommend(plans: Sequence[TopologyPlan]) -> tuple[str, str]:
    """The name of the smallest plan that is roomy, and why, as a sentence.

    If none is roomy, the one that refuses least; among equals the one that stores less.
    """
    roomy = [p for p in plans if p.verdict == "roomy"]
    if roomy:
        best = min(roomy, key=lambda p: (p.stored_ratio, p.refused))
        reason = "the least memory that leaves tasks free"
    else:
        best = min(plans, key=lambda p: (p.refused, p.stored_ratio))
        reason = "none leaves tasks free, and this one refuses least"
    return best.name, (
        f"Take {best.name}: {reason} (K = {best.control_points}, {best.stored_ratio:.2f} networks "
        f"stored; refuses {best.refused:.0%} of what tells tasks apart)."
    )
