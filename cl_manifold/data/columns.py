"""What the columns of a table hold: numbers, texts, dates, keys, or one value throughout."""

import warnings
from typing import Any, Literal

from numpy import isfinite

from cl_manifold.errors import DataError

DataFrame = Series = Any
"""Of pandas, which takes half a second to load."""

Kind = Literal["number", "text", "date", "key", "constant"]
MOST_CATEGORIES = 50
"""Texts with more different values than this are no categories."""


def kind_of(column: Series) -> Kind:
    """What a column holds.

    key: every value is another one, and they are texts, or whole numbers in order.
    """
    from pandas.api import types

    known = column.dropna()
    different = known.nunique()
    if different <= 1:
        return "constant"
    if types.is_datetime64_any_dtype(column):
        return "date"
    if types.is_bool_dtype(column):
        return "number"
    if types.is_numeric_dtype(column):
        counted = different == len(column) and types.is_integer_dtype(column)
        return "key" if counted and bool((known.diff().dropna() == 1).all()) else "number"
    if dates(column) is not None:
        return "date"
    return "key" if different == len(known) else "text"


def dates(column: Series) -> Series | None:
    """The column as points in time; None where it holds something else."""
    import pandas as pd
    from pandas.api import types

    if types.is_datetime64_any_dtype(column):
        return column
    if types.is_numeric_dtype(column):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return pd.to_datetime(column)
        except (ValueError, TypeError, OverflowError):
            return None


def numbers(column: Series) -> Series:
    """A column of numbers or dates as floats; dates in days since the first."""
    found = dates(column)
    if found is None:
        return column.astype("float64")
    return (found - found.min()).dt.total_seconds() / 86_400


def floats(column: Series, name: str) -> Any:
    """The numbers of a column, an array of floats.

    Raises:
        DataError: it holds something else, or a value that is missing or not finite.
    """
    try:
        found = column.to_numpy(dtype="float64")
    except (TypeError, ValueError):
        raise DataError(f"column {name} holds something that is no number") from None
    if not isfinite(found).all():
        raise DataError(f"column {name} holds a value that is missing or not finite")
    return found


def is_whole(column: Series) -> bool:
    """Whether all numbers are whole."""
    known = column.dropna()
    return bool((known == known.round()).all())
