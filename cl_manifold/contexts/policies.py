"""Policies: which context an experience has. A policy is any callable on experiences."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final, runtime_checkable

import torch
from torch import Tensor

from cl_manifold.errors import ContextError


@runtime_checkable
class ContextPolicy(Protocol):
    """Gives the context, shape (dim,), of an Avalanche experience, or None: it is to be inferred.

    `source` is the word for tables: "given" or "inferred".
    """

    @property
    def source(self) -> str:
        """Where contexts come from."""
        ...

    def __call__(self, experience: Any) -> Tensor | None:
        """The context as a float64 tensor."""
        ...


@final
class GivenContext:
    """The experience carries its context as the attribute `context`."""

    source = "given"

    def __call__(self, experience: Any) -> Tensor:
        """The attribute as a float64 tensor of shape (dim,)."""
        context = getattr(experience, "context", None)
        if context is None:
            raise ContextError(
                f"experience {experience.current_experience} carries no context; set "
                "experience.context to a tensor, or pass contexts=ByExperience([...])"
            )
        return torch.as_tensor(context, dtype=torch.float64).reshape(-1)


@final
class ByExperience:
    """A list of contexts, one per experience of the stream, in the stream's order."""

    source = "given"

    def __init__(self, contexts: Sequence[Any] | Tensor) -> None:
        self.contexts = [torch.as_tensor(c, dtype=torch.float64).reshape(-1) for c in contexts]

    def __call__(self, experience: Any) -> Tensor:
        """The entry at the experience's position."""
        index = int(experience.current_experience)
        if index >= len(self.contexts):
            raise ContextError(
                f"experience {index} has no context: the list holds {len(self.contexts)}; "
                "give one context per experience of the stream"
            )
        return self.contexts[index]


@final
@dataclass(frozen=True)
class InferredContext:
    """Nobody gives contexts: each is the one of lowest loss, or a new one if none fits.

    Candidates are the visited contexts and a grid of the topology; the best of a continuous
    topology is refined by gradient. A context that the experience carries is not read.

    Attributes:
        grid: how many grid points are candidates, about.
        search: how many labelled samples the search reads.
        refinements: gradient steps on the context.
    """

    grid: int = 72
    search: int = 128
    refinements: int = 20
    source: str = "inferred"

    def __call__(self, experience: Any) -> None:
        """Nothing is given."""
