"""Files to tables: CSV, Parquet and arrays of NumPy as data frames, or one sentence why not."""

import zipfile
from hashlib import sha256
from os.path import isfile
from pathlib import Path
from typing import Any

from cl_manifold.errors import DataError

DataFrame = Any
"""Of pandas, which takes half a second to load."""

ENDINGS = (".csv", ".parquet", ".npz")
FEWEST = 10
"""Rows without which there is nothing to divide."""


def is_file_name(name: str) -> bool:
    """Whether a stream's name means a file.

    >>> is_file_name("bikes.csv"), is_file_name("rotated-digits")
    (True, False)
    """
    return Path(name).suffix.lower() in ENDINGS


def read_table(path: Path) -> DataFrame:
    """The rows of a file that is large enough to be divided, as `read_rows` reads them.

    Raises:
        DataError: it cannot be read, or is too small to be a table.
    """
    frame = read_rows(path)
    if len(frame) < FEWEST or frame.shape[1] < 2:
        raise DataError(
            f"{path} has {len(frame)} rows and {frame.shape[1]} columns, but needs at least "
            f"{FEWEST} rows, and columns for context and target"
        )
    return frame


def read_rows(path: Path) -> DataFrame:
    """The rows of a file, in its order.

    An `.npz` holds `x` (N, D), `y` (N,) or (N, T), and any other arrays of N rows, which become
    columns of their names; `x` (T, N, D) with `y` (T, N) is T tables one after the other, where
    arrays of T entries are repeated.

    Raises:
        DataError: it cannot be read.
    """
    import pandas as pd

    if not isfile(path):
        raise DataError(f"there is no file {path}; give the path of a .csv, .parquet or .npz file")
    try:
        if path.suffix.lower() == ".npz":
            frame = _arrays(path)
        elif path.suffix.lower() == ".parquet":
            frame = pd.read_parquet(path)
        else:
            frame = pd.read_csv(path, skipinitialspace=True)
    except DataError:
        raise
    except (ValueError, OSError, LookupError, TypeError, ArithmeticError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{path} cannot be read ({said[:200]}); give a file with one line per row and the "
            "names of the columns above"
        ) from None
    names = [str(name).strip() for name in frame.columns]
    frame.columns = names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path} has the column {twice[0]!r} twice; rename one of them")
    return frame


def _arrays(path: Path) -> DataFrame:
    """The arrays of an `.npz` as columns."""
    import numpy as np
    import pandas as pd

    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} cannot be read ({error}); save plain arrays with np.savez"
        ) from None
    if "x" not in found or "y" not in found:
        names = ", ".join(found) or "none"
        raise DataError(f"{path} has the arrays {names}, but needs x and y")
    x = found.pop("x")
    if x.ndim == 3:
        found = {name: _repeated(array, x.shape[:2]) for name, array in found.items()}
        x = x.reshape(-1, x.shape[-1])
    if x.ndim != 2:
        raise DataError(f"{path} has x of shape {x.shape}, but needs (rows, features)")
    columns = {f"x{i}": x[:, i] for i in range(x.shape[1])}
    for name, array in found.items():
        if array.ndim > 2 or array.ndim == 0 or len(array) != len(x):
            raise DataError(
                f"{path} has {name} of shape {array.shape} beside {len(x)} rows of x; give one "
                "entry per row"
            )
        parts = array[:, None] if array.ndim == 1 else array
        named = [name] if parts.shape[1] == 1 else [f"{name}{i}" for i in range(parts.shape[1])]
        columns |= {key: parts[:, i] for i, key in enumerate(named)}
    return pd.DataFrame(columns)


def _repeated(array: Any, shape: tuple[int, int]) -> Any:
    """One entry per row, of an array with one per table or one per row of each."""
    import numpy as np

    if array.shape[:2] == shape:
        return array.reshape(-1, *array.shape[2:])
    if array.ndim == 1 and len(array) == shape[0]:
        return np.repeat(array, shape[1])
    return array


def digest_of(frame: DataFrame) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of all values and names."""
    from pandas import util

    state = sha256(repr(list(frame.columns)).encode())
    hashed: Any = util.hash_pandas_object
    state.update(hashed(frame, index=False).to_numpy().tobytes())
    return state.hexdigest()[:12]
