"""Task streams: Avalanche benchmarks whose experiences carry their contexts or hide them."""

from cl_manifold.streams.benchmark import (
    ContextExperience,
    HiddenKind,
    StreamFacts,
    TaskStream,
)
from cl_manifold.streams.builders import StreamOptions, noisy, permuted, rotated
from cl_manifold.streams.continuum import FAMILIES, Axis, Continuum
from cl_manifold.streams.datasets import ImageDataset, TableDataset
from cl_manifold.streams.hidden import recurring
from cl_manifold.streams.images import ImageSet, load_digits, load_mnist, validation_split
from cl_manifold.streams.named import (
    ctrl_digits,
    ctrl_mnist,
    noisy_digits,
    noisy_mnist,
    permuted_digits,
    permuted_mnist,
    recurring_digits,
    recurring_mnist,
    rotated_digits,
    rotated_mnist,
    split_digits,
    split_mnist,
)
from cl_manifold.streams.pictures import load_folder, load_pictures
from cl_manifold.streams.protocols import (
    gpm_permuted_mnist,
    mammoth_permuted_mnist,
    mammoth_rotated_mnist,
    rotated_at_random,
    split_mnist_class,
    split_mnist_domain,
    split_mnist_task,
)
from cl_manifold.streams.scoring import Regression, right
from cl_manifold.streams.splitting import split, split_class, split_domain, split_task
from cl_manifold.streams.suite import VARIANTS, ctrl
from cl_manifold.streams.transforms import (
    add_background,
    add_noise,
    add_noise_each,
    permute_pixels,
    rotate,
    rotate_each,
    texture,
)

__all__ = [
    "FAMILIES",
    "VARIANTS",
    "Axis",
    "ContextExperience",
    "Continuum",
    "HiddenKind",
    "ImageDataset",
    "ImageSet",
    "Regression",
    "StreamFacts",
    "StreamOptions",
    "TableDataset",
    "TaskStream",
    "add_background",
    "add_noise",
    "add_noise_each",
    "ctrl",
    "ctrl_digits",
    "ctrl_mnist",
    "gpm_permuted_mnist",
    "load_digits",
    "load_folder",
    "load_mnist",
    "load_pictures",
    "mammoth_permuted_mnist",
    "mammoth_rotated_mnist",
    "noisy",
    "noisy_digits",
    "noisy_mnist",
    "permute_pixels",
    "permuted",
    "permuted_digits",
    "permuted_mnist",
    "recurring",
    "recurring_digits",
    "recurring_mnist",
    "right",
    "rotate",
    "rotate_each",
    "rotated",
    "rotated_at_random",
    "rotated_digits",
    "rotated_mnist",
    "split",
    "split_class",
    "split_digits",
    "split_domain",
    "split_mnist",
    "split_mnist_class",
    "split_mnist_domain",
    "split_mnist_task",
    "split_task",
    "texture",
    "validation_split",
]
