"""Image sets in memory: where the pixels come from. Knows nothing about contexts or streams."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import final

import numpy as np
import sklearn.datasets
import torch
import torch.nn.functional as F
from jaxtyping import Int64, UInt8
from sklearn.model_selection import train_test_split
from torch import Tensor
from torchvision.datasets import MNIST

from cl_manifold.errors import ConfigError, DataError

DIGITS_TEST = 450
DIGITS_SPLIT_SEED = 1797
"""Seed of the one split of the digits; it never depends on the seed of a run."""

MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@final
@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with values 0..255 and their classes, divided into a training and a test part.

    Attributes:
        name: what people call the set, for example "mnist".
        train_x: training images.
        train_y: their classes, counted from 0.
        test_x: test images.
        test_y: their classes.
        labels: names of the classes; empty where they are digits.
    """

    name: str
    train_x: UInt8[Tensor, "N C H W"]
    train_y: Int64[Tensor, " N"]
    test_x: UInt8[Tensor, "M C H W"]
    test_y: Int64[Tensor, " M"]
    labels: tuple[str, ...] = ()

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
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        channels, height, width = self.train_x.shape[1:]
        return channels, height, width

    @cached_property
    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of the training pixels, scaled to [0, 1]."""
        return moments_of(torch.bincount(self.train_x.flatten(), minlength=256))


def moments_of(counts: Int64[Tensor, " 256"]) -> tuple[float, float]:
    """Mean and standard deviation of pixels that take each of the values 0..255 so often.

    mean = Σ_v p_v v,  std = √(Σ_v p_v (v − mean)²),  v = 0/255, …, 255/255
    """
    share = counts.double()
    share /= share.sum()
    value = torch.arange(256, dtype=torch.float64) / 255
    mean = (share * value).sum()
    return mean.item(), (share * (value - mean).square()).sum().sqrt().item()


def load_digits() -> ImageSet:
    """The 1,797 digits that come with scikit-learn, enlarged from 8×8 to 16×16 pixels.

    Values 0..16 become 0..255. 450 images, stratified by class, are the test part, always the same.
    """
    data, target = sklearn.datasets.load_digits(return_X_y=True)
    small = torch.tensor(data, dtype=torch.float32).reshape(-1, 1, 8, 8) * (255 / 16)
    large = F.interpolate(small, size=(16, 16), mode="bilinear", align_corners=False)
    x, y = large.round().to(torch.uint8), torch.tensor(target, dtype=torch.int64)
    train, test = train_test_split(
        np.arange(len(y)), test_size=DIGITS_TEST, random_state=DIGITS_SPLIT_SEED, stratify=target
    )
    rows, held_out = torch.tensor(train), torch.tensor(test)
    return ImageSet("digits", x[rows], y[rows], x[held_out], y[held_out])


def load_mnist(data_dir: Path, *, download: bool = False) -> ImageSet:
    """MNIST from torchvision's layout, `<data_dir>/MNIST/raw/*-ubyte`.

    Args:
        data_dir: the folder that contains `MNIST/`.
        download: fetch missing files; without it nothing is ever fetched.

    Raises:
        DataError: files are missing, cannot be fetched or cannot be read.
    """
    folder = data_dir / "MNIST" / "raw"
    missing = [name for name in MNIST_FILES if not (folder / name).is_file()]
    if missing and not download:
        raise DataError(
            f"{folder} lacks {', '.join(missing)}; MNIST needs the files {', '.join(MNIST_FILES)} "
            "there: put them in place, name another folder with --data-dir, or let torchvision "
            "fetch them once with `cl-manifold run rotated-mnist --set stream.download=true`"
        )
    try:
        train = MNIST(str(data_dir), train=True, download=bool(missing))
        test = MNIST(str(data_dir), train=False)
        parts = _parts(train), _parts(test)
    except (AssertionError, IndexError, OSError, RuntimeError, ValueError) as error:
        raise DataError(
            f"MNIST could not be {'downloaded to' if missing else 'read from'} {folder} "
            f"({error or type(error).__name__}); it needs intact files {', '.join(MNIST_FILES)}: "
            "put them in place or name another folder"
        ) from error
    for images, labels in parts:
        if len(images) != len(labels):
            raise DataError(
                f"{folder} has {len(images)} images but {len(labels)} labels; put files that "
                "belong together in place"
            )
    return ImageSet("mnist", *parts[0], *parts[1])


def validation_split(images: ImageSet, count: int | None = None) -> ImageSet:
    """For tuning: the last `count` training images become the test part, the others stay.

    The true test part is not contained in the result.

    Args:
        images: the set to divide.
        count: size of the new test part; by default a quarter of the training images,
            but at most 10,000.
    """
    total = len(images.train_x)
    count = min(10_000, total // 4) if count is None else count
    if not 0 < count < total:
        raise ConfigError(
            f"{count} validation images asked, but {images.name} has {total} training images; "
            f"ask for 1 to {total - 1}"
        )
    x, y, kept = images.train_x, images.train_y, total - count
    return replace(
        images,
        name=f"{images.name}-validation",
        train_x=x[:kept],
        train_y=y[:kept],
        test_x=x[kept:],
        test_y=y[kept:],
    )


def _parts(dataset: MNIST) -> tuple[Tensor, Tensor]:
    return dataset.data[:, None], dataset.targets.to(torch.int64)
