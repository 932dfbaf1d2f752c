"""Images for experiments on conditioning: digits, MNIST, CIFAR-10, or a folder of one's own."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.datasets import CIFAR10

from cl_manifold.catalog import unknown
from cl_manifold.errors import ConfigError, DataError
from cl_manifold.streams import load_digits, load_mnist

SIZE = 32
"""Height and width to which images of a folder are resized."""
ENDINGS = (".png", ".jpg", ".jpeg")
SETS = ("digits", "mnist", "cifar10", "images:DIR")
HOLDOUTS = ("test", "validation")


@final
@dataclass(frozen=True, eq=False)
class Pictures:
    """Images with values 0..255 and their classes, divided into a training and a test part.

    Attributes:
        name: what people call the set, for example "mnist".
        train_x: training images.
        train_y: their classes, counted from 0.
        test_x: test images.
        test_y: their classes.
    """

    name: str
    train_x: UInt8[Tensor, "N C H W"]
    train_y: Int64[Tensor, " N"]
    test_x: UInt8[Tensor, "M C H W"]
    test_y: Int64[Tensor, " M"]

    @cached_property
    def digest(self) -> str:
        """The first 12 hexadecimal digits of the SHA-256 of all images and classes."""
        state = hashlib.sha256()
        for tensor in (self.train_x, self.train_y, self.test_x, self.test_y):
            state.update(str(tuple(tensor.shape)).encode())
            state.update(tensor.contiguous().numpy().tobytes())
        return state.hexdigest()[:12]

    @cached_property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.train_y.max()) + 1

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Channels, height and width of one image."""
        return tuple(self.train_x.shape[1:])

    @cached_property
    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of the training pixels, scaled to [0, 1]."""
        share = torch.bincount(self.train_x.flatten(), minlength=256).double()
        share /= share.sum()
        value = torch.arange(256, dtype=torch.float64) / 255
        mean = (share * value).sum()
        return mean.item(), (share * (value - mean).square()).sum().sqrt().item()


def load_pictures(data: str, data_dir: Path | None, holdout: str = "test") -> Pictures:
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
        found = load_digits()
        pictures = _from_parts("digits", found)
    elif kind == "mnist" and not place:
        pictures = _from_parts("mnist", load_mnist(_needed(data_dir, "MNIST/raw")))
    elif kind == "cifar10" and not place:
        pictures = load_cifar10(_needed(data_dir, "cifar-10-batches-py"))
    elif kind == "images":
        pictures = load_folder(Path(place) if place else _needed(data_dir, "a folder per class"))
    else:
        raise ConfigError(unknown("data", data, SETS))
    return _validation(pictures) if holdout == "validation" else pictures


def load_cifar10(data_dir: Path) -> Pictures:
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
    return Pictures("cifar10", *_tensors(train), *_tensors(test))


def load_folder(folder: Path) -> Pictures:
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
    return Pictures(folder.resolve().name, *_read(files[0]), *_read(files[1]))


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


def _from_parts(name: str, found: Any) -> Pictures:
    return Pictures(name, found.train_x, found.train_y, found.test_x, found.test_y)


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


def _validation(pictures: Pictures) -> Pictures:
    """A quarter of the training images, at most 10,000, drawn once and for all, as test part."""
    total = len(pictures.train_x)
    order = torch.randperm(total, generator=torch.Generator().manual_seed(0))
    count = min(10_000, total // 4)
    held_out, kept = order[:count].sort().values, order[count:].sort().values
    x, y = pictures.train_x, pictures.train_y
    return Pictures(f"{pictures.name}-validation", x[kept], y[kept], x[held_out], y[held_out])
