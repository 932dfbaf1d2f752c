"""Benchmarks whose experiences carry contexts."""

from collections.abc import Sequence
from typing import Any

from avalanche.benchmarks import CLScenario, EagerCLStream

from cl_manifold.errors import ContextError


def with_contexts(benchmark: Any, contexts: Sequence[Any]) -> Any:
    """The same streams, whose experiences carry `context` for good.

    Avalanche builds the experiences of many benchmarks anew each time they are asked for, so that
    an attribute set on one of them is lost.

    Args:
        benchmark: any of Avalanche's.
        contexts: one per experience of the training stream, in its order. Other streams with as
            many experiences have the same contexts; any others have none.

    Raises:
        ContextError: the training stream has another number of experiences.
    """
    found = {name: list(stream) for name, stream in benchmark.streams.items()}
    if len(found.get("train", ())) != len(contexts):
        raise ContextError(
            f"the training stream has {len(found.get('train', ()))} experiences, but got "
            f"{len(contexts)} contexts; give one for each"
        )
    for experiences in found.values():
        if len(experiences) == len(contexts):
            for experience, context in zip(experiences, contexts, strict=True):
                experience.context = context
    streams = [EagerCLStream(n, e, benchmark, set_stream_info=False) for n, e in found.items()]
    return CLScenario(streams)
