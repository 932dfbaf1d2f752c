"""Images by one word: digits, mnist, or a folder of one's own with a folder per class."""

from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from cl_manifold.errors import DataError
from cl_manifold.streams.images import ImageSet, load_digits
from cl_manifold.streams.named import held_out, mnist_images

SIZE = 32
"""Height and width to which images of a folder are resized."""
ENDINGS = (".png", ".jpg", ".jpeg")
KNOWN = ("digits", "mnist")


def load_pictures(
    images: str, data_dir: Path | None, holdout: str = "test", download: bool = False
) -> ImageSet:
    """The images that a word names.

    Args:
        images: "digits", which need no files, "mnist", or a folder as for `load_folder`.
        data_dir: the folder with MNIST in torchvision's layout.
        holdout: "test", or "validation" to test on training images instead.
        download: whether missing files of MNIST may be fetched.

    Raises:
        ConfigError: there is no such holdout.
        DataError: the files are missing or cannot be read.
    """
    if images == "mnist":
        return mnist_images(data_dir, holdout, download)
    if images == "digits":
        return held_out(load_digits(), holdout)
    return held_out(_shuffled(load_folder(Path(images))), holdout)


def load_folder(folder: Path) -> ImageSet:
    """Images from DIR/class/*.png or *.jpg, in colour, resized to 32×32.

    Where DIR has the folders `train` and `test`, each with a folder per class, they are the parts;
    otherwise every fourth image of a class, by name, is a test image.

    Raises:
        DataError: there are fewer than two classes or too few images, or one cannot be read.
    """
    parts = [folder / "train", folder / "test"]
    if all(part.is_dir() for part in parts):
        names = _classes(parts[0])
        if (others := _classes(parts[1])) != names:
            raise DataError(
                f"{parts[1]} has the classes {', '.join(others)}, but {parts[0]} has "
                f"{', '.join(names)}; give both the same folders"
            )
        files = [_files(part, names) for part in parts]
    else:
        everything = _files(folder, _classes(folder))
        files = [
            [[f for i, f in enumerate(own) if (i % 4 == 3) == test] for own in everything]
            for test in (False, True)
        ]
    for own, part in zip(files, ("training", "test"), strict=True):
        if min(len(some) for some in own) == 0:
            raise DataError(
                f"a class in {folder} has no {part} image; give every class at least 4 images, or "
                "folders train/ and test/ with images of every class"
            )
    return ImageSet(folder.resolve().name, *_read(files[0]), *_read(files[1]))


def _classes(folder: Path) -> list[str]:
    """Names of the folders with images, in alphabetical order."""
    if not folder.is_dir():
        close = get_close_matches(str(folder), KNOWN, n=1)
        hint = f"did you mean {close[0]}?" if close else "give one with a folder per class"
        raise DataError(
            f"stream.images is {str(folder)!r}, but there is no such folder, and no images are "
            f"called so beside {' and '.join(KNOWN)}; {hint}"
        )
    names = sorted(f.name for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))
    if len(names) < 2:
        raise DataError(
            f"{folder} holds {len(names)} folders, but needs one folder per class, two or more; "
            "arrange the images as FOLDER/class/image.png"
        )
    return names


def _files(folder: Path, names: list[str]) -> list[list[Path]]:
    """The image files of each class, by name."""
    return [
        sorted(f for f in (folder / name).iterdir() if f.suffix.lower() in ENDINGS)
        for name in names
    ]


def _read(files: list[list[Path]]) -> tuple[Tensor, Tensor]:
    images = [_pixels(file) for own in files for file in own]
    labels = [label for label, own in enumerate(files) for _ in own]
    return torch.tensor(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)


def _pixels(file: Path) -> Any:
    """One image as an array of height, width and colour."""
    try:
        with Image.open(file) as image:
            resized = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise DataError(
            f"the image {file} cannot be read ({type(error).__name__}); repair or remove it"
        ) from error
    return np.asarray(resized)


def _shuffled(images: ImageSet) -> ImageSet:
    """Training images in one fixed random order: a folder comes class by class."""
    order = torch.randperm(len(images.train_x), generator=torch.Generator().manual_seed(0))
    return replace(images, train_x=images.train_x[order], train_y=images.train_y[order])
