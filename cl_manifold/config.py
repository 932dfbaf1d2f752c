"""The configuration of a run: every value, its type, and where it came from.

Sections and keys are the fields of the dataclasses below. Values come in layers, later ones win:
defaults, the stream's and the strategy's defaults, a TOML file, the environment
(CL_MANIFOLD_SECTION_KEY), the command line. Unknown keys are errors in every layer.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from cl_manifold.catalog import STRATEGIES, STREAMS, TOPOLOGIES, lookup, unknown
from cl_manifold.errors import ConfigError

Values = Mapping[str, Any]
"""Values by "section.key", or "key" for those of the run itself."""


@dataclass(frozen=True)
class StreamConfig:
    """Which experiences there are."""

    name: str = "rotated-digits"
    contexts: int | None = 12
    samples: int | None = None
    test_samples: int | None = None
    order: Literal["random", "sorted"] = "random"
    variant: Literal["minus", "plus", "in", "out", "pl", "long"] = "minus"
    holdout: Literal["test", "validation"] = "test"
    download: bool = False


@dataclass(frozen=True)
class TopologyConfig:
    """Topology and basis of the weight manifold."""

    kind: str = "circle"
    harmonics: int = 3
    degree: int = 3
    size: int = 7


@dataclass(frozen=True)
class StrategyConfig:
    """The strategy and its strengths.

    Of the weight manifold: `price` of moving weights, `strength` of a task's information relative
    to the prior ("auto" is that of the basis), how finely a task is held (`blocks`) and by what
    (`protection`), and the number format between tasks (`storage`).

    Of the others: `penalty` is the weight of what ewc, online-ewc, si, mas and lwf add to the loss;
    `decay` how much of the past online-ewc keeps; `replay_samples` how many training samples are
    remembered in all; `alpha` and `beta` the weights of remembered outputs and classes in der and
    der++; `temperature` that of lwf; `margin` how far gem leans towards the past; `pruned` the
    share of free weights that packnet leaves to later tasks.
    """

    name: str = "weight-manifold"
    price: float = 10.0
    strength: float | None = None
    blocks: Literal["tensor", "row", "weight"] = "row"
    storage: Literal["float32", "bfloat16", "int8"] = "float32"
    protection: Literal["fisher", "exact"] = "fisher"
    information_samples: int = 256
    penalty: float = 1000.0
    decay: float = 1.0
    replay_samples: int = 500
    alpha: float = 0.1
    beta: float = 0.5
    temperature: float = 2.0
    margin: float = 0.5
    pruned: float = 0.75


@dataclass(frozen=True)
class TrainingConfig:
    """The network and how one experience is trained.

    `evaluate_every` is how many experiences lie between evaluations on the whole stream; 0 means
    every one, up to 20 evaluations in all. One thread is the default because the order of
    summation, and with it the last digit, depends on their number; small networks gain nothing
    from more.
    """

    hidden: tuple[int, ...] = (256, 256)
    epochs: int = 2
    batch_size: int = 32
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float = 1e-3
    decay: bool = True
    evaluate_every: int = 0
    threads: int = 1
    device: str = "cpu"


@dataclass(frozen=True)
class ContextsConfig:
    """Where contexts come from while training and testing, and what is decided with them.

    `rule` "auto" decides by evidence where contexts are inferred and not at all where they are
    given. `test` "inferred" reads batches of `batch` inputs that share one context; "given" tells
    the context, or, where training inferred it, which experience the inputs belong to. With
    `features` an encoder of so many random features helps to infer it.
    `topology` "watched" compares topologies after each task, "auto" starts with a
    vertex per context and turns into the best one.
    """

    training: Literal["given", "inferred"] = "given"
    test: Literal["given", "inferred"] = "given"
    batch: int = 64
    features: int = 2000
    rule: Literal["auto", "none", "evidence", "always-grow", "never-grow", "csp"] = "auto"
    level: float = 0.05
    tolerance: float = 0.1
    drift: float = 0.15
    held_out: int = 256
    probe_share: float = 0.04
    max_control_points: int | None = None
    topology: Literal["fixed", "watched", "auto"] = "fixed"


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the result of a run, and where it is recorded."""

    stream: StreamConfig = field(default_factory=StreamConfig)
    topology: TopologyConfig = field(default_factory=TopologyConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    contexts: ContextsConfig = field(default_factory=ContextsConfig)
    seed: int = 0
    data_dir: Path | None = None
    tracking_uri: str | None = None
    experiment: str = "cl-manifold"


SECTIONS: Mapping[str, type] = {
    "stream": StreamConfig,
    "topology": TopologyConfig,
    "strategy": StrategyConfig,
    "training": TrainingConfig,
    "contexts": ContextsConfig,
}

LOWEST: Mapping[str, float] = {
    "stream.contexts": 1,
    "stream.samples": 1,
    "stream.test_samples": 1,
    "topology.harmonics": 0,
    "topology.degree": 0,
    "topology.size": 1,
    "strategy.price": 0,
    "strategy.penalty": 0,
    "strategy.decay": 0,
    "strategy.replay_samples": 1,
    "strategy.alpha": 0,
    "strategy.beta": 0,
    "strategy.margin": 0,
    "strategy.information_samples": 1,
    "training.epochs": 1,
    "training.batch_size": 1,
    "training.evaluate_every": 0,
    "training.threads": 1,
    "contexts.batch": 1,
    "contexts.features": 0,
    "contexts.tolerance": 0,
    "contexts.drift": 0,
    "contexts.held_out": 1,
    "contexts.max_control_points": 1,
    "seed": 0,
}
POSITIVE = ("strategy.strength", "strategy.temperature", "training.learning_rate")
SHARES = ("contexts.level", "contexts.probe_share", "strategy.pruned")


@dataclass(frozen=True)
class Resolved:
    """A configuration and the source of each of its values, by "section.key"."""

    config: RunConfig
    sources: Mapping[str, str]

    def rows(self) -> list[tuple[str, str, str]]:
        """(key, value, source) of every value, for params and reports."""
        return [
            (key, value_text(value), self.sources[key]) for key, value in flat(self.config).items()
        ]


def key_types() -> dict[str, Any]:
    """The type of every key."""
    types = {
        f"{section}.{key}": hint
        for section, cls in SECTIONS.items()
        for key, hint in get_type_hints(cls).items()
    }
    return types | {k: t for k, t in get_type_hints(RunConfig).items() if k not in SECTIONS}


def flat(config: RunConfig) -> dict[str, Any]:
    """All values by key."""
    values: dict[str, Any] = {}
    for f in fields(config):
        part = getattr(config, f.name)
        if f.name in SECTIONS:
            values |= {f"{f.name}.{g.name}": getattr(part, g.name) for g in fields(part)}
        else:
            values[f.name] = part
    return values


def resolve(layers: list[tuple[str, Values]]) -> Resolved:
    """Merge layers of (source, values), later ones winning, over the defaults.

    The names of stream and strategy are settled first, because both bring defaults of their own.

    Raises:
        ConfigError: an unknown key, name or a value of the wrong type or range.
    """
    types = key_types()
    for source, values in layers:
        for key in values:
            if key not in types:
                raise ConfigError(f"{unknown('key', key, types)} (from {source})")
    values = flat(RunConfig())
    sources = dict.fromkeys(values, "default")
    stream, strategy = (_named(key, layers, values) for key in ("stream.name", "strategy.name"))
    own = [
        (f"default of {stream}", lookup("stream", STREAMS, stream).defaults),
        (f"default of {strategy}", lookup("strategy", STRATEGIES, strategy).defaults),
    ]
    for source, layer in [*own, *layers]:
        for key, value in layer.items():
            values[key] = parse(key, value, types[key])
            sources[key] = source
    lookup("topology", TOPOLOGIES, values["topology.kind"])
    _check_ranges(values)
    return Resolved(_assemble(values), sources)


def _named(key: str, layers: list[tuple[str, Values]], values: Values) -> str:
    """The last value of a key that every layer may set."""
    return str(next((layer[key] for _, layer in reversed(layers) if key in layer), values[key]))


def _assemble(values: dict[str, Any]) -> RunConfig:
    parts: dict[str, Any] = {k: v for k, v in values.items() if "." not in k}
    for section, cls in SECTIONS.items():
        own = {k.partition(".")[2]: v for k, v in values.items() if k.startswith(f"{section}.")}
        parts[section] = cls(**own)
    return RunConfig(**parts)


def _check_ranges(values: Values) -> None:
    for key, lowest in LOWEST.items():
        if values[key] is not None and not values[key] >= lowest:
            raise ConfigError(f"{key} is {values[key]}, but must be {lowest} or more")
    for key in POSITIVE:
        if values[key] is not None and not 0 < values[key] < float("inf"):
            raise ConfigError(f"{key} is {values[key]}, but must be positive and finite")
    for key in SHARES:
        if not 0 < values[key] < 1:
            raise ConfigError(f"{key} is {values[key]}, but must lie between 0 and 1")
    if any(width < 1 for width in values["training.hidden"]):
        raise ConfigError("training.hidden holds a width below 1; give widths such as 256,256")


def parse(key: str, value: Any, kind: Any) -> Any:
    """A value, or its text, as the type of its key.

    >>> parse("training.hidden", "256,128", tuple[int, ...])
    (256, 128)
    >>> parse("stream.samples", "all", int | None)
    """
    try:
        return _convert(value, kind)
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"{key} is {value_text(value)!r}, but needs {_kind_text(kind)}") from None


def _convert(value: Any, kind: Any) -> Any:
    options = get_args(kind)
    if get_origin(kind) is Literal:
        if value not in options:
            raise ValueError
        return value
    if get_origin(kind) is tuple:
        items = value.split(",") if isinstance(value, str) else value
        return tuple(_convert(item, options[0]) for item in items if item != "")
    if NoneType in options:
        return None if value in (None, "", "all", "none", "auto") else _convert(value, options[0])
    if kind is bool:
        return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]
    if kind is int and (isinstance(value, bool) or float(value) != int(float(value))):
        raise ValueError
    return int(float(value)) if kind is int else kind(value)


def _kind_text(kind: Any) -> str:
    options = get_args(kind)
    if get_origin(kind) is Literal:
        return f"one of {', '.join(options)}"
    if get_origin(kind) is tuple:
        return "whole numbers separated by commas"
    if NoneType in options:
        return f"{_kind_text(options[0])} or 'all'"
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "a text")


def value_text(value: Any) -> str:
    """A value as people write it on the command line."""
    if value is None:
        return "all"
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def from_toml(path: Path) -> dict[str, Any]:
    """The values of a TOML file: tables are sections.

    Raises:
        ConfigError: the file cannot be read or is not TOML.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read {path} ({error}); give a TOML file with sections") from None
    values: dict[str, Any] = {}
    for name, part in data.items():
        if isinstance(part, dict):
            values |= {f"{name}.{key}": _listless(value) for key, value in part.items()}
        else:
            values[name] = part
    return values


def _listless(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def from_environment(environment: Mapping[str, str], prefix: str = "CL_MANIFOLD_") -> Values:
    """The values of variables CL_MANIFOLD_SEED, CL_MANIFOLD_TOPOLOGY_HARMONICS and so on.

    Raises:
        ConfigError: a variable with the prefix names no key.
    """
    names = {key.replace(".", "_").upper(): key for key in key_types()}
    short = {"STREAM": "stream.name", "STRATEGY": "strategy.name", "TOPOLOGY": "topology.kind"}
    names |= short | {"EPOCHS": "training.epochs"}
    values: dict[str, Any] = {}
    for variable, value in environment.items():
        if not variable.startswith(prefix):
            continue
        name = variable.removeprefix(prefix)
        if name not in names:
            raise ConfigError(unknown("variable", variable, [prefix + n for n in names]))
        values[names[name]] = value
    return values


def from_assignments(
    assignments: tuple[str, ...], form: str = "--set section.key=value"
) -> dict[str, Any]:
    """The values of `--set section.key=value`, or of another option of such a form.

    >>> from_assignments(("topology.harmonics=3",))
    {'topology.harmonics': '3'}
    """
    values: dict[str, Any] = {}
    for text in assignments:
        key, separator, value = text.partition("=")
        if not separator:
            option, _, needed = form.partition(" ")
            raise ConfigError(f"{option} got {text!r}, but needs {needed}")
        values[key.strip()] = value.strip()
    return values
