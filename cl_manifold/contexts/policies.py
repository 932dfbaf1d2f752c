"""Policies: which context an experience has. A policy is any callable on experiences."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final, runtime_checkable

from torch import Tensor

from cl_manifold.errors import ContextError


@runtime_checkable
class ContextPolicy(Protocol):
    """Gives the context of an Avalanche experience, or None: it is to be inferred.

    `source` is the word for tables: "given" or "inferred".
    """

    @property
    def source(self) -> str:
        """Where contexts come from."""
        ...

    def __call__(self, experience: Any) -> Any:
        """A number, several, or on a simplex the number of a vertex, of any numeric type."""
        ...


@final
class GivenContext:
    """The experience carries its context as the attribute `context`."""

    source = "given"

    def __call__(self, experience: Any) -> Any:
        """The attribute."""
        context = getattr(experience, "context", None)
        if context is None:
            index = getattr(experience, "current_experience", "?")
            raise ContextError(
                f"experience {index} carries no context; pass contexts=ByExperience([...]) or any "
                "function of the experience, or make the benchmark with_contexts(benchmark, [...])"
            )
        return context


@final
class ByExperience:
    """A list of contexts, one per experience of the stream, in the stream's order."""

    source = "given"

    def __init__(self, contexts: Sequence[Any] | Tensor) -> None:
        self.contexts = list(contexts)

    def __call__(self, experience: Any) -> Any:
        """The entry at the experience's position; a part of an experience has that of the whole."""
        index = position(experience)
        if index >= len(self.contexts):
            raise ContextError(
                f"experience {index} has no context: the list holds {len(self.contexts)}; "
                "give one context per experience of the stream"
            )
        return self.contexts[index]


@final
class ByFunction:
    """Any function from an experience to its context."""

    source = "given"

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, experience: Any) -> Any:
        """What the function returns."""
        context = self.function(experience)
        if context is None:
            raise ContextError(
                f"the function of contexts returned None for experience {position(experience)}; "
                "let it return a number, or pass contexts=InferredContext()"
            )
        return context


def policy_of(contexts: ContextPolicy | Callable[[Any], Any] | None) -> ContextPolicy:
    """A policy as it is, any other function as one, and `GivenContext` for None.

    Raises:
        ContextError: it cannot be called.
    """
    if contexts is None:
        return GivenContext()
    if isinstance(contexts, ContextPolicy):
        return contexts
    if not callable(contexts):
        raise ContextError(
            f"contexts is a {type(contexts).__name__}, but must be a function of an experience; "
            "pass a list as ByExperience([...])"
        )
    return ByFunction(contexts)


def position(experience: Any) -> int:
    """Position in the stream; a part of an experience counts as the whole."""
    logging = getattr(experience, "logging", None)
    experience = experience if logging is None else logging()
    origin = getattr(experience, "origin_experience", None)
    return int(experience.current_experience) if origin is None else position(origin)


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
