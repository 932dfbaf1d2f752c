"""The record of a result: what it accepts, and its sentence."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from cl_manifold.contexts import TaskRecord
from cl_manifold.errors import DataError
from cl_manifold.experiments.result import Result, parsed

FOUND: dict[str, Any] = {
    "run_id": "f" * 32,
    "stream": "rotated-digits",
    "strategy": "weight-manifold",
    "seed": 0,
    "metric": "accuracy",
    "score": 0.9,
    "acc": 0.9,
    "rmse": None,
    "bwt": -0.25,
    "forgetting": 0.3,
    "fwt": 0.1,
    "learning_score": 0.95,
    "unseen_score": 0.8,
    "score_matrix": [[1.0, None], [0.0, 0.9]],
    "control_points": 5,
    "stored_floats": 250,
    "model_floats": 100,
    "replay_samples": 0,
    "train_seconds": 1.5,
    "context_at_test": "given",
    "decision_f1": 0.75,
    "decisions": [],
}


@dataclass
class Numbers:
    of: dict[str, int]


def read(**changes: Any) -> Result:
    return parsed(Result, json.dumps(FOUND | changes), "result.json")


def test_a_result_is_read_as_it_was_written() -> None:
    record = TaskRecord(
        0, "0°", (0.0,), "given", "train", None, None, None, 0.1, 0.9, 5, 250, 0.5, gate="passed"
    )
    decision = {**record.as_dict(), "context": [0.0], "final_score": 0.8}
    assert decision["gate"] == "passed"  # a field that `Decision` does not name
    found = read(decisions=[decision])
    assert found.as_dict() == FOUND | {"decisions": [decision]}


@pytest.mark.parametrize("score", [0, 0.5, 1])
def test_accuracies_lie_between_0_and_1(score: float) -> None:
    assert read(score=score, acc=score, score_matrix=[[score]], model_floats=1).acc == score


def test_r_squared_may_be_below_0() -> None:
    found = read(metric="R²", score=-3.5, acc=None, rmse=0.25, score_matrix=[[-3.5]])
    assert (found.score, found.acc, found.rmse) == (-3.5, None, 0.25)
    assert ": R² -3.500, BWT" in found.sentence("circle", 0)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"acc": -0.01}, "acc"),
        ({"score": 1.01}, "score"),
        ({"metric": "F1"}, "metric"),
        ({"score_matrix": [[0.5, None], [0.5, 1.01]]}, r"score_matrix\.1\.1"),
        ({"model_floats": 0}, "model_floats"),
        ({"decisions": [{}]}, r"decisions\.0\.experience"),
    ],
)
def test_what_no_run_writes_is_refused_by_place(changes: dict[str, Any], place: str) -> None:
    with pytest.raises(DataError, match=rf"^result\.json is damaged \({place}: .*; run it again$"):
        read(**changes)


def test_a_damaged_text_has_no_place_and_a_long_reason_is_cut() -> None:
    with pytest.raises(DataError, match=r"^the file is damaged \(Invalid JSON"):
        parsed(Result, "{", "the file")
    with pytest.raises(DataError) as long:
        parsed(Numbers, json.dumps({"of": {"a" * 500: "x"}}), "the file")
    assert str(long.value) == f"the file is damaged (of.{'a' * 197}); run it again"


# -- the sentence --------------------------------------------------------------------------------


def test_the_sentence_says_everything_that_was_measured() -> None:
    assert read().sentence("circle", 0) == (
        "rotated-digits, 0 contexts, circle K = 5: ACC 0.900, BWT -0.250, forgetting 0.300, "
        "unseen contexts 0.800, decisions F1 0.750; context at test given, "
        "stored 2.50 × the model"
    )


def test_the_sentence_leaves_out_what_was_not_measured() -> None:
    gone = ("bwt", "forgetting", "unseen_score", "control_points", "stored_floats", "decision_f1")
    found = read(**dict.fromkeys(gone), context_at_test="not used")
    assert found.sentence("circle", 3) == (
        "rotated-digits, stopped after 0 of 3 contexts: ACC 0.900; context at test not used, "
        "stored not stated"
    )
