"""Images of an `.npz` file: recognised by its headers, read as bytes, divided."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray

from cl_manifold.errors import DataError
from cl_manifold.streams.listing import Listing, check_class

Arrays = Mapping[str, Any]
PARTS = ("x_train", "y_train", "x_test", "y_test")
SMALLEST = 4
"""Arrays of numbers with fewer rows or columns are no images."""


def holds_images(path: Path) -> bool:
    """Whether the arrays of a file have the shapes of images; their values are not read.

    Images are `x_train` (N, H, W) or more, `x` with four axes, or `x` (N, H, W) with one `y` for
    each: `x` (T, N, D) of floats with a `y` for every row is T tables.
    """
    found = _headers(path)
    if "x_train" in found:
        return len(found["x_train"][0]) > 2
    shape, kind = found.get("x", ((), ""))
    if len(shape) == 4:
        return True
    labels = found.get("y", ((), ""))[0]
    alike = labels in ((shape[:1]), (*shape[:1], 1)) if shape else False
    small = len(shape) == 3 and min(shape[1:]) < SMALLEST
    return len(shape) == 3 and alike and (kind == "uint8" or not small)


def _headers(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and kind of every array; empty where the file cannot be read."""
    found: dict[str, tuple[tuple[int, ...], str]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as file:
                    version = np.lib.format.read_magic(file)
                    read: Any = np.lib.format
                    header = (
                        read.read_array_header_1_0(file)
                        if version == (1, 0)
                        else read.read_array_header_2_0(file)
                    )
                    found[name.removesuffix(".npy")] = (header[0], str(header[2]))
    except (OSError, ValueError, zipfile.BadZipFile, EOFError):
        return {}
    return found


def listed_arrays(path: Path, size: int | None = None) -> Listing:
    """The images of a file with `x` and `y`, or `x_train, y_train, x_test, y_test`.

    Images are (N, H, W), (N, H, W, C) or (N, C, H, W), bytes or floats in [0, 1]; `classes` names
    the classes. Where there are no test images, every fourth of a class is one.

    Args:
        path: of the file.
        size: height and width to which all are resized.

    Raises:
        DataError: the arrays cannot be read, or are no images and classes.
    """
    arrays = _read(path)
    divided = "x_train" in arrays
    needed = PARTS if divided else ("x", "y")
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise DataError(
            f"{path} has the arrays {', '.join(arrays)}, but needs {' and '.join(missing)}, too"
        )
    images = [_bytes(path, name, arrays[name]) for name in needed[::2]]
    answers = [
        _classes_of(path, name, arrays[name], len(x))
        for name, x in zip(needed[1::2], images, strict=True)
    ]
    if len({x.shape[1:] for x in images}) > 1:
        raise DataError(f"{path} has training and test images of two shapes; bring them to one")
    pixels = np.concatenate(images)
    values, label = np.unique(np.concatenate(answers), return_inverse=True)
    label = label.reshape(-1).astype(np.int64)
    names = _names(path, values, arrays)
    test = _divided(path, names, label, len(images[0]) if divided else None)
    notes: tuple[str, ...] = ()
    height, width = pixels.shape[2:]
    if size is not None and (height, width) != (size, size):
        pixels = _resized(pixels, size)
        notes = (f"images of {width}×{height} pixels are resized to {size}×{size} (data.size)",)
    channels, height, width = pixels.shape[1:]
    return Listing(
        name=path.stem,
        labels=names,
        tasks=(),
        label=label,
        task=np.zeros(len(label), dtype=np.int64),
        test=test,
        shape=(channels, height, width),
        pixels=pixels,
        notes=notes,
    )


def _read(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as file:
            names = [n for n in file.files if n in (*PARTS, "x", "y", "classes")]
            return {name: file[name] for name in names}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        said = str(error).splitlines()[0][:200]
        raise DataError(
            f"{path} cannot be read ({said}); save plain arrays with np.savez"
        ) from None


def _bytes(path: Path, name: str, x: Any) -> UInt8[ndarray, "N C H W"]:
    """Images as bytes with their channels first."""
    if x.ndim not in (3, 4) or min(x.shape) == 0:
        raise DataError(
            f"{path} has {name} of shape {x.shape}, but images need (N, H, W), (N, H, W, C) or "
            "(N, C, H, W)"
        )
    if x.ndim == 3:
        x = x[:, None]
    elif x.shape[-1] <= 4 < x.shape[1]:
        x = x.transpose(0, 3, 1, 2)
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x)
    if x.dtype.kind not in "fiub":
        raise DataError(f"{path} has {name} of {x.dtype}, but images need bytes or floats")
    low, high = float(x.min()), float(x.max())
    whole = x.dtype.kind in "iu"
    top = 255 if whole else 1
    if not (low >= 0 and high <= top):  # also where a value is not a number
        raise DataError(
            f"{path} has {name} with values from {low:g} to {high:g}, but images need bytes from 0 "
            "to 255, or floats from 0 to 1; rescale them"
        )
    return np.ascontiguousarray(x if whole else np.round(x * 255.0)).astype(np.uint8)


def _classes_of(path: Path, name: str, y: Any, count: int) -> Any:
    """One class per image, as numbers or texts."""
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.shape != (count,):
        raise DataError(
            f"{path} has {name} of shape {y.shape} beside {count} images; give one each"
        )
    if y.dtype.kind == "f" and not (np.isfinite(y).all() and (y == np.round(y)).all()):
        raise DataError(f"{path} has {name} with fractions, but images need classes; number them")
    return y.astype(np.int64) if y.dtype.kind in "fiub" else y.astype(str)


def _names(path: Path, values: Any, arrays: Arrays) -> tuple[str, ...]:
    """Names of the classes that occur."""
    if len(values) < 2:
        raise DataError(f"{path} has the class {values[0]} alone, but needs two or more")
    named = arrays.get("classes")
    if named is None or values.dtype.kind != "i":
        return tuple(str(value) for value in values)
    if named.ndim != 1 or values.min() < 0 or values.max() >= len(named):
        raise DataError(
            f"{path} has classes of shape {named.shape}, but y goes from {values.min()} to "
            f"{values.max()}; give a name for each, counted from 0"
        )
    return tuple(str(named[value]) for value in values)


def _divided(
    path: Path, names: tuple[str, ...], label: Int64[ndarray, " N"], train: int | None
) -> Any:
    """Which images test: those of the test part, or every fourth of a class."""
    test = np.zeros(len(label), dtype=bool)
    if train is not None:
        test[train:] = True
        for number, name in enumerate(names):
            if not (label[:train] == number).any():
                raise DataError(f"{path} has the class {name} in y_test alone; put some in y_train")
        return test
    for number, name in enumerate(names):
        rows = np.flatnonzero(label == number)
        check_class(name, path, len(rows))
        test[rows[3::4]] = True
    return test


def _resized(pixels: UInt8[ndarray, "N C H W"], size: int) -> UInt8[ndarray, "N C size size"]:
    import torch
    from torch.nn.functional import interpolate

    found = [
        interpolate(some.float(), (size, size), mode="bilinear", antialias=True)
        for some in torch.tensor(pixels).split(256)
    ]
    return torch.cat([some.round().clamp(0, 255).to(torch.uint8) for some in found]).numpy()
