"""Images of a user's own as a task stream: what they are, what becomes of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from os.path import exists, isdir
from pathlib import Path
from typing import Any, Literal, final

from cl_manifold.data.folders import as_given, places_of
from cl_manifold.data.options import ImageOptions
from cl_manifold.errors import ConfigError, DataError
from cl_manifold.streams.arrays import listed_arrays
from cl_manifold.streams.benchmark import TaskStream
from cl_manifold.streams.builders import StreamOptions, noisy, permuted, rotated
from cl_manifold.streams.listing import Listing, listed_folder
from cl_manifold.streams.splitting import split
from cl_manifold.streams.stored import in_memory, stored

MIB = 2**20
FAMILIES: Mapping[str, Callable[[Any, StreamOptions], TaskStream]] = {
    "rotate": rotated,
    "permute": permuted,
    "split": split,
    "noise": noisy,
}
TOPOLOGIES = {"rotate": "circle", "permute": "simplex", "split": "simplex", "noise": "interval"}
USUAL = {"rotate": 12, "permute": 10, "noise": 5}
"""Contexts where none are asked for."""


@final
@dataclass(frozen=True, eq=False)
class ImageGuess:
    """What is known of images before any is read.

    Attributes:
        options: with nothing left to guess.
        contexts: how many experiences there are.
        notes: a sentence for each guess.
        topology: name of the topology that fits the contexts.
    """

    options: ImageOptions
    contexts: int
    notes: tuple[str, ...]
    topology: str


def guess_images(path: Path, options: ImageOptions, contexts: int | None = None) -> ImageGuess:
    """What a file or folder of images is, as far as it is not said.

    Args:
        path: of the file or folder.
        options: what is said.
        contexts: how many experiences are asked for.

    Raises:
        ConfigError: options that do not fit the images.
        DataError: the images cannot be used.
    """
    listing = _listed(path, options.size)
    notes = list(listing.notes)
    recipe = options.recipe
    if recipe is None:
        recipe = "as-given" if listing.tasks else "rotate"
        why = f"{len(listing.tasks)} task folders" if listing.tasks else "one set of images"
        notes.append(f"{why} (data.recipe={recipe})")
    options = options.model_copy(update={"recipe": recipe})
    _check(path, listing, options, contexts)
    if recipe == "as-given":
        places = places_of(listing, options.space)
        said = f"task folders lie on {places.space} (data.space={places.space})"
        notes += [] if options.space else [said]
        options = options.model_copy(update={"space": places.space})
        return ImageGuess(options, len(listing.tasks), tuple(notes), places.topology_name)
    count = contexts or USUAL.get(recipe) or _groups(len(listing.labels))
    return ImageGuess(options, count, tuple(notes), TOPOLOGIES[recipe])


def image_stream(
    path: Path,
    options: ImageOptions,
    stream: StreamOptions,
    holdout: Literal["test", "validation"] = "test",
) -> TaskStream:
    """The stream of a file or folder of images.

    Where all experiences together fit into the memory allowed, they are made at once; otherwise
    images are changed when they are read, and those that do not fit are read from disk.

    Args:
        path: of the file or folder.
        options: what becomes of the images.
        stream: contexts, seed, order and samples per context.
        holdout: "test", or "validation" to test on training images instead.

    Raises:
        ConfigError: options that do not fit the images.
        DataError: an image cannot be read, or there are too few.
    """
    asked = None if options.recipe == "as-given" else stream.contexts
    found = guess_images(path, options, asked)
    options, recipe = found.options, found.options.recipe
    assert recipe is not None
    listing = _listed(path, options.size)
    places = places_of(listing, options.space) if recipe == "as-given" else None
    if holdout == "validation":
        listing = listing.without_test()
    stream = replace(stream, contexts=found.contexts)
    memory = options.memory * MIB
    if _needed(listing, recipe, stream) <= memory:
        images = in_memory(listing, options.workers)
    else:
        images = stored(listing, memory, options.workers)
    if places is None:
        return FAMILIES[recipe](images, stream)
    return as_given(images, listing, places, options.unseen, stream)


@lru_cache(maxsize=2)
def _known(path: Path, changed: tuple[int, ...], size: int | None) -> Listing:
    """The images as they were at a time: many configurations look at the same ones."""
    if isdir(path):
        return listed_folder(path, size)
    return listed_arrays(path, size)


def _listed(path: Path, size: int | None) -> Listing:
    if not exists(path):
        raise DataError(f"there is no file or folder {path}; give one with images")
    below = [f for f in path.rglob("*") if f.is_dir()] if isdir(path) else []
    return _known(path, tuple(f.stat().st_mtime_ns for f in (path, *below)), size)


def _check(path: Path, listing: Listing, options: ImageOptions, contexts: int | None) -> None:
    """Refuse a recipe, or settings, that do not fit the images.

    Raises:
        ConfigError: they do not.
    """
    given = options.recipe == "as-given"
    if given and len(listing.tasks) < 2:
        raise ConfigError(
            f"data.recipe is as-given, but {path} has {len(listing.tasks)} task folders; arrange "
            "the images as FOLDER/task/class/image.png with two tasks or more, or choose rotate"
        )
    if listing.tasks and not given:
        raise ConfigError(
            f"data.recipe is {options.recipe}, but {path} has task folders, which are the "
            "experiences; choose as-given, or name one of those folders"
        )
    if given and contexts is not None and contexts != len(listing.tasks):
        raise ConfigError(
            f"stream.contexts is {contexts}, but {path} has {len(listing.tasks)} task folders, "
            "which are the contexts; leave it out"
        )
    for key in ("space", "unseen"):
        if not given and getattr(options, key) is not None:
            raise ConfigError(
                f"data.{key} is set, but is about task folders, and data.recipe is "
                f"{options.recipe}; leave it out"
            )


def _groups(classes: int) -> int:
    """Tasks of as few classes each as divide them equally, two or more where possible.

    >>> [_groups(n) for n in (2, 7, 9, 10)]
    [2, 7, 3, 5]
    """
    each = next((n for n in range(2, classes) if classes % n == 0), 1)
    return classes // each


def _needed(listing: Listing, recipe: str, stream: StreamOptions) -> int:
    """Bytes of all experiences and of the images that they are made from."""
    total, tests = len(listing.test), int(listing.test.sum())
    train = total - tests
    if recipe in ("split", "as-given"):
        return 2 * total * prod(listing.shape)
    count = stream.contexts or 1
    unseen = {"rotate": count, "noise": count - 1}.get(recipe, 0)
    learned = min(train, stream.samples or train)
    tested = min(tests, stream.test_samples or tests)
    return (total + count * learned + (count + unseen) * tested) * prod(listing.shape)
