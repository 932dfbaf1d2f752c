"""Evidence before any training: which existing coordinate fits an experience, and how well."""

import torch
from torch import Tensor

from cl_manifold.contexts.evidence import Evidence
from cl_manifold.contexts.policies import InferredContext
from cl_manifold.contexts.statistics import assured_difference, doubt, return_test
from cl_manifold.contexts.sweep import logits_at, refine, spread
from cl_manifold.manifold.atlas import Reference
from cl_manifold.manifold.weight_manifold import WeightManifold

from .probes import losses
from .support import Support


def zero_shot(
    manifold: WeightManifold,
    support: Support,
    search: InferredContext,
    given: Tensor | None,
    can_grow: bool,
    generator: torch.Generator,
) -> Evidence:
    """The best existing coordinate, and whether what lies there fits the support.

    Args:
        manifold: with references of finished tasks.
        support: held-out samples of the experience.
        search: how the coordinate is searched.
        given: the coordinate, where it is known.
        can_grow: whether the basis may grow; part of the evidence.
        generator: of the permutations of the return test.
    """
    references = manifold.atlas.references
    visited = _losses(manifold, torch.stack([r.context for r in references]), support)
    best = references[int(visited.mean(1).argmin())]
    context = _lowest(manifold, support, search, best, visited) if given is None else given
    found = manifold.atlas.reference(context)
    reference = found or best
    logits = logits_at(manifold, context[None], support.inputs)[0]
    here = losses(logits, support.y)
    return Evidence(
        samples=len(support.y),
        context=tuple(context.tolist()),
        visited=found is not None,
        zero_shot_loss=float(here.mean()),
        zero_shot_score=float((logits.argmax(-1) == support.y).float().mean()),
        reference_loss=float(reference.losses.mean()),
        p_value=return_test(doubt(here.cpu()), doubt(reference.losses), generator),
        plasticity=manifold.plasticity(context),
        overshoot=manifold.overshoot(context),
        can_grow=can_grow,
    )


def _lowest(
    manifold: WeightManifold,
    support: Support,
    search: InferredContext,
    best: Reference,
    visited: Tensor,
) -> Tensor:
    """The context of lowest loss; a visited one unless another is surely better."""
    inputs = tuple(column[: search.search] for column in support.inputs)
    y = support.y[: search.search]
    places = spread(manifold, search.grid)
    values = torch.stack([losses(row, y).mean() for row in logits_at(manifold, places, inputs)])
    context = places[int(values.argmin())]
    if not manifold.basis.topology.mixes:
        context = refine(
            manifold,
            lambda logits: losses(logits, y).mean(),
            context,
            inputs,
            steps=search.refinements,
            rate=0.5 / search.grid,
        )
    row = int(visited.mean(1).argmin())
    better = assured_difference(visited[row], _losses(manifold, context[None], support)[0]) > 0
    return context if better else best.context


def _losses(manifold: WeightManifold, places: Tensor, support: Support) -> Tensor:
    """Of every sample at every place."""
    found = logits_at(manifold, places, support.inputs)
    return torch.stack([losses(row, support.y) for row in found])
