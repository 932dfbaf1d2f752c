"""A suite of streams in the manner of CTrL: what returns, what is related and what is not.

Veniat, Denoyer, Ranzato, *Efficient Continual Learning with Modular Networks and Task-Driven
Priors* (arXiv 2012.12631). Its image sets are replaced by pixel permutations of a single one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from cl_manifold.errors import ConfigError
from cl_manifold.streams.benchmark import TaskStream
from cl_manifold.streams.builders import USUAL, Change, StreamOptions, Task, seeded, unchanged
from cl_manifold.streams.hidden import Plan, Visit, build_hidden, permutation
from cl_manifold.streams.images import ImageSet
from cl_manifold.streams.transforms import add_background, texture

VARIANTS: Mapping[str, str] = {
    "minus": "task 1 returns with a tenth of its data",
    "plus": "task 1 returns with ten times its data",
    "in": "task 1 comes last in front of a new background",
    "out": "task 1 comes last with permuted labels",
    "pl": "the last task is unrelated and has ten times the data",
    "long": "unrelated tasks, returns, new backgrounds and permuted labels, mixed",
}
LONG = ("return", "unrelated", "in", "return", "out")
"""What the long stream is mixed from, in these proportions."""
LONGEST, SHORTEST = 30, 11
"""Usual and smallest number of experiences of the long stream: every kind occurs twice."""


def ctrl(images: ImageSet, options: StreamOptions = USUAL) -> TaskStream:
    """One stream of a suite in the manner of CTrL (Veniat, Denoyer, Ranzato, arXiv 2012.12631).

    Other image sets are replaced by pixel permutations, and nothing is downloaded. Except for
    long, task 1 (the images as they are) is followed by four unrelated tasks with few images each,
    and then, with n the option `samples` and sizes of the training sets in brackets:

        minus   task 1 (n) … task 1 again (n/10)
        plus    task 1 (n/10) … task 1 again (n)
        in      task 1 (n) … task 1 in front of a new background (n/10)
        out     task 1 (n) … task 1 with permuted labels (n/10)
        pl      task 1 (n/10) … another unrelated task (n)
        long    30 experiences: returns, unrelated tasks, new backgrounds, permuted labels 12:7:6:5

    In long a new background or new labels are given to an earlier unrelated task (n/10), unrelated
    tasks have n or n/10 images, and a return has n/10 after n, n after n/10.

    Args:
        images: the set to draw from.
        options: `variant` is one of the names above, `contexts` the number of experiences,
            `samples` is n; None is all there are.

    Raises:
        ConfigError: the variant is unknown, there are too few experiences or images, or the order
            is not "random": here the order is the point.
    """
    if options.variant not in VARIANTS:
        raise ConfigError(
            f"the variant is {options.variant!r}, but must be one of {', '.join(VARIANTS)}; "
            "choose one of them"
        )
    if options.order != "random":
        raise ConfigError(
            f"the order is {options.order!r}, but a CTrL stream is its order; leave it random"
        )
    make = _long if options.variant == "long" else _short
    return build_hidden(images, make(images, options), options)


def _short(images: ImageSet, options: StreamOptions) -> Plan:
    """Task 1, unrelated tasks, and the last one that the variant asks for."""
    variant, count = options.variant, _enough(options, usual=6, least=3)
    many, few = _sizes(images, options)
    generator = seeded(options.seed, "permutations")
    first = Task(None, "original", unchanged)
    tasks = [first, *(permutation(images, k + 1, generator) for k in range(count - 2))]
    if variant == "in":
        tasks.append(_in_front(first, 1, images, generator))
    elif variant == "out":
        tasks.append(_relabelled(first, 1, images, generator))
    elif variant == "pl":
        tasks.append(permutation(images, count - 1, generator))
    last = 0 if variant in ("minus", "plus") else count - 1
    return Plan(
        f"ctrl-{images.name}",
        f"CTrL on {images.name}, {variant}: {VARIANTS[variant]}; "
        f"{count - 2} unrelated tasks in between",
        tasks,
        [
            Visit(0, few if variant in ("plus", "pl") else many),
            *(Visit(k, few) for k in range(1, count - 1)),
            Visit(last, many if variant in ("plus", "pl") else few),
        ],
        frozenset({last} if variant in ("in", "out") else ()),
    )


def _long(images: ImageSet, options: StreamOptions) -> Plan:
    """A shuffled deck of kinds, played after the first task."""
    count, (many, few) = _enough(options, LONGEST, SHORTEST), _sizes(images, options)
    order, contents = seeded(options.seed, "order"), seeded(options.seed, "permutations")
    deck = [LONG[k % len(LONG)] for k in torch.randperm(count - 1, generator=order).tolist()]
    tasks, visits = [Task(None, "original", unchanged)], [Visit(0, many)]
    related: list[int] = []
    for kind in deck:
        if kind == "return":
            task = _choice(range(len(tasks)), order)
            before = [visit.samples for visit in visits if visit.task == task]
            visits.append(Visit(task, few if before[-1] == many else many))
            continue
        unrelated = [k for k in range(len(tasks)) if k not in related]
        if kind == "unrelated":
            tasks.append(permutation(images, len(unrelated), contents))
            visits.append(Visit(len(tasks) - 1, _choice((many, few), order)))
            continue
        vary = _in_front if kind == "in" else _relabelled
        related.append(len(tasks))
        tasks.append(vary(tasks[_choice(unrelated, order)], len(related), images, contents))
        visits.append(Visit(len(tasks) - 1, few))
    return Plan(
        f"ctrl-{images.name}",
        f"CTrL on {images.name}, long: {count} experiences over {len(tasks)} hidden tasks; "
        f"{VARIANTS['long']}",
        tasks,
        visits,
        frozenset(related),
    )


def _in_front(task: Task, number: int, images: ImageSet, generator: torch.Generator) -> Task:
    """The task in front of a background that all its images share."""
    background = texture(*images.input_shape[1:], generator)
    change = partial(_blended, task.change, background)
    return replace(task, name=f"{task.name}, background {number}", change=change)


def _relabelled(task: Task, number: int, images: ImageSet, generator: torch.Generator) -> Task:
    """The task with other labels: one random cycle through all classes, so that none stays."""
    cycle = torch.randperm(images.classes, generator=generator)
    labels = torch.empty_like(cycle)
    labels[cycle] = cycle.roll(1)
    return replace(task, name=f"{task.name}, labels {number}", labels=labels)


def _blended(
    change: Change, background: Float[Tensor, "H W"], images: Tensor, generator: torch.Generator
) -> Tensor:
    return add_background(change(images, generator), background)


def _choice(options: Sequence[int], generator: torch.Generator) -> int:
    return options[int(torch.randint(len(options), (), generator=generator))]


def _sizes(images: ImageSet, options: StreamOptions) -> tuple[int, int]:
    """Many images and a tenth of them."""
    many = options.samples or len(images.train_x)
    if many < 10:
        raise ConfigError(
            f"samples is {many}, but a CTrL stream also needs tasks with a tenth of that; "
            "ask for at least 10"
        )
    return many, many // 10


def _enough(options: StreamOptions, usual: int, least: int) -> int:
    count = options.contexts or usual
    if count < least:
        raise ConfigError(
            f"{count} experiences asked, but the CTrL stream {options.variant} needs at least "
            f"{least}; ask for more contexts, usual are {usual}"
        )
    return count
