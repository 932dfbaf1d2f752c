"""The runs of a comparison: every entry with every seed, and the candidates of tuning."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from cl_manifold.comparison.entries import Entry, known_keys, resolve_entry
from cl_manifold.comparison.jobs import Filing, Job, digest_of, key_of
from cl_manifold.comparison.order import ComparisonOrder
from cl_manifold.comparison.tuning import candidates
from cl_manifold.experiments.config import Resolved
from cl_manifold.options import value_text
from cl_manifold.strategies.methods.method import Method

VALIDATION = ("tuning", {"stream.holdout": "validation"})
CANDIDATE = "candidate"

Tuned = Mapping[str, Mapping[str, Any]]
"""Chosen values by label and "section.key"."""


def main_jobs(order: ComparisonOrder, filing: Filing, tuned: Tuned) -> list[Job]:
    """Every entry with every seed, seed by seed, so that whole rows are there early.

    Raises:
        ConfigError: a key or value that does not fit.
    """
    return [
        Job(entry.label, seed, _resolved(order, entry, seed, tuned), filing)
        for seed in order.seeds
        for entry in order.entries
    ]


def tuning_jobs(
    order: ComparisonOrder, filing: Filing
) -> dict[str, list[tuple[Mapping[str, Any], Job]]]:
    """Candidates and their runs by label, on validation data with the first seed.

    A value that the user set is not tuned. Strategies that leave nothing to choose are left out.

    Raises:
        ConfigError: a key or value that does not fit.
    """
    found: dict[str, list[tuple[Mapping[str, Any], Job]]] = {}
    seed = order.seeds[0]
    for entry in order.entries:
        tried = tuned_candidates(order, entry)
        if len(tried) > 1:
            found[entry.label] = [
                (values, _tuning_job(order, entry, seed, values, filing)) for values in tried
            ]
    return found


def tuned_candidates(order: ComparisonOrder, entry: Entry) -> list[Mapping[str, Any]]:
    """The values that tuning tries for an entry, each once, its defaults first."""
    fixed = {key for _, values in order.layers for key in values} | set(entry.values)
    known = known_keys(entry, order.layers)
    method = resolve_entry(entry, order.seeds[0], order.layers).config.strategy
    own = {key: values for key, values in order.tuned.items() if key in known}
    free: list[Mapping[str, Any]] = [
        {key: value for key, value in values.items() if key not in fixed}
        for values in candidates(method, own)
    ]
    found = [values for place, values in enumerate(free) if values not in free[:place]]
    return few(found, order.trials)


def few(found: list[Mapping[str, Any]], trials: int | None) -> list[Mapping[str, Any]]:
    """The first, and others drawn at random, always the same ones; in their order."""
    if trials is None or len(found) <= trials:
        return found
    drawn = Random(0).sample(range(1, len(found)), trials - 1)
    return [found[place] for place in sorted([0, *drawn])]


def digest(order: ComparisonOrder, filing: Filing, version: str) -> str:
    """What identifies a comparison: the settings of all its runs and the library's version."""
    keys = [key_of(job.label, job.resolved) for job in main_jobs(order, filing, {})]
    if order.tune:
        tried = tuning_jobs(order, filing).values()
        keys += [key_of(job.label, job.resolved) for pairs in tried for _, job in pairs]
    return digest_of([version, order.tune, sorted(keys)])


def candidate_text(values: Mapping[str, Any]) -> str:
    """Chosen values as people write them.

    >>> candidate_text({"strategy.penalty": 10.0, "strategy.decay": 1.0})
    'strategy.penalty = 10.0, strategy.decay = 1.0'
    """
    return ", ".join(f"{key} = {value_text(value)}" for key, value in values.items())


def methods_of(order: ComparisonOrder, tuned: Tuned) -> dict[str, Method]:
    """The strategies with their settings, by label."""
    seed = order.seeds[0]
    return {e.label: _resolved(order, e, seed, tuned).config.strategy for e in order.entries}


def user_settings(order: ComparisonOrder) -> dict[str, str]:
    """What the user set for all runs, as text."""
    merged: dict[str, Any] = {}
    for _, values in order.layers:
        merged |= dict(values)
    places = ("tracking_uri", "experiment", "data_dir", "seed", "stream.name", "strategy.name")
    return {key: value_text(value) for key, value in merged.items() if key not in places}


def _resolved(order: ComparisonOrder, entry: Entry, seed: int, tuned: Tuned) -> Resolved:
    chosen: Sequence[tuple[str, Mapping[str, Any]]] = ()
    if entry.label in tuned:
        chosen = (("tuned", tuned[entry.label]),)
    return resolve_entry(entry, seed, order.layers, *chosen)


def _tuning_job(
    order: ComparisonOrder, entry: Entry, seed: int, values: Mapping[str, Any], filing: Filing
) -> Job:
    resolved = resolve_entry(entry, seed, order.layers, VALIDATION, ("tuning", values))
    tags = {"tuning": "true", CANDIDATE: candidate_text(values)}
    return Job(entry.label, seed, resolved, filing, tags)
