"""Task streams: Avalanche benchmarks whose experiences carry their contexts."""

from cl_manifold.streams.benchmark import (
    ContextExperience,
    ImageDataset,
    StreamFacts,
    TaskStream,
)
from cl_manifold.streams.builders import StreamOptions, noisy, permuted, rotated, split
from cl_manifold.streams.images import ImageSet, load_digits, load_mnist, validation_split
from cl_manifold.streams.named import (
    noisy_digits,
    noisy_mnist,
    permuted_digits,
    permuted_mnist,
    rotated_digits,
    rotated_mnist,
    split_digits,
    split_mnist,
)
from cl_manifold.streams.transforms import add_noise, permute_pixels, rotate

__all__ = [
    "ContextExperience",
    "ImageDataset",
    "ImageSet",
    "StreamFacts",
    "StreamOptions",
    "TaskStream",
    "add_noise",
    "load_digits",
    "load_mnist",
    "noisy",
    "noisy_digits",
    "noisy_mnist",
    "permute_pixels",
    "permuted",
    "permuted_digits",
    "permuted_mnist",
    "rotate",
    "rotated",
    "rotated_digits",
    "rotated_mnist",
    "split",
    "split_digits",
    "split_mnist",
    "validation_split",
]
