"""Settings that belong to no strategy: of the stream, the topology and the training."""

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from cl_manifold.options import Count, Options, Positive

if TYPE_CHECKING:
    from cl_manifold.streams import StreamOptions, TaskStream
else:  # Avalanche takes seconds to load
    StreamOptions = TaskStream = Any

Level = Annotated[int, Field(ge=0, le=1000)]
Size = Annotated[int, Field(ge=1, le=10_000)]

REPORTS = 20
"""How often training on all contexts at once reports how far it is, at most."""


class StreamSettings(Options):
    """Which experiences there are."""

    name: str = "rotated-digits"
    """One of `cl-manifold streams`, or `package.module:function`."""
    contexts: Annotated[int, Field(ge=1, le=100_000)] | None = 12
    """How many; all: the stream's usual number."""
    samples: Count | None = None
    """Training samples per context."""
    test_samples: Count | None = None
    """Test samples per context."""
    order: Literal["random", "sorted"] = "random"
    """The order in which contexts are visited."""
    variant: Literal["minus", "plus", "in", "out", "pl", "long"] = "minus"
    """Which stream of the suite `ctrl`."""
    holdout: Literal["test", "validation"] = "test"
    """Validation: tests on the last training samples, for tuning."""
    download: bool = False
    """Whether missing files may be fetched."""


class ContinuumSettings(Options):
    """What a stream of all contexts at once is made of."""

    name: str = "rotation"
    """One of `cl-manifold streams`."""
    images: str = "digits"
    """Images that contexts change: digits, mnist, a folder with a folder per class, or .npz."""
    test_samples: Count = 2000
    """Test images at each context, at most."""
    holdout: Literal["test", "validation"] = "test"
    """Validation: tests on training images, for tuning."""
    download: bool = False
    """Whether missing files may be fetched."""


class FileSettings(Options):
    """What of a file becomes experiences; how it is read stands in the section data."""

    name: str = "table.csv"
    """Path of a .csv, .parquet or .npz file."""
    samples: Count | None = None
    """Training rows per context, at most."""
    test_samples: Count | None = None
    """Test rows per context, at most."""
    order: Literal["random", "sorted"] = "random"
    """The order in which contexts are visited."""
    holdout: Literal["test", "validation"] = "test"
    """Validation: tests on a part of the training rows, for tuning."""


class PictureSettings(Options):
    """What of images becomes experiences; what is done to them stands in the section data."""

    name: str = "images.npz"
    """Path of a folder with a folder of images per class or task, or of a .npz file of images."""
    contexts: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """How many; auto: 12 angles, 10 permutations, 5 levels of noise, few classes each."""
    samples: Count | None = None
    """Training images per context."""
    test_samples: Count | None = None
    """Test images per context."""
    order: Literal["random", "sorted"] = "random"
    """The order in which contexts are visited."""
    holdout: Literal["test", "validation"] = "test"
    """Validation: tests on a quarter of the training images, for tuning."""


class OwnStream(StreamSettings):
    """A stream of your own with settings of its own, named `module:Class`."""

    @abstractmethod
    def build(self, options: StreamOptions, data_dir: Path | None) -> TaskStream:
        """The stream.

        Args:
            options: contexts, samples, order and seed, as every family of streams takes them.
            data_dir: the folder that the user named, if any.
        """


class TopologyOptions(Options):
    """Topology and basis: how weights depend on the context."""

    kind: str = "circle"
    """circle, interval, spline, torus, simplex, codes, or `package.module:function`."""
    harmonics: Level = 3
    """Of a circle or torus; the basis of a circle has 2 · harmonics + 1 functions."""
    degree: Level = 3
    """Of the polynomials on an interval (1 is the line), or of the pieces of a spline."""
    size: Size = 7
    """Functions of a spline, dimensions of codes."""


class _Training(Options):
    """How a network is trained, whatever it is trained on.

    One thread is the default because the order of summation, and with it the last digit, depends
    on their number; small networks gain nothing from more.
    """

    batch_size: Count = 32
    """Samples per step."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """A new one for every experience."""
    learning_rate: Positive = 1e-3
    """Of the first step."""
    decay: bool = True
    """Whether the rate falls linearly to zero over an experience."""
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Threads of torch."""
    device: str = "cpu"
    """Device of torch, such as cpu or cuda."""


class TrainingOptions(_Training):
    """How one experience is trained."""

    epochs: Annotated[int, Field(ge=1, le=10**6)] = 2
    """Passes over the samples of an experience."""
    evaluate_every: Annotated[int, Field(ge=0, le=10**6)] = 0
    """Experiences between evaluations on the whole stream; 0: every one, up to 20 in all."""


class StepTraining(_Training):
    """How all contexts are trained at once: samples are drawn anew, so that there are no epochs."""

    steps: Count = 400
    """Training steps, each on samples and contexts drawn anew."""

    @property
    def epochs(self) -> int:
        """How often training reports how far it is, up to 20 times: every ⌈steps / 20⌉ steps."""
        return -(-self.steps // -(-self.steps // REPORTS))

    @property
    def evaluate_every(self) -> int:
        """There is one evaluation, at the end."""
        return 0


class RunSettings(Options):
    """What belongs to no section."""

    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Of everything random."""
    data_dir: Path | None = None
    """Folder with MNIST in torchvision's layout."""
    tracking_uri: str | None = None
    """MLflow store."""
    experiment: str = "cl-manifold"
    """MLflow experiment."""
