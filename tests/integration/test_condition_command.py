"""`cl-manifold condition` on a real store, in a folder of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from PIL import Image

from cl_manifold.cli import main
from cl_manifold.conditioning.problems import PROBLEMS

TINY = ("--steps", "12", "--seeds", "0,2", "--systems", "manifold,concat")
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with MLflow's tables and nothing else: making them takes seconds."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def call(
    tmp_path: Path,
    empty_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Call:
    """`call("rotation", ...)` -> exit code, standard output, standard error."""
    (tmp_path / "mlruns").mkdir()
    shutil.copy(empty_store, tmp_path / "mlruns" / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("CL_MANIFOLD_", "MLFLOW_TRACKING")):
            monkeypatch.delenv(name)

    def condition(*words: str) -> tuple[int, str, str]:
        before = signal.getsignal(signal.SIGTERM)
        monkeypatch.setattr(sys, "argv", ["cl-manifold", "condition", *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        signal.signal(signal.SIGTERM, before)
        said = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, said.out, said.err

    return condition


def runs(folder: Path) -> dict[str, Any]:
    """The runs of the store by their tag `system`; the parent has none."""
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlruns/mlflow.db")
    return {run.data.tags.get("system", "parent"): run for run in client.search_runs(["1"])}


def folder_of(run: Any) -> Path:
    return Path(run.info.artifact_uri.removeprefix("file://"))


def test_an_experiment_leaves_a_parent_and_a_child_per_system(
    call: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = call("rotation", *TINY, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert [row["system"] for row in result["systems"]] == ["manifold", "concat"]
    found = runs(tmp_path)
    parent = found["parent"]
    assert set(found) == {"parent", "manifold", "concat"}
    assert parent.info.run_id == result["run_id"]
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert parent.info.run_name == "condition rotation · digits"
    assert parent.data.params["steps"] == "12"
    assert parent.inputs.dataset_inputs[0].dataset.name == "digits"
    assert result["findings"][0] in parent.data.tags["mlflow.note.content"]
    child = found["manifold"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    history = client.get_metric_history(child.info.run_id, "condition/in_range")
    assert [metric.step for metric in history] == [0, 2]
    mean = sum(metric.value for metric in history) / 2
    assert result["systems"][0]["in_range"] == pytest.approx(mean)
    assert parent.data.metrics["in_range/manifold"] == pytest.approx(mean)
    files = {file.name for file in folder_of(parent).iterdir()}
    assert files == {
        "accuracy_by_context.json",
        "accuracy_by_context.png",
        "condition.json",
        "systems.json",
    }
    assert json.loads((folder_of(parent) / "condition.json").read_text()) == result
    by_context = json.loads((folder_of(parent) / "accuracy_by_context.json").read_text())
    assert len(by_context["data"]) == 2 * 24
    assert "manifold" in err
    assert "workflowType=machine_learning" in err
    monkeypatch.setattr(sys, "argv", ["cl-manifold", "show", "last"])
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr().out
    assert "rotation on digits, seeds 0, 2" in shown
    assert f"{mean:.3f}" in shown


def test_the_json_has_the_promised_fields(call: Call) -> None:
    result = json.loads(call("noise", *TINY[:4], "--systems", "one-for-all", "--json")[1])
    assert list(result) == ["run_id", "name", "data", "seeds", "steps", "systems", "findings"]
    assert (result["name"], result["data"], result["seeds"]) == ("noise", "digits", [0, 2])
    [row] = result["systems"]
    assert list(row) == [
        "system", "summary", "in_range", "in_range_sd", "held_out", "held_out_sd",
        "wrong_context", "parameters", "seconds",
    ]  # fmt: skip
    assert row["wrong_context"] == pytest.approx(row["in_range"])
    assert row["parameters"] == 256 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10
    assert 0 <= row["held_out"] <= row["in_range"] <= 1


def test_the_same_seed_gives_the_same_numbers(call: Call) -> None:
    words = ("noise", "--steps", "5", "--seeds", "1", "--systems", "manifold,scn")
    numbers = []
    for _ in range(2):
        rows = json.loads(call(*words, "--json")[1])["systems"]
        assert rows[0]["in_range_sd"] is None
        numbers.append([{k: v for k, v in row.items() if k != "seconds"} for row in rows])
    assert numbers[0] == numbers[1]


def test_the_default_is_rotation_with_every_system(call: Call) -> None:
    rows = json.loads(call("--steps", "1", "--seeds", "0", "--json")[1])["systems"]
    assert {row["system"] for row in rows} >= set(PROBLEMS["rotation"].bases) | {
        "manifold-sgd", "manifold-adam", "concat", "concat-wide", "film", "hypernetwork", "scn",
        "one-for-all", "one-per-context", "undo",
    }  # fmt: skip


def test_a_folder_of_images_goes_through_convolutions(call: Call, tmp_path: Path) -> None:
    for name, colour in (("dark", 40), ("light", 210)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(8):
            image = Image.new("RGB", (12, 9), (colour, colour, 8 * index))
            image.save(tmp_path / "photos" / name / f"{index}.png")
    words = ("--data", "images:photos", "--steps", "20", "--seeds", "0", "--systems")
    code, out, err = call("rotation", *words, "manifold", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["data"] == "images:photos"
    assert result["systems"][0]["in_range"] > 0.9
    assert "rotation on photos" in err


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("rotatoin",), 2, "unknown experiment 'rotatoin'; did you mean rotation"),
        (("--data", "mnsit"), 2, "did you mean mnist"),
        (("--systems", "concatt"), 2, "did you mean concat"),
        (("noise", "--systems", "undo"), 2, "unknown system 'undo'"),
        (("--seeds", "a,b"), 2, "--seeds got 'a,b', but needs whole numbers"),
        (("--seeds", "-1"), 2, "different seeds from 0 on"),
        (("--steps", "0"), 2, "got 0 steps"),
        (("--holdout", "tset"), 2, "must be one of test, validation"),
        (("--stepps", "3"), 2, "No such option '--stepps'"),
        (("--data", "mnist"), 1, "pass --data-dir"),
        (("--data", "images:nowhere"), 1, "there is no folder nowhere"),
        (("--data", "cifar10", "--data-dir", "."), 1, "CIFAR-10 could not be read"),
        (("--tracking-uri", "sqlite:////proc/x/mlflow.db"), 1, "cannot open the tracking store"),
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
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    assert not client.search_runs(["1"])


def test_variables_name_data_and_store(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CL_MANIFOLD_DATA_DIR", str(tmp_path / "empty"))
    code, _, err = call("--data", "mnist")
    assert code == 1
    assert str(tmp_path / "empty") in err


def test_a_stopped_experiment_is_killed_and_keeps_finished_systems(tmp_path: Path) -> None:
    words = ["condition", "--steps", "150", "--seeds", "0", "--systems", "one-for-all,manifold-K13"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CL_MANIFOLD_")}
    with subprocess.Popen(
        [sys.executable, "-m", "cl_manifold", *words],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "1/2" in line:
                break
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(timeout=60) == 1
    assert "is marked KILLED; 1 finished systems are kept" in rest
    assert "Traceback" not in rest
    found = runs(tmp_path)
    assert found["parent"].info.status == "KILLED"
    assert found["one-for-all"].info.status == "FINISHED"
    assert "stopped after 1 of 2 systems" in found["parent"].data.tags["mlflow.note.content"]
    assert (folder_of(found["parent"]) / "condition.json").is_file()
