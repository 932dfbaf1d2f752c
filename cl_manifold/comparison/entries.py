"""What a comparison compares: entries such as `ewc` or `weight-manifold:spline`, values, seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from cl_manifold.errors import ConfigError
from cl_manifold.experiments.config import (
    SHARED,
    Layers,
    Resolved,
    Values,
    fields_of,
    from_assignments,
    names_of,
    resolve,
)
from cl_manifold.experiments.names import STRATEGIES, TOPOLOGIES, lookup, unknown

INFERRED = "inferred"


@dataclass(frozen=True)
class Entry:
    """One strategy of a comparison.

    Attributes:
        label: the entry as it was written; names it in tables.
        strategy: its name in the catalogue.
        values: what the entry sets, by "section.key".
    """

    label: str
    strategy: str
    values: Mapping[str, Any]


def parse_entries(texts: Sequence[str]) -> tuple[Entry, ...]:
    """The entries of texts `NAME[:VARIANT…]`.

    A variant is a kind of topology, or `inferred`: contexts are inferred at test. A strategy of
    your own is `package.module:object`, with variants after it.

    Raises:
        ConfigError: no entry, the same one twice, or an unknown strategy or variant.
    """
    entries = tuple(parse_entry(text.strip()) for text in texts if text.strip())
    if not entries:
        raise ConfigError("got no strategies; give names such as --strategies weight-manifold,ewc")
    for entry in entries:
        if sum(entry == other for other in entries) > 1:
            raise ConfigError(f"strategy {entry.label} is named twice; name each entry once")
    return entries


def parse_entry(text: str) -> Entry:
    """One entry.

    >>> parse_entry("weight-manifold:spline").values
    {'strategy.name': 'weight-manifold', 'topology.kind': 'spline'}

    Raises:
        ConfigError: an unknown strategy or variant.
    """
    name, *variants = text.split(":")
    if name not in STRATEGIES and variants and variants[0] not in (*TOPOLOGIES, INFERRED):
        name = f"{name}:{variants.pop(0)}"
    lookup("strategy", STRATEGIES, name)
    values: dict[str, Any] = {"strategy.name": name}
    for variant in variants:
        key = "contexts.test" if variant == INFERRED else "topology.kind"
        if variant != INFERRED and variant not in TOPOLOGIES:
            raise ConfigError(f"{unknown('variant', variant, [*TOPOLOGIES, INFERRED])} (in {text})")
        if key in values:
            raise ConfigError(f"{text} sets {key} twice; give one variant of a kind")
        values[key] = variant
    return Entry(text, name, values)


def crossed(
    entries: Sequence[Entry], grid: Mapping[str, Sequence[str]], layers: Layers
) -> tuple[Entry, ...]:
    """Every entry with every combination of values; one that lacks a setting has only the others.

    Raises:
        ConfigError: no entry has one of the settings, or it is not one to be varied.
    """
    for key in {"seed", "stream.name", "strategy.name"} & grid.keys():
        raise ConfigError(f"--grid got {key}; give strategies by --strategies and seeds by --seeds")
    check_settings(entries, [*layers, ("--grid", grid)])
    found: list[Entry] = []
    for entry in entries:
        known = known_keys(entry, layers)
        own = {key: values for key, values in grid.items() if key in known - entry.values.keys()}
        for chosen in product(*own.values()):
            values = dict(zip(own, chosen, strict=True))
            label = " ".join([entry.label, *(f"{key}={value}" for key, value in values.items())])
            found.append(Entry(label, entry.strategy, {**entry.values, **values}))
    return tuple(found)


def parse_grid(assignments: Sequence[str], option: str = "--grid") -> dict[str, tuple[str, ...]]:
    """Values by key of texts `section.key=A,B`; where a value has commas, `;` stands between them.

    >>> parse_grid(["strategy.price=1,10", "network.hidden=64;32,32"])
    {'strategy.price': ('1', '10'), 'network.hidden': ('64', '32,32')}

    Raises:
        ConfigError: a text of another form, no value, or the same one twice.
    """
    found: dict[str, tuple[str, ...]] = {}
    for key, text in from_assignments(assignments, f"{option} section.key=A,B").items():
        parts = text.split(";" if ";" in text else ",")
        values = tuple(part.strip() for part in parts if part.strip())
        if not values or len(set(values)) < len(values):
            raise ConfigError(
                f"{option} got {key}={text}; give different values, such as {key}=1,2"
            )
        found[key] = values
    return found


def check_seeds(seeds: Sequence[int]) -> None:
    """Seeds must be there, different, and 0 or more.

    Raises:
        ConfigError: they are not.
    """
    if not seeds:
        raise ConfigError("got no seeds; give at least one, such as --seeds 0,1,2")
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ConfigError(f"got seeds {', '.join(map(str, seeds))}; give different seeds from 0 on")


def resolve_entry(entry: Entry, seed: int, layers: Layers, *more: tuple[str, Values]) -> Resolved:
    """The configuration of one run: the user's layers, further ones, then the entry's own.

    Settings of strategies that this one does not have are for others of the comparison.

    Raises:
        ConfigError: a key or value that does not fit.
    """
    known = known_keys(entry, layers)
    fitting = [
        (source, {k: v for k, v in values.items() if k in known or not of_strategies(k)})
        for source, values in (*layers, *more)
    ]
    return resolve([*fitting, (f"entry {entry.label}", {**entry.values, "seed": seed})])


def check_settings(entries: Sequence[Entry], layers: Layers) -> None:
    """A setting of strategies must be one of some strategy that is compared.

    Raises:
        ConfigError: it is not.
    """
    known = {key for entry in entries for key in known_keys(entry, layers)}
    for source, values in layers:
        for key in values:
            if of_strategies(key) and key not in known:
                raise ConfigError(
                    f"{unknown('key', key, known)}; no strategy of this comparison has it "
                    f"(from {source})"
                )


def known_keys(entry: Entry, layers: Layers) -> set[str]:
    """Every key that a run of this entry has.

    Raises:
        ConfigError: an unknown name.
    """
    return set(fields_of(**names_of([*(values for _, values in layers), entry.values])))


def of_strategies(key: str) -> bool:
    """Whether it depends on the strategy if there is such a key."""
    return key.partition(".")[0] in ("strategy", *SHARED)


def of_stream(key: str) -> bool:
    """Whether it decides which data there are."""
    return key.startswith(("stream.", "data.")) or key == "data_dir"
