"""Streams that revisit hidden tasks: experiences carry no context, the truth is for scoring only.

Every visit draws its own training images; all visits of a hidden task share its test images. The
data of a visit depend on the seed and on how often its task was visited before, not on the order of
the tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from torch import Tensor

from cl_manifold.errors import ConfigError
from cl_manifold.geometry.topology import Simplex
from cl_manifold.streams.benchmark import (
    ContextExperience,
    HiddenKind,
    StreamFacts,
    TaskStream,
)
from cl_manifold.streams.builders import (
    USUAL,
    StreamOptions,
    Task,
    draw,
    seeded,
    shuffled,
)
from cl_manifold.streams.datasets import Samples
from cl_manifold.streams.images import ImageSet
from cl_manifold.streams.transforms import rotate

ROTATIONS, APART, PERMUTATIONS = 3, 40, 2
"""The hidden tasks of `recurring`: so many angles, degrees between them, pixel permutations."""


@final
@dataclass(frozen=True)
class Visit:
    """One experience: which hidden task, and how many training images (None: all)."""

    task: int
    samples: int | None


@final
@dataclass(frozen=True)
class Plan:
    """Hidden tasks, visits to all of them, and which tasks are variants of earlier ones."""

    name: str
    description: str
    tasks: Sequence[Task]
    visits: Sequence[Visit]
    related: frozenset[int] = frozenset()


def recurring(images: ImageSet, options: StreamOptions = USUAL) -> TaskStream:
    """Five hidden tasks, each visited at least once: three rotations and two permutations.

    The rotations are related, 40° apart from a random angle on; the pixel permutations are not
    related to anything. Usually there are 12 experiences: one per hidden task, the others of tasks
    drawn at random, all in random order. Sorted order visits the hidden tasks one after the other.

    Args:
        images: the set to draw from.
        options: `contexts` is the number of experiences, `samples` of images per visit.

    Raises:
        ConfigError: fewer experiences than hidden tasks.
    """
    tasks = _mixed(images, options.seed)
    count = options.contexts or 12
    if count < len(tasks):
        raise ConfigError(
            f"{count} experiences asked, but recurring-{images.name} visits each of its "
            f"{len(tasks)} hidden tasks at least once; ask for {len(tasks)} or more contexts"
        )
    generator = seeded(options.seed, "order")
    others = torch.randint(len(tasks), (count - len(tasks),), generator=generator)
    visited = torch.cat([torch.arange(len(tasks)), others]).sort().values
    if options.order == "random":
        visited = visited[torch.randperm(count, generator=generator)]
    plan = Plan(
        f"recurring-{images.name}",
        f"{count} visits to {len(tasks)} hidden tasks made of {images.name}: "
        f"{ROTATIONS} rotations {APART}° apart and {PERMUTATIONS} pixel permutations",
        tasks,
        [Visit(task, options.samples) for task in visited.tolist()],
    )
    return build_hidden(images, plan, options)


def build_hidden(images: ImageSet, plan: Plan, options: StreamOptions) -> TaskStream:
    """Draw the images of every visit, task after task, then line them up as they are visited."""
    take = partial(draw, name=images.name, moments=images.moments)
    generator, part = seeded(options.seed, "train"), (images.train_x, images.train_y)
    train: dict[int, Samples] = {}
    for place in sorted(range(len(plan.visits)), key=lambda k: plan.visits[k].task):
        visit = plan.visits[place]
        (train[place],) = take(part, [plan.tasks[visit.task]], visit.samples, generator)
    part, generator = (images.test_x, images.test_y), seeded(options.seed, "test")
    test = take(part, plan.tasks, options.test_samples, generator)
    facts = StreamFacts(
        plan.name,
        plan.description,
        Simplex(len(plan.tasks)),
        images.classes,
        images.input_shape,
        images.digest,
    )
    return TaskStream(
        facts,
        _hidden(plan, [train[k] for k in range(len(plan.visits))], options.task_labels),
        _hidden(plan, [test[visit.task] for visit in plan.visits], options.task_labels),
    )


def _hidden(plan: Plan, datasets: Sequence[Samples], labels: bool) -> list[ContextExperience]:
    """Experiences without contexts."""
    experiences: list[ContextExperience] = []
    seen: set[int] = set()
    for place, (visit, data) in enumerate(zip(plan.visits, datasets, strict=True)):
        kind: HiddenKind = "related" if visit.task in plan.related else "first"
        experiences.append(
            ContextExperience(
                data,
                None,
                plan.tasks[visit.task].name,
                place if labels else None,
                visit.task,
                "return" if visit.task in seen else kind,
            )
        )
        seen.add(visit.task)
    return experiences


def _mixed(images: ImageSet, seed: int) -> list[Task]:
    """The hidden tasks of `recurring`."""
    generator = seeded(seed, "permutations")
    offset = int(torch.randint(360, (), generator=generator))
    angles = [(offset + APART * k) % 360 for k in range(ROTATIONS)]
    turned = [Task(None, f"{angle}°", partial(_turned, float(angle))) for angle in angles]
    return turned + [permutation(images, k + 1, generator) for k in range(PERMUTATIONS)]


def permutation(images: ImageSet, number: int, generator: torch.Generator) -> Task:
    """A task unrelated to all others."""
    pixels = images.train_x[0, 0].numel()
    change = partial(shuffled, torch.randperm(pixels, generator=generator))
    return Task(None, f"permutation {number}", change)


def _turned(degrees: float, images: Tensor, generator: torch.Generator) -> Tensor:
    return rotate(images, degrees)
