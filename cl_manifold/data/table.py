"""A table as a task stream: experiences by context, test rows held out, scales of training rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from os.path import isfile
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import torch
from jaxtyping import Bool, Int64
from numpy import ndarray

from cl_manifold.data.columns import DataFrame
from cl_manifold.data.context_columns import context_columns
from cl_manifold.data.grouping import Groups, groups_of, held_out, unseen_groups
from cl_manifold.data.guessing import filled
from cl_manifold.data.options import DataOptions
from cl_manifold.data.preprocessing import Preprocessing, fitted, scale_text, variances
from cl_manifold.data.reading import digest_of, read_table
from cl_manifold.errors import DataError
from cl_manifold.geometry.topology import Circle, Interval, Product, Simplex, Topology
from cl_manifold.streams.benchmark import ContextExperience, StreamFacts, TaskStream
from cl_manifold.streams.builders import StreamOptions, seeded, visiting_order
from cl_manifold.streams.datasets import TableDataset
from cl_manifold.streams.scoring import Regression


@final
@dataclass(frozen=True, eq=False)
class Guess:
    """What is known of a file before anything is divided.

    Attributes:
        options: with nothing left to guess.
        notes: a sentence for each guess.
        topology: name of the topology that fits the contexts.
    """

    options: DataOptions
    notes: tuple[str, ...]
    topology: str


@final
@dataclass(frozen=True, eq=False)
class Split:
    """Which rows of each experience train and test."""

    train: Bool[ndarray, " N"]
    test: Bool[ndarray, " N"]
    learned: list[int]
    unseen: list[int]


def guess(path: Path, options: DataOptions) -> Guess:
    """What a file is, as far as it is not said.

    Raises:
        ConfigError: options that do not fit the file.
        DataError: the file cannot be read or used.
    """
    known: Any = options  # frozen, so that it can be a key
    return _guess(path, _changed(path), known)


@lru_cache(maxsize=64)
def _guess(path: Path, changed: int, options: Any) -> Guess:
    frame, notes = _whole_rows(_read(path, changed), options)
    found, said = filled(frame, options)
    return Guess(found, (*notes, *said), _topology_name(groups_of(frame, found).topology))


def table_stream(
    path: Path,
    options: DataOptions,
    stream: StreamOptions,
    holdout: Literal["test", "validation"] = "test",
) -> TaskStream:
    """The stream of a file.

    Test rows are drawn from the seed and never train. With `holdout="validation"` they are left
    out, and the same rules divide the training rows once more: what tunes reads no test row.

    Args:
        path: of the file.
        options: how it is read.
        stream: seed, order and most samples per experience.
        holdout: "test", or "validation".

    Raises:
        ConfigError: options that do not fit the file.
        DataError: the file cannot be read or used.
    """
    frame, _ = _whole_rows(_read(path, _changed(path)), options)
    options, _ = filled(frame, options)
    groups = groups_of(frame, options)
    split = _split(frame, options, groups, stream.seed, holdout)
    train_rows = split.train & np.isin(groups.of_row, split.learned)
    preprocessing, _ = fitted(frame[train_rows], options)
    inputs, answers = preprocessing.inputs(frame), _answers(preprocessing, frame, split, groups)

    def part(group: int, rows: Bool[ndarray, " N"], most: int | None) -> TableDataset:
        chosen = _some(np.flatnonzero(rows & (groups.of_row == group)), most, stream.seed)
        return TableDataset(inputs[chosen], answers[chosen])

    tests = {g: part(g, split.test, stream.test_samples) for g in (*split.learned, *split.unseen)}
    visits = [split.learned[k] for k in visiting_order(len(split.learned), stream).tolist()]
    regression = None
    if preprocessing.targets:
        spread = variances(answers[train_rows], [tests[g].targets for g in split.learned])
        regression = Regression(
            tuple(scale_text(*pair) for pair in preprocessing.targets.items()),
            spread,
            tuple(scale.sd for scale in preprocessing.targets.values()),
        )
    facts = StreamFacts(
        name=path.name if holdout == "test" else f"{path.name}-validation",
        description=_description(path, options, groups, preprocessing, split),
        topology=groups.topology,
        outputs=len(preprocessing.targets) or len(preprocessing.classes),
        input_shape=(preprocessing.size,),
        digest=digest_of(frame),
        regression=regression,
        preprocessing=preprocessing,
        columns=context_columns(frame, options, groups.codes),
    )

    def experiences(numbers: list[int], data: Mapping[int, TableDataset]) -> list[Any]:
        return [ContextExperience(data[g], groups.contexts[g], groups.names[g]) for g in numbers]

    train = {g: part(g, split.train, stream.samples) for g in visits}
    return TaskStream(
        facts,
        experiences(visits, train),
        experiences(visits, tests),
        experiences(split.unseen, tests),
    )


@lru_cache(maxsize=4)
def _read(path: Path, changed: int) -> DataFrame:
    """The file as it was at a time: many configurations look at the same one."""
    return read_table(path)


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns if isfile(path) else 0


def _whole_rows(frame: DataFrame, options: DataOptions) -> tuple[DataFrame, list[str]]:
    """The rows without missing values.

    Raises:
        DataError: there are some, and they may not be left out; or no row is left.
    """
    frame = frame.head(options.rows) if options.rows else frame
    empty = [name for name in frame.columns if frame[name].isna().all()]
    if empty:
        raise DataError(f"column {empty[0]} is empty; remove it from the file")
    bad = frame.isna().any(axis=1)
    if not bad.any():
        return frame, []
    if options.missing == "error":
        name = next(name for name in frame.columns if frame[name].isna().any())
        raise DataError(
            f"{int(bad.sum())} of {len(frame)} rows have a missing value, the first in column "
            f"{name}; fill them in, or leave those rows out by data.missing=drop"
        )
    if bad.all():
        raise DataError("every row has a missing value; nothing is left after data.missing=drop")
    return frame[~bad].reset_index(drop=True), [
        f"{int(bad.sum())} rows with missing values left out"
    ]


def _split(
    frame: DataFrame,
    options: DataOptions,
    groups: Groups,
    seed: int,
    holdout: Literal["test", "validation"],
) -> Split:
    """Rows that train and test, experiences that are learned and only tested."""
    everything = np.ones(len(frame), dtype=bool)
    test = held_out(frame, options, groups.of_row, everything, seeded(seed, "test"))
    count = len(groups.contexts)
    unseen = unseen_groups(count, options.unseen)
    learned = [g for g in range(count) if g not in unseen]
    if holdout == "validation":
        rows = ~test & np.isin(groups.of_row, learned)
        test = held_out(frame, options, groups.of_row, rows, seeded(seed, "train"))
        inner = unseen_groups(len(learned), options.unseen)
        unseen, learned = (
            [learned[k] for k in inner],
            [g for k, g in enumerate(learned) if k not in inner],
        )
        everything = rows
    train = everything & ~test
    for name, rows, needed in (("training", train, learned), ("test", test, [*learned, *unseen])):
        for group in needed:
            if not (rows & (groups.of_row == group)).any():
                raise DataError(
                    f"{groups.names[group]} has no {name} row; give fewer experiences, other "
                    "blocks by data.holdout, or another data.test_share"
                )
    return Split(train, test, learned, unseen)


def _some(rows: Int64[ndarray, " n"], most: int | None, seed: int) -> Int64[ndarray, " m"]:
    """At most so many rows, drawn at random, in the file's order."""
    if most is None or len(rows) <= most:
        return rows
    drawn = torch.randperm(len(rows), generator=seeded(seed, "permutations"))
    return np.sort(rows[drawn[:most].numpy()])


def _answers(preprocessing: Preprocessing, frame: DataFrame, split: Split, groups: Groups) -> Any:
    """Targets of the rows that are used; zeros elsewhere, where a class may be unknown."""
    used = (split.train | split.test) & np.isin(groups.of_row, [*split.learned, *split.unseen])
    known = preprocessing.answers(frame[used])
    found = torch.zeros((len(frame), *known.shape[1:]), dtype=known.dtype)
    found[torch.tensor(np.flatnonzero(used))] = known
    return found


def _topology_name(space: Topology) -> str:
    """The usual topology of a space, as a configuration names it."""
    if isinstance(space, Product):
        circles = all(isinstance(factor, Circle) for factor in space.factors)
        return "torus" if circles else "cylinder"
    if isinstance(space, Simplex):
        return "simplex"
    return "interval" if isinstance(space, Interval) else "circle"


def _description(
    path: Path, options: DataOptions, groups: Groups, preprocessing: Preprocessing, split: Split
) -> str:
    """One sentence."""
    assert options.context is not None
    assert options.space is not None
    where = " and ".join(
        f"{name} on {space}" for name, space in zip(options.context, options.space, strict=True)
    )
    if preprocessing.targets:
        what = " and ".join(scale_text(*pair) for pair in preprocessing.targets.items())
    else:
        what = f"{len(preprocessing.classes)} classes of {preprocessing.target}"
    rows = int((split.train & np.isin(groups.of_row, split.learned)).sum())
    return (
        f"{path.name}: {what} from {preprocessing.size} inputs at {len(split.learned)} contexts "
        f"({where}), {rows} training rows, test rows {options.holdout}"
    )
