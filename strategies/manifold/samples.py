"""Samples of the current experience, read without drawing from any global random stream."""

from dataclasses import dataclass
from typing import Any

import torch
from avalanche.models import MultiTaskModule
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from cl_manifold.errors import IncompatibleError
from cl_manifold.manifold.layout import Inputs
from cl_manifold.manifold.watching import undrawn


@dataclass(frozen=True)
class Samples:
    """Some samples of one experience.

    Attributes:
        inputs: what the network takes: x, and task labels where the network needs them.
        targets: as the data set has them.
    """

    inputs: Inputs
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs[0])


def drawn(strategy: Any, count: int, generator: torch.Generator) -> Samples:
    """At most `count` random samples of the data that the strategy trains on."""
    dataset = strategy.adapted_dataset
    order = torch.randperm(len(dataset), generator=generator)[:count]
    return read(strategy, dataset.subset(order.tolist()))


def read(strategy: Any, dataset: Any) -> Samples:
    """All samples of a data set.

    Raises:
        IncompatibleError: a mini-batch is not made of tensors.
    """
    collate = getattr(dataset, "collate_fn", None) or default_collate
    with undrawn():
        loader: Any = DataLoader(dataset, batch_size=max(1, len(dataset)), collate_fn=collate)
        batch = next(iter(loader))
    columns = list(batch.values()) if isinstance(batch, dict) else list(batch)
    if isinstance(batch, dict) or not all(isinstance(c, Tensor) for c in columns):
        kinds = sorted({type(c).__name__ for c in columns})
        raise IncompatibleError(
            f"a mini-batch is a {type(batch).__name__} of {', '.join(kinds)}, but the weight "
            "manifold needs tensors: inputs, targets and perhaps task labels; give the data set "
            "a collate function that returns them"
        )
    if len(columns) < 2:
        raise IncompatibleError(
            "a mini-batch has inputs but no targets; give the data set targets to learn from"
        )
    columns = [c.to(strategy.device) for c in columns]
    labels = columns[-1] if len(columns) > 2 else None
    return Samples(arguments(strategy, columns[0], labels), columns[1])


def arguments(strategy: Any, x: Tensor, task_labels: Tensor | None) -> Inputs:
    """What the strategy's network is called with: the one place that knows task labels."""
    told = getattr(strategy.experience, "task_labels", None) is not None
    if told and task_labels is not None and isinstance(strategy.model, MultiTaskModule):
        return (x, task_labels)
    return (x,)
