"""What a configuration can name: streams, networks, strategies, topologies. Sentences only.

Nothing heavy is imported here; `load` fetches an object when it is needed. A name may also be a
user's own `package.module:object`.
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from cl_manifold.errors import ConfigError


@dataclass(frozen=True)
class Item:
    """One name of the catalogue.

    Attributes:
        summary: one line for people.
        target: `module:object` that builds it.
        defaults: configuration values that differ from the general defaults, by "section.key".
        source: where a stream's setting was published; empty where it is our own.
    """

    summary: str
    target: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""


_METHODS = "cl_manifold.strategies.methods"

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
}

STRATEGIES: Mapping[str, Item] = {
    "weight-manifold": Item(
        "weights are a smooth function of the context; finished tasks hold it in place",
        f"{_METHODS}.weight_manifold:WeightManifoldMethod",
    ),
    "naive": Item(
        "fine-tuning on one experience after the other, no protection", f"{_METHODS}.plain:Naive"
    ),
    "joint": Item(
        "one network trained on all experiences at once, blind to the context",
        f"{_METHODS}.plain:Joint",
    ),
    "cumulative": Item(
        "each experience trained together with all earlier ones, kept in full",
        f"{_METHODS}.plain:Cumulative",
    ),
    "ewc": Item(
        "elastic weight consolidation, a penalty for each finished experience",
        f"{_METHODS}.penalties:Ewc",
    ),
    "online-ewc": Item(
        "elastic weight consolidation with one running penalty (strategy.decay)",
        f"{_METHODS}.penalties:OnlineEwc",
    ),
    "si": Item(
        "synaptic intelligence: a weight whose movement lowered the loss is held firmly",
        f"{_METHODS}.penalties:Si",
    ),
    "mas": Item(
        "memory aware synapses: a weight that the outputs react to is held firmly",
        f"{_METHODS}.penalties:Mas",
    ),
    "lwf": Item(
        "learning without forgetting: the earlier network's answers to new samples are kept",
        f"{_METHODS}.penalties:Lwf",
    ),
    "replay": Item(
        "old samples beside new ones in every mini-batch (strategy.replay_samples)",
        f"{_METHODS}.memories:Replay",
    ),
    "gdumb": Item(
        "a fresh network trained on remembered samples alone", f"{_METHODS}.memories:Gdumb"
    ),
    "agem": Item(
        "steps that do not hurt remembered samples on average", f"{_METHODS}.memories:Agem"
    ),
    "gem": Item(
        "steps that hurt the remembered samples of no earlier experience (strategy.margin)",
        f"{_METHODS}.memories:Gem",
    ),
    "der": Item(
        "remembered samples keep the outputs they had (strategy.alpha)", f"{_METHODS}.memories:Der"
    ),
    "der++": Item(
        "der, and the remembered samples' classes too (strategy.beta)",
        f"{_METHODS}.memories:DerPlusPlus",
    ),
    "er-ace": Item(
        "replay in which new samples compete only among the experience's classes",
        f"{_METHODS}.memories:ErAce",
    ),
    "packnet": Item(
        "parts of one network, one per experience, told the context at test (strategy.pruned)",
        f"{_METHODS}.told:Packnet",
    ),
    "separate": Item(
        "a network of its own for every context: what memory can buy", f"{_METHODS}.told:Separate"
    ),
    "concat": Item(
        "the context as further inputs of the network, one experience after the other",
        f"{_METHODS}.told:Concat",
    ),
    "joint-concat": Item(
        "the context as further inputs, trained on all experiences at once",
        f"{_METHODS}.told:JointConcat",
    ),
    "random": Item("chance: guesses every answer, trains nothing", f"{_METHODS}.plain:Random"),
}

TOPOLOGIES: Mapping[str, Item] = {
    "circle": Item(
        "harmonics on a circle (topology.harmonics)", "cl_manifold.experiments.topologies:circle"
    ),
    "interval": Item(
        "polynomials on an interval (topology.degree; 1 is the line)",
        "cl_manifold.experiments.topologies:interval",
    ),
    "spline": Item(
        "cubic B-splines on the stream's interval or circle (topology.size)",
        "cl_manifold.experiments.topologies:spline",
    ),
    "torus": Item(
        "products of harmonics on two or more circles (topology.harmonics)",
        "cl_manifold.experiments.topologies:product_of_circles",
    ),
    "simplex": Item(
        "one control point per unrelated task", "cl_manifold.experiments.topologies:simplex"
    ),
    "codes": Item(
        "a random unit vector per unrelated task, in topology.size dimensions",
        "cl_manifold.experiments.topologies:codes",
    ),
}


NETWORKS: Mapping[str, Item] = {
    "mlp": Item("linear layers with ReLU (network.hidden)", "cl_manifold.networks:Mlp"),
    "cnn": Item("3×3 convolutions with GroupNorm (network.channels)", "cl_manifold.networks:Cnn"),
}


def lookup(kind: str, catalogue: Mapping[str, Item], name: str) -> Item:
    """The item of that name, or one made of a user's own `module:object`.

    Raises:
        ConfigError: nothing has that name; the nearest names are suggested.
    """
    if name in catalogue:
        return catalogue[name]
    if ":" in name:
        return Item("your own", name)
    command = "streams" if kind == "stream" else "strategies"
    raise ConfigError(f"{unknown(kind, name, catalogue)}; `cl-manifold {command}` lists all")


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The beginning of an error sentence: what is unknown, and what may have been meant."""
    names = sorted(known)
    close = get_close_matches(name, names, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(names)}"
    return f"unknown {kind} {name!r}; {hint}"


def load(target: str) -> Any:
    """The object at `package.module:name`; modules of the current folder are found, too.

    Raises:
        ConfigError: the module or the object does not exist.
    """
    module, _, name = target.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError, SyntaxError) as error:
        raise ConfigError(
            f"cannot load {target!r} ({error}); give an importable package.module:object"
        ) from error
