"""Candidates of a grid, and which of them wins."""

from collections.abc import Sequence
from itertools import product

import pytest

from cl_manifold import catalog
from cl_manifold.catalog import STRATEGIES, Item
from cl_manifold.comparison import tuning
from cl_manifold.comparison.outcome import Outcome
from cl_manifold.comparison.tuning import best, candidates, combinations
from cl_manifold.config import RunConfig, flat
from cl_manifold.errors import ConfigError

GRID = {"strategy.penalty": (1.0, 10.0), "strategy.decay": (0.5, 1.0)}


@pytest.fixture
def _own(monkeypatch: pytest.MonkeyPatch) -> None:
    item = Item("own", "a:b", {"strategy.penalty": 10.0}, "", GRID)
    monkeypatch.setattr(tuning, "STRATEGIES", {**STRATEGIES, "own": item})


def outcomes(*accs: float | None) -> list[Outcome]:
    return [
        Outcome("x", seed, None, "broken") if acc is None else Outcome("x", seed, {"acc": acc})
        for seed, acc in enumerate(accs)
    ]


def test_every_combination_once_and_the_defaults_first() -> None:
    found = combinations({"a": (1, 2, 3), "b": ("x", "y")}, {"a": 2, "b": "y"})
    assert found[0] == {"a": 2, "b": "y"}
    expected = [{"a": a, "b": b} for a, b in product((1, 2, 3), ("x", "y"))]
    assert sorted(found, key=str) == sorted(expected, key=str)


def test_a_default_outside_the_grid_is_tried_as_well() -> None:
    assert combinations({"a": (1, 1, 2)}, {"a": 5}) == [{"a": 5}, {"a": 1}, {"a": 2}]


def test_without_a_grid_there_is_one_candidate() -> None:
    assert candidates("naive") == [{}]
    assert candidates("my.module:strategy") == [{}]


@pytest.mark.usefixtures("_own")
def test_defaults_of_the_strategy_come_before_general_ones() -> None:
    found = candidates("own")
    assert len(found) == 4
    assert found[0] == {
        "strategy.penalty": 10.0,
        "strategy.decay": flat(RunConfig())["strategy.decay"],
    }
    assert candidates("own", {"strategy.penalty": 3.0})[0]["strategy.penalty"] == 3.0


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_every_strategy_of_the_catalogue_has_candidates_that_a_run_accepts(strategy: str) -> None:
    found = candidates(strategy)
    keys = flat(RunConfig())
    assert found
    assert all(key in keys for candidate in found for key in candidate)
    assert len({tuple(candidate.items()) for candidate in found}) == len(found)


def test_an_unknown_strategy_is_an_error() -> None:
    with pytest.raises(ConfigError, match="did you mean"):
        candidates("naiv")
    assert tuning.STRATEGIES is catalog.STRATEGIES


@pytest.mark.parametrize(
    ("scores", "winner"),
    [
        ([(0.5, 0.6), (0.7, 0.6), (0.6, 0.6)], 1),
        ([(0.5,), (0.5,), (0.4,)], 0),
        ([(0.9, None), (0.2, 0.3)], 1),
        ([(float("nan"),), (0.1,)], 1),
        ([(), (0.0,)], 1),
    ],
)
def test_the_highest_mean_wins(scores: Sequence[tuple[float | None, ...]], winner: int) -> None:
    assert best([outcomes(*accs) for accs in scores]) == winner


def test_a_result_without_accuracy_does_not_win() -> None:
    assert best([[Outcome("x", 0, {"acc": None})], outcomes(0.1)]) == 1


def test_nothing_to_choose_from_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"none of 2 candidates .* the first says: broken"):
        best([outcomes(None), outcomes(float("nan"))])
