"""Control points: what a weight manifold learns, per tensor, on the network's device.

    w(c) = w₀ + Σ_k φ_k(c) P_k

Between check-outs they may be stored in fewer bits.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Literal, final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from cl_manifold.errors import LayoutError
from cl_manifold.manifold.belief import Step
from cl_manifold.manifold.layout import Entry, Layout, State, corner

Storage = Literal["float32", "bfloat16", "int8"]
STORAGES: tuple[Storage, ...] = ("float32", "bfloat16", "int8")

GROUP = 64
"""Weights that share one scale in int8."""


class Stored(ABC):
    """K control points of one tensor, (K, *shape), in some number format."""

    @abstractmethod
    def read(self) -> Float[Tensor, "K ..."]:
        """The numbers, to compute with; not to be changed in place."""

    @abstractmethod
    def add(self, coefficient: Float[Tensor, "K blocks"], part: Float[Tensor, "blocks n"]) -> None:
        """P_k += coefficient_k · part, block by block, in place."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What is kept, by the names of the constructor's arguments."""


@final
class Dense(Stored):
    """The numbers as they are: float32 (float64 for networks in float64) or bfloat16."""

    def __init__(self, values: Float[Tensor, "K ..."]) -> None:
        self.values = values

    def read(self) -> Float[Tensor, "K ..."]:
        """The numbers themselves, or bfloat16 widened to float32."""
        return self.values.float() if self.values.dtype == torch.bfloat16 else self.values

    def add(self, coefficient: Float[Tensor, "K blocks"], part: Float[Tensor, "blocks n"]) -> None:
        """P_k += coefficient_k · part, rounded once."""
        points = self.read().detach().view(len(self.values), *part.shape)
        points.addcmul_(coefficient.to(points)[:, :, None], part.to(points)[None])
        if self.values.dtype == torch.bfloat16:
            self.values = points.reshape(self.values.shape).bfloat16()

    def tensors(self) -> dict[str, Tensor]:
        """The values."""
        return {"values": self.values}


@final
class Int8(Stored):
    """Whole numbers from −127 to 127 and a scale per 64 weights; nearest rounding.

    P ≈ s · i,   s = max |P| / 127 over the group, in bfloat16
    """

    def __init__(
        self,
        levels: Shaped[Tensor, "K ..."],
        scales: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Quantise numbers, or take up quantised ones.

        Args:
            levels: numbers to quantise, or the whole numbers that belong to `scales`.
            scales: shape (K, groups), bfloat16.
            dtype: that is computed in.
        """
        self.dtype = dtype
        self.levels, self.scales = (levels, scales) if scales is not None else self._of(levels)

    @staticmethod
    def _of(values: Tensor) -> tuple[Tensor, Tensor]:
        flat = values.detach().reshape(len(values), -1)
        padded = torch.nn.functional.pad(flat, (0, -flat.shape[1] % GROUP))
        groups = padded.view(len(flat), -1, GROUP)
        scales = (groups.abs().amax(-1) / 127).bfloat16()
        step = scales.to(groups)[..., None]
        whole = torch.where(step > 0, groups / step, 0.0).round().clamp(-127, 127)
        levels = whole.to(torch.int8).flatten(1)[:, : flat.shape[1]].reshape(values.shape)
        return levels.contiguous(), scales

    def read(self) -> Float[Tensor, "K ..."]:
        """S · i."""
        step = self.scales.to(self.dtype).repeat_interleave(GROUP, 1)
        flat = self.levels.reshape(len(self.levels), -1).to(self.dtype)
        return (flat * step[:, : flat.shape[1]]).reshape(self.levels.shape)

    def add(self, coefficient: Float[Tensor, "K blocks"], part: Float[Tensor, "blocks n"]) -> None:
        """P_k += coefficient_k · part, then quantised again."""
        points = self.read().view(len(self.levels), *part.shape)
        points.addcmul_(coefficient.to(points)[:, :, None], part.to(points)[None])
        self.levels, self.scales = self._of(points.reshape(self.levels.shape))

    def tensors(self) -> dict[str, Tensor]:
        """Levels and scales."""
        return {"levels": self.levels, "scales": self.scales}


def stored_as(values: Float[Tensor, "K ..."], storage: Storage) -> Stored:
    """Control points in a number format; buffers and counts are kept as they are."""
    if storage == "int8":
        return Int8(values, dtype=values.dtype)
    return Dense(values.bfloat16() if storage == "bfloat16" else values)


@final
class ControlPoints:
    """P of every tensor on the manifold.

    Attributes:
        size: K.
        storage: the number format of parameters; buffers stay in float32.
        offset: w₀ by name, or None for zero. It is needed where constants are not in the span of
            the basis, and by growth through re-embedding.
    """

    def __init__(
        self, layout: Layout, stored: Mapping[str, Stored], offset: State | None, storage: Storage
    ) -> None:
        self._layout, self._stored = layout, dict(stored)
        self.offset = offset
        self.storage: Storage = storage

    @property
    def size(self) -> int:
        """K."""
        first = next(iter(self._stored.values()))
        return len(next(iter(first.tensors().values())))

    def of(self, name: str) -> Stored:
        """The control points of one tensor."""
        return self._stored[name]

    def at(self, phi: Float[Tensor, "*batch K"]) -> State:
        """w(c) = w₀ + Σ_k φ_k P_k by name, each (*batch, *shape); differentiable in φ."""
        return {e.name: self.one_at(e, phi) for e in self._layout.entries}

    def one_at(self, entry: Entry, phi: Float[Tensor, "*batch K"]) -> Tensor:
        """W(c) of one tensor, (*batch, *shape)."""
        points = self._stored[entry.name].read()
        weights = phi.to(points.device, points.dtype) @ points.reshape(len(points), -1)
        weights = weights.reshape((*phi.shape[:-1], *entry.shape))
        return weights if self.offset is None else weights + self.offset[entry.name]

    def move(self, step: Step, displacement: State) -> None:
        """P_k += v_k κ · displacement, block by block, in place."""
        for e in self._layout.entries:
            part = displacement[e.name].reshape(e.blocks, -1)
            self._stored[e.name].add(step.coefficient(e.part).mT.to(part.device), part)

    def transformed(
        self, change: Callable[[Entry, Float[Tensor, "K blocks n"]], Tensor]
    ) -> "ControlPoints":
        """The points after a linear change that yields (K', blocks, n) for every entry."""
        stored: dict[str, Stored] = {}
        for e in self._layout.entries:
            new = change(e, e.by_block(self._stored[e.name].read()))
            stored[e.name] = stored_as(new.reshape(-1, *e.shape), self._format(e))
        return ControlPoints(self._layout, stored, self.offset, self.storage)

    def extended(self, layout: Layout, constant: Tensor | None, current: State) -> "ControlPoints":
        """The points of a larger layout; what is new is `current` in every context.

        Args:
            layout: the new layout.
            constant: a with φ(c)ᵀa = 1 for all c; not read where there is an offset.
            current: the weights that new tensors, and new parts of wider ones, start with.
        """
        one = None if self.offset is not None else constant
        before = {e.name: e.shape for e in self._layout.entries}
        stored: dict[str, Stored] = {}
        for e in layout.entries:
            old = self._stored.get(e.name)
            if old is not None and before[e.name] == e.shape:
                stored[e.name] = old
                continue
            values = constant_points(current[e.name], self.size, one)
            if old is not None:
                values[(slice(None), *corner(before[e.name]))] = old.read()
            stored[e.name] = stored_as(values, self._format(e))
        offset = None if self.offset is None else _offset(layout, current, self.offset)
        return ControlPoints(layout, stored, offset, self.storage)

    def gram(self) -> Float[Tensor, "K K"]:
        """Σ over weights of P_k P_l (float64, CPU)."""
        total = torch.zeros(self.size, self.size, dtype=torch.float64)
        for stored in self._stored.values():
            flat = stored.read().detach().reshape(self.size, -1).double()
            total += (flat @ flat.mT).cpu()
        return total

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        kept = [t for s in self._stored.values() for t in s.tensors().values()]
        kept += [] if self.offset is None else list(self.offset.values())
        return sum(t.nbytes for t in kept)

    def _format(self, entry: Entry) -> Storage:
        return self.storage if entry.trained else "float32"


def points_through(
    layout: Layout,
    size: int,
    constant: Float[Tensor, " K"] | None,
    weights: State,
    storage: Storage,
    with_offset: bool,
) -> ControlPoints:
    """Control points with w(c) = `weights` for every c.

    Raises:
        LayoutError: there is no such storage.
    """
    if storage not in STORAGES:
        raise LayoutError(f"unknown storage {storage!r}; choose one of {', '.join(STORAGES)}")
    with_offset = with_offset or constant is None
    one = None if with_offset else constant
    stored = {
        e.name: stored_as(
            constant_points(weights[e.name], size, one), storage if e.trained else "float32"
        )
        for e in layout.entries
    }
    offset = _offset(layout, weights, {}) if with_offset else None
    return ControlPoints(layout, stored, offset, storage)


def constant_points(
    weights: Shaped[Tensor, "..."], size: int, constant: Float[Tensor, " K"] | None
) -> Float[Tensor, "K ..."]:
    """A ⊗ w of one tensor, or zeros where an offset holds w; float32, or float64 as w is."""
    w = _computable(weights)
    if constant is None:
        return torch.zeros(size, *w.shape, dtype=w.dtype, device=w.device)
    return (constant.to(w).reshape(-1, *(1,) * w.ndim) * w).contiguous()


def _offset(layout: Layout, current: State, before: State) -> State:
    """w₀: what it was before, and the current weights for what is new."""
    offset: State = {}
    for e in layout.entries:
        offset[e.name] = _computable(current[e.name]).clone()
        if e.name in before:
            offset[e.name][corner(tuple(before[e.name].shape))] = before[e.name]
    return offset


def computed_in(weights: Tensor) -> torch.dtype:
    """At least float32: halves and whole numbers are too coarse to add small steps to."""
    return torch.promote_types(torch.float32, weights.dtype)


def _computable(weights: Tensor) -> Tensor:
    return weights.detach().to(computed_in(weights))
