"""Folders of tasks as experiences, and where they lie: the numbers in their names, or codes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy import ndarray
from torch import Tensor

from cl_manifold.data.grouping import unseen_groups
from cl_manifold.data.guessing import space_of_values
from cl_manifold.data.spaces import CODES, parsed_space, space_text
from cl_manifold.errors import ConfigError
from cl_manifold.geometry.topology import Circle, Simplex, Topology
from cl_manifold.streams.benchmark import ContextExperience, StreamFacts, TaskStream
from cl_manifold.streams.builders import StreamOptions, changed, seeded, unchanged, visiting_order
from cl_manifold.streams.datasets import Samples
from cl_manifold.streams.listing import Listing
from cl_manifold.streams.stored import Pictures

_NUMBER = re.compile(r"^([^0-9]*?)(-?[0-9]+(?:[.][0-9]+)?)([^0-9]*)$")
_UNITS = {"°": "degrees", "h": "hour"}
_PERIODS = (360.0, 24.0)
"""Equal steps around one of these are a circle whatever the folder is called."""


@final
@dataclass(frozen=True, eq=False)
class Places:
    """Where task folders lie.

    Attributes:
        space: as a user writes it.
        topology: the same.
        contexts: one per task folder.
    """

    space: str
    topology: Topology
    contexts: Float64[Tensor, "T dim"]

    @property
    def topology_name(self) -> str:
        """The usual topology of the space, as a configuration names it."""
        if isinstance(self.topology, Simplex):
            return "simplex"
        return "circle" if isinstance(self.topology, Circle) else "interval"


def places_of(listing: Listing, space: str | None) -> Places:
    """Where the task folders of a listing lie.

    Args:
        listing: with task folders.
        space: as a user writes it; None where it is guessed from the names.

    Raises:
        ConfigError: a space of numbers, but names without numbers, or with numbers outside.
    """
    found = numbers_of(listing.tasks)
    if space is None:
        space = CODES if found is None else _guessed(listing.name, *found)
    if space == CODES:
        corners = torch.eye(len(listing.tasks), dtype=torch.float64)
        return Places(CODES, Simplex(len(listing.tasks)), corners)
    values = np.zeros(1) if found is None else found[1]
    topology = parsed_space(space, float(values.min()), float(values.max()))
    if found is None or topology is None:
        raise ConfigError(
            f"data.space is {space}, but task folders are called {', '.join(listing.tasks[:3])}; "
            "call all of them by a different number each, such as 0, 30, 60, or use codes"
        )
    if isinstance(topology, Circle):
        values = values % topology.period
        if len(np.unique(values)) < len(values):
            raise ConfigError(f"two task folders lie at the same point of {space}; merge them")
    contexts = torch.tensor(values, dtype=torch.float64)[:, None]
    return Places(space_text(topology), topology, contexts)


def numbers_of(names: Sequence[str]) -> tuple[str, Float64[ndarray, " T"]] | None:
    """The word and the numbers that names consist of; None where they are no such names.

    >>> numbers_of(["day 1", "day 12"])
    ('day', array([ 1., 12.]))
    """
    found = [match for name in names if (match := _NUMBER.match(name)) is not None]
    words = {(match[1], match[3]) for match in found}
    values = np.array([float(match[2]) for match in found])
    if len(found) < len(names) or len(words) != 1 or len(np.unique(values)) < len(values):
        return None
    word = "".join(words.pop()).strip(" -_=.").lower()
    return _UNITS.get(word, word), values


def _guessed(folder: str, word: str, values: Float64[ndarray, " T"]) -> str:
    """A circle where the names say so or equal steps close it, otherwise an interval."""
    ordered = np.sort(values)
    steps = np.diff(ordered)
    closed = ordered[-1] + steps[0]
    if len(values) > 2 and ordered[0] == 0 and np.allclose(steps, steps[0]):
        for period in _PERIODS:
            if closed == period:
                return space_text(Circle(period))
    whole = bool((values == values.round()).all())
    return space_of_values(word or folder.lower(), float(ordered[0]), float(ordered[-1]), whole)


def as_given(
    images: Pictures,
    listing: Listing,
    places: Places,
    unseen: str | None,
    options: StreamOptions,
) -> TaskStream:
    """One experience per task folder; images are not changed.

    Raises:
        ConfigError: `unseen` means nothing, or leaves fewer than two tasks to train.
    """
    count = len(listing.tasks)
    order = torch.arange(count) if places.space == CODES else places.contexts[:, 0].argsort()
    hidden = [int(order[k]) for k in unseen_groups(count, unseen)]
    learned = [k for k in order.tolist() if k not in hidden]
    visits = [learned[k] for k in visiting_order(len(learned), options).tolist()]
    train = _parts(images, listing, False, options.samples, options.seed)
    test = _parts(images, listing, True, options.test_samples, options.seed)

    def experiences(numbers: list[int], data: list[Samples]) -> list[ContextExperience]:
        return [ContextExperience(data[k], places.contexts[k], listing.tasks[k]) for k in numbers]

    facts = StreamFacts(
        name=images.name,
        description=f"{images.name}: {images.classes} classes in {len(learned)} task folders "
        f"on {places.space}",
        topology=places.topology,
        outputs=len(listing.labels),
        input_shape=images.input_shape,
        digest=images.digest,
    )
    return TaskStream(
        facts, experiences(visits, train), experiences(visits, test), experiences(hidden, test)
    )


def _parts(
    images: Pictures, listing: Listing, test: bool, most: int | None, seed: int
) -> list[Samples]:
    """The training or the test images of every task folder, at most so many drawn at random."""
    x, y = (images.test_x, images.test_y) if test else (images.train_x, images.train_y)
    task = listing.task[listing.test == test]
    generator = seeded(seed, "test" if test else "train")
    found: list[Samples] = []
    for number in range(len(listing.tasks)):
        rows = torch.from_numpy(_some(np.flatnonzero(task == number), most, generator))
        found.append(changed(x, rows, y[rows], unchanged, generator, images.moments))
    return found


def _some(
    rows: Int64[ndarray, " n"], most: int | None, generator: torch.Generator
) -> Int64[ndarray, " m"]:
    """At most so many rows, drawn at random."""
    drawn = torch.randperm(len(rows), generator=generator)
    return np.sort(rows[drawn[:most].numpy()])
