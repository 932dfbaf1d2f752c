"""Candidates of a grid, and which of them wins."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, ClassVar

import pytest

from cl_manifold.comparison.outcome import Outcome
from cl_manifold.comparison.tuning import best, candidates, combinations
from cl_manifold.errors import ConfigError
from cl_manifold.experiments.config import resolve
from cl_manifold.experiments.names import STRATEGIES
from cl_manifold.strategies import Method, Setting
from cl_manifold.strategies.methods.plain import Naive
from tests.fitting import stream_for


class Own(Method):
    tried: ClassVar[Mapping[str, Any]] = {"penalty": (1.0, 10.0), "decay": (0.5, 1.0)}
    penalty: float = 10.0
    decay: float = 1.0

    def build(self, setting: Setting) -> None:
        """Nothing."""


def outcomes(*accs: float | None) -> list[Outcome]:
    return [
        Outcome("x", seed, None, "broken") if acc is None else Outcome("x", seed, {"score": acc})
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
    assert candidates(Naive()) == [{}]


def test_the_values_in_effect_come_first() -> None:
    found = candidates(Own())
    assert len(found) == 4
    assert found[0] == {"strategy.penalty": 10.0, "strategy.decay": 1.0}
    assert candidates(Own(penalty=3.0))[0]["strategy.penalty"] == 3.0


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_every_strategy_has_candidates_that_a_run_accepts(strategy: str) -> None:
    names = {"stream.name": stream_for(strategy), "strategy.name": strategy}
    method = resolve([("test", names)]).config.strategy
    found = candidates(method)
    for values in found:
        resolve([("test", names | values)])
    assert len({tuple(candidate.items()) for candidate in found}) == len(found)
    assert len(found) in (1, 3, 4)


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
    assert best([[Outcome("x", 0, {"score": None})], outcomes(0.1)]) == 1
    assert best([[Outcome("x", 0)], outcomes(0.1)]) == 1


def test_a_result_with_a_problem_does_not_win() -> None:
    assert best([[Outcome("x", 0, {"score": 0.9}, "the process died")], outcomes(0.1)]) == 1


def test_nothing_to_choose_from_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"none of 2 candidates .* the first says: broken"):
        best([outcomes(None), outcomes(float("nan"))])


def test_the_best_may_be_that_of_unseen_contexts() -> None:
    found = [
        [Outcome("x", 0, {"score": score, "unseen_score": unseen})]
        for score, unseen in ((0.9, 0.5), (0.8, 0.7), (0.7, None))
    ]
    assert (best(found), best(found, "unseen_score")) == (0, 1)
