"""Information: how firmly a finished task holds each block of weights."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cl_manifold.errors import InformationError
from cl_manifold.manifold.fisher import fisher_information
from cl_manifold.manifold.layout import Inputs, Layout
from cl_manifold.manifold.likelihood import Likelihood, Projections

ALIVE = 0.05
"""Share of weights that outputs must react to."""

SHARED = 0.1
"""How much of its tensor's mean a block takes in, see `leaning`."""


@final
class FisherInformation:
    """Mean squared per-sample gradient on inputs of the task.

    Args:
        samples: how many inputs are used at most: the first ones.
    """

    def __init__(self, samples: int = 256) -> None:
        if samples < 1:
            raise ValueError(f"samples must be 1 or more, got {samples}")
        self.samples = samples

    def __call__(
        self,
        module: nn.Module,
        inputs: Inputs,
        layout: Layout,
        likelihood: Likelihood,
        generator: torch.Generator,
    ) -> Float[Tensor, " B"]:
        """F of every block of the layout.

        Where all predictions are so sure that F is zero to the last digit, it is that of
        `Projections`: how much the outputs themselves react. Where these react to next to no
        weight, as in a network that diverged, it stays zero.
        """
        few = tuple(column[: self.samples] for column in inputs)
        for of in (likelihood, Projections()):
            found = fisher_information(module, few, layout, of, generator)
            if float(layout.sizes()[found > 0].sum()) > ALIVE * layout.size:
                return found
        return torch.zeros(layout.blocks, dtype=torch.float64)


@final
class ExactInformation:
    """F = ∞: the finished task's weights must not move at all. Reads no data."""

    samples = 0

    def __call__(
        self,
        module: nn.Module,
        inputs: Inputs,
        layout: Layout,
        likelihood: Likelihood,
        generator: torch.Generator,
    ) -> Float[Tensor, " B"]:
        """∞ for every block."""
        return torch.full((layout.blocks,), torch.inf, dtype=torch.float64)


def leaning(information: Float[Tensor, " B"], layout: Layout) -> Float[Tensor, " B"]:
    """Each block takes in its tensor's mean: f_b ← 0.9 F_b + 0.1 mean F.

    F is local: a unit that happens to be silent on a task's data has none, and what it does once it
    is moved is not known. Without the mean it would be left unprotected altogether.

    Source: shrinkage of a noisy estimate to a common target, Ledoit and Wolf 2004.
    """
    information = information.clone()
    for e in layout.entries:
        if e.blocks > 1 and e.part.stop <= len(information):
            part = information[e.part]
            information[e.part] = (1 - SHARED) * part + SHARED * part.mean()
    return information


def normalised(
    information: Float[Tensor, " B"], sizes: Float[Tensor, " B"], scale: float
) -> Float[Tensor, " B"]:
    """F = scale · F / (Σ_b s_b F_b / Σ_b s_b); infinite information stays as it is.

    Args:
        information: F ≥ 0 per block.
        sizes: s, the number of weights of each block.
        scale: what the mean over weights becomes.

    Raises:
        InformationError: zero everywhere, negative, not a number, or infinite in places only.
    """
    if bool((information == torch.inf).all()):
        return information
    if bool(information.isnan().any()) or bool((information < 0).any()):
        wrong = "is not a number" if bool(information.isnan().any()) else "is negative"
        raise InformationError(
            f"information {wrong} in some blocks, but a mean of squares is 0 or more; check the "
            "loss and the network's outputs for values that are not finite"
        )
    if bool(information.isinf().any()):
        raise InformationError(
            "information is infinite in some blocks only, so that the others would count for "
            "nothing; make it infinite in all of them for exact protection, or finite"
        )
    mean = (information * sizes).sum() / sizes.sum()
    if float(mean) == 0:
        raise InformationError(
            "information is zero everywhere: the outputs do not depend on any weight on the "
            "manifold, so nothing would protect the task; check the network and select"
        )
    return scale * information / mean
