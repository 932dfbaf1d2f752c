"""Images for experiments on conditioning: digits, MNIST, CIFAR-10, or a folder of one's own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.datasets import CIFAR10

from cl_manifold.errors import ConfigError, DataError
from cl_manifold.experiments.names import unknown
from cl_manifold.streams import ImageSet, load_digits, load_mnist
from cl_manifold.streams.images import validation_split

SIZE = 32
"""Height and width to which images of a folder are resized."""
ENDINGS = (".png", ".jpg", ".jpeg")
SETS = ("digits", "mnist", "cifar10", "images:DIR")
HOLDOUTS = ("test", "validation")


def load_pictures(data: str, data_dir: Path | None, holdout: str = "test") -> ImageSet:
    """The images that `data` names.

    Args:
        data: "digits" (needs no files), "mnist" or "cifar10" (torchvision's layout in `data_dir`),
            "images:DIR" (DIR/class/*.png or *.jpg), or "images" for the folder `data_dir`.
        data_dir: the folder that holds `MNIST/` or `cifar-10-batches-py/`.
        holdout: "test", or "validation" to test on a part of the training images instead.

    Raises:
        ConfigError: nothing has that name.
        DataError: the files are missing or cannot be read.
    """
    if holdout not in HOLDOUTS:
        raise ConfigError(
            f"holdout is {holdout!r}, but must be one of {', '.join(HOLDOUTS)}; use validation for "
            "tuning and test for the final figures"
        )
    kind, _, place = data.partition(":")
    if kind == "digits" and not place:
        pictures = load_digits()
    elif kind == "mnist" and not place:
        pictures = load_mnist(_needed(data_dir, "MNIST/raw"))
    elif kind == "cifar10" and not place:
        pictures = load_cifar10(_needed(data_dir, "cifar-10-batches-py"))
    elif kind == "images":
        pictures = load_folder(Path(place) if place else _needed(data_dir, "a folder per class"))
    else:
        raise ConfigError(unknown("data", data, SETS))
    return _validation(pictures) if holdout == "validation" else pictures


def load_cifar10(data_dir: Path) -> ImageSet:
    """CIFAR-10 from torchvision's layout, `<data_dir>/cifar-10-batches-py`; never fetches it.

    Raises:
        DataError: files are missing or damaged.
    """
    try:
        train, test = CIFAR10(str(data_dir), train=True), CIFAR10(str(data_dir), train=False)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        folder = data_dir / "cifar-10-batches-py"
        raise DataError(
            f"CIFAR-10 could not be read from {folder} ({error}); put the intact python version "
            "there (torchvision's layout), name another folder with --data-dir, or give a folder "
            "of images with --data images:DIR"
        ) from error
    return ImageSet("cifar10", *_tensors(train), *_tensors(test))


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
            [[f for i, f in enumerate(own) if (i % 4 == 3) == held_out] for own in everything]
            for held_out in (False, True)
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
        raise DataError(
            f"there is no folder {folder}; give one with a folder of images per class, "
            "--data images:DIR"
        )
    names = sorted(f.name for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))
    if len(names) < 2:
        raise DataError(
            f"{folder} holds {len(names)} folders, but needs one folder per class, two or more; "
            "arrange the images as DIR/class/image.png"
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


def _tensors(dataset: CIFAR10) -> tuple[Tensor, Tensor]:
    return torch.tensor(dataset.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(
        dataset.targets
    )


def _needed(data_dir: Path | None, what: str) -> Path:
    if data_dir is None:
        raise DataError(
            f"no data folder given, but this data needs one that holds {what}; pass "
            "--data-dir FOLDER, or use --data digits, which needs no files"
        )
    return data_dir


def _validation(images: ImageSet) -> ImageSet:
    """A quarter of the training images as test part; shuffled first, as folders come by class."""
    order = torch.randperm(len(images.train_x), generator=torch.Generator().manual_seed(0))
    mixed = replace(images, train_x=images.train_x[order], train_y=images.train_y[order])
    return validation_split(mixed)
