"""The network at many contexts on the same inputs, and the descent along the context itself.

The live module lends its architecture to the weights w(c), in evaluation mode, and every flag and
weight is afterwards what it was.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call

from cl_manifold.geometry import Topology
from cl_manifold.manifold.layout import Inputs, State
from cl_manifold.manifold.watching import watching
from cl_manifold.manifold.weight_manifold import WeightManifold

Objective = Callable[[Tensor], Tensor]
"""From logits (N, C), or from a context (dim,), to one number."""


@torch.no_grad()
def logits_at(
    manifold: WeightManifold, contexts: Float[Tensor, "n dim"], inputs: Inputs, *, chunk: int = 8
) -> Float[Tensor, "n N ..."]:
    """The logits of the network at each context, f(x; w(c_i)).

    Args:
        manifold: its module must map inputs to logits.
        contexts: on the topology.
        inputs: N of them, the same for every context.
        chunk: the weights of so many contexts are in memory at once.
    """
    parts = contexts.split(max(1, chunk))
    return torch.cat([logits_with(manifold, manifold.state(c), inputs) for c in parts])


@torch.no_grad()
def logits_with(
    manifold: WeightManifold, states: State, inputs: Inputs
) -> Float[Tensor, "n N ..."]:
    """The logits of the network with each of n states, as `manifold.state` gives them.

    They are written into the live module, which afterwards holds what it held before.
    """
    count, found = len(next(iter(states.values()))), list[Tensor]()
    live = manifold.layout.read(manifold.module)
    with watching(manifold.module):
        try:
            for i in range(count):
                manifold.write(row(states, i))
                found.append(manifold.module(*inputs))
        finally:
            manifold.write(live)
    return torch.stack(found)


def row(states: State, index: int) -> State:
    """One of several states."""
    return {name: values[index] for name, values in states.items()}


def refine(
    manifold: WeightManifold,
    objective: Objective,
    context: Float[Tensor, " dim"],
    inputs: Inputs,
    *,
    steps: int = 20,
    rate: float = 0.1,
    penalty: Objective | None = None,
) -> Float[Tensor, " dim"]:
    """Gradient descent of J(c) = objective(f(x; w(c))) + penalty(c), kept on the topology.

        c ← project(c − r ℓ² g / ‖ℓ g‖),   g = ∂J/∂c

    with the topology's lengths ℓ: a step is r long where lengths are in units of ℓ. r halves after
    a step that does not lower J and that step is taken back, so the result is never worse than
    the start. The gradient goes through parameters, not through buffers such as BatchNorm's,
    which torch does not differentiate.

    Args:
        manifold: its module must map a batch x to logits.
        objective: differentiable, from logits (N, C) to one number.
        context: where to start.
        inputs: of the network.
        steps: evaluations of J and its gradient after the first.
        rate: first r; half the distance between candidates is a good choice.
        penalty: differentiable, from a context to one number.
    """
    topology = manifold.basis.topology
    scale = torch.tensor(topology.scale, dtype=torch.float64)

    def measured(c: Tensor) -> tuple[float, Tensor]:
        c = c.detach().requires_grad_()
        with torch.enable_grad():
            value = objective(_logits(manifold, manifold.state(c), inputs))
            value = value if penalty is None else value + penalty(c)
            (gradient,) = torch.autograd.grad(value, c)
        return float(value.detach()), scale * gradient

    best = topology.project(context.detach().cpu().double())
    with watching(manifold.module):
        value, slope = measured(best)
        for _ in range(steps):
            length = float(slope.norm())
            if not 0 < length < float("inf"):
                break
            tried = topology.project(best - rate * scale * slope / length)
            new, new_slope = measured(tried)
            if new < value:
                best, value, slope = tried, new, new_slope
            else:
                rate /= 2
    return best


def spread(manifold: WeightManifold, count: int = 72) -> Float[Tensor, "n dim"]:
    """Candidates for an unknown context: those visited, once each, then a grid of the topology.

    On a simplex the grid consists of the midpoints between visited contexts, as far as there are
    at most `count` of them: whatever else there is holds what nobody trained.

    Args:
        manifold: with the contexts of its finished tasks; there may be none.
        count: how many contexts the grid has, about; 0 for the visited ones only.
    """
    topology = manifold.basis.topology
    found = distinct(topology, list(manifold.atlas.contexts()))
    if topology.mixes:
        pairs = torch.combinations(torch.arange(len(found)), 2) if len(found) > 1 else None
        if pairs is None or len(pairs) > count:
            return found
        return torch.cat([found, found[pairs].mean(1)])
    grid = topology.grid(count) if count else found[:0]
    return distinct(topology, [*found, *grid])


def distinct(topology: Topology, contexts: list[Tensor]) -> Float[Tensor, "n dim"]:
    """The contexts without repetitions, in the order they came."""
    found = torch.empty(0, topology.dim, dtype=torch.float64)
    for context in contexts:
        new = topology.wrap(context.double())
        if not bool(topology.same(found, new).any()):
            found = torch.cat([found, new[None]])
    return found


def _logits(manifold: WeightManifold, state: State, inputs: Inputs) -> Tensor:
    return functional_call(manifold.module, state, inputs)
