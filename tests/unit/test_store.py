"""The store: where it is, how it fails, and what a run in it keeps."""

import io
import json
import os
import socket
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import mlflow
import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient

from cl_manifold.errors import StoreError
from cl_manifold.experiments.config import resolve
from cl_manifold.tracking import open_store
from cl_manifold.tracking.database import artifact_folder
from cl_manifold.tracking.living import HOST, PROCESS, process_tags
from cl_manifold.tracking.store import (
    Store,
    find_run,
    read_artifact,
    read_result,
    resolve_tracking_uri,
)
from cl_manifold.tracking.tracked_run import TrackedRun, _ui_command
from cl_manifold.tracking.versions import version_tags


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, str]:
    """A new store and what was printed while it was created."""
    folder = tmp_path_factory.mktemp("store") / "deep" / "mlruns"
    with io.StringIO() as printed, redirect_stdout(printed), redirect_stderr(printed):
        store = open_store(f"sqlite:///{folder}/mlflow.db", "rotated digits/1")
        return store, printed.getvalue()


@pytest.fixture(scope="module")
def store(opened: tuple[Store, str]) -> Store:
    return opened[0]


@pytest.fixture
def run(store: Store) -> TrackedRun:
    return store.start_run("a run", "what it is", {"stream.name": "x"}, {"seed": "3"})


def test_explicit_address_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://from-env:1")
    assert resolve_tracking_uri("http://given:2") == "http://given:2"
    assert resolve_tracking_uri(None) == "http://from-env:1"


@pytest.mark.parametrize("environment", [None, ""])
def test_default_is_an_absolute_sqlite_path_below_the_working_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environment: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if environment is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", environment)
    assert resolve_tracking_uri() == f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    assert list(tmp_path.iterdir()) == []


def test_relative_sqlite_paths_become_absolute_and_keep_their_options(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        resolve_tracking_uri("sqlite:///a.db?timeout=3") == f"sqlite:///{tmp_path}/a.db?timeout=3"
    )
    assert resolve_tracking_uri("sqlite:///:memory:") == "sqlite:///:memory:"


def test_opening_creates_the_database_and_an_experiment_of_the_training_kind(store: Store) -> None:
    found = store.client.get_experiment(store.experiment_id)
    assert Path(store.uri.removeprefix("sqlite:///")).is_file()
    assert found.tags["mlflow.experimentKind"] == "custom_model_development"


def test_artifacts_lie_in_mlruns_beside_the_database(store: Store, run: TrackedRun) -> None:
    run.log_text("hello", "a/b.txt")
    folder = Path(store.uri.removeprefix("sqlite:///")).parent
    expected = folder / "rotated-digits-1" / run.run_id / "artifacts" / "a" / "b.txt"
    assert expected.read_text() == "hello"
    outside = artifact_folder(Path("/x/tracking.db"), "..")
    assert outside == Path("/x/mlruns/experiment")


def test_opening_again_finds_the_same_experiment(store: Store) -> None:
    assert open_store(store.uri, store.experiment).experiment_id == store.experiment_id


def test_opening_leaves_the_global_tracking_address_alone(store: Store) -> None:
    assert mlflow.get_tracking_uri() != store.uri
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ


@pytest.mark.slow
def test_creating_a_store_prints_nothing_and_survives_a_race(tmp_path: Path) -> None:
    """Two processes create one store: without the lock one of them dies in alembic."""
    code = (
        "from cl_manifold.tracking import open_store\n"
        f"open_store('sqlite:///{tmp_path}/mlruns/mlflow.db', 'x').start_run('r').finish()"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"},
        )
        for _ in range(2)
    ]
    assert [(racer.communicate()[0], racer.returncode) for racer in racers] == [("", 0), ("", 0)]


def test_creating_a_store_is_silent(opened: tuple[Store, str]) -> None:
    assert opened[1] == ""


def test_a_deleted_experiment_is_named_with_its_remedy(store: Store) -> None:
    gone = open_store(store.uri, "gone")
    store.client.delete_experiment(gone.experiment_id)
    with pytest.raises(StoreError, match=f"mlflow experiments restore -x {gone.experiment_id}"):
        open_store(store.uri, "gone")


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("foo://bar", "unsupported URI"),
        ("./somewhere", "filesystem tracking backend"),
        ("sqlite:///{tmp}/text.db", "file is not a database"),
        ("sqlite:///{tmp}/text.db/mlflow.db", "File exists"),
        ("postgresql://u:secret@h/d", "psycopg"),
    ],
)
def test_a_store_that_cannot_be_opened_is_one_sentence(
    tmp_path: Path, address: str, why: str
) -> None:
    (tmp_path / "text.db").write_text("no database " * 100)
    with pytest.raises(StoreError, match=why) as caught:
        open_store(address.format(tmp=tmp_path), "x")
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("cannot open the tracking store")
    assert text.endswith("such as sqlite:///mlruns/mlflow.db")
    assert "secret" not in text


def test_a_server_that_is_down_fails_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(StoreError, match="Connection refused"):
        open_store(f"http://127.0.0.1:{port}", "x")


def test_a_run_starts_with_name_description_params_and_tags(store: Store, run: TrackedRun) -> None:
    found = store.client.get_run(run.run_id)
    assert found.info.run_name == "a run"
    assert found.info.status == "RUNNING"
    assert found.data.params == {"stream.name": "x"}
    assert found.data.tags["mlflow.note.content"] == "what it is"
    assert found.data.tags["seed"] == "3"
    assert found.data.tags["mlflow.source.name"] == "cl-manifold"
    run.set_description("0.953 in the end")
    changed = store.client.get_run(run.run_id).data.tags
    assert changed["mlflow.note.content"] == "0.953 in the end"


def test_metrics_go_in_one_batch_without_gaps(
    monkeypatch: pytest.MonkeyPatch, store: Store, run: TrackedRun
) -> None:
    calls: list[int] = []
    original = MlflowClient.log_batch

    def counted(self: MlflowClient, run_id: str, **batch: list[object]) -> None:
        calls.append(len(batch["metrics"]))
        original(self, run_id, **batch)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    run.log_metrics({"a/b": 0.25, "odd[0]": 1.0, "none": None, "inf": float("-inf")}, step=4)
    run.log_metrics({"none": None})
    assert calls == [3]
    found = store.client.get_run(run.run_id).data.metrics
    assert found["a/b"] == 0.25
    assert found["odd_0_"] == 1.0
    assert found["inf"] != found["inf"]
    assert store.client.get_metric_history(run.run_id, "a/b")[0].step == 4


def test_a_table_is_replaced_listed_once_and_in_mlflows_layout(
    store: Store, run: TrackedRun
) -> None:
    rows = [{"n": 0, "context": [0.5, 0.25], "drift": float("nan")}, {"n": 1, "name": "b"}]
    run.log_table(rows[:1], "contexts.json")
    run.log_table(rows, "contexts.json")
    table = json.loads(read_artifact(store, run.run_id, "contexts.json"))
    assert table == {
        "columns": ["n", "context", "drift", "name"],
        "data": [[0, "(0.5, 0.25)", None, None], [1, None, None, "b"]],
    }
    listed = json.loads(store.client.get_run(run.run_id).data.tags["mlflow.loggedArtifacts"])
    assert listed == [{"path": "contexts.json", "type": "table"}]


def test_files_figures_and_json_arrive(store: Store, run: TrackedRun) -> None:
    run.log_text("abc", "model/weights.txt")
    run.log_figure(Figure(), "figures/empty.png")
    run.log_json({"κ": (1, float("inf"))}, "state.json")
    paths = {entry.path for entry in store.client.list_artifacts(run.run_id)}
    assert paths == {"model", "figures", "state.json"}
    assert json.loads(read_artifact(store, run.run_id, "state.json")) == {"κ": [1, None]}
    assert read_artifact(store, run.run_id, "model/weights.txt") == "abc"


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_a_run_ends_as_told_and_can_be_reopened(store: Store, run: TrackedRun, status: str) -> None:
    run.finish(status)  # pyright: ignore[reportArgumentType]
    assert store.client.get_run(run.run_id).info.status == status
    again = store.reopen_run(run.run_id)
    assert again.run_id == run.run_id
    assert store.client.get_run(run.run_id).info.status == "RUNNING"


def test_writing_to_a_run_that_is_gone_is_a_store_error(store: Store) -> None:
    lost = TrackedRun(store.client, store.experiment_id, "0" * 32)
    with pytest.raises(StoreError, match=f"cannot write metrics to run {'0' * 32}: .*not found"):
        lost.log_metrics({"a": 1.0})
    with pytest.raises(StoreError, match="reopen"):
        store.reopen_run("0" * 32)


def test_addresses_open_the_training_pages(store: Store, run: TrackedRun) -> None:
    found = run.addresses(port=5001)
    page = f"http://127.0.0.1:5001/#/experiments/{store.experiment_id}/runs"
    view = "?workflowType=machine_learning"
    assert found.run == f"{page}/{run.run_id}{view}"
    assert found.report == f"{page}/{run.run_id}/artifacts/report.html{view}"
    assert found.experiment == f"{page}{view}"
    assert found.command == f"cl-manifold ui --tracking-uri {store.uri} --port 5001"


def test_the_default_store_needs_no_address_in_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    ours = resolve_tracking_uri("sqlite:///mlruns/mlflow.db")
    assert _ui_command(ours, "127.0.0.1", 5000) == "cl-manifold ui"
    assert _ui_command(ours, "0.0.0.0", 5000) == "cl-manifold ui --host 0.0.0.0"


def test_a_server_is_its_own_user_interface() -> None:
    client = MlflowClient(tracking_uri="https://host/mlflow/")
    found = TrackedRun(client, "7", "r").addresses()
    assert found.command == ""
    assert found.run.startswith("https://host/mlflow/#/experiments/7/runs/r?")


def test_runs_are_found_by_id_prefix_and_last(store: Store) -> None:
    first, second = (store.start_run(name).run_id for name in ("first", "second"))
    assert find_run(store, first) == first
    assert find_run(store, first[:12].upper()) == first
    newest = {find_run(store, "last"), find_run(open_store(store.uri, store.experiment), "last")}
    assert newest == {second}


def test_unknown_and_ambiguous_runs_say_what_to_do(store: Store, run: TrackedRun) -> None:
    with pytest.raises(StoreError, match=r"no run 'zz%' in .*cl-manifold ui"):
        find_run(store, "zz%")
    starts = [entry.info.run_id[0] for entry in store.client.search_runs([store.experiment_id])]
    for index in range(20):
        starts.append(store.start_run(f"filler {index}").run_id[0])
    double = next(start for start in starts if starts.count(start) > 1)
    with pytest.raises(StoreError, match="give more characters"):
        find_run(store, double)
    empty = open_store(store.uri, "empty")
    with pytest.raises(StoreError, match="experiment 'empty' has no run"):
        find_run(empty, "last")


def test_a_missing_artifact_lists_what_there_is(store: Store, run: TrackedRun) -> None:
    run.log_text("x", "there.txt")
    with pytest.raises(StoreError, match=r"no file 'gone.txt'; it has there.txt"):
        read_artifact(store, run.run_id, "gone.txt")


def test_reading_shows_no_progress_bar(
    store: Store, run: TrackedRun, capfd: pytest.CaptureFixture[str]
) -> None:
    run.log_text("x", "there.txt")
    assert read_artifact(store, run.run_id, "there.txt") == "x"
    assert capfd.readouterr() == ("", "")


def test_versions_name_the_commit_only_inside_a_repository(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    outside = version_tags()
    assert outside["version.torch"]
    assert outside["python"].count(".") == 2
    assert "mlflow.source.git.commit" not in outside
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], [*author, "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *words], check=True)
    inside = version_tags()
    assert len(inside["mlflow.source.git.commit"]) == 40
    assert inside["mlflow.source.git.dirty"] == "False"


# -- runs whose process died, and what stays in the process --------------------------------------


def test_a_run_without_a_result_says_how_far_it_came(store: Store) -> None:
    run = store.start_run("going on", params={"stream.contexts": "12"})
    for step in range(3):
        run.log_metrics({"task/seconds": 0.5}, step=step)
    with pytest.raises(StoreError, match=r"is RUNNING and has no result; 3 of 12 experiences"):
        read_result(store, run.run_id)
    run.finish("KILLED")
    with pytest.raises(StoreError, match=r"is KILLED and has no result"):
        read_result(store, run.run_id)


def test_whoever_opens_the_store_marks_what_died_here_and_nothing_else(store: Store) -> None:
    pid, _, started = process_tags()[PROCESS].partition(" ")
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                           capture_output=True, text=True, check=True)  # fmt: skip
    tags = {
        "own": {},
        "dead": {PROCESS: f"{child.stdout.strip()} {started}"},
        "number used again": {PROCESS: f"{pid} {int(started) - 60}"},
        "damaged": {PROCESS: "no number"},
        "elsewhere": {HOST: "another machine", PROCESS: f"{child.stdout.strip()} 0"},
    }
    runs = {name: store.start_run(name, tags=own) for name, own in tags.items()}
    open_store(store.uri, store.experiment)
    status = {name: store.client.get_run(run.run_id).info.status for name, run in runs.items()}
    assert status == {
        "own": "RUNNING",
        "dead": "KILLED",
        "number used again": "KILLED",
        "damaged": "KILLED",
        "elsewhere": "RUNNING",
    }
    again = store.reopen_run(runs["dead"].run_id)
    open_store(store.uri, store.experiment)
    assert store.client.get_run(again.run_id).info.status == "RUNNING"


def test_a_killed_process_leaves_no_run_running(store: Store) -> None:
    script = (
        "import os, signal, sys\n"
        "from cl_manifold.tracking import open_store\n"
        "run = open_store(*sys.argv[1:]).start_run('killed')\n"
        "print(run.run_id, os.environ.get('MLFLOW_DISABLE_TELEMETRY'), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    hidden = {"MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"}
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    killed = subprocess.run(
        [sys.executable, "-c", script, store.uri, store.experiment],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    run_id, telemetry = killed.stdout.split()
    assert killed.returncode < 0
    assert telemetry == "true", "MLflow would report its use to an outside host"
    open_store(store.uri, store.experiment)
    assert store.client.get_run(run_id).info.status == "KILLED"


def test_no_password_leaves_the_process(capfd: pytest.CaptureFixture[str]) -> None:
    uri = "http://user:sesame@127.0.0.1:9"
    with pytest.raises(StoreError) as refused:
        open_store(uri, "x")
    run = TrackedRun(MlflowClient(tracking_uri=uri), "1", "0" * 32)
    rows = resolve([("command line", {"tracking_uri": uri})]).rows()
    written = capfd.readouterr()
    for text in (str(refused.value), str(run.addresses()), str(rows), *written):
        assert "sesame" not in text
    assert "http://127.0.0.1:9" in run.addresses().run
