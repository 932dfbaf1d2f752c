"""The support of a decision: labelled samples of an experience that no training ever sees."""

from dataclasses import dataclass
from typing import Any
from warnings import warn

import torch
from jaxtyping import Int64
from torch import Tensor

from cl_manifold.contexts import position
from cl_manifold.errors import ContextError
from cl_manifold.manifold.layout import Inputs

from .samples import read

SHARE = 5
"""One sample in so many is held out, up to the most that is asked for."""


@dataclass(frozen=True)
class Support:
    """Held-out samples of one experience.

    Attributes:
        inputs: what the network takes.
        y: classes.
        trained: how many samples are left for training.
        classes: how many classes the experience has.
    """

    inputs: Inputs
    y: Int64[Tensor, " n"]
    trained: int
    classes: int


def hold_out(strategy: Any, most: int, generator: torch.Generator) -> Support:
    """Take a random fifth, at most `most` samples, out of the data the strategy is to train on.

    Raises:
        ContextError: the experience has no labels, or too few samples to tell its classes apart.
    """
    dataset = strategy.adapted_dataset
    index = position(strategy.experience)
    order = torch.randperm(len(dataset), generator=generator)
    count = min(most, len(dataset) // SHARE)
    held, rest = order[:count].sort().values, order[count:].sort().values
    samples = read(strategy, dataset.subset(held.tolist())) if count else None
    if samples is not None and samples.targets.is_floating_point():
        raise ContextError(
            f"experience {index} brings no class labels, but its decision compares losses on "
            "labelled samples; give labels, or give its context and leave the decision out"
        )
    classes = _classes(strategy.experience, dataset)
    needed = max(classes, 2)
    if samples is None or count < needed:
        enough = f"give at least {SHARE * needed} samples"
        more = f"raise held_out to {needed}" if most < needed <= len(dataset) // SHARE else enough
        raise ContextError(
            f"experience {index} brings {len(dataset)} samples of {classes} classes, so only "
            f"{count} can be held out to decide about it, but one per class is needed; {more}, or "
            "leave the decision out"
        )
    if classes == 1:
        warn(
            f"experience {index} has a single class: a network that always answers it looks "
            "perfect, so its decision says little; put several classes into an experience",
            stacklevel=2,
        )
    strategy.adapted_dataset = dataset.subset(rest.tolist())
    return Support(samples.inputs, samples.targets, len(rest), classes)


def _classes(experience: Any, dataset: Any) -> int:
    known = getattr(experience, "classes_in_this_experience", None)
    if known is None:
        known = {int(label) for label in getattr(dataset, "targets", ())}
    return len(known)
