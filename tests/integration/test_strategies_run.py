"""Every strategy of the catalogue through a whole run with a real store."""

import math
import random as python_random
import shutil
from pathlib import Path
from typing import Any

import pytest

from cl_manifold.experiments.config import resolve
from cl_manifold.experiments.result import Result
from cl_manifold.experiments.running import run
from cl_manifold.experiments.trial import Trial
from tests.fitting import OF_TASKS

TINY = {
    "stream.name": "rotated-digits",
    "stream.contexts": 3,
    "stream.samples": 100,
    "stream.test_samples": 60,
    "training.epochs": 1,
    "network.hidden": (16,),
}
AT_ONCE = ("joint", "joint-concat")
TOLD = ("weight-manifold", "separate", "packnet", "concat", "joint-concat")
SAMPLES = {"joint": 300, "joint-concat": 300, "cumulative": 300} | dict.fromkeys(
    ("replay", "gdumb", "agem", "gem", "der", "der++", "er-ace"), 60
)
MEMORY = ("replay", "gdumb", "agem", "gem", "der", "der++", "er-ace")
QUICK = ("joint", "der++", "packnet")
"""Through a store; the others too with `-m slow`."""


def run_of(strategy: str, folder: Path, empty_store: Path, **more: Any) -> Result:
    store = folder / "mlflow.db"
    if not store.exists():
        shutil.copy(empty_store, store)
    values = TINY | {"strategy.name": strategy, "tracking_uri": f"sqlite:///{store}"} | more
    values |= {"strategy.replay_samples": 60} if strategy in MEMORY else {}
    if strategy == "packnet":
        values["training.epochs"] = 2
    return run(resolve([("test", values)]))


@pytest.mark.parametrize(
    "strategy",
    [pytest.param(s, marks=() if s in QUICK else pytest.mark.slow) for s in OF_TASKS],
)
def test_every_strategy_runs(
    strategy: str, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run_of(strategy, tmp_path, empty_store)
    assert result.strategy == strategy
    assert 0 < result.score < 1
    assert result.unseen_score is not None
    assert 0 <= result.unseen_score < 1
    assert result.context_at_test == ("given" if strategy in TOLD else "not used")
    assert result.replay_samples == SAMPLES.get(strategy, 0)
    assert result.stored_floats is not None
    assert result.replay_samples is not None
    assert result.stored_floats >= result.model_floats + 256 * result.replay_samples
    if strategy in AT_ONCE:
        assert result.score_matrix[:2] == [[None] * 3] * 2
        assert (result.bwt, result.forgetting, result.fwt, result.learning_score) == (None,) * 4
    else:
        diagonal = [result.score_matrix[i][i] for i in range(3)]
        assert result.learning_score == pytest.approx(sum(d or math.nan for d in diagonal) / 3)
        assert result.bwt is not None
    assert result.decisions[2]["final_score"] == result.score_matrix[-1][2]


def matrix_of(strategy: str, seed: int) -> list[list[float | None]]:
    """The accuracy matrix of a trial that nobody records."""
    more: dict[str, Any] = {"strategy.name": strategy, "seed": seed, "training.epochs": 2}
    more |= {"strategy.replay_samples": 60} if strategy in MEMORY else {}
    trial = Trial(resolve([("test", TINY | more)]))
    for _ in trial.steps():
        pass
    return trial.result("").score_matrix


@pytest.mark.parametrize("strategy", OF_TASKS)
def test_the_same_seed_gives_the_same_matrix(strategy: str) -> None:
    first = matrix_of(strategy, 0)
    python_random.seed(1)  # nobody may draw from Python's random numbers
    assert matrix_of(strategy, 0) == first
    assert matrix_of(strategy, 1) != first
