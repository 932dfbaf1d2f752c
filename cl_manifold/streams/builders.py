"""Families of task streams: how images and contexts become experiences.

The data of a context depend on the seed, not on the order in which contexts are visited.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from cl_manifold.errors import ConfigError
from cl_manifold.geometry.topology import Circle, Interval, Simplex, Topology
from cl_manifold.streams.benchmark import ContextExperience, StreamFacts, TaskStream
from cl_manifold.streams.datasets import ImageDataset, Samples
from cl_manifold.streams.stored import Change, Pictures, Pixels, StoredDataset
from cl_manifold.streams.transforms import add_noise, permute_pixels, rotate

ORDERS = ("random", "sorted")
Part = tuple[Shaped[Tensor, "N C H W"] | Pixels, Int64[Tensor, " N"]]


@final
@dataclass(frozen=True)
class StreamOptions:
    """What all families of streams understand.

    Attributes:
        contexts: number of tasks; None is the family's usual number.
        samples: training images per task, drawn without replacement; None is all there are.
        test_samples: test images per task, likewise.
        order: "random" visits contexts in an order drawn from the seed, "sorted" ascending.
        seed: of the order, the subsets, the permutations and the noise.
        task_labels: whether Avalanche gets the position in the stream as task label. A stream
            with task labels has no unseen contexts: there is no label to give them.
        variant: which stream of a suite; only suites read it.
    """

    contexts: int | None = None
    samples: int | None = None
    test_samples: int | None = None
    order: str = "random"
    seed: int = 0
    task_labels: bool = False
    variant: str = "minus"

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ConfigError(
                f"the order of contexts is {self.order!r}, but must be one of "
                f"{', '.join(ORDERS)}; choose one of them"
            )
        for name in ("contexts", "samples", "test_samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(
                    f"{name} is {value}, but must be at least 1; give a positive number "
                    "or leave it out"
                )


USUAL = StreamOptions()


@final
@dataclass(frozen=True)
class Task:
    """One task, as a family describes it.

    Attributes:
        context: where it lies; None where the experiences shall not carry it.
        name: for people.
        change: what it does to images.
        classes: which of the set's classes it keeps; None keeps all.
        labels: its label of each of the set's classes; None leaves them as they are.
    """

    context: Float64[Tensor, " dim"] | None
    name: str
    change: Change
    classes: Int64[Tensor, " n"] | None = None
    labels: Int64[Tensor, " classes"] | None = None


@final
@dataclass(frozen=True)
class Family:
    """A named list of tasks and of contexts held out, in canonical order.

    Attributes:
        name: for example "rotated-mnist".
        description: one sentence.
        topology: the space of the contexts.
        tasks: what is learned.
        unseen: contexts that are only tested.
        classes: how many there are after relabelling; None is those of the images.
        groups: see `StreamFacts`.
    """

    name: str
    description: str
    topology: Topology
    tasks: Sequence[Task]
    unseen: Sequence[Task] = ()
    classes: int | None = None
    groups: tuple[tuple[int, ...], ...] | None = None


def rotated(images: Pictures, options: StreamOptions = USUAL) -> TaskStream:
    """Every task is the whole problem, rotated: angle k·360°/n, context k/n turns on a circle.

    Unseen are the angles halfway between. Usually n = 12.
    """
    count = options.contexts or 12

    def task(turns: float) -> Task:
        angle = 360 * turns
        return Task(number(turns), f"{angle:g}°", partial(turned, angle))

    family = Family(
        f"rotated-{images.name}",
        f"{count} rotations of {images.name}, {360 / count:g}° apart around the circle",
        Circle(),
        [task(k / count) for k in range(count)],
        [task((k + 0.5) / count) for k in range(count)],
    )
    return build_family(images, family, options)


def noisy(images: Pictures, options: StreamOptions = USUAL) -> TaskStream:
    """Every task is the whole problem under noise of level σ = k/(n − 1) on the interval [0, 1].

    Unseen are the levels halfway between. Usually n = 5.
    """
    count = options.contexts or 5
    levels = torch.linspace(0, 1, count, dtype=torch.float64)

    def task(level: float) -> Task:
        return Task(number(level), f"σ {level:.4g}", partial(noised, level))

    family = Family(
        f"noisy-{images.name}",
        f"{images.name} under {count} levels of Gaussian noise between 0 and 1",
        Interval(),
        [task(level) for level in levels.tolist()],
        [task(level) for level in ((levels[1:] + levels[:-1]) / 2).tolist()],
    )
    return build_family(images, family, options)


def permuted(
    images: Pictures, options: StreamOptions = USUAL, name: str = "permuted"
) -> TaskStream:
    """Every task shuffles the pixels with its own permutation; contexts are a simplex's vertices.

    Also the first permutation is random. Usually there are 10 tasks. The name of the stream begins
    with `name`.
    """
    count = options.contexts or 10
    generator = seeded(options.seed, "permutations")
    pixels = images.input_shape[1] * images.input_shape[2]

    def task(index: int) -> Task:
        change = partial(shuffled, torch.randperm(pixels, generator=generator))
        return Task(vertex(index, count), f"permutation {index + 1}", change)

    family = Family(
        f"{name}-{images.name}",
        f"{images.name} under {count} fixed random permutations of its pixels",
        Simplex(count),
        [task(index) for index in range(count)],
    )
    return build_family(images, family, options)


def build_family(
    images: Pictures, family: Family, options: StreamOptions, visits: Sequence[int] | None = None
) -> TaskStream:
    """Draw every task's images in canonical order, then line the tasks up as they are visited."""
    train_part, test_part = (images.train_x, images.train_y), (images.test_x, images.test_y)
    moments, seed = images.moments, options.seed
    take = partial(draw, name=images.name, moments=moments)
    train = take(train_part, family.tasks, options.samples, seeded(seed, "train"))
    test = take(test_part, family.tasks, options.test_samples, seeded(seed, "test"))
    held_out = () if options.task_labels else family.unseen
    unseen = take(test_part, held_out, options.test_samples, seeded(seed, "unseen"))
    if visits is None:
        visits = visiting_order(len(family.tasks), options).tolist()
    facts = StreamFacts(
        family.name,
        family.description,
        family.topology,
        family.classes or images.classes,
        images.input_shape,
        images.digest,
        family.groups,
    )
    learned = [family.tasks[k] for k in visits]
    return TaskStream(
        facts,
        _experiences([train[k] for k in visits], learned, options.task_labels),
        _experiences([test[k] for k in visits], learned, options.task_labels),
        _experiences(unseen, held_out, False),
    )


def _experiences(
    datasets: Sequence[Samples], tasks: Sequence[Task], labels: bool
) -> list[ContextExperience]:
    return [
        ContextExperience(data, task.context, task.name, place if labels else None)
        for place, (data, task) in enumerate(zip(datasets, tasks, strict=True))
    ]


def draw(
    part: Part,
    tasks: Sequence[Task],
    count: int | None,
    generator: torch.Generator,
    *,
    name: str,
    moments: tuple[float, float],
) -> list[Samples]:
    """For each task its own random subset of `part`, changed as the task demands."""
    x, y = part
    datasets: list[Samples] = []
    for task in tasks:
        rows = torch.arange(len(y))
        if task.classes is not None:
            rows = rows[torch.isin(y, task.classes)]
        if count is not None:
            rows = rows[_subset(len(rows), count, f"{name}, {task.name}", generator)]
        targets = y[rows] if task.labels is None else task.labels[y[rows]]
        datasets.append(changed(x, rows, targets, task.change, generator, moments))
    return datasets


def changed(
    x: Shaped[Tensor, "N C H W"] | Pixels,
    rows: Int64[Tensor, " n"],
    targets: Int64[Tensor, " n"],
    change: Change,
    generator: torch.Generator,
    moments: tuple[float, float],
) -> Samples:
    """Images changed now, or when they are read where they are more than memory holds."""
    if isinstance(x, Tensor):
        return ImageDataset(change(x[rows], generator), targets, *moments)
    seed = int(torch.randint(2**60, (), generator=generator))
    return StoredDataset(x.take(rows), targets, change, seed, moments)


def _subset(available: int, count: int, where: str, generator: torch.Generator) -> Tensor:
    if count > available:
        raise ConfigError(
            f"{count} images per context asked, but there are only {available} ({where}); "
            f"ask for at most {available} or leave the number out to take all"
        )
    return torch.randperm(available, generator=generator)[:count]


def visiting_order(count: int, options: StreamOptions) -> Int64[Tensor, " n"]:
    """0 … count − 1, shuffled by the seed or ascending, as the options say."""
    if options.order == "sorted":
        return torch.arange(count)
    return torch.randperm(count, generator=seeded(options.seed, "order"))


PURPOSES = ("order", "train", "test", "unseen", "permutations")


def seeded(seed: int, purpose: str) -> torch.Generator:
    """Independent random numbers for each purpose, so that one never shifts another."""
    return torch.Generator().manual_seed(len(PURPOSES) * seed + PURPOSES.index(purpose))


def number(value: float) -> Float64[Tensor, " 1"]:
    """A context with one coordinate."""
    return torch.tensor([value], dtype=torch.float64)


def vertex(index: int, count: int) -> Float64[Tensor, " dim"]:
    """A corner of the simplex with so many corners."""
    return torch.eye(count, dtype=torch.float64)[index]


def shuffled(permutation: Tensor, images: Tensor, generator: torch.Generator) -> Tensor:
    """A change that needs no random numbers: the pixels in another order."""
    return permute_pixels(images, permutation)


def turned(angle: float, images: Tensor, generator: torch.Generator) -> Tensor:
    """A change that needs no random numbers: `rotate`."""
    return rotate(images, angle)


def noised(level: float, images: Tensor, generator: torch.Generator) -> Tensor:
    """`add_noise` as a change."""
    return add_noise(images, level, generator)


def unchanged(images: Tensor, generator: torch.Generator) -> Tensor:
    """No change."""
    return images
