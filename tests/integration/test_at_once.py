"""All contexts at once from the command line: `run` and `compare` on a real store."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cl_manifold.experiments.fitting import AT_ONCE

TINY = ("--set", "training.steps=12", "--set", "stream.test_samples=40")
Call = Callable[..., tuple[int, str, str]]


def client(folder: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{folder}/mlruns/mlflow.db")


@pytest.mark.parametrize("strategy", AT_ONCE)
def test_every_strategy_runs_and_is_recorded(call: Call, tmp_path: Path, strategy: str) -> None:
    code, out, err = call("run", "rotation", "--strategy", strategy, *TINY, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert (result["stream"], result["strategy"]) == ("rotation-digits", strategy)
    assert 0 < result["score"] <= 1
    assert 0 <= result["unseen_score"] <= 1
    assert result["context_at_test"] == ("not used" if strategy == "joint" else "given")
    assert result["replay_samples"] == 0
    assert [result[k] for k in ("bwt", "forgetting", "fwt", "learning_score")] == [None] * 4
    *others, last = result["score_matrix"]
    assert others == [[None] * 18] * 17
    assert result["score"] == pytest.approx(sum(last) / 18)
    assert "18 contexts at once" in err
    (run,) = client(tmp_path).search_runs(["1"])
    assert run.info.status == "FINISHED"
    assert run.data.params["training.steps"] == "12"
    assert run.data.params["stream.images"] == "digits"
    assert run.data.metrics["continual/unseen_score"] == pytest.approx(result["unseen_score"])
    files = {file.path for file in client(tmp_path).list_artifacts(run.info.run_id)}
    assert {"report.html", "score_by_context.png", "contexts.json", "result.json"} <= files


def test_the_usual_strategy_is_the_manifold_and_the_seed_decides(call: Call) -> None:
    words = ("run", "rotation-noise", *TINY, "--json", "--seed")
    results = [json.loads(call(*words, seed)[1]) for seed in ("1", "1", "2")]
    assert {result["strategy"] for result in results} == {"joint-manifold"}
    matrices = [result["score_matrix"] for result in results]
    assert matrices[0] == matrices[1]
    assert matrices[0] != matrices[2]
    assert len(matrices[0]) == 27


def test_a_comparison_has_the_ordinary_table(call: Call, tmp_path: Path) -> None:
    words = ("--strategies", "film,joint-manifold:interval", "--seeds", "0,3", "--jobs", "1")
    code, out, err = call("compare", "noise", *words, *TINY, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert {row["label"] for row in result["rows"]} == {"film", "joint-manifold:interval"}
    for row in result["rows"]:
        assert (row["seeds"], row["bwt"], row["context"]) == (2, None, "given")
        assert row["score_sd"] is not None
        assert row["unseen_score"] is not None
    ratio = {row["label"]: row["memory_ratio"] for row in result["rows"]}
    assert ratio["joint-manifold:interval"] == pytest.approx(2)
    assert len(client(tmp_path).search_runs(["1"])) == 5


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("run", "rotated-digits", "--strategy", "film"), 2, "film learns all contexts at once"),
        (("run", "rotation", "--strategy", "naive"), 2, "choose one of joint-manifold, concat"),
        (("compare", "rotation", "--strategies", "film,ewc"), 2, "ewc learns one task after"),
        (("run", "rotation", "--epochs", "3"), 2, "unknown key 'training.epochs'"),
        (("run", "rotation", "--set", "stream.images=mnsit"), 1, "did you mean mnist"),
        (("run", "noise", "--set", "stream.images=mnist"), 1, "pass --data-dir"),
        (("plan", "rotation"), 2, "rotation trains all contexts at once; choose a stream of tasks"),
        (("condition", "rotation"), 2, "No such command 'condition'"),
    ],
)
def test_errors_are_one_sentence_and_leave_no_run(
    call: Call, tmp_path: Path, words: tuple[str, ...], code: int, sentence: str
) -> None:
    found, out, err = call(*words)
    assert found == code, err
    assert sentence in err
    assert not out
    assert "Traceback" not in err
    assert not client(tmp_path).search_runs(["1"])
