"""From columns of a table to what a network takes, and from what it answers to values.

Scales come from training rows alone. Everything is plain values, so that a model can carry it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, final

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from numpy import ndarray
from torch import Tensor

from cl_manifold.data.columns import DataFrame, dates, floats, kind_of
from cl_manifold.data.options import DataOptions
from cl_manifold.errors import DataError

Transform = Literal["standard", "log1p", "none"]


@final
@dataclass(frozen=True)
class Scale:
    """z = (v − mean) / sd of a number; v = log(1 + y) first where `log` is set."""

    mean: float
    sd: float
    log: bool = False

    def apply(self, values: Float[ndarray, " N"]) -> Float[ndarray, " N"]:
        """V to z."""
        return ((np.log1p(values) if self.log else values) - self.mean) / self.sd

    def back(self, values: Float[ndarray, " N"]) -> Float[ndarray, " N"]:
        """Z to v."""
        found = values * self.sd + self.mean
        return np.expm1(found) if self.log else found


@final
@dataclass(frozen=True)
class Preprocessing:
    """How rows become inputs and targets.

    Attributes:
        numbers: scales of numeric features, by column.
        texts: values of text features, by column; each is an input of 0 or 1.
        targets: scales of numbers to predict, by column; empty of classes.
        target: the column of classes; None of numbers.
        classes: its values in the order of a network's outputs.
    """

    numbers: Mapping[str, Scale]
    texts: Mapping[str, tuple[str, ...]]
    targets: Mapping[str, Scale]
    target: str | None = None
    classes: tuple[Any, ...] = ()

    @property
    def size(self) -> int:
        """How many inputs there are."""
        return len(self.numbers) + sum(map(len, self.texts.values()))

    @property
    def columns(self) -> tuple[str, ...]:
        """The features."""
        return (*self.numbers, *self.texts)

    def inputs(self, frame: DataFrame) -> Float32[Tensor, "N D"]:
        """The inputs of rows; a text that training did not know is 0 in all of its inputs.

        Raises:
            DataError: a feature is missing, or holds no numbers.
        """
        parts: list[Any] = []
        for name, scale in self.numbers.items():
            parts.append(scale.apply(_floats(frame, name)))
        for name, values in self.texts.items():
            column = _column(frame, name).astype(str).to_numpy()
            parts += [(column == value).astype(np.float64) for value in values]
        return torch.tensor(np.stack(parts, axis=1), dtype=torch.float32)

    def answers(self, frame: DataFrame) -> Int64[Tensor, " N"] | Float32[Tensor, "N T"]:
        """The targets of rows as a network learns them."""
        if self.target is None:
            parts = [scale.apply(_floats(frame, name)) for name, scale in self.targets.items()]
            return torch.tensor(np.stack(parts, axis=1), dtype=torch.float32)
        places = {value: place for place, value in enumerate(self.classes)}
        column = _column(frame, self.target)
        unknown = [value for value in column.unique() if _plain(value) not in places]
        if unknown:
            raise DataError(
                f"column {self.target} has the class {unknown[0]!r}, which no training row has; "
                "leave it out, or give it training rows"
            )
        return torch.tensor([places[_plain(value)] for value in column], dtype=torch.int64)

    def predicted(self, outputs: Float[Tensor, "N C"]) -> dict[str, list[Any]]:
        """What a network's outputs mean, by column of the target."""
        if self.target is not None:
            return {self.target: [self.classes[place] for place in outputs.argmax(-1).tolist()]}
        columns = outputs.double().numpy().T
        return {
            name: scale.back(column).tolist()
            for (name, scale), column in zip(self.targets.items(), columns, strict=True)
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def preprocessing_from(values: Mapping[str, Any]) -> Preprocessing:
    """What `as_dict` made, perhaps by way of JSON."""
    return Preprocessing(
        {name: Scale(**scale) for name, scale in values["numbers"].items()},
        {name: tuple(texts) for name, texts in values["texts"].items()},
        {name: Scale(**scale) for name, scale in values["targets"].items()},
        values["target"],
        tuple(values["classes"]),
    )


def fitted(frame: DataFrame, options: DataOptions) -> tuple[Preprocessing, list[str]]:
    """Scales and categories of training rows, and a sentence for what was left out.

    Args:
        frame: training rows.
        options: with nothing left to guess.

    Raises:
        DataError: a number to predict is constant or cannot be transformed, or no feature varies.
    """
    assert options.features is not None
    assert options.target is not None
    numbers: dict[str, Scale] = {}
    texts: dict[str, tuple[str, ...]] = {}
    constant: list[str] = []
    for name in options.features:
        kind = kind_of(frame[name])
        if kind == "constant":
            constant.append(name)
        elif kind in ("text", "key") and not _is_numeric(frame, name):
            texts[name] = tuple(sorted(frame[name].astype(str).unique()))
        else:
            numbers[name] = _scale(_floats(frame, name))
    if not numbers and not texts:
        raise DataError(f"no input varies over training rows ({', '.join(constant)} are constant)")
    said = [f"the same in all training rows, left out: {', '.join(constant)}"] * bool(constant)
    if options.kind == "classification":
        (target,) = options.target
        classes = tuple(sorted({_plain(value) for value in frame[target]}))
        if len(classes) < 2:
            raise DataError(f"column {target} has one class in the training rows; two are needed")
        return Preprocessing(numbers, texts, {}, target, classes), said
    targets = {name: _target_scale(_floats(frame, name), name, options) for name in options.target}
    return Preprocessing(numbers, texts, targets), said


def _target_scale(values: Float[ndarray, " N"], name: str, options: DataOptions) -> Scale:
    if options.transform == "none":
        return Scale(0.0, 1.0)
    log = options.transform == "log1p"
    if log and values.min() <= -1:
        raise DataError(
            f"data.transform is log1p, but column {name} goes down to {values.min():g}; it needs "
            "values above −1"
        )
    values = np.log1p(values) if log else values
    if values.std() == 0:
        raise DataError(f"column {name} has one value in the training rows; nothing to predict")
    return Scale(float(values.mean()), float(values.std()), log)


def _scale(values: Float[ndarray, " N"]) -> Scale:
    return Scale(float(values.mean()), float(values.std()) or 1.0)


def _column(frame: DataFrame, name: str) -> Any:
    if name not in frame.columns:
        raise DataError(
            f"column {name} is missing; columns are {', '.join(map(str, frame.columns))}"
        )
    return frame[name]


def _floats(frame: DataFrame, name: str) -> Float[ndarray, " N"]:
    column = _column(frame, name)
    when = dates(column)
    if when is not None:
        import pandas as pd

        since = when.dt.tz_localize(None) - pd.Timestamp(0)
        return since.dt.total_seconds().to_numpy() / 86_400
    return floats(column, name)


def _is_numeric(frame: DataFrame, name: str) -> bool:
    from pandas.api import types

    return types.is_numeric_dtype(frame[name])


def _plain(value: Any) -> Any:
    """A class as a plain value: text, whole number or truth value."""
    if isinstance(value, np.generic):
        value = value.item()
    return int(value) if isinstance(value, float) and value.is_integer() else value


def scale_text(name: str, scale: Scale) -> str:
    """The name of a number to predict as it is scored.

    >>> scale_text("count", Scale(0.0, 1.0, log=True))
    'log(1 + count)'
    """
    return f"log(1 + {name})" if scale.log else name


def variances(
    train: Float[Tensor, "N T"], tests: Sequence[Float[Tensor, "_ T"]]
) -> tuple[float, ...]:
    """V_t = mean over tests of the mean squared distance to the mean of the training targets."""
    middle = train.double().mean(0)
    spread = torch.stack([((test.double() - middle) ** 2).mean(0) for test in tests]).mean(0)
    return tuple(spread.tolist())
