"""Layout: which tensors of a module lie on a manifold, and how they fall into blocks.

Parameters come first, then the buffers that training moves, such as the statistics of BatchNorm:
these ride along, fitted but not trained. A block is the set of weights that share one covariance.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any, Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from cl_manifold.errors import IncompatibleError, LayoutError

Granularity = Literal["tensor", "row", "weight"]
GRANULARITIES: tuple[Granularity, ...] = ("tensor", "row", "weight")

State = dict[str, Tensor]
"""Weights by the names of the module's tensors; leading axes where there are several contexts."""

Inputs = tuple[Tensor, ...]
"""What a network takes, the batch along axis 0: the samples, and task labels if it needs them."""


@dataclass(frozen=True)
class Entry:
    """One tensor on the manifold.

    Attributes:
        name: as in `named_parameters` or `named_buffers`.
        shape: of the tensor.
        block_start: number of its first block.
        blocks: into how many equal, contiguous blocks it is cut.
        trained: True for a parameter, False for a buffer.
        non_negative: True for a buffer that never was negative, such as a variance or a count;
            interpolation must not make it negative either.
    """

    name: str
    shape: tuple[int, ...]
    block_start: int
    blocks: int
    trained: bool = True
    non_negative: bool = False

    @property
    def size(self) -> int:
        """How many weights it has."""
        return prod(self.shape)

    @property
    def part(self) -> slice:
        """Its blocks among all blocks."""
        return slice(self.block_start, self.block_start + self.blocks)

    def by_block(self, values: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch2 blocks n"]:
        """A view of (*batch, *shape) as (*batch, blocks, weights per block)."""
        batch = values.shape[: values.ndim - len(self.shape)]
        return values.reshape(*batch, self.blocks, -1)

    def broadcast(self, values: Float[Tensor, " blocks"]) -> Tensor:
        """One number per block, in a shape that broadcasts against the tensor."""
        if self.blocks == 1:
            return values.reshape(())
        if self.blocks == self.size:
            return values.reshape(self.shape)
        return values.reshape(-1, *(1,) * (len(self.shape) - 1))


@final
class Layout:
    """An ordered list of entries; `size` weights in `blocks` blocks."""

    def __init__(self, entries: tuple[Entry, ...]) -> None:
        self.entries = entries
        self.size = sum(e.size for e in entries)
        self.blocks = sum(e.blocks for e in entries)
        self.trained = tuple(e for e in entries if e.trained)
        self.names = frozenset(e.name for e in entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self.entries == other.entries

    def __hash__(self) -> int:
        return hash(self.entries)

    def sizes(self) -> Float[Tensor, " B"]:
        """How many weights each block has (float64)."""
        each = [torch.full((e.blocks,), e.size / e.blocks) for e in self.entries]
        return torch.cat(each).double()

    def tensors(self, module: nn.Module) -> State:
        """The module's own tensors by name, in the order of the entries.

        Raises:
            LayoutError: a tensor is missing or has another shape.
        """
        state = tensors_of(module)
        for entry in self.entries:
            tensor = state.get(entry.name)
            if tensor is None or tuple(tensor.shape) != entry.shape:
                got = "is missing" if tensor is None else f"has shape {tuple(tensor.shape)}"
                raise LayoutError(
                    f"{entry.name} {got}, but the weight manifold holds it with shape "
                    f"{entry.shape}; keep the architecture fixed, or leave the tensor off the "
                    "manifold with select=..."
                )
        return {e.name: state[e.name] for e in self.entries}

    def read(self, module: nn.Module) -> State:
        """Copies of the module's current weights."""
        return {name: t.detach().clone() for name, t in self.tensors(module).items()}

    @torch.no_grad()
    def write(self, module: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Copy weights into the module, in place and in the module's dtypes."""
        for name, tensor in self.tensors(module).items():
            tensor.copy_(state[name] if tensor.is_floating_point() else state[name].round())

    def signed(self, module: nn.Module) -> "Layout":
        """The same layout, once the module's buffers have shown which may be negative."""
        live = self.tensors(module)
        wrong = {e.name for e in self.entries if e.non_negative and bool((live[e.name] < 0).any())}
        if not wrong:
            return self
        return Layout(
            tuple(replace(e, non_negative=False) if e.name in wrong else e for e in self.entries)
        )

    def settled(self, state: State) -> State:
        """The state with buffers that must not be negative, and without gradients through buffers.

        Torch does not differentiate buffers such as running statistics.
        """
        for e in self.entries:
            if not e.trained:
                value = state[e.name].detach()
                state[e.name] = value.clamp(min=0) if e.non_negative else value
        return state

    def spec(self) -> list[dict[str, Any]]:
        """Plain values for JSON."""
        return [asdict(e) | {"shape": list(e.shape)} for e in self.entries]


def layout_from_spec(spec: list[dict[str, Any]]) -> Layout:
    """The inverse of `Layout.spec`."""
    rows: list[dict[str, Any]] = [e | {"shape": tuple(e["shape"])} for e in spec]
    return Layout(tuple(Entry(**row) for row in rows))


def everything(name: str) -> bool:
    """The default selection: every parameter."""
    return True


def tensors_of(module: nn.Module) -> State:
    """Parameters and buffers by name; tied ones once."""
    return dict(module.named_parameters()) | dict(module.named_buffers())


def layout_of(
    module: nn.Module,
    granularity: Granularity = "row",
    select: Callable[[str], bool] = everything,
) -> Layout:
    """The layout of a module's floating-point parameters.

    Args:
        module: any module; tied parameters count once.
        granularity: what shares a covariance: a whole tensor, a row (first axis; a tensor of one
            axis is one block) or one weight.
        select: which parameters go onto the manifold.

    Raises:
        LayoutError: no parameter is left.
        IncompatibleError: a parameter cannot be interpolated.
    """
    if granularity not in GRANULARITIES:
        raise LayoutError(
            f"unknown blocks {granularity!r}; choose one of {', '.join(GRANULARITIES)}"
        )
    entries: list[Entry] = []
    start = 0
    for name, p in module.named_parameters():
        if not select(name):
            continue
        _check(name, p)
        if p.is_floating_point() and p.numel():
            rows = p.shape[0] if p.ndim > 1 else 1
            blocks = {"tensor": 1, "row": rows, "weight": p.numel()}[granularity]
            entries.append(Entry(name, tuple(p.shape), start, blocks))
            start += blocks
    if not entries:
        raise LayoutError(
            "no floating-point parameter is left for the weight manifold; pass a module with "
            "parameters or a select that keeps some of them"
        )
    return Layout(tuple(entries))


def _check(name: str, p: Tensor) -> None:
    if is_lazy(p):
        raise IncompatibleError(f"{name} has no shape yet; run the lazy module once before")
    if p.is_complex():
        raise IncompatibleError(
            f"{name} is complex, but only real weights lie on a manifold; "
            "store its real and imaginary parts"
        )
    if p.layout != torch.strided:
        raise IncompatibleError(
            f"{name} is sparse, but only dense weights lie on a manifold; densify it"
        )


@dataclass(frozen=True)
class Extension:
    """A layout with more weights than before.

    Attributes:
        layout: the new one.
        origin: for each of its blocks the old block it continues, −1 for a new one.
        wider: whether a block is a new part of a tensor that was there before: finished tasks
            depend on it, unlike on new tensors.
    """

    layout: Layout
    origin: Int[Tensor, " B1"]
    wider: Bool[Tensor, " B1"]


def extension(
    old: Layout, new: Layout, buffers: Mapping[str, Tensor] | None = None
) -> Extension | None:
    """How a layout continues an older one; None where nothing is new.

    A tensor may have become wider: what it was before is its leading corner, as in Avalanche's
    growing classifiers. It is cut into as few blocks as keep old weights apart from new ones.
    Buffers on the manifold are carried over, where `buffers` are given in the shapes they have now;
    one that vanished or shrank is given up.

    Raises:
        LayoutError: a tensor disappeared or shrank.
    """
    before = {e.name: e for e in old.entries}
    found = {e.name: e for e in new.entries}
    kept = {e.name: e.shape for e in old.entries if not e.trained}
    shapes = kept if buffers is None else {n: tuple(b.shape) for n, b in buffers.items()}
    for name, shape in kept.items():
        if name in shapes and _contains(shapes[name], shape):
            found[name] = replace(before[name], shape=shapes[name])
    for name, e in before.items():
        if not e.trained:
            continue
        if name not in found or not _contains(found[name].shape, e.shape):
            got = f"has shape {found[name].shape}" if name in found else "is missing"
            raise LayoutError(
                f"{name} {got}, but the weight manifold holds it with shape {e.shape}; a tensor "
                "may become wider, never narrower: keep it, or leave it off with select=..."
            )
    entries: list[Entry] = []
    origins: list[Tensor] = []
    wider: list[Tensor] = []
    start = 0
    for e in found.values():
        origin = _origin(e, before.get(e.name))
        entries.append(replace(e, block_start=start, blocks=len(origin)))
        origins.append(origin)
        wider.append((origin < 0) & (e.name in before))
        start += len(origin)
    layout = Layout(tuple(entries))
    return None if layout == old else Extension(layout, torch.cat(origins), torch.cat(wider))


def with_buffers(old: Layout, buffers: Mapping[str, tuple[Tensor, bool]]) -> Extension:
    """The layout with further buffers, each one block; by name: the tensor, and non_negative.

    They were there before, only not on the manifold.
    """
    entries = list(old.entries)
    for start, (name, (t, positive)) in enumerate(buffers.items(), old.blocks):
        entries.append(Entry(name, tuple(t.shape), start, 1, False, positive))
    origin = torch.cat([torch.arange(old.blocks), torch.full((len(buffers),), -1)])
    return Extension(Layout(tuple(entries)), origin, origin < 0)


def corner(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The leading corner of that shape in a larger tensor."""
    return tuple(slice(0, n) for n in shape)


def _contains(large: tuple[int, ...], small: tuple[int, ...]) -> bool:
    return len(large) == len(small) and all(a >= b for a, b in zip(large, small, strict=True))


def _origin(entry: Entry, old: Entry | None) -> Int[Tensor, " blocks"]:
    """The old block of each new block, in as few blocks as possible."""
    if old is None:
        return torch.full((entry.blocks,), -1)
    if old.shape == entry.shape:
        return torch.arange(old.block_start, old.block_start + old.blocks)
    blocks = torch.arange(old.blocks).repeat_interleave(old.size // old.blocks)
    ids = torch.full(entry.shape, -1)
    ids[corner(old.shape)] = (old.block_start + blocks).reshape(old.shape)
    rows = ids.reshape(entry.shape[0], -1)
    if old.blocks < old.size and bool((rows == rows[:, :1]).all()):
        return rows[:, 0]
    return ids.flatten()
