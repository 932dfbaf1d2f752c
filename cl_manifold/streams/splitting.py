"""Streams that split the classes of an image set: what is asked of a sample, and with what help.

The three scenarios are those of van de Ven and Tolias, *Three scenarios for continual learning*
(arXiv 1904.07734): is the task of a sample known, and must it be named?
"""

import torch
from jaxtyping import Int64
from torch import Tensor

from cl_manifold.errors import ConfigError
from cl_manifold.geometry.topology import Simplex
from cl_manifold.streams.benchmark import TaskStream
from cl_manifold.streams.builders import (
    USUAL,
    Family,
    StreamOptions,
    Task,
    build_family,
    unchanged,
    vertex,
    visiting_order,
)
from cl_manifold.streams.stored import Pictures


def split(images: Pictures, options: StreamOptions = USUAL) -> TaskStream:
    """Every task has its own classes; labels stay global, contexts are a simplex's vertices.

    Random order draws which classes go together; sorted order takes them ascending.
    Usually there are 5 tasks.

    Raises:
        ConfigError: the classes cannot be divided into that many equal groups.
    """
    groups = _groups(images, options)
    family = Family(
        f"split-{images.name}",
        f"the {images.classes} classes of {images.name} in {len(groups)} disjoint groups",
        Simplex(len(groups)),
        _tasks(images, groups),
    )
    return build_family(images, family, options, visits=range(len(groups)))


def split_class(images: Pictures, options: StreamOptions = USUAL) -> TaskStream:
    """Class-incremental: the classes as in `split`; any of all the classes may be the answer.

    Raises:
        ConfigError: the classes cannot be divided into that many equal groups.
    """
    groups = _groups(images, options)
    family = Family(
        f"split-{images.name}-class",
        f"{_said(images, groups)}, class-incremental: the answer is one of {images.classes}",
        Simplex(len(groups)),
        _tasks(images, groups),
    )
    return build_family(images, family, options, visits=range(len(groups)))


def split_task(images: Pictures, options: StreamOptions = USUAL) -> TaskStream:
    """Task-incremental: the classes as in `split`; the answer is one of the sample's own group.

    Raises:
        ConfigError: the classes cannot be divided into that many equal groups.
    """
    groups = _groups(images, options)
    family = Family(
        f"split-{images.name}-task",
        f"{_said(images, groups)}, task-incremental: of a sample only the outputs of its own "
        "group count",
        Simplex(len(groups)),
        _tasks(images, groups),
        groups=tuple(tuple(group) for group in groups.tolist()),
    )
    return build_family(images, family, options, visits=range(len(groups)))


def split_domain(images: Pictures, options: StreamOptions = USUAL) -> TaskStream:
    """Domain-incremental: the answer is the position of the class in its group.

    The groups are those of `split`, so that with pairs in sorted order it is: odd or even?

    Raises:
        ConfigError: the classes cannot be divided into that many equal groups.
    """
    groups = _groups(images, options)
    size = groups.shape[1]
    labels = torch.empty(images.classes, dtype=torch.int64)
    labels[groups] = torch.arange(size)
    family = Family(
        f"split-{images.name}-domain",
        f"{_said(images, groups)}, domain-incremental: the answer is the place in the group, "
        f"one of {size}",
        Simplex(len(groups)),
        _tasks(images, groups, labels),
        classes=size,
    )
    return build_family(images, family, options, visits=range(len(groups)))


def _groups(images: Pictures, options: StreamOptions) -> Int64[Tensor, "tasks size"]:
    """The classes of each task, ascending within a task."""
    count, total = options.contexts or 5, images.classes
    if total % count:
        raise ConfigError(
            f"{total} classes cannot be divided into {count} equal groups; choose a divisor of "
            f"{total} as the number of contexts"
        )
    return visiting_order(total, options).reshape(count, -1).sort(dim=1).values


def _tasks(images: Pictures, groups: Tensor, labels: Tensor | None = None) -> list[Task]:
    """A task per group of classes."""
    said = images.labels or tuple(map(str, range(images.classes)))
    before = "" if images.labels else "digits "
    names = [before + ", ".join(said[number] for number in group) for group in groups.tolist()]
    return [
        Task(vertex(index, len(groups)), name, unchanged, groups[index], labels)
        for index, name in enumerate(names)
    ]


def _said(images: Pictures, groups: Tensor) -> str:
    return f"the {images.classes} classes of {images.name} in {len(groups)} groups"
