"""The network at many contexts on the same inputs, and the descent along the context itself.

The live module is only read: `functional_call` lends its architecture to the weights w(c), in
evaluation mode, and every flag and weight is afterwards what it was.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from cl_manifold.geometry import Topology
from cl_manifold.manifold.layout import Layout
from cl_manifold.manifold.weight_manifold import WeightManifold

Objective = Callable[[Tensor], Tensor]
"""From logits (N, C), or from a context (dim,), to one number."""


@torch.no_grad()
def logits_at(
    manifold: WeightManifold, contexts: Float[Tensor, "n dim"], x: Tensor, *, chunk: int = 8
) -> Float[Tensor, "n N C"]:
    """The logits of the network at each context, f(x; w(c_i)).

    Args:
        manifold: its module must map a batch x to logits.
        contexts: on the topology.
        x: N inputs, the same for every context.
        chunk: the weights of so many contexts are in memory at once.
    """
    parts = [logits_with(manifold, manifold.weights(c), x) for c in contexts.split(max(1, chunk))]
    return torch.cat(parts)


@torch.no_grad()
def logits_with(
    manifold: WeightManifold, weights: Float[Tensor, "n D"], x: Tensor
) -> Float[Tensor, "n N C"]:
    """The logits of the network with each of n flat weights; those of `manifold.weights`."""
    with evaluating(manifold.module):
        return torch.stack([_logits(manifold, w, x) for w in weights])


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every submodule's own training flag is back."""
    flags = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in flags:
            m.training = training


def refine(
    manifold: WeightManifold,
    objective: Objective,
    context: Float[Tensor, " dim"],
    x: Tensor,
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
        x: the inputs.
        steps: evaluations of J and its gradient after the first.
        rate: first r; half the distance between candidates is a good choice.
        penalty: differentiable, from a context to one number.
    """
    topology = manifold.basis.topology
    scale = torch.tensor(topology.scale, dtype=torch.float64)

    def measured(c: Tensor) -> tuple[float, Tensor]:
        c = c.detach().requires_grad_()
        with torch.enable_grad():
            value = objective(_logits(manifold, manifold.weights(c), x))
            value = value if penalty is None else value + penalty(c)
            (gradient,) = torch.autograd.grad(value, c)
        return float(value.detach()), scale * gradient

    best = topology.project(context.detach().cpu().double())
    with evaluating(manifold.module):
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
    found = distinct(topology, [v.context for v in manifold.visits])
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


def _logits(manifold: WeightManifold, weights: Tensor, x: Tensor) -> Tensor:
    return functional_call(manifold.module, _state(manifold.layout, weights), (x,))


def _state(layout: Layout, weights: Tensor) -> dict[str, Tensor]:
    """The weights by name; variances clamped, as `Layout.write` does, and buffers constant."""
    state = layout.split(weights)
    for entry in layout.entries:
        if not entry.trained:
            buffer = state[entry.name].detach()
            state[entry.name] = buffer.clamp(min=0) if entry.non_negative else buffer
    return state
