"""The contexts of a stream before any data: where its tasks will lie, and in which order."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, final

from jaxtyping import Float
from torch import Tensor

from cl_manifold.geometry.topology import Topology
from cl_manifold.streams import named, protocols, splitting
from cl_manifold.streams.benchmark import TaskStream
from cl_manifold.streams.builders import USUAL, StreamOptions
from cl_manifold.streams.images import ImageSet, load_digits


def _on_digits(
    family: Callable[[ImageSet, StreamOptions], TaskStream], options: StreamOptions = USUAL
) -> TaskStream:
    return family(load_digits(), options)


STAND_INS: Mapping[Any, tuple[Callable[..., TaskStream], tuple[int, int, int]]] = {
    named.rotated_mnist: (named.rotated_digits, (1, 28, 28)),
    named.noisy_mnist: (named.noisy_digits, (1, 28, 28)),
    named.permuted_mnist: (named.permuted_digits, (1, 28, 28)),
    named.split_mnist: (named.split_digits, (1, 28, 28)),
    named.recurring_mnist: (named.recurring_digits, (1, 28, 28)),
    named.ctrl_mnist: (named.ctrl_digits, (1, 28, 28)),
    protocols.gpm_permuted_mnist: (named.permuted_digits, (1, 28, 28)),
    protocols.mammoth_permuted_mnist: (named.permuted_digits, (1, 28, 28)),
    protocols.mammoth_rotated_mnist: (
        partial(_on_digits, protocols.rotated_at_random),
        (1, 28, 28),
    ),
    protocols.split_mnist_task: (partial(_on_digits, splitting.split_task), (1, 28, 28)),
    protocols.split_mnist_domain: (partial(_on_digits, splitting.split_domain), (1, 28, 28)),
    protocols.split_mnist_class: (partial(_on_digits, splitting.split_class), (1, 28, 28)),
}
"""For streams of data that must be found first: the same tasks on digits, and the image's shape."""
HIDDEN = (named.recurring_digits, named.ctrl_digits)
"""Streams that need many images to be built at all, and then give no contexts."""


@final
@dataclass(frozen=True, eq=False)
class PlannedStream:
    """What is known of a stream before its data.

    Attributes:
        topology: the space of the contexts.
        contexts: one per task, in the order they will be learned (float64).
        names: the same for people.
        outputs: size of a network's output.
        input_shape: of one sample.
    """

    topology: Topology
    contexts: Float[Tensor, "tasks dim"]
    names: tuple[str, ...]
    outputs: int
    input_shape: tuple[int, ...]


def planned_stream(make: Callable[..., TaskStream], options: StreamOptions) -> PlannedStream:
    """Contexts and order of a stream, without the files of its images.

    The contexts do not depend on the images, so one small digit per task stands for them.

    Args:
        make: a function of `streams.named`, or a user's own with the same arguments.
        options: as for the stream itself.

    Raises:
        ContextError: the stream hides its tasks.
    """
    build, shape = STAND_INS.get(make, (make, None))
    stream = build(replace(options, samples=None if build in HIDDEN else 1, test_samples=1))
    return PlannedStream(
        stream.topology,
        stream.contexts(),
        tuple(experience.context_name for experience in stream.train_stream),
        stream.outputs,
        shape or stream.input_shape,
    )
