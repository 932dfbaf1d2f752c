"""The streams by name: every function has the same signature, so that a catalogue can list them.

Args of every function:
    options: number of contexts, samples, order and seed.
    data_dir: the folder with MNIST in torchvision's layout; digits need none.
    holdout: "test" keeps the test images for testing; "validation" tests on the last training
        images instead and never touches the test images: for tuning.
    download: whether missing files may be fetched.
"""

from pathlib import Path

from cl_manifold.errors import ConfigError, DataError
from cl_manifold.streams.benchmark import TaskStream
from cl_manifold.streams.builders import USUAL, StreamOptions, noisy, permuted, rotated
from cl_manifold.streams.hidden import recurring
from cl_manifold.streams.images import ImageSet, load_digits, load_mnist, validation_split
from cl_manifold.streams.splitting import split
from cl_manifold.streams.suite import ctrl

HOLDOUTS = ("test", "validation")


def rotated_digits(
    options: StreamOptions = USUAL,
    data_dir: Path | None = None,
    holdout: str = "test",
    download: bool = False,
) -> TaskStream:
    """Small digits at 12 angles around the circle; needs no data files."""
    return rotated(held_out(load_digits(), holdout), options)


def permuted_digits(
    options: StreamOptions = USUAL,
    data_dir: Path | None = None,
    holdout: str = "test",
    download: bool = False,
) -> TaskStream:
    """Small digits under 10 pixel permutations; needs no data files."""
    return permuted(held_out(load_digits(), holdout), options)


def split_digits(
    options: StreamOptions = USUAL,
    data_dir: Path | None = None,
    holdout: str = "test",
    download: bool = False,
) -> TaskStream:
    """Small digits, two classes at a time; needs no data files."""
    return split(held_out(load_digits(), holdout), options)


def noisy_digits(
    options: StreamOptions = USUAL,
    data_dir: Path | None = None,
    holdout: str = "test",
    download: bool = False,
) -> TaskStream:
    """Small digits under 5 levels of noise; needs no data files."""
    return noisy(held_out(load_digits(), holdout), options)


def rotated_mnist(
    options: StreamOptions = USUAL,
    data_dir: Path | None = None,
    holdout: str = "test",
    download: bool = False,
) -> TaskStream:
    """MNIST at 12 angles around the circle."""
    return rotated(mnist_images(data_dir, holdout, download), options)


def permuted_mnist(
    options: StreamOptions = USUAL,
    data_dir: Path | None = None,
    holdout: str = "test",
    download: bool = False,
) -> TaskStream:
    """MNIST under 10 pixel permutations."""
    return permuted(mnist_images(data_dir, holdout, download), options)


def split_mnist(
    options: StreamOptions = USUAL,
    data_dir: Path | None = None,
    holdout: str = "test",
    download: bool = False,
) -> TaskStream:
    """MNIST, two classes at a time."""
    return split(mnist_images(data_dir, holdout, download), options)


def noisy_mnist(
    options: StreamOptions = USUAL,
    data_dir: Path | None = None,
    holdout: str = "test",
    download: bool = False,
) -> TaskStream:
    """MNIST under 5 levels of noise."""
    return noisy(mnist_images(data_dir, holdout, download), options)


def recurring_digits(
    options: StreamOptions = USUAL,
    data_dir: Path | None = None,
    holdout: str = "test",
    download: bool = False,
) -> TaskStream:
    """12 visits to 5 hidden tasks made of small digits; needs no data files."""
    return recurring(held_out(load_digits(), holdout), options)


def ctrl_digits(
    options: StreamOptions = USUAL,
    data_dir: Path | None = None,
    holdout: str = "test",
    download: bool = False,
) -> TaskStream:
    """A suite like CTrL made of small digits, `options.variant` says which; needs no data files."""
    return ctrl(held_out(load_digits(), holdout), options)


def recurring_mnist(
    options: StreamOptions = USUAL,
    data_dir: Path | None = None,
    holdout: str = "test",
    download: bool = False,
) -> TaskStream:
    """12 visits to 5 hidden tasks made of MNIST."""
    return recurring(mnist_images(data_dir, holdout, download), options)


def ctrl_mnist(
    options: StreamOptions = USUAL,
    data_dir: Path | None = None,
    holdout: str = "test",
    download: bool = False,
) -> TaskStream:
    """A suite like CTrL made of MNIST, `options.variant` says which."""
    return ctrl(mnist_images(data_dir, holdout, download), options)


def mnist_images(data_dir: Path | None, holdout: str, download: bool) -> ImageSet:
    """MNIST, with its test part or a validation part in its place.

    Raises:
        DataError: there is no folder, or the files are not in it.
        ConfigError: there is no such holdout.
    """
    if data_dir is None:
        raise DataError(
            "no data folder given, but MNIST streams need one; pass --data-dir FOLDER, "
            "where FOLDER/MNIST/raw holds the four *-ubyte files (torchvision's layout)"
        )
    return held_out(load_mnist(data_dir, download=download), holdout)


def held_out(images: ImageSet, holdout: str) -> ImageSet:
    """The images with their test part, or with a validation part in its place.

    Raises:
        ConfigError: there is no such holdout.
    """
    if holdout not in HOLDOUTS:
        raise ConfigError(
            f"holdout is {holdout!r}, but must be one of {', '.join(HOLDOUTS)}; use validation "
            "for tuning and test for the final figures"
        )
    return validation_split(images) if holdout == "validation" else images
