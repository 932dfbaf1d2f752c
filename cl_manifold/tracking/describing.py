"""What an Avalanche strategy and its stream are, in MLflow's params: names and plain settings.

Looks at objects, calls nothing of theirs but `len` of a stream, and knows no strategy by name.
"""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from avalanche.training.plugins.clock import Clock
from avalanche.training.plugins.evaluation import EvaluationPlugin
from avalanche.training.templates.base_sgd import PeriodicEval
from torch import nn
from torch.nn.parameter import is_lazy

from cl_manifold.tracking.keys import legal_key

MOST = 60
"""So many params at most: plugins come last, and are the first to be cut."""

LONGEST = 500
"""So many characters of a value."""

_DEPTH = 2
_SHORT = 8
_SHOWN = {"model", "optimizer", "criterion", "device", "plugins", "evaluator"}
_TRAINING = ("train_mb_size", "train_epochs", "eval_mb_size", "eval_every")


def strategy_params(strategy: Any) -> dict[str, str]:
    """A strategy: its class, training, network, optimizer, and plugins with their settings.

    Settings are what `__init__` asks for and the object keeps under that name, as far as they are
    numbers, texts or truth values, or objects that have such settings themselves.
    """
    training = {f"training.{name}": getattr(strategy, name, None) for name in _TRAINING}
    known = _SHOWN | set(_TRAINING)
    own = {k: v for k, v in _settings(strategy, _DEPTH) if k.partition(".")[0] not in known}
    plugins = _plugins(strategy)
    found = {
        "strategy.name": _class(strategy),
        **training,
        "training.device": str(getattr(strategy, "device", "")) or None,
        "training.criterion": _class(getattr(strategy, "_criterion", None)),
        **_optimizer(getattr(strategy, "optimizer", None)),
        **_network(getattr(strategy, "model", None)),
        "strategy.plugins": ", ".join(plugins) or None,
        **{f"strategy.{key}": value for key, value in own.items()},
        **{
            f"{name}.{key}": value
            for name, plugin in plugins.items()
            for key, value in _settings(plugin, _DEPTH)
        },
    }
    return _texts(found)


def stream_params(experience: Any) -> dict[str, str]:
    """The stream of an experience: the benchmark's name or class, and how many experiences."""
    stream = getattr(experience, "origin_stream", None)
    benchmark = getattr(stream, "benchmark", None)
    name = getattr(benchmark, "name", None)
    length = None
    with suppress(TypeError, NotImplementedError):
        length = len(stream)  # pyright: ignore[reportArgumentType]
    return _texts(
        {
            "stream.name": name if isinstance(name, str) else _class(benchmark),
            "stream.part": getattr(stream, "name", None),
            "stream.experiences": length,
        }
    )


def _texts(found: Mapping[str, Any]) -> dict[str, str]:
    """What there is of it, as MLflow takes it."""
    plain = {legal_key(key): str(v)[:LONGEST] for key, v in found.items() if _is_plain(v)}
    return dict(list(plain.items())[:MOST])


def _optimizer(optimizer: Any) -> dict[str, Any]:
    groups = getattr(optimizer, "param_groups", None) or [{}]
    rates = list(dict.fromkeys(group.get("lr") for group in groups))
    rate = rates[0] if len(rates) == 1 else ", ".join(map(str, rates))
    return {
        "training.optimizer": _class(optimizer),
        "training.learning_rate": float(rate) if isinstance(rate, torch.Tensor) else rate,
    }


def _network(network: Any) -> dict[str, Any]:
    if not isinstance(network, nn.Module):
        return {}
    sizes = [p.numel() for p in network.parameters() if not is_lazy(p)]
    return {"network.name": _class(network), "network.parameters": sum(sizes)}


def _plugins(strategy: Any) -> dict[str, Any]:
    """The plugins by class name, numbered where one is there several times."""
    named: dict[str, Any] = {}
    for plugin in getattr(strategy, "plugins", None) or ():
        if isinstance(plugin, EvaluationPlugin | Clock | PeriodicEval):
            continue
        name = kind = type(plugin).__name__
        count = 1
        while name in named:
            count += 1
            name = f"{kind}_{count}"
        named[name] = plugin
    return named


def _settings(thing: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """Settings by name; those of an object within follow its class."""
    for name, value in _kept(thing):
        if _is_plain(value):
            yield name, value
        elif isinstance(value, list | tuple | set | frozenset):
            if len(value) <= _SHORT and all(map(_is_plain, value)):
                yield name, ", ".join(map(str, value))
        elif isinstance(value, Mapping):
            yield from ((f"{name}.{key}", v) for key, v in value.items() if _is_plain(v))
        elif not isinstance(value, torch.Tensor):
            yield name, _class(value)
            if depth > 1 and not isinstance(value, nn.Module):
                yield from ((f"{name}.{key}", v) for key, v in _settings(value, depth - 1))


def _kept(thing: Any) -> Iterator[tuple[str, Any]]:
    """What `__init__` asks for and the object keeps: as `name`, `_name` or `name_…`."""
    kept = getattr(thing, "__dict__", {})
    try:
        names = list(inspect.signature(type(thing).__init__).parameters)[1:]
    except (TypeError, ValueError):
        return
    for name in names:
        longer = (key for key in kept if key.startswith(f"{name}_"))
        found = (kept.get(key) for key in (name, f"_{name}", *longer))
        value = next((value for value in found if value is not None), None)
        if value is not None:
            yield name, value


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | str) and value != ""


def _class(thing: Any) -> str | None:
    """Its class, or its own name where it is a class or a function."""
    if thing is None:
        return None
    return getattr(thing, "__name__", None) or type(thing).__name__
