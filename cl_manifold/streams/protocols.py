"""Streams of published settings, with the signature of `streams.named`.

A protocol is one of these streams and the defaults that its name has in the catalogue: network,
optimizer, epochs and samples as they were published.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from cl_manifold.geometry.topology import Circle
from cl_manifold.streams.benchmark import TaskStream
from cl_manifold.streams.builders import (
    USUAL,
    Family,
    StreamOptions,
    Task,
    build_family,
    number,
    permuted,
    seeded,
)
from cl_manifold.streams.images import ImageSet
from cl_manifold.streams.named import mnist_images
from cl_manifold.streams.splitting import split_class, split_domain, split_task
from cl_manifold.streams.transforms import rotate

HALF_TURN = 180.0


def rotated_at_random(images: ImageSet, options: StreamOptions = USUAL) -> TaskStream:
    """Every task is the whole problem, rotated by an angle α drawn from the seed, α ~ U[0°, 180°).

    Contexts are α/360° turns on the whole circle, of which only one half is visited. Unseen are
    the angles halfway between neighbours. Usually there are 20 tasks.

    Source: the library mammoth of Buzzega et al., *Dark Experience for General Continual Learning*
    (arXiv 2004.07211), after Lopez-Paz and Ranzato 2017.
    """
    count, generator = options.contexts or 20, seeded(options.seed, "permutations")
    drawn = torch.rand(count, generator=generator, dtype=torch.float64)
    angles = HALF_TURN * drawn.sort().values

    def task(angle: float) -> Task:
        return Task(number(angle / 360), f"{angle:.4g}°", partial(_turned, angle))

    family = Family(
        f"mammoth-rotated-{images.name}",
        f"{count} rotations of {images.name} by random angles between 0° and 180°",
        Circle(),
        [task(angle) for angle in angles.tolist()],
        [task(angle) for angle in ((angles[1:] + angles[:-1]) / 2).tolist()],
    )
    return build_family(images, family, options)


def gpm_permuted_mnist(
    options: StreamOptions = USUAL,
    data_dir: Path | None = None,
    holdout: str = "test",
    download: bool = False,
) -> TaskStream:
    """MNIST under 10 pixel permutations, as in GPM (Saha, Garg, Roy, arXiv 2103.09762)."""
    return permuted(mnist_images(data_dir, holdout, download), options, "gpm-permuted")


def mammoth_permuted_mnist(
    options: StreamOptions = USUAL,
    data_dir: Path | None = None,
    holdout: str = "test",
    download: bool = False,
) -> TaskStream:
    """MNIST under 20 pixel permutations, as in mammoth (Buzzega et al., arXiv 2004.07211)."""
    options = replace(options, contexts=options.contexts or 20)
    return permuted(mnist_images(data_dir, holdout, download), options, "mammoth-permuted")


def mammoth_rotated_mnist(
    options: StreamOptions = USUAL,
    data_dir: Path | None = None,
    holdout: str = "test",
    download: bool = False,
) -> TaskStream:
    """MNIST at 20 random angles in [0°, 180°), as in mammoth (Buzzega et al., arXiv 2004.07211)."""
    return rotated_at_random(mnist_images(data_dir, holdout, download), options)


def split_mnist_task(
    options: StreamOptions = USUAL,
    data_dir: Path | None = None,
    holdout: str = "test",
    download: bool = False,
) -> TaskStream:
    """Split MNIST, task-incremental (van de Ven and Tolias, arXiv 1904.07734)."""
    return split_task(mnist_images(data_dir, holdout, download), options)


def split_mnist_domain(
    options: StreamOptions = USUAL,
    data_dir: Path | None = None,
    holdout: str = "test",
    download: bool = False,
) -> TaskStream:
    """Split MNIST, domain-incremental (van de Ven and Tolias, arXiv 1904.07734)."""
    return split_domain(mnist_images(data_dir, holdout, download), options)


def split_mnist_class(
    options: StreamOptions = USUAL,
    data_dir: Path | None = None,
    holdout: str = "test",
    download: bool = False,
) -> TaskStream:
    """Split MNIST, class-incremental (van de Ven and Tolias, arXiv 1904.07734)."""
    return split_class(mnist_images(data_dir, holdout, download), options)


def _turned(degrees: float, images: Tensor, generator: torch.Generator) -> Tensor:
    return rotate(images, degrees)
