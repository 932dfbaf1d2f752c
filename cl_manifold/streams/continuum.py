"""Streams of all contexts at once: every training sample has a context of its own, drawn anew.

There is one training experience, which draws. Part of each coordinate's range is trained; tested
are the middles of equal cells of the whole range. Those where training is are the test experiences,
those that lie outside are the unseen ones.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import final

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from cl_manifold.geometry.quadrature import combined
from cl_manifold.geometry.topology import Circle, Interval, Product, Topology
from cl_manifold.streams.benchmark import ContextExperience, StreamFacts, TaskStream
from cl_manifold.streams.datasets import ImageDataset
from cl_manifold.streams.images import ImageSet
from cl_manifold.streams.pictures import load_pictures
from cl_manifold.streams.transforms import add_noise_each, rotate_each

Range = tuple[float, float]
Change = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""Images in [0, 1], a value for each, and random numbers to the changed images."""


@final
@dataclass(frozen=True)
class Axis:
    """One coordinate of a context, and what it does to images.

    Attributes:
        topology: the space of the coordinate.
        whole: its range.
        trained: the part of the range that training sees.
        cells: how many equal cells of the range are tested, in the middle of each.
        form: how a value is written, for people.
        change: of images.
    """

    topology: Topology
    whole: Range
    trained: Range
    cells: int
    form: str
    change: Change

    def middles(self) -> Float64[Tensor, "cells 1"]:
        """The middles of the cells."""
        return middles(self.whole, self.cells)


def middles(whole: Range, cells: int) -> Float64[Tensor, "cells 1"]:
    """c_i = low + (high − low) (i + ½) / n for i = 0, …, n − 1."""
    low, high = whole
    return (low + (high - low) * (torch.arange(cells, dtype=torch.float64) + 0.5) / cells)[:, None]


@final
@dataclass(frozen=True)
class Continuum:
    """Images that a context changes, coordinate after coordinate.

    Attributes:
        name: of the family.
        summary: one line.
        axes: of the contexts.
    """

    name: str
    summary: str
    axes: tuple[Axis, ...]

    @property
    def topology(self) -> Topology:
        """The space of contexts."""
        first, *others = (axis.topology for axis in self.axes)
        return Product(first, *others) if others else first

    @property
    def trained(self) -> tuple[Range, ...]:
        """The part of each coordinate's range that training sees."""
        return tuple(axis.trained for axis in self.axes)

    def apply(
        self,
        images: Float[Tensor, "B C H W"],
        contexts: Float64[Tensor, "B dim"],
        generator: torch.Generator,
    ) -> Float[Tensor, "B C H W"]:
        """Images with values in [0, 1], each changed by its own context."""
        for axis, values in zip(self.axes, contexts.unbind(-1), strict=True):
            images = axis.change(images, values, generator)
        return images

    def draw(self, count: int, generator: torch.Generator) -> Float64[Tensor, "count dim"]:
        """Contexts for training, uniform over the trained ranges."""
        low, high = torch.tensor(self.trained, dtype=torch.float64).unbind(-1)
        u = torch.rand(count, len(low), generator=generator, dtype=torch.float64)
        return low + (high - low) * u

    def tested(self) -> Float64[Tensor, "n dim"]:
        """The middles of all cells, the last coordinate running fastest."""
        return combined([axis.middles() for axis in self.axes])

    def is_trained(self, contexts: Float64[Tensor, "n dim"]) -> Bool[Tensor, " n"]:
        """Whether all coordinates of a context lie where training is."""
        low, high = torch.tensor(self.trained, dtype=torch.float64).unbind(-1)
        return ((contexts >= low) & (contexts <= high)).all(-1)

    def written(self, context: Float64[Tensor, " dim"]) -> str:
        """A context for people."""
        values = zip(self.axes, context.tolist(), strict=True)
        return ", ".join(axis.form.format(value) for axis, value in values)


@final
@dataclass(frozen=True, eq=False)
class Samples:
    """Draws training samples."""

    family: Continuum
    images: ImageSet

    def __call__(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Images drawn with replacement, changed and normalised, their classes and contexts."""
        x, y = self.images.train_x, self.images.train_y
        rows = torch.randint(len(x), (count,), generator=generator)
        contexts = self.family.draw(count, generator)
        changed = self.family.apply(x[rows].float() / 255, contexts, generator)
        mean, std = self.images.moments
        return (changed - mean) / std, y[rows], contexts


def continuum(
    family: Continuum,
    images: str = "digits",
    test_samples: int = 2000,
    data_dir: Path | None = None,
    holdout: str = "test",
    download: bool = False,
) -> TaskStream:
    """The stream of a family.

    Args:
        family: what contexts do, and where they are trained.
        images: as for `load_pictures`.
        test_samples: test images at each context, or all there are if they are fewer.
        data_dir: the folder with MNIST.
        holdout: "test" or "validation".
        download: whether missing files may be fetched.

    Raises:
        DataError: the images cannot be read.
    """
    return build_continuum(family, load_pictures(images, data_dir, holdout, download), test_samples)


def build_continuum(family: Continuum, images: ImageSet, test_samples: int = 2000) -> TaskStream:
    """The stream of a family on images in memory; test images are the same for every seed."""
    contexts = family.tested()
    trained = family.is_trained(contexts).tolist()
    tested = _tested(family, images, contexts, test_samples)
    facts = StreamFacts(
        name=f"{family.name}-{images.name}",
        description=f"{images.name}: {family.summary}",
        topology=family.topology,
        outputs=images.classes,
        input_shape=images.input_shape,
        digest=images.digest,
        trained=family.trained,
    )
    everything = ImageDataset(images.train_x, images.train_y, *images.moments)
    drawn = ContextExperience(everything, None, "all contexts", draw=Samples(family, images))
    return TaskStream(
        facts,
        [drawn],
        [experience for experience, inside in zip(tested, trained, strict=True) if inside],
        [experience for experience, inside in zip(tested, trained, strict=True) if not inside],
    )


def _tested(
    family: Continuum, images: ImageSet, contexts: Float64[Tensor, "n dim"], each: int
) -> list[ContextExperience]:
    """Each context takes the next images in a fixed random order, or all there are."""
    generator = torch.Generator().manual_seed(0)
    total = len(images.test_x)
    count = min(each, total)
    order = torch.randperm(total, generator=generator)
    found: list[ContextExperience] = []
    for cell, context in enumerate(contexts):
        rows = order[(cell * count + torch.arange(count)) % total]
        x = images.test_x[rows].float() / 255
        changed = family.apply(x, context.expand(count, -1), generator)
        pixels = (changed * 255).round_().to(torch.uint8)
        data = ImageDataset(pixels, images.test_y[rows], *images.moments)
        found.append(ContextExperience(data, context, family.written(context)))
    return found


def _turned(images: Tensor, degrees: Tensor, generator: torch.Generator) -> Tensor:
    return rotate_each(images, degrees)


TURN = Axis(Circle(360.0), (0.0, 360.0), (0.0, 270.0), 24, "{:g}°", _turned)
LEVEL = Axis(Interval(), (0.0, 1.0), (0.0, 0.5), 16, "σ {:.3g}", add_noise_each)

FAMILIES: Mapping[str, Continuum] = {
    family.name: family
    for family in (
        Continuum(
            "rotation", "angle on a circle; trained from 0° to 270°, tested all around", (TURN,)
        ),
        Continuum(
            "noise",
            "level of Gaussian noise on an interval; trained from 0 to ½, tested up to 1",
            (LEVEL,),
        ),
        Continuum(
            "rotation-noise",
            "angle and noise level on a cylinder; trained from 0° to 270° and from 0 to ½",
            (replace(TURN, cells=12), replace(LEVEL, cells=6)),
        ),
    )
}

rotation = partial(continuum, FAMILIES["rotation"])
noise = partial(continuum, FAMILIES["noise"])
rotation_noise = partial(continuum, FAMILIES["rotation-noise"])
