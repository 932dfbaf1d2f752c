"""Images by one word: digits, mnist, or one's own, a folder or an `.npz`."""

from dataclasses import replace
from difflib import get_close_matches
from os.path import isdir
from pathlib import Path

import torch

from cl_manifold.errors import DataError
from cl_manifold.streams.arrays import listed_arrays
from cl_manifold.streams.images import ImageSet, load_digits
from cl_manifold.streams.listing import SIZE, listed_folder, task_folders
from cl_manifold.streams.named import held_out, mnist_images
from cl_manifold.streams.stored import in_memory

KNOWN = ("digits", "mnist")


def load_pictures(
    images: str, data_dir: Path | None, holdout: str = "test", download: bool = False
) -> ImageSet:
    """The images that a word names.

    Args:
        images: "digits", which need no files, "mnist", a folder as for `load_folder`, or an
            `.npz` as for `listed_arrays`.
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
    path = Path(images)
    if path.suffix.lower() == ".npz":
        return held_out(_shuffled(in_memory(listed_arrays(path))), holdout)
    return held_out(_shuffled(load_folder(path)), holdout)


def load_folder(folder: Path) -> ImageSet:
    """Images from DIR/class/*.png or *.jpg, in colour, resized to 32×32.

    Where DIR has the folders `train` and `test`, each with a folder per class, they are the parts;
    otherwise every fourth image of a class, by name, is a test image.

    Raises:
        DataError: there are fewer than two classes or too few images, or one cannot be read.
    """
    if not isdir(folder):
        close = get_close_matches(str(folder), KNOWN, n=1)
        hint = f"did you mean {close[0]}?" if close else "give one with a folder per class"
        raise DataError(
            f"stream.images is {str(folder)!r}, but there is no such folder, and no images are "
            f"called so beside {' and '.join(KNOWN)}; {hint}"
        )
    if task_folders(folder):
        raise DataError(
            f"{folder} has folders of tasks, but all contexts at once change one set of images; "
            "give a folder with a folder of images per class"
        )
    return in_memory(listed_folder(folder, SIZE, colour=True))


def _shuffled(images: ImageSet) -> ImageSet:
    """Training images in one fixed random order: a folder comes class by class."""
    order = torch.randperm(len(images.train_x), generator=torch.Generator().manual_seed(0))
    return replace(images, train_x=images.train_x[order], train_y=images.train_y[order])
