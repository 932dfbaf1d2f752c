"""Data sets as tensors: gather and keep them, never return stale ones; knows no strategy."""

import hashlib
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final, runtime_checkable

import torch
from avalanche.benchmarks.utils import AvalancheDataset, ConstantSequence
from avalanche.benchmarks.utils.data import _FlatDataWithTransform
from avalanche.benchmarks.utils.flat_data import FlatData
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset, default_collate

FEW, MANY = 4, 32
"""Samples compared with the data set: where nothing can be random, and elsewhere."""


@runtime_checkable
class TensorSource(Protocol):
    """A data set in memory whose items are rows of tensors, such as a stream's `ImageDataset`."""

    @property
    def storage(self) -> tuple[Tensor, ...]:
        """The stored tensors; they tell whether the data changed."""
        ...

    def tensors(self, rows: Tensor | None = None) -> tuple[Tensor, ...]:
        """The columns, or their `rows`, exactly as collated items would be."""
        ...


@final
@dataclass(frozen=True)
class Part:
    """Rows of one leaf and the places they take in the whole."""

    leaf: Any
    rows: Tensor
    places: Tensor


@final
@dataclass(frozen=True)
class Layout:
    """A nested data set flattened: its leaves, and the transforms on the way to them."""

    parts: tuple[Part, ...]
    transforms: tuple[Any, ...]

    @property
    def direct(self) -> bool:
        """Whether all items are rows of tensors in memory."""
        return not self.transforms and all(_storage(part.leaf) for part in self.parts)


def tensors_of(dataset: AvalancheDataset, limit: int = 2**31) -> list[Tensor] | None:
    """The columns of a data set as its items would be collated, for example [x, y] or [x, y, t].

    Args:
        dataset: read in its present transform group.
        limit: the largest size in bytes.

    Returns:
        None where the data set is larger than `limit`, empty, random, or not made of tensors.
    """
    if len(dataset) == 0:
        return None
    with torch.random.fork_rng(devices=[]):  # looking changes no random number
        return _materialised(dataset, layout_of(dataset), _labels(dataset), limit)


@final
class TensorCache:
    """Tensors of data sets, kept while the data sets live and while there is room.

    What is kept stays: evaluating more than fits, in turn, still finds the part that fits.
    A data set finds tensors only if it has the same leaves, rows, labels and transforms, the
    stored data were not changed in place, and a few of its samples agree.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._entries: dict[tuple[Any, ...], _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __getstate__(self) -> dict[str, Any]:
        """A checkpoint holds no data."""
        return {"limit": self.limit, "_entries": {}}

    @property
    def size(self) -> int:
        """Bytes kept."""
        return sum(_size(entry.tensors) for entry in self._entries.values())

    def tensors_of(
        self, dataset: AvalancheDataset, limit: int, device: torch.device
    ) -> list[Tensor] | None:
        """As the function `tensors_of`, on `device`, from the cache where possible."""
        if len(dataset) == 0:
            return None
        with torch.random.fork_rng(devices=[]):  # looking changes no random number
            layout, labels = layout_of(dataset), _labels(dataset)
            key = (str(device), *_key(layout, labels))
            entry = self._entries.get(key)
            if entry is not None and entry.alive() and _agrees(dataset, entry.tensors, FEW):
                return entry.tensors
            self._entries = {k: e for k, e in self._entries.items() if e.alive() and k != key}
            tensors = _materialised(dataset, layout, labels, limit)
            if tensors is None:
                return None
            tensors = [column.to(device) for column in tensors]
            self._keep(key, layout, tensors)
            return tensors

    def _keep(self, key: tuple[Any, ...], layout: Layout, tensors: list[Tensor]) -> None:
        if self.size + _size(tensors) > self.limit:
            return
        if any(hasattr(part.leaf, "room") for part in layout.parts):
            return  # it has room for the present ones alone
        try:
            leaves = tuple(weakref.ref(part.leaf) for part in layout.parts)
        except TypeError:  # lists and the like cannot be referenced weakly
            return
        self._entries[key] = _Entry(leaves, layout.transforms, tensors)


@final
@dataclass(frozen=True, eq=False)
class _Entry:
    """Tensors, the leaves they come from, and the transforms (kept so that ids stay unique)."""

    leaves: tuple["weakref.ref[Any]", ...]
    transforms: tuple[Any, ...]
    tensors: list[Tensor]

    def alive(self) -> bool:
        return all(leaf() is not None for leaf in self.leaves)


def layout_of(dataset: AvalancheDataset) -> Layout:
    """Flatten a data set.

    This function and its two helpers are all that reads private fields of Avalanche's data sets.
    """
    root: Any = dataset._flat_data
    group = root._transform_groups.current_group
    parts: list[Part] = []
    transforms: list[Any] = []

    def walk(node: Any, rows: Tensor, places: Tensor) -> None:
        if not isinstance(node, FlatData):
            parts.append(Part(node, rows, places))
            return
        transforms.extend(_transforms(node, group))
        for child, below, mine in _children(node, rows):
            walk(child, below, places[mine])

    everything = torch.arange(len(dataset))
    walk(root, everything, everything)
    return Layout(tuple(parts), tuple(transforms))


def _transforms(node: Any, group: str) -> list[Any]:
    """The transforms of a node in a transform group, those that do something."""
    if not isinstance(node, _FlatDataWithTransform):
        return []
    groups = (node._frozen_transform_groups, node._transform_groups)
    return [g[group] for g in groups if g is not None and g[group] is not None]


def _children(node: Any, rows: Tensor) -> Iterator[tuple[Any, Tensor, Tensor]]:
    """The children that hold `rows` of a node, their own rows, and which of `rows` these are."""
    if isinstance(node._indices, list):
        rows = torch.tensor(node._indices)[rows]
    elif node._indices is not None:
        rows = torch.tensor([node._indices[row] for row in rows.tolist()])
    ends = torch.tensor(node._cumulative_sizes)
    starts = torch.cat([ends.new_zeros(1), ends])
    which = torch.bucketize(rows, ends, right=True)
    for number in which.unique().tolist():
        mine = which == number
        yield node._datasets[number], rows[mine] - starts[number], mine


def _labels(dataset: AvalancheDataset) -> list[Tensor]:
    """The columns that Avalanche appends to every item, such as task labels."""
    columns: list[Tensor] = []
    for attribute in dataset._data_attributes.values():
        if attribute.use_in_getitem:
            values: Any = attribute.data
            if isinstance(values, ConstantSequence):
                columns.append(torch.tensor(values[0]).repeat(len(values)))
            else:
                columns.append(default_collate(list(attribute)))
    return columns


def _materialised(
    dataset: AvalancheDataset, layout: Layout, labels: list[Tensor], limit: int
) -> list[Tensor] | None:
    """Gather what is in memory; read anything else once, unless reading it twice differs.

    A leaf may say itself how many bytes there is `room` for.
    """
    first = _collated(dataset[0])
    limit = min([limit, *(getattr(part.leaf, "room", limit) for part in layout.parts)])
    if first is None or _size(first) * len(dataset) > limit:
        return None
    if layout.direct:
        tensors = gathered(layout) + labels
        if _agrees(dataset, tensors, FEW):
            return tensors
    some = _spread(len(dataset), MANY)
    sample = default_collate([dataset[i] for i in some])
    if not _agrees(dataset, sample, MANY, positions=some):
        return None
    batches = list(DataLoader(dataset, batch_size=256))  # pyright: ignore[reportArgumentType]
    return [torch.cat(column) for column in zip(*batches, strict=True)]


def gathered(layout: Layout) -> list[Tensor]:
    """The columns of a layout whose leaves are all in memory."""
    pieces = [_rows_of(part) for part in layout.parts]
    if len(pieces) == 1:
        return list(pieces[0])
    back = torch.cat([part.places for part in layout.parts]).argsort()
    return [torch.cat(column)[back] for column in zip(*pieces, strict=True)]


def _rows_of(part: Part) -> tuple[Tensor, ...]:
    if isinstance(part.leaf, TensorSource):
        return part.leaf.tensors(part.rows)
    return tuple(column[part.rows] for column in part.leaf.tensors)


def _storage(leaf: Any) -> tuple[Tensor, ...]:
    """The tensors in which a leaf keeps its items; empty where it is no such leaf."""
    if type(leaf) is TensorDataset:
        return leaf.tensors
    return leaf.storage if isinstance(leaf, TensorSource) else ()


def _key(layout: Layout, labels: list[Tensor]) -> tuple[Any, ...]:
    """Who the leaves and transforms are, in which version, and which rows and labels are meant."""
    leaves = tuple(
        (id(part.leaf), *((id(t), _version(t)) for t in _storage(part.leaf)))
        for part in layout.parts
    )
    state = hashlib.blake2b()
    for tensor in (*(t for p in layout.parts for t in (p.rows, p.places)), *labels):
        state.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return leaves, tuple(id(t) for t in layout.transforms), state.digest()


def _version(tensor: Tensor) -> int:
    """How often a tensor was changed in place; inference tensors do not count."""
    return 0 if tensor.is_inference() else tensor._version


def _agrees(
    dataset: AvalancheDataset,
    tensors: Sequence[Tensor],
    count: int,
    positions: Sequence[int] | None = None,
) -> bool:
    """Whether `count` samples, read now, equal the rows of `tensors` (row i for position i)."""
    at = _spread(len(dataset), count) if positions is None else positions
    for row, position in enumerate(at):
        item = _collated(dataset[position])
        row = position if positions is None else row
        if item is None or len(item) != len(tensors):
            return False
        pairs = zip(item, tensors, strict=True)
        if not all(_same(value, column[row : row + 1]) for value, column in pairs):
            return False
    return True


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b.cpu())


def _collated(item: Any) -> list[Tensor] | None:
    """One item as columns of length one; None where it is not made of tensors and numbers."""
    if not isinstance(item, list | tuple):
        return None
    try:
        columns = default_collate([item])
    except TypeError:
        return None
    return columns if all(isinstance(column, Tensor) for column in columns) else None


def _spread(length: int, count: int) -> list[int]:
    """Up to `count` positions spread over a data set, first and last included."""
    return sorted(set(torch.linspace(0, length - 1, count).round().long().tolist()))


def _size(tensors: Sequence[Tensor]) -> int:
    return sum(column.nbytes for column in tensors)
