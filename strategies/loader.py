"""Mini-batches straight from memory: the same samples as Avalanche's loaders, several times faster.

Avalanche reads a data set sample by sample, every epoch and every evaluation. Here a data set is
turned into tensors once and mini-batches are rows of them. What cannot be turned into tensors
without changing the experiment (random transforms, replay, other people's loaders) is left alone.
This module knows Avalanche's loaders; it knows nothing about models or contexts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from avalanche.benchmarks.utils.data_loader import (
    MultiDatasetDataLoader,
    SingleDatasetDataLoader,
    TaskBalancedDataLoader,
)
from avalanche.core import SupervisedPlugin
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, default_collate

from .materialise import TensorCache, tensors_of


@final
class TensorLoader:
    """Mini-batches of rows of tensors; the last one may be smaller.

    Shuffling draws one permutation per epoch from torch's global random numbers. Every mini-batch
    has memory of its own: what changes it in place does not change the data.

    Args:
        tensors: columns of equal length, for example images, classes and task labels.
        batch_size: rows per mini-batch.
        shuffle: whether rows come in random order.
        drop_last: whether an incomplete last mini-batch is left out.
    """

    def __init__(
        self,
        tensors: list[Tensor],
        batch_size: int,
        *,
        shuffle: bool = False,
        drop_last: bool = False,
    ) -> None:
        self.tensors, self.batch_size = tensors, batch_size
        self.shuffle, self.drop_last = shuffle, drop_last

    def __len__(self) -> int:
        rows = len(self.tensors[0])
        return rows // self.batch_size if self.drop_last else -(-rows // self.batch_size)

    def __iter__(self) -> Iterator[list[Tensor]]:
        size, order = self.batch_size, None
        if self.shuffle:
            order = torch.randperm(len(self.tensors[0])).to(self.tensors[0].device)
        for start in range(0, len(self) * size, size):
            if order is None:
                yield [column[start : start + size].clone() for column in self.tensors]
            else:
                rows = order[start : start + size]
                yield [column.index_select(0, rows) for column in self.tensors]


@final
@dataclass(frozen=True)
class _Plan:
    """What one of Avalanche's loaders would read, and how."""

    dataset: Any
    batch_size: int
    shuffle: bool
    drop_last: bool


@final
class InMemoryLoaderPlugin(SupervisedPlugin, supports_distributed=False):
    """Replace Avalanche's own loaders by `TensorLoader`; leave every other loader alone.

    Training data live as long as their experience; evaluation data are kept for the next
    evaluation while there is room.

    Args:
        dataset_bytes: larger data sets are read Avalanche's way.
        cache_bytes: room for evaluation data.
        workers: processes with which Avalanche reads images that are not in memory.
    """

    transient = ("cache",)

    def __init__(
        self, *, dataset_bytes: int = 2**31, cache_bytes: int = 2**30, workers: int = 0
    ) -> None:
        super().__init__()
        self.workers = workers
        self.dataset_bytes = dataset_bytes
        self.cache = TensorCache(cache_bytes)

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Read the experience once, then train on tensors."""
        self._replace(strategy, keep=False)

    def before_eval_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Read the experience once, or take it from the cache."""
        self._replace(strategy, keep=True)

    def _replace(self, strategy: Any, keep: bool) -> None:
        plan = _plan_of(strategy.dataloader)
        if plan is None:
            return
        limit, device = self.dataset_bytes, torch.device(strategy.device)
        if keep:
            tensors = self.cache.tensors_of(plan.dataset, limit, device)
        else:
            tensors = tensors_of(plan.dataset, limit)
        if tensors is not None:
            strategy.dataloader = TensorLoader(
                [column.to(device) for column in tensors],
                plan.batch_size,
                shuffle=plan.shuffle,
                drop_last=plan.drop_last,
            )
        elif self.workers and isinstance(strategy.dataloader, MultiDatasetDataLoader):
            strategy.dataloader.loader_kwargs["num_workers"] = self.workers


def _plan_of(loader: Any) -> _Plan | None:
    """The plan of a loader that a strategy made by itself; None for any other loader."""
    if type(loader) is DataLoader:
        return _plan_of_torch(loader)
    if type(loader) in (SingleDatasetDataLoader, TaskBalancedDataLoader):
        return _plan_of_avalanche(loader)
    return None


def _plan_of_torch(loader: DataLoader[Any]) -> _Plan | None:
    sampler = loader.sampler
    shuffle = type(sampler) is RandomSampler
    if shuffle:
        plain = not sampler.replacement and len(sampler) == len(loader.dataset)  # pyright: ignore[reportArgumentType]
    else:
        plain = type(sampler) is SequentialSampler
    if not plain or loader.batch_size is None or loader.collate_fn is not default_collate:
        return None
    return _Plan(loader.dataset, loader.batch_size, shuffle, loader.drop_last)


def _plan_of_avalanche(loader: Any) -> _Plan | None:
    """The loaders for evaluation and for a single task label; several labels are balanced."""
    options = loader.loader_kwargs
    if len(loader.datasets) != 1 or loader.distributed_sampling:
        return None
    if options["collate_fn"] is not default_collate:
        return None
    return _Plan(
        loader.datasets[0],
        loader.batch_sizes[0],
        options.get("shuffle", False),
        options.get("drop_last", False),
    )
