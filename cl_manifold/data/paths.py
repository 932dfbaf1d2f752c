"""What a stream's name means: a table, images, or no file at all."""

from os.path import isdir
from pathlib import Path
from typing import Literal

from cl_manifold.data.reading import is_file_name

PathKind = Literal["table", "images"]


def kind_of_path(name: str) -> PathKind | None:
    """What a path holds; None where a name is no path.

    A folder holds images, an `.npz` images or a table, depending on the shapes of its arrays.

    >>> kind_of_path("bikes.csv"), kind_of_path("rotated-digits")
    ('table', None)
    """
    if Path(name).suffix.lower() == ".npz":
        from cl_manifold.streams.arrays import holds_images

        return "images" if holds_images(Path(name)) else "table"
    if is_file_name(name):
        return "table"
    return "images" if _is_folder(name) else None


def _is_folder(name: str) -> bool:
    """Whether a name means a folder: it is one, or is written as one."""
    return bool(name) and (name.endswith("/") or (":" not in name and isdir(name)))
