"""Images of a folder, listed before any of them is read: classes, tasks, parts, sizes."""

import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from numpy import ndarray
from PIL import Image

from cl_manifold.errors import DataError

SIZE = 32
"""Height and width to which images of several sizes, or large ones, are resized."""
LARGEST = 64
"""Images of one size are left as they are up to this height and width."""
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
UNREADABLE = (
    *(OSError, ValueError, TypeError, IndexError, SyntaxError, EOFError, struct.error),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)
"""What Pillow raises of files that are no images, or broken ones."""
_GREY = ("1", "L", "LA", "I;16", "I;16B")


@final
@dataclass(frozen=True, eq=False)
class Listing:
    """Images that are known, in files or as bytes.

    Attributes:
        name: of the file or folder.
        labels: names of the classes.
        tasks: names of the task folders; empty where there are none.
        label: class of every image.
        task: number of every image's task folder; zero where there are none.
        test: which images test.
        shape: channels, height and width to which images are brought.
        files: one per image; empty where `pixels` are there.
        pixels: all images; None where they are in files.
        notes: what is done to the images, in sentences.
    """

    name: str
    labels: tuple[str, ...]
    tasks: tuple[str, ...]
    label: Int64[ndarray, " N"]
    task: Int64[ndarray, " N"]
    test: Bool[ndarray, " N"]
    shape: tuple[int, int, int]
    files: tuple[Path, ...] = ()
    pixels: UInt8[ndarray, "N C H W"] | None = None
    notes: tuple[str, ...] = ()

    def without_test(self) -> "Listing":
        """For tuning: every fourth training image of a class tests, the test images are left out.

        Raises:
            DataError: a class has too few images for that.
        """
        kept = np.flatnonzero(~self.test)
        label, task = self.label[kept], self.task[kept]
        test = np.zeros(len(kept), dtype=bool)
        for group in sorted({*zip(task.tolist(), label.tolist(), strict=True)}):
            rows = np.flatnonzero((task == group[0]) & (label == group[1]))
            check_class(self.labels[group[1]], self.name, len(rows), " to train")
            test[rows[3::4]] = True
        return replace(
            self,
            name=f"{self.name}-validation",
            label=label,
            task=task,
            test=test,
            files=tuple(self.files[row] for row in kept) if self.files else (),
            pixels=None if self.pixels is None else self.pixels[kept],
        )


@dataclass(frozen=True)
class _Entry:
    file: Path
    label: str
    test: bool


def listed_folder(folder: Path, size: int | None = None, colour: bool = False) -> Listing:
    """The images of FOLDER/class/*.png, or FOLDER/task/class/*.png.

    Where a folder with classes has the folders `train` and `test`, they are the parts; otherwise
    every fourth image of a class, by name, is a test image. Images are brought to one size: their
    own where all are alike and small, else 32×32.

    Args:
        folder: with a folder per class, or per task.
        size: height and width to which all are resized.
        colour: whether grey images become colour images.

    Raises:
        DataError: there are fewer than two classes or too few images, or one is no image.
    """
    tasks = task_folders(folder)
    entries = [
        list(_entries(folder / task, len(tasks) > 1)) for task in (tasks if tasks else ("",))
    ]
    labels = tuple(sorted({entry.label for some in entries for entry in some}))
    if len(labels) < 2:
        alone = ", ".join(labels)
        raise DataError(f"{folder} holds the class {alone} alone, but needs two or more")
    flat = [entry for some in entries for entry in some]
    files = tuple(entry.file for entry in flat)
    shape, notes = _shape(files, size, colour)
    return Listing(
        name=folder.resolve().name,
        labels=labels,
        tasks=tasks,
        label=np.array([labels.index(entry.label) for entry in flat], dtype=np.int64),
        task=np.repeat(np.arange(len(entries)), [len(some) for some in entries]).astype(np.int64),
        test=np.array([entry.test for entry in flat]),
        shape=shape,
        files=files,
        notes=notes,
    )


def task_folders(folder: Path) -> tuple[str, ...]:
    """The names of task folders, those that hold folders of classes; empty where there are none.

    Raises:
        DataError: some of the folders are tasks and others are classes.
    """
    names = _folders(folder)
    if {"train", "test"} <= {*names}:
        return ()
    found = [name for name in names if _folders(folder / name)]
    if found and len(found) < len(names):
        other = next(name for name in names if name not in found)
        raise DataError(
            f"{folder} has the folder {found[0]} with folders in it and {other} without; arrange "
            "the images as FOLDER/class/image.png, or all of them as FOLDER/task/class/image.png"
        )
    return tuple(found)


def _folders(folder: Path) -> list[str]:
    return sorted(
        f.name for f in folder.iterdir() if f.is_dir() and not f.name.startswith((".", "__"))
    )


def _entries(folder: Path, in_task: bool) -> Iterator[_Entry]:
    """The images of a folder with classes, class by class."""
    parts = [folder / "train", folder / "test"]
    if all(part.is_dir() for part in parts):
        names, others = (_classes(part, in_task) for part in parts)
        if others != names:
            raise DataError(
                f"{parts[1]} has the classes {', '.join(others)}, but {parts[0]} has "
                f"{', '.join(names)}; give both the same folders"
            )
        for part in parts:
            for name in names:
                files = _files(part / name)
                if not files:
                    raise DataError(f"{part / name} has no image; put some there or remove it")
                yield from (_Entry(file, name, part.name == "test") for file in files)
        return
    for name in _classes(folder, in_task):
        files = _files(folder / name)
        check_class(name, folder, len(files))
        yield from (_Entry(file, name, place % 4 == 3) for place, file in enumerate(files))


def check_class(name: str, where: Any, count: int, what: str = "") -> None:
    """Every fourth image tests, so that there must be four."""
    if count < 4:
        images = f"{count} image{'s' * (count != 1)}"
        raise DataError(
            f"class {name} of {where} has {images}{what} and so no test image; give every class at "
            "least 4 images, or folders train/ and test/ with images of every class"
        )


def _classes(folder: Path, in_task: bool) -> list[str]:
    """Names of the folders with images, in alphabetical order."""
    names = _folders(folder)
    if len(names) < 2 - in_task:
        raise DataError(
            f"{folder} holds {len(names)} folders, but needs one folder per class, two or more; "
            "arrange the images as FOLDER/class/image.png"
        )
    return names


def _files(folder: Path) -> list[Path]:
    return sorted(
        f for f in folder.iterdir() if f.suffix.lower() in ENDINGS and not f.name.startswith(".")
    )


def _shape(
    files: Sequence[Path], size: int | None, colour: bool
) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """Channels, height and width that all images get, and a sentence where they change."""
    sizes: Counter[tuple[int, int]] = Counter()
    grey = not colour
    for file in files:
        try:
            with Image.open(file) as image:
                sizes[image.size] += 1
                grey = grey and image.mode in _GREY
        except UNREADABLE as error:
            raise unreadable(file, error) from None
    channels = 1 if grey else 3
    (width, height), _ = sizes.most_common(1)[0]
    if size is None and len(sizes) == 1 and max(width, height) <= LARGEST:
        return (channels, height, width), ()
    side = size or SIZE
    if {*sizes} == {(side, side)}:
        return (channels, side, side), ()
    what = f"{len(sizes)} sizes" if len(sizes) > 1 else f"{width}×{height} pixels"
    return (channels, side, side), (f"images of {what} are resized to {side}×{side} (data.size)",)


def unreadable(file: Path, error: BaseException) -> DataError:
    """The sentence about a file that is no image."""
    said = "truncated" if "file is truncated" in str(error) else type(error).__name__
    return DataError(f"the image {file} cannot be read ({said}); repair or remove it")


def decoded(file: Path, shape: tuple[int, int, int]) -> UInt8[ndarray, "C H W"]:
    """One image, brought to a shape.

    Raises:
        DataError: it cannot be read.
    """
    channels, height, width = shape
    try:
        with Image.open(file) as image:
            if image.mode.startswith("I;16"):  # Pillow would cut 16 bits off, not scale them
                image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
            plain = image.convert("L" if channels == 1 else "RGB")
            if plain.size != (width, height):
                plain = plain.resize((width, height), Image.Resampling.BILINEAR)
            pixels = np.array(plain)
    except UNREADABLE as error:
        raise unreadable(file, error) from None
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
