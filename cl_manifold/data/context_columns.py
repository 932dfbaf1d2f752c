"""From the columns that say when or where to contexts, for rows that come after training."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from cl_manifold.data.columns import DataFrame, dates, floats
from cl_manifold.data.options import DataOptions
from cl_manifold.errors import DataError


@final
@dataclass(frozen=True)
class ContextColumns:
    """How rows become contexts. Plain values, so that a model can carry it.

    Attributes:
        names: of the columns.
        first: of columns of dates the first one, which is day 0 (ISO 8601).
        codes: texts that the vertices of a simplex stand for; empty where contexts are numbers.
    """

    names: tuple[str, ...]
    first: Mapping[str, str]
    codes: tuple[str, ...] = ()

    def contexts(self, frame: DataFrame) -> Float64[Tensor, "N dim"]:
        """The context of every row; nothing is wrapped yet.

        Raises:
            DataError: a column is missing or holds something else, or a code is not known.
        """
        missing = [name for name in self.names if name not in frame.columns]
        if missing:
            raise DataError(
                f"column {missing[0]}, which says the context, is missing; add it, or give one "
                "context for all rows"
            )
        if self.codes:
            return self._vertices(frame[self.names[0]].astype(str).tolist())
        return torch.tensor(np.stack([self._numbers(frame, n) for n in self.names], axis=1))

    def _vertices(self, texts: list[str]) -> Float64[Tensor, "N dim"]:
        places = {code: place for place, code in enumerate(self.codes)}
        unknown = [text for text in texts if text not in places]
        if unknown:
            raise DataError(
                f"column {self.names[0]} has {unknown[0]!r}, which training did not know; give "
                f"one of {', '.join(self.codes[:20])}"
            )
        return torch.eye(len(places), dtype=torch.float64)[[places[text] for text in texts]]

    def _numbers(self, frame: DataFrame, name: str) -> Any:
        import pandas as pd

        column = frame[name]
        if name in self.first:
            found = dates(column)
            if found is None:
                raise DataError(f"column {name} holds something that is no date; give dates")
            column = (found - pd.Timestamp(self.first[name])).dt.total_seconds() / 86_400
        return floats(column, name)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def context_columns(
    frame: DataFrame, options: DataOptions, codes: tuple[str, ...]
) -> ContextColumns:
    """How the rows of a table get their contexts.

    Args:
        frame: the whole table.
        options: with nothing left to guess.
        codes: of `Groups`.
    """
    assert options.context is not None
    if codes:
        return ContextColumns((options.tasks or options.context[0],), {}, codes)
    found = {name: dates(frame[name]) for name in options.context}
    first = {name: column.min().isoformat() for name, column in found.items() if column is not None}
    return ContextColumns(options.context, first)


def context_columns_from(values: Mapping[str, Any]) -> ContextColumns:
    """What `as_dict` made, perhaps by way of JSON."""
    return ContextColumns(tuple(values["names"]), dict(values["first"]), tuple(values["codes"]))
