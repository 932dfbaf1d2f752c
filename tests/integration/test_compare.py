"""`cl-manifold compare` on a real store, in a folder of its own."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.integration.comparing import MARKER, TINY, children, client, folder_of, parents

Call = Callable[..., tuple[int, str, str]]


def matrices(folder: Path, parent: Any) -> dict[tuple[str, str], Any]:
    """Accuracy matrices of a comparison by label and seed."""
    found = {}
    for name, (run,) in children(folder, parent).items():
        found[name] = json.loads((folder_of(run) / "result.json").read_text())["score_matrix"]
    return found


def check_metrics(parent: Any, rows: Any, accs: list[float], folder: Path) -> None:
    """Means over seeds under the names of the runs; no seeds as steps."""
    shown = parent.data.metrics
    assert shown["continual/acc/naive"] == pytest.approx(sum(accs) / 2)
    assert shown["continual/acc_sd/naive"] == pytest.approx(abs(accs[0] - accs[1]) / 2**0.5)
    assert shown["continual/bwt/naive"] == pytest.approx(rows["naive"]["bwt"])
    assert shown["continual/forgetting/naive"] == pytest.approx(rows["naive"]["forgetting"])
    assert shown["manifold/stored_ratio/naive"] == 1.0
    assert shown["continual/acc/weight-manifold:spline"] == rows["weight-manifold:spline"]["score"]
    history = client(folder).get_metric_history(parent.info.run_id, "continual/acc/naive")
    assert [m.step for m in history] == [0]


def test_a_comparison_leaves_a_parent_a_child_per_run_and_reports(
    call: Call, tmp_path: Path
) -> None:
    words = ("--strategies", "weight-manifold:spline,naive", "--seeds", "0,2", *TINY)
    code, out, err = call("compare", "rotated-digits", *words, "--json")
    assert code == 0, err
    result = json.loads(out)
    [parent] = parents(tmp_path)
    found = children(tmp_path, parent)
    assert sorted(found) == [
        ("naive", "0"), ("naive", "2"),
        ("weight-manifold:spline", "0"), ("weight-manifold:spline", "2"),
    ]  # fmt: skip
    assert {run.info.status for (run,) in found.values()} == {"FINISHED"}
    assert (parent.info.status, parent.info.run_name) == ("FINISHED", "compare rotated-digits")
    assert parent.info.run_id == result["run_id"]
    assert parent.data.params["strategies"] == "weight-manifold:spline,naive"
    assert parent.data.params["training.epochs"] == "1"
    assert "topology.kind" not in parent.data.params
    assert parent.inputs.dataset_inputs[0].dataset.digest == parent.data.tags["dataset_digest"]
    [spline] = found["weight-manifold:spline", "2"]
    assert spline.data.params["topology.kind"] == "spline"
    assert spline.info.run_name.startswith("weight-manifold:spline 0.")
    accs = [run.data.metrics["continual/acc"] for (run,) in (found["naive", s] for s in "02")]
    rows = {row["label"]: row for row in result["rows"]}
    assert rows["naive"]["score"] == pytest.approx(sum(accs) / 2)
    assert rows["naive"]["seeds"] == 2
    assert rows["naive"]["context"] == "not used"
    assert rows["weight-manifold:spline"]["context"] == "given"
    assert result["problems"] == []
    check_metrics(parent, rows, accs, tmp_path)
    files = {file.name for file in folder_of(parent).iterdir()}
    assert files >= {"comparison.json", "rows.json", "report.md", "report.html", "score.png"}
    kept = json.loads((folder_of(parent) / "comparison.json").read_text())
    assert kept["rows"] == result["rows"]
    assert len(kept["children"]) == 4
    assert "| naive |" in parent.data.tags["mlflow.note.content"].replace("**", "")
    assert (
        "cl-manifold compare rotated-digits --strategies"
        in (folder_of(parent) / "report.md").read_text()
    )
    assert "2 strategies on rotated-digits, seeds 0, 2, 4 runs" in err
    assert "workflowType=machine_learning" in err
    assert f"{rows['naive']['score']:.3f}" in call("show", "last")[1]


def test_a_grid_over_the_data_ranks_within_equal_data(call: Call, tmp_path: Path) -> None:
    words = ("--strategies", "naive", "--seeds", "0", *TINY, "--grid", "stream.order=sorted,random")
    code, out, err = call("compare", "rotated-digits", *words, "--json")
    assert code == 0, err
    rows = json.loads(out)["rows"]
    assert {row["data"] for row in rows} == {"stream.order = sorted", "stream.order = random"}
    assert [row["best"] for row in rows] == [True, True]
    assert [row["p_value"] for row in rows] == [None, None]
    [parent] = parents(tmp_path)
    assert "dataset_digest" not in parent.data.tags
    assert not parent.inputs.dataset_inputs


def test_the_same_seeds_give_the_same_matrices_with_one_job_and_with_two(
    call: Call, tmp_path: Path
) -> None:
    words = ("rotated-digits", "--strategies", "weight-manifold,naive", "--seeds", "1", *TINY)
    for jobs in ("1", "2"):
        code, _, err = call("compare", *words, "--jobs", jobs)
        assert code == 0, err
        assert f"{jobs} at once" in err
        assert "continuing" not in err
    first, second = (matrices(tmp_path, parent) for parent in parents(tmp_path))
    assert first == second
    assert len(first) == 2


@pytest.mark.slow
def test_ray_gives_the_same_matrices_as_processes(call: Call, tmp_path: Path) -> None:
    if find_spec("ray") is None:
        pytest.skip("install cl-manifold[ray] to run this test")
    words = ("--strategies", "weight-manifold,naive", "--seeds", "0,1", *TINY)
    for engine in ("processes", "ray"):
        code, _, err = call("compare", *words, "--engine", engine)
        assert code == 0, err
    first, second = (matrices(tmp_path, parent) for parent in parents(tmp_path))
    assert first == second
    assert len(first) == 4


def test_what_cannot_run_is_listed_and_the_others_run(call: Call, tmp_path: Path) -> None:
    own = "tests.integration.comparing:Mistaken"
    words = ("--strategies", f"weight-manifold:codes,naive,{own}", "--seeds", "0,1", *TINY)
    code, out, err = call("compare", *words, "--json")
    assert code == 1
    result = json.loads(out)
    assert [row["label"] for row in result["rows"]] == ["naive"]
    problems = {(p["label"], p["seed"]): p["problem"] for p in result["problems"]}
    assert len(problems) == 4
    assert "topology codes is for unrelated tasks" in problems["weight-manifold:codes", 0]
    assert problems[own, 1].startswith("KeyError: 'missing'")
    assert "weight-manifold:codes could not run (seed 0, 1): topology codes" in err
    [parent] = parents(tmp_path)
    assert parent.info.status == "FAILED"
    report = (folder_of(parent) / "report.md").read_text()
    assert "topology codes is for unrelated tasks" in report


def test_tuning_chooses_on_validation_data_and_says_what(call: Call, tmp_path: Path) -> None:
    words = ("--strategies", "weight-manifold,naive", "--seeds", "3", "--tune", *TINY)
    code, out, err = call("compare", *words, "--json")
    assert code == 0, err
    result = json.loads(out)
    [parent] = parents(tmp_path)
    found = children(tmp_path, parent)
    assert set(found) == {("weight-manifold", "3"), ("naive", "3")}
    tried = [run for run in found["weight-manifold", "3"] if "tuning" in run.data.tags]
    [main_run] = [run for run in found["weight-manifold", "3"] if "tuning" not in run.data.tags]
    assert len(tried) > 1
    assert {run.data.params["stream.holdout"] for run in tried} == {"validation"}
    assert main_run.data.params["stream.holdout"] == "test"
    best = max(tried, key=lambda run: run.data.metrics["continual/acc"])
    chosen = result["tuned"]["weight-manifold"]
    assert best.data.metrics["continual/acc"] == max(
        run.data.metrics["continual/acc"]
        for run in tried
        if all(float(run.data.params[k]) == v for k, v in chosen.items())
    )
    sources = json.loads((folder_of(main_run) / "configuration.json").read_text())
    for key, value in chosen.items():
        assert sources[key]["source"] == "tuned"
        assert float(sources[key]["value"]) == value
        assert f"{key} = {value}" in err
    assert "naive" not in result["tuned"]


def test_values_that_the_user_set_are_not_tuned(call: Call, tmp_path: Path) -> None:
    words = ("--strategies", "weight-manifold", "--seeds", "0", "--tune", *TINY)
    code, out, err = call("compare", *words, "--set", "strategy.price=5", "--json")
    assert code == 0, err
    assert json.loads(out)["tuned"] == {}
    [parent] = parents(tmp_path)
    [run] = children(tmp_path, parent)["weight-manifold", "0"]
    assert run.data.params["strategy.price"] == "5.0"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("--strategies", "naiv"), 2, "unknown strategy 'naiv'; did you mean naive"),
        (("--strategies", ""), 2, "got no strategies"),
        (("--strategies", "naive:splin"), 2, "did you mean spline"),
        (("--seeds", ""), 2, "got no seeds"),
        (("--seeds", "a"), 2, "--seeds got 'a', but needs whole numbers"),
        (("--seeds", "1,1"), 2, "different seeds from 0 on"),
        (("--jobs", "0", "--strategies", "naive"), 2, "got 0 jobs"),
        (("--engine", "dask"), 2, "'dask' is not one of"),
        (("rotated-digts", "--strategies", "naive"), 2, "did you mean rotated-digits"),
        (
            ("--set", "training.epochs=0", "--strategies", "naive"),
            2,
            "needs a whole number, 1 or more",
        ),
        (("rotated-mnist", "--strategies", "naive"), 1, "--data-dir"),
        (
            ("--tracking-uri", "sqlite:////proc/x/mlflow.db", "--strategies", "naive"),
            1,
            "cannot open the tracking store",
        ),
    ],
)
def test_errors_are_one_sentence_and_leave_no_run(
    call: Call, tmp_path: Path, words: tuple[str, ...], code: int, sentence: str
) -> None:
    found, out, err = call("compare", *words)
    assert found == code, err
    assert sentence in err
    assert not out
    assert "Traceback" not in err
    assert not client(tmp_path).search_runs(["1"])


def test_a_run_whose_process_is_killed_goes_on_and_appears_once(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MARKER, str(tmp_path / "died"))
    own = "tests.integration.comparing:Dying"
    code, out, err = call(
        "compare", "--strategies", f"naive,{own}", "--seeds", "0,1", *TINY, "--json"
    )
    assert code == 0, err
    assert len(json.loads(out)["rows"]) == 2
    assert "the process of" in err
    assert (tmp_path / "died").exists()
    [parent] = parents(tmp_path)
    found = children(tmp_path, parent)
    assert sorted(len(runs) for runs in found.values()) == [1, 1, 1, 1]
    assert {run.info.status for (run,) in found.values()} == {"FINISHED"}
    assert client(tmp_path).search_runs(["1"], "tags.`comparison.stopped` LIKE '%'") == []
    assert not list((tmp_path / "mlruns" / ".runs").iterdir())
