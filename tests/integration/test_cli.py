"""The command line on a real store and real data, in a folder of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from cl_manifold.tracking.view import COLUMNS

TINY = ("--epochs", "1", "--set", "stream.contexts=3", "--set", "stream.samples=64")
Call = Callable[..., tuple[int, str, str]]


def client(folder: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{folder}/mlruns/mlflow.db")


def only_run(folder: Path) -> Any:
    found = client(folder).search_runs(["1"])
    assert len(found) == 1
    return found[0]


def test_a_run_leaves_everything_in_mlflow(call: Call, tmp_path: Path) -> None:
    code, out, err = call("run", *TINY, "--seed", "3", "--json")
    assert code == 0, err
    result = json.loads(out)
    run = only_run(tmp_path)
    assert run.info.run_id == result["run_id"]
    assert run.info.status == "FINISHED"
    assert run.info.run_name == f"weight-manifold {result['score']:.3f} · seed 3"
    assert run.data.metrics["continual/acc"] == pytest.approx(result["score"])
    ratio = result["stored_floats"] / result["model_floats"]
    assert run.data.metrics["manifold/stored_ratio"] == pytest.approx(ratio)
    assert run.data.tags["context_at_test"] == result["context_at_test"] == "given"
    assert "metrics.`continual/r2`" in COLUMNS  # of numbers, which this stream does not predict
    for column in COLUMNS:
        if "r2" in column:
            continue
        kind, _, key = column.rstrip("`").partition(".`")
        assert key in getattr(run.data, kind), column
    assert run.data.params["stream.contexts"] == "3"
    assert run.data.params["topology.harmonics"] == "4"
    assert run.inputs.dataset_inputs[0].dataset.digest == run.data.tags["dataset_digest"]
    assert {"version.torch", "version.avalanche-lib", "stream", "strategy"} <= set(run.data.tags)
    assert "unseen contexts" in run.data.tags["mlflow.note.content"]
    files = {f.path for f in client(tmp_path).list_artifacts(run.info.run_id)}
    assert files >= {
        "contexts.json",
        "configuration.json",
        "network.json",
        "network.txt",
        "result.json",
        "report.html",
        "manifold.safetensors",
        "manifold.json",
        "manifold.png",
        "score_matrix.png",
        "score_by_context.png",
        "learning.png",
    }
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    sources = json.loads((folder / "configuration.json").read_text())
    assert sources["seed"] == {"value": "3", "source": "command line"}
    assert sources["topology.harmonics"]["source"] == "default of rotated-digits"
    history = client(tmp_path).get_metric_history(run.info.run_id, "manifold/plasticity")
    assert [m.step for m in history] == [0, 1, 2]
    assert "cl-manifold ui" in err
    assert "workflowType=machine_learning" in err


def test_the_json_has_the_promised_fields_and_consistent_numbers(call: Call) -> None:
    _, out, _ = call("run", *TINY, "--json")
    r = json.loads(out)
    assert list(r) == [
        "run_id", "stream", "strategy", "seed", "metric", "score", "acc", "rmse", "bwt",
        "forgetting", "fwt", "learning_score", "unseen_score", "score_matrix", "control_points",
        "stored_floats", "model_floats", "replay_samples", "train_seconds", "context_at_test",
        "decision_f1", "decisions",
    ]  # fmt: skip
    matrix = r["score_matrix"]
    assert r["score"] == pytest.approx(sum(matrix[-1]) / 3)
    assert r["bwt"] == pytest.approx(sum(matrix[-1][j] - matrix[j][j] for j in (0, 1)) / 2)
    assert r["control_points"] == 9
    assert r["stored_floats"] > 9 * r["model_floats"]
    first = r["decisions"][0]
    assert first["decision"] == "place"
    assert first["context_source"] == "given"
    assert first["plasticity"] == pytest.approx(1)
    assert first["score"] == matrix[0][0]
    assert first["final_score"] == matrix[-1][0]
    assert r["decisions"][1]["zero_shot_score"] == matrix[0][1]


@pytest.mark.parametrize("strategy", ["weight-manifold", "naive", "ewc", "joint"])
def test_the_same_seed_gives_the_same_matrix(call: Call, strategy: str) -> None:
    words = ("run", "split-digits", "--strategy", strategy, "--set", "stream.contexts=2")
    words += ("--epochs", "1", "--set", "stream.samples=48", "--json")
    first, second = (json.loads(call(*words)[1]) for _ in range(2))
    assert first["score_matrix"] == second["score_matrix"]
    other = json.loads(call(*words, "--seed", "1")[1])
    assert other["score_matrix"] != first["score_matrix"]
    expected = "given" if strategy == "weight-manifold" else "not used"
    assert first["context_at_test"] == expected


@pytest.mark.parametrize(
    ("stream", "topology"),
    [
        ("rotated-digits", "interval"),
        ("rotated-digits", "spline"),
        ("permuted-digits", "codes"),
        ("permuted-digits", "simplex"),
    ],
)
def test_every_topology_runs_on_a_stream_that_fits(call: Call, stream: str, topology: str) -> None:
    code, out, err = call("run", stream, *TINY, "--topology", topology, "--json")
    assert code == 0, err
    assert json.loads(out)["control_points"] > 1


def test_show_prints_matrix_contexts_and_decisions(call: Call) -> None:
    _, out, _ = call("run", *TINY, "--json")
    result = json.loads(out)
    code, text, _ = call("show", result["run_id"][:8])
    assert code == 0
    assert "Contexts and decisions" in text
    assert f"{result['score']:.3f}" in text
    assert json.loads(call("show", "last", "--json")[1])["run_id"] == result["run_id"]
    code, _, err = call("show", "zzzz")
    assert code == 1
    assert "zzzz" in err


RECURRING = ("run", "recurring-digits", "--epochs", "4", "--set", "stream.contexts=5")


def test_a_stream_that_tells_nothing_is_decided_recorded_and_replayed(
    call: Call, tmp_path: Path
) -> None:
    code, out, err = call(*RECURRING, "--set", "stream.samples=300", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["context_at_test"] == "inferred"
    assert 0 < result["decision_f1"] <= 1
    assert [d["context_source"] for d in result["decisions"]] == ["inferred"] * 5
    assert {d["truth"] for d in result["decisions"]} <= {"first", "return"}
    evidence = result["decisions"][1]["evidence"]
    assert 0 < evidence["p_value"] <= 1
    assert result["decisions"][0]["evidence"] is None
    run = only_run(tmp_path)
    history = client(tmp_path).get_metric_history(run.info.run_id, "decision/p_value")
    assert [m.step for m in history] == [1, 2, 3, 4]
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    columns = json.loads((folder / "contexts.json").read_text())["columns"]
    assert {"evidence.p_value", "evidence.drift", "truth", "decision"} <= set(columns)
    assert "p of a return" in (folder / "report.html").read_text()
    code, text, _ = call("show", "last")
    assert code == 0
    assert "told apart" in text
    assert "first" in text
    code, text, _ = call("show", "last", "--replay", "rule=never-grow")
    assert code == 0
    assert "of 4 decisions would have been others" in text
    code, text, _ = call("show", "last", "--replay", "tolerance=0.1", "--json")
    assert all(row["before"] == row["after"] for row in json.loads(text))
    for words, message in [
        (("--replay", "tolerance"), "needs key=value"),
        (("--replay", "speed=1"), "knows rule, level, tolerance and drift"),
        (("--replay", "level=2"), "between 0 and 1"),
        (("--replay", "level=much"), "needs numbers"),
        (("--replay", "rule=best"), "unknown rule 'best'"),
    ]:
        code, _, err = call("show", "last", *words)
        assert code == 2
        assert message in err


def test_topologies_are_watched_and_a_run_without_evidence_does_not_replay(
    call: Call, tmp_path: Path
) -> None:
    words = ("run", *TINY, "--set", "contexts.topology=watched", "--json")
    code, out, err = call(*words)
    assert code == 0, err
    assert set(json.loads(out)["decisions"][-1]["topologies"]) >= {"point", "circle", "codes"}
    history = client(tmp_path).get_metric_history(only_run(tmp_path).info.run_id, "topology/circle")
    assert [m.step for m in history] == [1, 2]
    code, _, err = call("show", "last", "--replay", "level=0.1")
    assert code == 1
    assert "holds no evidence to replay" in err
    code, out, err = call("run", *TINY, "--set", "contexts.topology=auto", "--json")
    assert code == 0, err
    assert json.loads(out)["control_points"] == 3


def test_settings_come_from_file_environment_and_command_line(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        "[training]\nepochs = 1\n[network]\nhidden = [32]\n[stream]\nsamples = 32\ncontexts = 5\n"
    )
    monkeypatch.setenv("CL_MANIFOLD_STREAM_CONTEXTS", "3")
    monkeypatch.setenv("CL_MANIFOLD_TOPOLOGY_HARMONICS", "2")
    code, out, err = call("run", "--config", str(file), "--set", "topology.harmonics=1", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert len(result["score_matrix"]) == 3
    assert result["control_points"] == 3
    params = only_run(tmp_path).data.params
    assert params["network.hidden"] == "32"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("rotated-digit",), "did you mean rotated-digits"),
        (("--strategy", "naiv"), "did you mean naive"),
        (("--topology", "circel"), "did you mean circle"),
        (("--set", "topology.harmonic=3"), "did you mean topology.harmonics"),
        (("--set", "topology.harmonics=many"), "is 'many', but needs a whole number"),
        (("--set", "topology.harmonics=-1"), "is '-1', but needs a whole number, 0 or more"),
        (("--set", "strategy.blocks=layer"), "needs one of tensor, row, weight"),
        (("--set", "harmonics"), "needs section.key=value"),
        (("recurring-digits", "--set", "contexts.rule=none"), "choose evidence"),
        (("recurring-digits", "--topology", "codes"), "choose --topology simplex"),
        (("recurring-digits", "--set", "contexts.topology=auto"), "leave contexts.topology fixed"),
        (("--set", "contexts.topology=auto", "--set", "contexts.rule=csp"), "leave one out"),
        (("--set", "contexts.level=1"), "needs a number between 0 and 1"),
        (("--config", "nowhere.toml"), "cannot read nowhere.toml"),
        (("--seeed", "1"), "No such option '--seeed'"),
        (("--topology", "torus"), "2 coordinates, but a context of this stream has 1"),
        (("--topology", "codes"), "topology codes is for unrelated tasks"),
        (("permuted-digits", "--topology", "circle"), "choose --topology simplex or codes"),
        (("--set", "stream.samples=99999"), "99999"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(
    call: Call, tmp_path: Path, words: tuple[str, ...], sentence: str
) -> None:
    code, out, err = call("run", *words)
    assert code == 2, err
    assert sentence in err
    assert not out
    assert "Traceback" not in err
    assert not client(tmp_path).search_runs(["1"])


def test_an_unknown_variable_is_an_error(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CL_MANIFOLD_TOPOLOGY_HARMONIC", "2")
    code, _, err = call("run")
    assert code == 2
    assert "did you mean topology.harmonics" in err
    assert "(from environment)" in err


def test_missing_data_names_folder_and_files(call: Call, tmp_path: Path) -> None:
    code, _, err = call("run", "rotated-mnist")
    assert code == 1
    assert "--data-dir" in err
    code, _, err = call("run", "rotated-mnist", "--data-dir", str(tmp_path))
    assert code == 1
    assert "train-images-idx3-ubyte" in err
    assert str(tmp_path) in err


def test_a_store_that_cannot_be_opened_stops_before_training(call: Call, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    uri = f"sqlite:///{tmp_path}/file/mlflow.db"
    code, _, err = call("run", *TINY, "--tracking-uri", uri)
    assert code == 1
    assert "cannot open the tracking store" in err
    assert "experience" not in err


def test_a_loss_that_is_not_finite_fails_the_run_and_keeps_finished_tasks(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cl_manifold.strategies import FiniteLossPlugin

    original = FiniteLossPlugin.after_training_epoch

    def poisoned(self: Any, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if strategy.experience.current_experience == 1:
            strategy.loss = strategy.loss * float("nan")
        original(self, strategy, *args, **kwargs)

    monkeypatch.setattr(FiniteLossPlugin, "after_training_epoch", poisoned)
    code, _, err = call("run", *TINY)
    assert code == 1
    assert "the loss became nan in experience 1, epoch 0; lower training.learning_rate" in err
    run = only_run(tmp_path)
    assert run.info.status == "FAILED"
    files = {f.path for f in client(tmp_path).list_artifacts(run.info.run_id)}
    assert {"report.html", "manifold.safetensors", "contexts.json", "result.json"} <= files
    assert "stopped after 1 of 3 contexts" in run.data.tags["mlflow.note.content"]
    code, text, _ = call("show", run.info.run_id)
    assert code == 0
    assert "rotated-digits" in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_is_killed_and_keeps_finished_tasks(number: int, tmp_path: Path) -> None:
    words = ["run", "--epochs", "2", "--set", "stream.contexts=200", "--set", "stream.samples=64"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CL_MANIFOLD_")}
    # a job in the background of a script ignores SIGINT, and its children inherit that
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from cl_manifold.cli.main import main; main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, *words],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "2/200" in line:
                break
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(timeout=60) == 1
    assert "is marked KILLED; finished tasks are kept" in rest
    assert "Traceback" not in rest
    run = only_run(tmp_path)
    assert run.info.status == "KILLED"
    files = {f.path for f in client(tmp_path).list_artifacts(run.info.run_id)}
    assert {"report.html", "manifold.safetensors", "contexts.json", "result.json"} <= files


def test_help_and_import_load_nothing_heavy() -> None:
    script = (
        "import sys; import cl_manifold, cl_manifold.cli.main; "
        "print([m for m in ('torch', 'avalanche', 'mlflow', 'matplotlib', 'rich') "
        "if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"
    script = (
        "import sys; from cl_manifold import WeightManifold, Fourier, load_manifold; "
        "print([m for m in ('avalanche', 'mlflow', 'click', 'matplotlib', 'sklearn') "
        "if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"


def test_lists(call: Call) -> None:
    code, out, _ = call("streams")
    assert code == 0
    assert "rotated-digits" in out
    listed = json.loads(call("strategies", "--json")[1])
    assert set(listed["strategies"]) >= {"weight-manifold", "naive", "ewc", "joint", "packnet"}
    code, out, _ = call("--help")
    assert code == 0
    assert "weight manifolds" in out


def test_a_port_that_is_taken_is_one_sentence_and_exit_code_1(call: Call) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _, err = call("ui", "--port", str(taken.getsockname()[1]))
    assert code == 1
    assert "choose another --port" in err
    assert "Traceback" not in err
