"""Which rows belong to which experience, and where on the space each experience lies."""

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from numpy import ndarray
from torch import Tensor

from cl_manifold.data.columns import DataFrame, dates, numbers
from cl_manifold.data.options import DataOptions
from cl_manifold.data.spaces import parsed_space
from cl_manifold.errors import ConfigError, DataError
from cl_manifold.geometry.topology import Circle, Product, Simplex, Topology

MOSTLY = 0.9
"""Share of rows in their block's own experience from which on blocks lie inside experiences."""


@final
@dataclass(frozen=True, eq=False)
class Groups:
    """The experiences of a table, in the order of their contexts.

    Attributes:
        topology: of the contexts.
        contexts: one per experience (float64).
        names: the same for people.
        of_row: number of each row's experience.
        codes: the texts or numbers that the vertices of a simplex stand for; empty elsewhere.
    """

    topology: Topology
    contexts: Float64[Tensor, "T dim"]
    names: tuple[str, ...]
    of_row: Int64[ndarray, " N"]
    codes: tuple[str, ...] = ()


def coordinates(frame: DataFrame, options: DataOptions) -> Float[ndarray, "N dim"]:
    """The context of every row on spaces of numbers; dates are days since the first."""
    assert options.context is not None
    return np.stack([numbers(frame[name]).to_numpy() for name in options.context], axis=1)


def groups_of(frame: DataFrame, options: DataOptions) -> Groups:
    """The experiences: parts of the context, its values, or those of another column.

    Args:
        frame: without missing values.
        options: with nothing left to guess.

    Raises:
        ConfigError: a context is not the same throughout an experience of codes.
    """
    assert options.context is not None
    assert options.space is not None
    if options.space == ("codes",):
        return _coded(frame, options)
    values = coordinates(frame, options)
    spaces = [
        parsed_space(text, float(column.min()), float(column.max()))
        for text, column in zip(options.space, values.T, strict=True)
    ]
    factors = [space for space in spaces if space is not None]
    topology = factors[0] if len(factors) == 1 else Product(*factors)
    if options.bins:
        return _binned(values[:, 0], topology, options)
    keys = frame[options.tasks].astype(str).to_numpy() if options.tasks else values
    _, first, of_row = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    of_row = of_row.reshape(-1)
    contexts = np.stack([_mean(values[of_row == g], factors) for g in range(len(first))])
    order = np.lexsort(contexts.T[::-1])
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    if options.tasks:
        names = [f"{options.tasks} {keys[first[g]]}" for g in order]
    else:
        texts = frame[list(options.context)].iloc[first[order]].astype(str)
        names = [" ".join(_pair(*pair) for pair in row.items()) for _, row in texts.iterrows()]
    found = torch.tensor(contexts[order], dtype=torch.float64)
    return Groups(topology, found, tuple(names), rank[of_row])


def _pair(name: str, value: str) -> str:
    return f"{name} {value.removesuffix('.0')}"


def _coded(frame: DataFrame, options: DataOptions) -> Groups:
    """Unrelated experiences: one vertex of a simplex each, in order of appearance."""
    import pandas as pd

    assert options.context is not None
    name = options.tasks or options.context[0]
    of_row, values = pd.factorize(frame[name])
    if len(values) < 2:
        raise DataError(f"column {name} has one value throughout; a stream needs two or more")
    codes = tuple(str(value) for value in values)
    names = tuple(f"{name} {code}" for code in codes)
    corners = torch.eye(len(codes), dtype=torch.float64)
    return Groups(Simplex(len(codes)), corners, names, of_row, codes)


def _binned(values: Float[ndarray, " N"], topology: Topology, options: DataOptions) -> Groups:
    """Equal parts of a circle or an interval; each lies at its middle, empty ones are left out."""
    assert options.context is not None
    assert options.bins is not None
    low, high = _ends(topology)
    values = values % high if isinstance(topology, Circle) else values
    width = (high - low) / options.bins
    place = np.clip(((values - low) / width).astype(np.int64), 0, options.bins - 1)
    used, of_row = np.unique(place, return_inverse=True)
    if len(used) < 2:
        raise DataError(
            f"all rows lie in one of {options.bins} parts of {options.context[0]}; give more bins"
        )
    middles = low + (used + 0.5) * width
    name = options.context[0]
    names = [f"{name} {low + u * width:.4g}–{low + (u + 1) * width:.4g}" for u in used]
    return Groups(
        topology, torch.tensor(middles, dtype=torch.float64)[:, None], tuple(names), of_row
    )


def _ends(topology: Topology) -> tuple[float, float]:
    if isinstance(topology, Circle):
        return 0.0, topology.period
    spec = topology.spec()
    return spec["low"], spec["high"]


def _mean(values: Float[ndarray, "n dim"], factors: list[Topology]) -> Float[ndarray, " dim"]:
    """The middle of contexts: the mean, on a circle that of directions."""
    found: list[float] = []
    for column, factor in zip(values.T, factors, strict=True):
        if len(np.unique(column)) == 1:
            found.append(float(column[0]))
        elif isinstance(factor, Circle):
            angle = 2 * np.pi * column / factor.period
            turned = np.angle(np.exp(1j * angle).mean()) / (2 * np.pi)
            found.append(float(turned * factor.period % factor.period))
        else:
            found.append(float(column.mean()))
    return np.array(found)


def held_out(
    frame: DataFrame,
    options: DataOptions,
    of_row: Int64[ndarray, " N"],
    rows: Bool[ndarray, " N"],
    generator: torch.Generator,
) -> Bool[ndarray, " N"]:
    """Which of the `rows` test: a share of them at random, or of whole blocks.

    Blocks that lie in one experience each are drawn experience by experience, so that all have
    test rows; blocks that cross experiences are drawn from all.

    Args:
        frame: the table.
        options: how it is read.
        of_row: number of each row's experience.
        rows: those that may test.
        generator: of the draw.

    Raises:
        ConfigError: `data.holdout` means nothing, or there are fewer than two blocks.
    """
    kind, *parts = options.holdout.split(":")
    if kind == "random" and not parts:
        blocks = np.arange(len(frame))
    elif kind == "blocks" and len(parts) in (1, 2) and parts[0]:
        blocks = _blocks(frame, options.holdout, *parts)
    else:
        raise ConfigError(
            f"data.holdout is {options.holdout!r}, but needs random, blocks:COLUMN or "
            "blocks:COLUMN:SIZE, where SIZE is in days for dates"
        )
    present, first = np.unique(blocks[rows], return_index=True)
    if len(present) < 2:
        raise ConfigError(
            f"data.holdout={options.holdout} makes {len(present)} block; give smaller ones"
        )
    home = of_row[rows][first]
    inside = (of_row[rows] == home[np.searchsorted(present, blocks[rows])]).mean()
    strata = home if inside > MOSTLY else np.zeros_like(home)
    chosen: list[Any] = []
    for stratum in np.unique(strata):
        some = present[strata == stratum]
        count = min(len(some) - 1, max(1, round(options.test_share * len(some))))
        chosen += some[torch.randperm(len(some), generator=generator)[:count].numpy()].tolist()
    return rows & np.isin(blocks, chosen)


def _blocks(frame: DataFrame, text: str, name: str, size: str = "") -> Int64[ndarray, " N"]:
    """Number of each row's block."""
    import pandas as pd

    column = pd.Series(np.arange(len(frame))) if name == "row" else frame[name]
    if not size:
        return pd.factorize(column)[0]
    try:
        width = float(size)
    except ValueError:
        width = 0.0
    numeric = pd.api.types.is_numeric_dtype(column) or dates(column) is not None
    if not width > 0 or not numeric:
        raise ConfigError(f"data.holdout is {text!r}, but {size!r} is no size of parts of {name}")
    return np.floor(numbers(column).to_numpy() / width).astype(np.int64)


def unseen_groups(count: int, text: str | None) -> list[int]:
    """Numbers of the experiences that are only tested.

    >>> unseen_groups(6, "every:2"), unseen_groups(6, "last:2"), unseen_groups(6, None)
    ([1, 3, 5], [4, 5], [])

    Raises:
        ConfigError: the text means nothing, or leaves fewer than two to train.
    """
    if text is None:
        return []
    kind, _, number = text.partition(":")
    if kind in ("every", "last") and number.isdecimal() and int(number) > (kind == "every"):
        n = int(number)
        found = list(range(n - 1, count, n)) if kind == "every" else list(range(count))[-n:]
        if count - len(found) >= 2:
            return found
        raise ConfigError(f"data.unseen={text} leaves fewer than two of {count} contexts to train")
    raise ConfigError(f"data.unseen is {text!r}, but needs every:N with N > 1, or last:N")
