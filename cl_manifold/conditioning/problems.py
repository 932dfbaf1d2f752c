"""Problems with a known variable: what the context does to an image, and where it is trained.

A problem knows topologies and transforms; it knows nothing about networks.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import pi
from typing import final

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from cl_manifold.errors import ContextError
from cl_manifold.geometry import Basis, Bernstein, Circle, Fourier, Interval, Product, TensorProduct
from cl_manifold.geometry.quadrature import combined
from cl_manifold.geometry.topology import Topology
from cl_manifold.streams import add_noise_each, rotate_each

Range = tuple[float, float]


class Problem(ABC):
    """Images that a context changes; part of all contexts is trained, all of them are tested.

    Attributes:
        name: what people call it.
        summary: one line.
        axes: what each coordinate of a context is, for people.
        topology: the space of contexts.
        ranges: the whole range of each coordinate.
        trained: the part of it that training sees.
        cells: test contexts are the middles of so many equal cells of each coordinate's range.
        bins: one network per context means so many equal bins of each coordinate's trained part.
        bases: the manifolds to compare, by name of the system.
    """

    name: str
    summary: str
    axes: tuple[str, ...]
    topology: Topology
    ranges: tuple[Range, ...]
    trained: tuple[Range, ...]
    cells: tuple[int, ...]
    bins: tuple[int, ...]
    bases: Mapping[str, Basis]

    @abstractmethod
    def apply(
        self,
        images: Float[Tensor, "B C H W"],
        contexts: Float64[Tensor, "B dim"],
        generator: torch.Generator,
    ) -> Float[Tensor, "B C H W"]:
        """Images with values in [0, 1], each changed by its own context."""

    @abstractmethod
    def undo(
        self, images: Float[Tensor, "B C H W"], contexts: Float64[Tensor, "B dim"]
    ) -> Float[Tensor, "B C H W"]:
        """The change taken back as far as that is possible.

        Raises:
            ContextError: this change cannot be taken back at all.
        """


def draw(problem: Problem, count: int, generator: torch.Generator) -> Float64[Tensor, "count dim"]:
    """Contexts for training, uniform over the trained ranges."""
    low, high = torch.tensor(problem.trained, dtype=torch.float64).unbind(-1)
    u = torch.rand(count, len(low), generator=generator, dtype=torch.float64)
    return low + (high - low) * u


def evaluation_contexts(problem: Problem) -> Float64[Tensor, "n dim"]:
    """The middles of all cells, the last coordinate running fastest."""
    return _middles(problem.ranges, problem.cells)


def bin_centres(problem: Problem) -> Float64[Tensor, "n dim"]:
    """The contexts that get a network of their own."""
    return _middles(problem.trained, problem.bins)


def in_range(problem: Problem, contexts: Float64[Tensor, "n dim"]) -> Bool[Tensor, " n"]:
    """Whether all coordinates of a context lie where training is."""
    low, high = torch.tensor(problem.trained, dtype=torch.float64).unbind(-1)
    return ((contexts >= low) & (contexts <= high)).all(-1)


def embed(topology: Topology, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch E"]:
    """A context as a network likes its inputs.

    (cos θ, sin θ) on a circle, the coordinate scaled to [−1, 1] on an interval.
    """
    factors = topology.factors if isinstance(topology, Product) else (topology,)
    parts = topology.split(context) if isinstance(topology, Product) else [context]
    return torch.cat([_embedded(f, part) for f, part in zip(factors, parts, strict=True)], -1)


def _embedded(topology: Topology, context: Tensor) -> Tensor:
    if isinstance(topology, Circle):
        angle = 2 * pi / topology.period * context
        return torch.cat([angle.cos(), angle.sin()], -1)
    if isinstance(topology, Interval):
        return 2 * (context - topology.low) / (topology.high - topology.low) - 1
    raise TypeError(f"there is no embedding of a {topology.spec()['kind']}; give the network c")


def _middles(ranges: tuple[Range, ...], cells: tuple[int, ...]) -> Tensor:
    return combined(
        [
            (low + (high - low) * (torch.arange(n, dtype=torch.float64) + 0.5) / n)[:, None]
            for (low, high), n in zip(ranges, cells, strict=True)
        ]
    )


TURN, ARC = (0.0, 360.0), (0.0, 270.0)
LEVELS, LOW_LEVELS = (0.0, 1.0), (0.0, 0.5)


@final
class Rotation(Problem):
    """Images at any angle; three quadrants are trained."""

    name = "rotation"
    summary = "angle on a circle; trained from 0° to 270°, tested all around"
    axes = ("angle in degrees",)
    topology = Circle(360.0)
    ranges, trained, cells, bins = (TURN,), (ARC,), (24,), (9,)
    bases: Mapping[str, Basis] = {
        "manifold": Fourier(1, 360.0),
        "manifold-line": Bernstein(1, *TURN),
        "manifold-K7": Fourier(3, 360.0),
        "manifold-K13": Fourier(6, 360.0),
    }

    def apply(
        self,
        images: Float[Tensor, "B C H W"],
        contexts: Float64[Tensor, "B dim"],
        generator: torch.Generator,
    ) -> Float[Tensor, "B C H W"]:
        """Turned counter-clockwise by the context."""
        return rotate_each(images, contexts[:, 0])

    def undo(
        self, images: Float[Tensor, "B C H W"], contexts: Float64[Tensor, "B dim"]
    ) -> Float[Tensor, "B C H W"]:
        """Turned back; what left the frame stays lost."""
        return rotate_each(images, -contexts[:, 0])


@final
class Noise(Problem):
    """Images under Gaussian noise; the lower half of the levels is trained."""

    name = "noise"
    summary = "level of Gaussian noise on an interval; trained from 0 to ½, tested up to 1"
    axes = ("noise level σ",)
    topology = Interval(*LEVELS)
    ranges, trained, cells, bins = (LEVELS,), (LOW_LEVELS,), (16,), (5,)
    bases: Mapping[str, Basis] = {
        "manifold": Bernstein(1, *LEVELS),
        "manifold-circle": Fourier(1, 1.0),
        "manifold-K3": Bernstein(2, *LEVELS),
        "manifold-K7": Bernstein(6, *LEVELS),
    }

    def apply(
        self,
        images: Float[Tensor, "B C H W"],
        contexts: Float64[Tensor, "B dim"],
        generator: torch.Generator,
    ) -> Float[Tensor, "B C H W"]:
        """With noise of the context's level, clipped to [0, 1]."""
        return add_noise_each(images, contexts[:, 0], generator)

    def undo(
        self, images: Float[Tensor, "B C H W"], contexts: Float64[Tensor, "B dim"]
    ) -> Float[Tensor, "B C H W"]:
        """Always an error: what noise did is not known."""
        raise ContextError("noise cannot be undone; leave the system undo out")


@final
class RotationNoise(Problem):
    """Images at any angle under Gaussian noise: a cylinder of contexts."""

    name = "rotation-noise"
    summary = "angle and noise level on a cylinder; trained from 0° to 270° and from 0 to ½"
    axes = ("angle in degrees", "noise level σ")
    topology = Product(Circle(360.0), Interval(*LEVELS))
    ranges, trained, cells, bins = (TURN, LEVELS), (ARC, LOW_LEVELS), (12, 6), (9, 2)
    bases: Mapping[str, Basis] = {
        "manifold": TensorProduct(Fourier(1, 360.0), Bernstein(1, *LEVELS)),
        "manifold-plane": TensorProduct(Bernstein(1, *TURN), Bernstein(1, *LEVELS)),
        "manifold-K14": TensorProduct(Fourier(3, 360.0), Bernstein(1, *LEVELS)),
        "manifold-K26": TensorProduct(Fourier(6, 360.0), Bernstein(1, *LEVELS)),
    }

    def apply(
        self,
        images: Float[Tensor, "B C H W"],
        contexts: Float64[Tensor, "B dim"],
        generator: torch.Generator,
    ) -> Float[Tensor, "B C H W"]:
        """Turned, then with noise."""
        return add_noise_each(rotate_each(images, contexts[:, 0]), contexts[:, 1], generator)

    def undo(
        self, images: Float[Tensor, "B C H W"], contexts: Float64[Tensor, "B dim"]
    ) -> Float[Tensor, "B C H W"]:
        """Turned back; the noise stays."""
        return rotate_each(images, -contexts[:, 0])


PROBLEMS: Mapping[str, Problem] = {p.name: p for p in (Rotation(), Noise(), RotationNoise())}
