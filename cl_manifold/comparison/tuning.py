"""Choosing hyper-parameters: which values to try, and which of them did best.

Runs nothing. Whoever does measures candidates on a validation part of the training data.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from math import isfinite
from statistics import fmean
from typing import Any

from cl_manifold.comparison.outcome import Outcome
from cl_manifold.errors import ConfigError
from cl_manifold.strategies.methods.method import Method


def candidates(
    method: Method, given: Mapping[str, Sequence[Any]] | None = None
) -> list[dict[str, Any]]:
    """The method's grid by "section.key", every combination once, that of its values first.

    A value that the grid leaves out is tried as well. Without a grid `[{}]`: as it is.

    Args:
        method: with the values in effect.
        given: values by "section.key" that are tried as they are, instead of the method's own.
    """
    given = given or {}
    grid = {f"strategy.{k}": v for k, v in method.tried.items() if f"strategy.{k}" not in given}
    defaults = {f"strategy.{key}": getattr(method, key) for key in method.tried}
    first = {key: values[0] for key, values in given.items()}
    return combinations({**grid, **given}, defaults | first)


def combinations(
    grid: Mapping[str, Sequence[Any]], defaults: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Cartesian product of a grid, each key's default first and no value twice.

    >>> combinations({"a": (1, 2), "b": (3,)}, {"a": 2, "b": 3})
    [{'a': 2, 'b': 3}, {'a': 1, 'b': 3}]
    """
    values = [list(dict.fromkeys([defaults[key], *grid[key]])) for key in grid]
    return [dict(zip(grid, chosen, strict=True)) for chosen in product(*values)]


def best(outcomes: Sequence[Sequence[Outcome]], by: str = "score") -> int:
    """Index of the candidate with the highest mean score; of equal ones the first.

    A candidate with a problem, a missing or a NaN score in any seed never wins.

    Args:
        outcomes: of every candidate, one per seed.
        by: "score" or "unseen_score".

    Raises:
        ConfigError: no candidate has a result in every seed.
    """
    means = [_mean_score(candidate, by) for candidate in outcomes]
    known = [(mean, -index) for index, mean in enumerate(means) if mean is not None]
    if not known:
        problems = [o.problem for candidate in outcomes for o in candidate if o.problem]
        why = f"; the first says: {problems[0]}" if problems else ""
        raise ConfigError(
            f"none of {len(outcomes)} candidates has a score for every seed{why}; "
            "correct that or leave out --tune"
        )
    return -max(known)[1]


def _mean_score(candidate: Sequence[Outcome], by: str) -> float | None:
    scores = [None if o.result is None or o.problem else o.result.get(by) for o in candidate]
    known = [float(score) for score in scores if score is not None and isfinite(score)]
    return fmean(known) if known and len(known) == len(scores) else None
