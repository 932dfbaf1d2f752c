"""Images that may be more than memory holds: some kept as bytes, the others read when asked for."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from numpy import ndarray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cl_manifold.streams.images import ImageSet, moments_of
from cl_manifold.streams.listing import Listing, decoded

READ_TOGETHER = 64
Change = Callable[[Tensor, torch.Generator], Tensor]


@final
@dataclass(frozen=True, eq=False)
class Pixels:
    """Images as bytes: row i is row `place[i]` of `kept`, or is read from file i where that is −1.

    Attributes:
        kept: images in memory.
        place: of every image.
        files: of every image, as the bytes of its path; shared by all that `take` makes.
        number: number of every image's file.
        shape: channels, height and width.
        room: bytes of memory that may be filled with what is made of the images.
    """

    kept: UInt8[Tensor, "K C H W"]
    place: Int64[Tensor, " N"]
    files: Any
    number: Int64[Tensor, " N"]
    shape: tuple[int, int, int]
    room: int

    def __len__(self) -> int:
        return len(self.place)

    @property
    def inside(self) -> int:
        """How many of the images are in memory."""
        return int((self.place >= 0).sum())

    def take(self, rows: Int64[Tensor, " n"]) -> "Pixels":
        """Some of the images; nothing is read or copied."""
        return Pixels(
            self.kept, self.place[rows], self.files, self.number[rows], self.shape, self.room
        )

    def one(self, row: int) -> UInt8[Tensor, "C H W"]:
        """One image.

        Raises:
            DataError: its file cannot be read any more.
        """
        place = int(self.place[row])
        if place >= 0:
            return self.kept[place]
        file = Path(self.files[int(self.number[row])].decode())
        return torch.from_numpy(decoded(file, self.shape))


@final
class StoredDataset(Dataset[tuple[Tensor, int]]):
    """Images of one experience, changed and normalised when they are read.

        x = (change(byte) / 255 − mean) / std

    Args:
        pixels: before the change.
        targets: one class per image.
        change: of images; random numbers of image i come from `seed + i`, at every reading.
        seed: of the change.
        moments: mean and standard deviation of the pixels.
    """

    def __init__(
        self,
        pixels: Pixels,
        targets: Int64[Tensor, " N"],
        change: Change,
        seed: int,
        moments: tuple[float, float],
    ) -> None:
        self.pixels, self.targets, self.change, self.seed = pixels, targets, change, seed
        self.mean, self.std = moments

    @property
    def room(self) -> int:
        """The largest size in bytes of tensors that may be made of all items."""
        return self.pixels.room

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Float32[Tensor, "C H W"], int]:
        index = range(len(self))[index]
        generator = torch.Generator().manual_seed(self.seed + index)
        changed = self.change(self.pixels.one(index)[None], generator)[0]
        scaled = changed.to(torch.float32).mul_(1 / (255 * self.std)).sub_(self.mean / self.std)
        return scaled, int(self.targets[index])


@final
@dataclass(frozen=True, eq=False)
class StoredImages:
    """As an `ImageSet`, but its images need not be in memory.

    Attributes:
        name: of the file or folder.
        train_x: training images.
        train_y: their classes, counted from 0.
        test_x: test images.
        test_y: their classes.
        labels: names of the classes.
        digest: short hash of all images and classes.
        moments: mean and standard deviation of the training pixels, scaled to [0, 1].
    """

    name: str
    train_x: Pixels
    train_y: Int64[Tensor, " N"]
    test_x: Pixels
    test_y: Int64[Tensor, " M"]
    labels: tuple[str, ...]
    digest: str
    moments: tuple[float, float]

    @cached_property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.labels)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        return self.train_x.shape


Pictures = ImageSet | StoredImages
"""Images in memory, or more than it holds."""


def in_memory(listing: Listing, workers: int = 0) -> ImageSet:
    """All images as bytes.

    Raises:
        DataError: one of them cannot be read.
    """
    found = listing.pixels
    if found is None:
        found = np.empty((len(listing.label), *listing.shape), dtype=np.uint8)
        for row, image in enumerate(_read(listing, workers)):
            found[row] = image
    x, y = torch.from_numpy(found), torch.from_numpy(listing.label)
    train, test = rows_of(listing)
    return ImageSet(listing.name, x[train], y[train], x[test], y[test], listing.labels)


def rows_of(listing: Listing) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " m"]]:
    """Which images train, which test."""
    train, test = (torch.from_numpy(np.flatnonzero(rows)) for rows in (~listing.test, listing.test))
    return train, test


def stored(listing: Listing, memory: int, workers: int = 0) -> StoredImages:
    """Every image is read once; as many as fit stay in memory, evenly over the folder.

    Args:
        listing: of the images.
        memory: bytes of memory for images.
        workers: processes that read.

    Raises:
        DataError: one of them cannot be read.
    """
    count, each = len(listing.label), int(np.prod(listing.shape))
    inside = listing.pixels is not None
    most = count if inside else min(count, memory // each)
    chosen = np.zeros(count, dtype=bool)
    chosen[np.arange(most) * count // max(1, most)] = True
    images = iter(listing.pixels) if listing.pixels is not None else _read(listing, workers)
    kept = np.empty((most, *listing.shape), dtype=np.uint8)
    shares, digest = _kept(images, kept, chosen, listing)
    place = np.where(chosen, np.cumsum(chosen) - 1, -1)
    pixels = Pixels(
        torch.from_numpy(kept),
        torch.from_numpy(place),
        np.array([str(file).encode() for file in listing.files]),
        torch.arange(count),
        listing.shape,
        max(0, memory - kept.nbytes) // 2,  # training and test samples at the same time
    )
    y = torch.from_numpy(listing.label)
    train, test = rows_of(listing)
    return StoredImages(
        name=listing.name,
        train_x=pixels.take(train),
        train_y=y[train],
        test_x=pixels.take(test),
        test_y=y[test],
        labels=listing.labels,
        digest=digest,
        moments=moments_of(torch.from_numpy(shares)),
    )


def _kept(
    images: Iterator[Any], kept: Any, chosen: Bool[ndarray, " N"], listing: Listing
) -> tuple[Int64[ndarray, " 256"], str]:
    """Go through all images once: keep the chosen ones, count training values, hash."""
    shares = np.zeros(256, dtype=np.int64)
    state = hashlib.sha256(f"{listing.shape}".encode())
    state.update(listing.label.tobytes() + listing.test.tobytes())
    place = 0
    for image, keep, test in zip(images, chosen, listing.test, strict=True):
        state.update(np.ascontiguousarray(image).tobytes())
        if not test:
            shares += np.bincount(image.reshape(-1), minlength=256)
        if keep:
            kept[place] = image
            place += 1
    return shares, state.hexdigest()[:12]


class _Files(Dataset[Any]):
    """The files of a listing, for workers."""

    def __init__(self, listing: Listing) -> None:
        self.files, self.shape = listing.files, listing.shape

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        return decoded(self.files[index], self.shape)


def _read(listing: Listing, workers: int) -> Iterator[UInt8[ndarray, "C H W"]]:
    """All images, in order."""
    if not workers:
        yield from (decoded(file, listing.shape) for file in listing.files)
        return
    loader: Any = DataLoader(
        _Files(listing), READ_TOGETHER, num_workers=workers, collate_fn=np.stack
    )
    for images in loader:
        yield from images
