"""What the command line can name: streams, strategies, topologies. Names and sentences only.

Nothing heavy is imported here; `load` fetches an object when it is needed. A name may also be a
user's own `package.module:object`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from cl_manifold.errors import ConfigError


@dataclass(frozen=True)
class Item:
    """One name of the catalogue.

    Attributes:
        summary: one line for people.
        target: `module:object` that builds it.
        defaults: configuration values that differ from the general defaults, by "section.key".
        source: where the method was published, or whose code it is; empty where it is our own.
        grid: values that `compare --tune` tries, by "section.key".
    """

    summary: str
    target: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


_DIGITS = {"training.epochs": 10, "training.batch_size": 16, "strategy.price": 100.0}
_MNIST = {"stream.samples": 10_000, "stream.test_samples": 2_000}
_CIRCLE = {"topology.kind": "circle"}
_PERMUTED = {"topology.kind": "simplex", "strategy.strength": 1e-5}
_HIDDEN = {
    "topology.kind": "simplex",
    "strategy.strength": 1e-7,
    "contexts.training": "inferred",
}
_UNTOLD = {"contexts.test": "inferred", "contexts.features": 1000}
_SPLIT = {"topology.kind": "simplex", "strategy.strength": 1e-7}

STREAMS: Mapping[str, Item] = {
    "rotated-digits": Item(
        "scikit-learn digits, 16×16, turned by 12 angles 30° apart; context on a circle",
        "cl_manifold.streams:rotated_digits",
        _DIGITS | _CIRCLE | {"stream.contexts": 12, "topology.harmonics": 4},
    ),
    "permuted-digits": Item(
        "scikit-learn digits with 10 unrelated pixel orders; context is which one",
        "cl_manifold.streams:permuted_digits",
        _DIGITS | _PERMUTED | {"stream.contexts": 10},
    ),
    "split-digits": Item(
        "scikit-learn digits, 5 tasks of 2 classes each; context is which task",
        "cl_manifold.streams:split_digits",
        _DIGITS | _SPLIT | {"stream.contexts": 5},
    ),
    "rotated-mnist": Item(
        "MNIST turned by 20 angles 18° apart, 10,000 images each; context on a circle",
        "cl_manifold.streams:rotated_mnist",
        _MNIST | _CIRCLE | {"stream.contexts": 20},
    ),
    "permuted-mnist": Item(
        "MNIST with 10 unrelated pixel orders; context is which one",
        "cl_manifold.streams:permuted_mnist",
        _MNIST | _PERMUTED | {"stream.contexts": 10},
    ),
    "split-mnist": Item(
        "MNIST, 5 tasks of 2 classes each; context is which task",
        "cl_manifold.streams:split_mnist",
        _SPLIT | {"stream.contexts": 5},
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
}

STRATEGIES: Mapping[str, Item] = {
    "weight-manifold": Item(
        "weights are a smooth function of the context; finished tasks hold it in place",
        "cl_manifold.build:weight_manifold",
    ),
    "naive": Item(
        "fine-tuning on one experience after the other, no protection",
        "cl_manifold.build:naive",
    ),
    "ewc": Item(
        "Avalanche's elastic weight consolidation, online, blind to the context",
        "cl_manifold.build:ewc",
    ),
    "joint": Item(
        "one network trained on all experiences at once, blind to the context",
        "cl_manifold.build:joint",
    ),
}

TOPOLOGIES: Mapping[str, Item] = {
    "circle": Item("harmonics on a circle (topology.harmonics)", "cl_manifold.build:circle"),
    "interval": Item(
        "polynomials on an interval (topology.degree; 1 is the line)", "cl_manifold.build:interval"
    ),
    "spline": Item(
        "cubic B-splines on the stream's interval or circle (topology.size)",
        "cl_manifold.build:spline",
    ),
    "torus": Item(
        "products of harmonics on two or more circles (topology.harmonics)",
        "cl_manifold.build:product_of_circles",
    ),
    "simplex": Item("one control point per unrelated task", "cl_manifold.build:simplex"),
    "codes": Item(
        "a random unit vector per unrelated task, in topology.size dimensions",
        "cl_manifold.build:codes",
    ),
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
    raise ConfigError(unknown(kind, name, catalogue) + f"; `cl-manifold {kind}s` lists all")


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The beginning of an error sentence: what is unknown, and what may have been meant."""
    names = sorted(known)
    close = get_close_matches(name, names, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(names)}"
    return f"unknown {kind} {name!r}; {hint}"


def load(target: str) -> Any:
    """The object at `package.module:name`.

    Raises:
        ConfigError: the module or the object does not exist.
    """
    module, _, name = target.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"cannot load {target!r} ({error}); give an importable package.module:object"
        ) from error
