"""What a configuration can name: streams, networks, strategies, topologies. Sentences only.

Nothing heavy is imported here; `load` fetches an object when it is needed. A name may also be a
user's own `package.module:object`.
"""

import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from cl_manifold.errors import ConfigError
from cl_manifold.experiments.stream_names import STREAMS, Item

__all__ = ["NETWORKS", "STRATEGIES", "STREAMS", "TOPOLOGIES", "Item", "load", "lookup", "unknown"]

_METHODS = "cl_manifold.strategies.methods"

STRATEGIES: Mapping[str, Item] = {
    "weight-manifold": Item(
        "weights are a smooth function of the context; finished tasks hold it in place",
        f"{_METHODS}.weight_manifold:WeightManifoldMethod",
    ),
    "naive": Item(
        "fine-tuning on one experience after the other, no protection", f"{_METHODS}.plain:Naive"
    ),
    "joint": Item(
        "one network trained on everything at once, blind to the context",
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
        "the context as further inputs, one experience after the other or all contexts at once",
        f"{_METHODS}.told:Concat",
    ),
    "joint-concat": Item(
        "the context as further inputs, trained on all experiences at once",
        f"{_METHODS}.told:JointConcat",
    ),
    "joint-manifold": Item(
        "weights are a smooth function of the context, trained at all contexts at once",
        f"{_METHODS}.at_once:JointManifold",
    ),
    "film": Item(
        "gain and shift of every feature, read from the context by a small network",
        f"{_METHODS}.at_once:FilmMethod",
    ),
    "hypernetwork": Item(
        "weights that are the last layer of a network of the context",
        f"{_METHODS}.at_once:Hypernetwork",
    ),
    "scn": Item(
        "a mixture of networks, with weights that a small network reads from the context",
        f"{_METHODS}.at_once:SubspaceConfigurable",
    ),
    "one-per-context": Item(
        "a network of its own for every part of the trained contexts; others take the nearest's",
        f"{_METHODS}.at_once:OnePerContextMethod",
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
    "cylinder": Item(
        "products of harmonics on circles and polynomials on intervals (topology.harmonics, "
        "topology.degree)",
        "cl_manifold.experiments.topologies:cylinder",
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
    "resnet18": Item(
        "residual network of 18 layers (network.width, network.stem, network.norm)",
        "cl_manifold.networks:Resnet18",
    ),
    "vit-tiny": Item(
        "small vision transformer (network.patch, network.width, network.depth, network.heads)",
        "cl_manifold.networks:VitTiny",
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
    except Exception as error:
        raise ConfigError(
            f"cannot load {target!r} ({error}); give an importable package.module:object"
        ) from error
