"""What of a trial is put aside between two experiences, what is made anew, and whose code it is."""

from collections.abc import Mapping
from typing import Any

import torch
from avalanche.training.templates.base import BaseTemplate
from torch import Tensor

from cl_manifold.experiments.config import RunConfig

TRANSIENT: Mapping[type, tuple[str, ...]] = {
    BaseTemplate: (
        "adapted_dataset",
        "current_eval_stream",
        "dataloader",
        "loss",
        "mb_output",
        "mbatch",
        "_eval_streams",
    ),
}
"""Of other people's classes: attributes that training and evaluation make anew."""

_PLAIN = (str, int, float, type, torch.dtype, type(None))


def left_out(kind: type) -> set[str]:
    """Attributes of a class's objects that the next experience makes anew.

    A class names its own in `transient`.
    """
    own = (vars(base).get("transient", ()) for base in kind.__mro__)
    known = (TRANSIENT.get(base, ()) for base in kind.__mro__)
    return {name for names in (*own, *known) for name in names}


def own_packages(config: RunConfig) -> set[str]:
    """The top-level packages of the classes that the configuration names, and of their bases."""
    used = [type(config.strategy), type(config.network), type(config.stream)]
    modules = {base.__module__ for kind in used for base in kind.__mro__}
    named = {config.strategy.name, config.stream.name, config.network.name, config.topology.kind}
    modules |= {name.partition(":")[0] for name in named if ":" in name}
    return {module.partition(".")[0] for module in modules} - {"builtins", "pydantic", "typing"}


def reached(root: Any, name: str) -> dict[str, Any]:
    """Objects and tensors below a root, by the way that leads to each."""
    found: dict[str, Any] = {}
    seen: set[int] = set()
    waiting = [(name, root)]
    while waiting:
        way, thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, _PLAIN):
            continue
        seen.add(id(thing))
        if isinstance(thing, list | tuple):
            below = enumerate(thing) if len(thing) and not isinstance(thing[0], _PLAIN) else ()
        elif isinstance(thing, dict):
            below = thing.items()
        else:
            found[way] = thing
            below = () if isinstance(thing, Tensor) else getattr(thing, "__dict__", {}).items()
        waiting += [(f"{way}.{key}", part) for key, part in below]
    return found
