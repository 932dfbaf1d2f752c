"""The streams that a configuration can name, with what each sets. Sentences only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Item:
    """One name of the catalogue.

    Attributes:
        summary: one line for people.
        target: `module:object` that builds it.
        defaults: configuration values that differ from the general defaults, by "section.key".
        source: where a stream's setting was published; empty where it is our own.
        at_once: whether a stream has no tasks, but trains all contexts at once.
    """

    summary: str
    target: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    at_once: bool = False


_DIGITS = {"training.epochs": 10, "training.batch_size": 16}
_MNIST = {"stream.samples": 10_000, "stream.test_samples": 2_000}
_CIRCLE = {"topology.kind": "circle"}
_SIMPLEX = {"topology.kind": "simplex"}
_HIDDEN = {
    "topology.kind": "simplex",
    "contexts.training": "inferred",
}
_UNTOLD = {"contexts.test": "inferred"}

# published settings: all images there are, a constant rate
_PUBLISHED = {"stream.samples": None, "stream.test_samples": None, "training.decay": False}
_SMALL_SGD = {"training.optimizer": "sgd", "network.hidden": (100, 100)}
_SGD_10 = {"training.epochs": 5, "training.batch_size": 10, "training.learning_rate": 0.01}
_SGD_128 = {"training.epochs": 1, "training.batch_size": 128, "training.learning_rate": 0.2}
# 21 epochs of about 12,000 images in batches of 128 are about the 2,000 published steps
_ADAM_128 = {
    "stream.contexts": 5,
    "stream.order": "sorted",
    "network.hidden": (400, 400),
    "training.epochs": 21,
    "training.batch_size": 128,
}
_CONTINUUM = {
    "network.hidden": (128, 128),
    "training.batch_size": 128,
    "training.decay": False,
}
_LINE = {"topology.kind": "interval", "topology.degree": 1}
_GPM = _PUBLISHED | _SMALL_SGD | _SGD_10
_MAMMOTH = _PUBLISHED | _SMALL_SGD | _SGD_128
_SCENARIO = _PUBLISHED | _SIMPLEX | _ADAM_128
_SINGLE = {"contexts.test": "inferred", "contexts.batch": 1}

STREAMS: Mapping[str, Item] = {
    "rotated-digits": Item(
        "scikit-learn digits, 16×16, turned by 12 angles 30° apart; context on a circle",
        "cl_manifold.streams:rotated_digits",
        _DIGITS | _CIRCLE | {"stream.contexts": 12, "topology.harmonics": 4},
    ),
    "permuted-digits": Item(
        "scikit-learn digits with 10 unrelated pixel orders; context is which one",
        "cl_manifold.streams:permuted_digits",
        _DIGITS | _SIMPLEX | {"stream.contexts": 10},
    ),
    "split-digits": Item(
        "scikit-learn digits, 5 tasks of 2 classes each; context is which task",
        "cl_manifold.streams:split_digits",
        _DIGITS | _SIMPLEX | {"stream.contexts": 5},
    ),
    "rotated-mnist": Item(
        "MNIST turned by 20 angles 18° apart, 10,000 images each; context on a circle",
        "cl_manifold.streams:rotated_mnist",
        _MNIST | _CIRCLE | {"stream.contexts": 20},
    ),
    "permuted-mnist": Item(
        "MNIST with 10 unrelated pixel orders; context is which one",
        "cl_manifold.streams:permuted_mnist",
        _MNIST | _SIMPLEX | {"stream.contexts": 10},
    ),
    "split-mnist": Item(
        "MNIST, 5 tasks of 2 classes each; context is which task",
        "cl_manifold.streams:split_mnist",
        _SIMPLEX | {"stream.contexts": 5},
    ),
    "noisy-mnist": Item(
        "MNIST under 10 levels of Gaussian noise; context on an interval",
        "cl_manifold.streams:noisy_mnist",
        _MNIST | {"topology.kind": "interval", "stream.contexts": 10},
    ),
    "recurring-digits": Item(
        "scikit-learn digits, 12 visits to 5 hidden tasks, 3 of them related; no context",
        "cl_manifold.streams:recurring_digits",
        _DIGITS | _HIDDEN | _UNTOLD | {"stream.contexts": 12, "stream.samples": 800},
    ),
    "recurring-mnist": Item(
        "MNIST, 12 visits to 5 hidden tasks, 3 of them related; no context",
        "cl_manifold.streams:recurring_mnist",
        _MNIST | _HIDDEN | _UNTOLD | {"stream.contexts": 12},
    ),
    "ctrl-digits": Item(
        "scikit-learn digits like CTrL: a task returns or is varied after 4 others; no context",
        "cl_manifold.streams:ctrl_digits",
        _DIGITS | _HIDDEN | {"stream.contexts": None, "stream.samples": 1000},
    ),
    "ctrl-mnist": Item(
        "MNIST like CTrL: a task returns or is varied after 4 others; no context",
        "cl_manifold.streams:ctrl_mnist",
        _MNIST | _HIDDEN | {"stream.contexts": None, "stream.samples": 4000, "training.epochs": 10},
    ),
    "gpm-permuted-mnist": Item(
        "MNIST with 10 unrelated pixel orders, in the setting of GPM; context is which one",
        "cl_manifold.streams:gpm_permuted_mnist",
        _GPM | _SIMPLEX | {"stream.contexts": 10},
        "Saha, Garg, Roy 2021 (GPM), arXiv 2103.09762",
    ),
    "mammoth-permuted-mnist": Item(
        "MNIST with 20 unrelated pixel orders, in the setting of mammoth; context is which one",
        "cl_manifold.streams:mammoth_permuted_mnist",
        _MAMMOTH | _SIMPLEX | {"stream.contexts": 20},
        "Buzzega et al. 2020 (mammoth), arXiv 2004.07211",
    ),
    "mammoth-rotated-mnist": Item(
        "MNIST at 20 random angles in [0°, 180°), in the setting of mammoth; context on a circle",
        "cl_manifold.streams:mammoth_rotated_mnist",
        _MAMMOTH | _CIRCLE | {"stream.contexts": 20},
        "Buzzega et al. 2020 (mammoth), arXiv 2004.07211",
    ),
    "split-mnist-task": Item(
        "MNIST, 5 tasks of 2 classes; task known, the answer is one of its 2 classes",
        "cl_manifold.streams:split_mnist_task",
        _SCENARIO,
        "van de Ven and Tolias 2019, arXiv 1904.07734",
    ),
    "split-mnist-domain": Item(
        "MNIST, 5 tasks of 2 classes; task unknown, the answer is odd or even",
        "cl_manifold.streams:split_mnist_domain",
        _SCENARIO | _SINGLE,
        "van de Ven and Tolias 2019, arXiv 1904.07734",
    ),
    "split-mnist-class": Item(
        "MNIST, 5 tasks of 2 classes; task unknown, the answer is one of 10 classes",
        "cl_manifold.streams:split_mnist_class",
        _SCENARIO | _SINGLE,
        "van de Ven and Tolias 2019, arXiv 1904.07734",
    ),
    "rotation": Item(
        "all angles at once, one per sample; three quadrants are trained, one is held out",
        "cl_manifold.streams.continuum:rotation",
        _CONTINUUM | _CIRCLE | {"topology.harmonics": 1},
        at_once=True,
    ),
    "noise": Item(
        "all noise levels at once, one per sample; 0 to ½ is trained, ½ to 1 is held out",
        "cl_manifold.streams.continuum:noise",
        _CONTINUUM | _LINE,
        at_once=True,
    ),
    "rotation-noise": Item(
        "all angles and noise levels at once; a quadrant and the upper half are held out",
        "cl_manifold.streams.continuum:rotation_noise",
        _CONTINUUM | _LINE | {"topology.kind": "cylinder", "topology.harmonics": 1},
        at_once=True,
    ),
}
