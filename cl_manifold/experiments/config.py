"""The configuration of a run: every value, and where it came from.

Values come in layers, later ones win: defaults, the stream's and the strategy's defaults, a TOML
file, the environment (CL_MANIFOLD_SECTION_KEY), the command line. What keys there are follows from
the three names: stream, network and strategy bring settings of their own. Unknown keys are errors
in every layer.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import isabstract, isclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic.fields import FieldInfo

from cl_manifold.data.options import DataOptions, ImageOptions
from cl_manifold.data.paths import PathKind, kind_of_path
from cl_manifold.errors import ConfigError, public
from cl_manifold.experiments.fitting import check_fit, usual_strategy
from cl_manifold.experiments.names import NETWORKS, STRATEGIES, STREAMS, load, lookup, unknown
from cl_manifold.experiments.settings import (
    ContinuumSettings,
    FileSettings,
    OwnStream,
    PictureSettings,
    RunSettings,
    StepTraining,
    StreamSettings,
    TopologyOptions,
    TrainingOptions,
)
from cl_manifold.networks import Network, network_kind
from cl_manifold.options import Options, options_of, value_text
from cl_manifold.strategies.methods.method import Method
from cl_manifold.strategies.methods.weight_manifold import ContextOptions

Values = Mapping[str, Any]
"""Values by "section.key", or "key" for those of the run itself."""
Layers = Sequence[tuple[str, Values]]
"""Layers of (source, values), later ones winning."""

S = TypeVar("S", bound=Options)
NAMES = {"stream": "rotated-digits", "network": "mlp", "strategy": "weight-manifold"}
"""The sections whose settings depend on a name, and the usual one."""
SHARED: Mapping[str, type[Options]] = {"topology": TopologyOptions, "contexts": ContextOptions}
"""Sections that a strategy may read."""
SECTIONS = frozenset({*NAMES, *SHARED, "training", "data"})
TABLE = {
    "network.hidden": (64, 64),
    "training.epochs": 20,
    "training.learning_rate": 3e-3,
    "training.batch_size": 64,
}
"""Defaults of tables."""
IMAGES = {
    "network.name": "cnn",
    "training.epochs": 5,
    "training.learning_rate": 2e-3,
    "training.batch_size": 64,
}
"""Defaults of images."""
OF_PATHS: Mapping[PathKind, tuple[type[Options], type[Options], Values]] = {
    "table": (FileSettings, DataOptions, TABLE),
    "images": (PictureSettings, ImageOptions, IMAGES),
}
"""What a path holds: the settings of its stream, those of its data, its defaults."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the result of a run, and where it is recorded.

    Attributes:
        data: how a table or images are read; None where the stream is no path.
        topology: as it is by default, like `contexts`, where the strategy does not read it.
    """

    stream: StreamSettings | ContinuumSettings | FileSettings | PictureSettings
    data: DataOptions | ImageOptions | None
    network: Network
    strategy: Method
    training: TrainingOptions | StepTraining
    topology: TopologyOptions
    contexts: ContextOptions
    seed: int
    data_dir: Path | None
    tracking_uri: str | None
    experiment: str


@dataclass(frozen=True)
class Resolved:
    """A configuration, the source of each of its values by "section.key", and what was guessed."""

    config: RunConfig
    sources: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def rows(self) -> list[tuple[str, str, str]]:
        """(key, value, source) of every value, for params and reports."""
        return [
            (key, public(value_text(value)), self.sources[key])
            for key, value in flat(self.config).items()
        ]

    def deciding(self) -> dict[str, str]:
        """Every setting that the result depends on, as text: not those that say where things are.

        >>> resolve([]).deciding()["seed"]
        '0'
        """
        return deciding({key: value for key, value, _ in self.rows()})


def deciding(texts: Mapping[str, str]) -> dict[str, str]:
    """Those of the settings that the result depends on."""
    places = ("tracking_uri", "experiment", "data_dir")
    return {key: text for key, text in texts.items() if key not in places}


def flat(config: RunConfig) -> dict[str, Any]:
    """All values that count, by key."""
    values: dict[str, Any] = {}
    unread = {*SHARED} - {*config.strategy.reads}
    for name, part in vars(config).items():
        if isinstance(part, Options) and name not in unread:
            values |= {f"{name}.{key}": getattr(part, key) for key in type(part).model_fields}
        elif name in RunSettings.model_fields:
            values[name] = part
    return values


def names_of(layers: Sequence[Values]) -> dict[str, str]:
    """Stream, network and strategy: the last value of each, else the usual one."""
    named = {key: str(value) for layer in layers for key, value in layer.items()}
    stream = named.get("stream.name", NAMES["stream"])
    usual = NAMES | {"strategy": usual_strategy(stream)}
    if _path_kind(stream) == "images":
        usual["network"] = IMAGES["network.name"]
    return {section: named.get(f"{section}.name", name) for section, name in usual.items()}


def sections_of(stream: str, network: str, strategy: str) -> dict[str, type[Options]]:
    """The settings that there are for these names, by section; those of the run itself are "".

    Raises:
        ConfigError: an unknown name, an object that is not what its place needs, or a strategy
            that does not fit the stream.
    """
    method = kind_of("strategy", STRATEGIES, strategy, Method)
    settings: type[Options] = _settings_of_stream(stream)
    at_once = issubclass(settings, ContinuumSettings)
    check_fit(stream, at_once, strategy, method)
    sections: dict[str, type[Options]] = {
        "": RunSettings,
        "stream": settings,
        "network": network_named(network),
        "strategy": method,
        "training": StepTraining if at_once else TrainingOptions,
    }
    if (held := _path_kind(stream)) is not None:
        sections["data"] = OF_PATHS[held][1]
    return sections | {name: SHARED[name] for name in method.reads}


def kind_of(kind: str, table: Mapping[str, Any], name: str, base: type[S]) -> type[S]:
    """The class of that name.

    Raises:
        ConfigError: there is none, or it is not of that kind.
    """
    target = lookup(kind, table, name).target
    found = load(target)
    if not isclass(found) or not issubclass(found, base) or isabstract(found):
        raise ConfigError(
            f"{kind} {name!r} is {found!r}, but needs a subclass of "
            f"{base.__module__}.{base.__name__} that defines build; give package.module:Class"
        )
    return found


def network_named(name: str) -> type[Network]:
    """The settings of the network of that name.

    Raises:
        ConfigError: there is none, or it makes no networks.
    """
    return network_kind(name, load(lookup("network", NETWORKS, name).target))


def _settings_of_stream(name: str) -> type[Options]:
    """A stream that is a class has fields of its own; all functions, and files, share theirs."""
    if (held := _path_kind(name)) is not None:
        return OF_PATHS[held][0]
    item = lookup("stream", STREAMS, name)
    if item is STREAMS.get(name):
        return ContinuumSettings if item.at_once else StreamSettings
    found = load(item.target)
    return found if isclass(found) and issubclass(found, OwnStream) else StreamSettings


def _path_kind(name: str) -> PathKind | None:
    """What the path of a stream holds; None where the stream is no path."""
    return None if name in STREAMS else kind_of_path(name)


def resolve(layers: Layers) -> Resolved:
    """Merge layers of (source, values), later ones winning, over the defaults.

    The names of stream, network and strategy are settled first: what keys there are, and what
    their defaults are, depends on them.

    Raises:
        ConfigError: an unknown key, name or a value of the wrong type or range.
    """
    names = names_of([values for _, values in layers])
    sections = sections_of(**names)
    known = dict(_fields(sections))
    for source, values in layers:
        for key in values:
            if key not in known:
                raise ConfigError(f"{_unknown_key(key, known, names)} (from {source})")
    chosen: dict[str, Any] = {f"{section}.name": name for section, name in names.items()}
    sources = dict.fromkeys([*known, *chosen], "default")
    guessed, notes = _guessed(names, layers, known)
    for source, layer in [*_own_defaults(names, known), *guessed, *layers]:
        chosen |= layer
        sources |= dict.fromkeys(layer, source)
    parts = {
        section: options_of(cls, _part(chosen, section), section)
        for section, cls in sections.items()
    }
    run = dict(parts.pop(""))
    unread = {name: cls() for name, cls in SHARED.items() if name not in parts}
    config = RunConfig(**{"data": None, **parts, **unread, **run})
    return Resolved(config, sources, notes)


def _own_defaults(names: Mapping[str, str], known: Values) -> Iterator[tuple[str, Values]]:
    """What the stream sets, where the other names know it; what the strategy chose for it."""
    stream, strategy = names["stream"], names["strategy"]
    own = STREAMS[stream].defaults if stream in STREAMS else {}
    held = _path_kind(stream)
    own = OF_PATHS[held][2] if held else own
    yield f"default of {stream}", {key: value for key, value in own.items() if key in known}
    method = kind_of("strategy", STRATEGIES, strategy, Method)
    yield f"default of {strategy} on {stream}", method.chosen.get(stream, {})


def _guessed(
    names: Mapping[str, str], layers: Layers, known: Values
) -> tuple[Layers, tuple[str, ...]]:
    """What a file says of itself where the user says nothing, and sentences about it.

    Raises:
        ConfigError: options that do not fit the file.
        DataError: the file cannot be read or used.
    """
    held = _path_kind(names["stream"])
    if held is None:
        return [], ()
    given: dict[str, Any] = {}
    for _, values in layers:
        given |= values
    path, said = Path(names["stream"]), _part(given, "data")
    if held == "table":
        from cl_manifold.data.table import guess

        found = guess(path, options_of(DataOptions, said, "data"))
        more: Values = {}
    else:
        from cl_manifold.data.images import guess_images

        asked = options_of(PictureSettings, _part(given, "stream"), "stream").contexts
        found = guess_images(path, options_of(ImageOptions, said, "data"), asked)
        more = {"stream.contexts": found.contexts}
    options = found.options
    guessed = {f"data.{key}": getattr(options, key) for key in type(options).model_fields}
    fitting = {"topology.kind": found.topology} if "topology.kind" in known else {}
    return [(f"guessed from {names['stream']}", {**guessed, **more, **fitting})], found.notes


def _fields(sections: Mapping[str, type[Options]]) -> Iterator[tuple[str, FieldInfo]]:
    """Every key and its field."""
    for section, cls in sections.items():
        for key, info in cls.model_fields.items():
            yield (f"{section}.{key}" if section else key), info


def fields_of(stream: str, network: str, strategy: str) -> dict[str, FieldInfo]:
    """Every key there is for these names, and its field.

    Raises:
        ConfigError: an unknown name.
    """
    return dict(_fields(sections_of(stream, network, strategy)))


def _unknown_key(key: str, known: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Why a key is not one: a misprint, or a setting of another strategy."""
    section, _, field = key.partition(".")
    strategy = names["strategy"]
    if section in SHARED and field in SHARED[section].model_fields:
        return f"{key} is set, but strategy {strategy} reads no {section}; leave it out"
    others = [n for n in STRATEGIES if section == "strategy" and field in _settings_of(n)]
    if others and key not in known:
        return (
            f"{key} is set, but strategy {strategy} has no such setting; it is one of "
            f"{', '.join(others)}"
        )
    elsewhere = [k for k in known if k.rpartition(".")[2] == field]
    return unknown("key", key, elsewhere or known)


def _settings_of(strategy: str) -> Mapping[str, Any]:
    return kind_of("strategy", STRATEGIES, strategy, Method).model_fields


def _part(values: Values, section: str) -> dict[str, Any]:
    """The values of a section, by field."""
    if not section:
        return {key: value for key, value in values.items() if "." not in key}
    start = f"{section}."
    return {k.removeprefix(start): v for k, v in values.items() if k.startswith(start)}


def from_toml(path: Path) -> dict[str, Any]:
    """The values of a TOML file: tables are sections.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or holds an empty table.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"cannot read {path} ({error}); give a TOML file with sections") from None
    values: dict[str, Any] = {}
    for name, part in data.items():
        if isinstance(part, dict):
            if not part and name not in SECTIONS:
                raise ConfigError(f"{path} has an unknown section [{name}]; leave it out")
            values |= {f"{name}.{key}": _listless(value) for key, value in part.items()}
        else:
            values[name] = part
    return values


def _listless(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def from_environment(environment: Mapping[str, str], prefix: str = "CL_MANIFOLD_") -> Values:
    """The values of variables CL_MANIFOLD_SEED, CL_MANIFOLD_TOPOLOGY_HARMONICS and so on.

    Raises:
        ConfigError: a variable with the prefix is of no section.
    """
    short = {"stream": "stream.name", "strategy": "strategy.name", "network": "network.name"}
    short |= {"topology": "topology.kind", "epochs": "training.epochs"}
    short |= {key: key for key in RunSettings.model_fields}
    values: dict[str, Any] = {}
    for variable, value in environment.items():
        if not variable.startswith(prefix):
            continue
        name = variable.removeprefix(prefix).lower()
        section, _, key = name.partition("_")
        if name not in short and (not key or section not in SECTIONS):
            known = [prefix + n.upper() for n in short]
            raise ConfigError(unknown("variable", variable, known))
        values[short.get(name, f"{section}.{key}")] = value
    return values


def from_assignments(
    assignments: Sequence[str], form: str = "--set section.key=value"
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
