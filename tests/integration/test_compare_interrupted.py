"""Comparisons that are stopped, killed, started twice, or lose their store; and go on."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from cl_manifold.comparison.journal import at_work
from cl_manifold.comparison.outbox import keep_unsent, send_unsent
from cl_manifold.errors import StoreError
from cl_manifold.tracking import ForgivingClient, Store, TrackedRun, forgiving, open_store
from tests.integration.comparing import MARKER, TINY, children, client, folder_of, parents

ROOT = Path(__file__).parents[2]
OWN = "tests.integration.comparing:Waiting"
WORDS = ("compare", "--strategies", f"naive,{OWN}", "--seeds", "0,1", "--jobs", "1", *TINY)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with MLflow's tables and nothing else: making them takes seconds."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def folder(tmp_path: Path, empty_store: Path) -> Path:
    (tmp_path / "mlruns").mkdir()
    shutil.copy(empty_store, tmp_path / "mlruns" / "mlflow.db")
    return tmp_path


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    """The comparison WORDS in a session of its own."""
    dropped = ("CL_MANIFOLD_", "MLFLOW_TRACKING")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    environment |= {"PYTHONPATH": str(ROOT), MARKER: str(folder / "waiting")}
    return subprocess.Popen(
        [sys.executable, "-m", "cl_manifold", *WORDS, *more],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(folder: Path, pattern: str, seconds: float = 120) -> Path:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := list(folder.glob(pattern)):
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"{pattern} did not appear")


def finish(folder: Path, process: subprocess.Popen[str]) -> tuple[int, str, str]:
    (folder / "waiting.go").touch()
    out, err = process.communicate(timeout=180)
    return process.returncode, out, err


def assert_complete(folder: Path) -> None:
    """One parent, every run below it once, everything finished."""
    [parent] = parents(folder)
    assert parent.info.status == "FINISHED"
    found = children(folder, parent)
    assert sorted(found) == [("naive", "0"), ("naive", "1"), (OWN, "0"), (OWN, "1")]
    assert [len(runs) for runs in found.values()] == [1] * 4
    assert {runs[0].info.status for runs in found.values()} == {"FINISHED"}
    for (run,) in found.values():
        assert (folder_of(run) / "result.json").is_file()


def assert_gone(process: int) -> None:
    deadline = time.monotonic() + 30
    while Path(f"/proc/{process}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{process}").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_comparison_keeps_finished_runs_and_goes_on(
    folder: Path, number: signal.Signals
) -> None:
    with start(folder) as first:
        worker = int(wait_for(folder, "waiting.*").name.split(".")[1])
        first.send_signal(number)
        _, err = first.communicate(timeout=90)
    assert first.returncode == 1
    assert "is marked KILLED; 1 finished runs are kept" in err
    assert "Traceback" not in err
    assert_gone(worker)
    [parent] = parents(folder)
    assert parent.info.status == "KILLED"
    found = children(folder, parent)
    assert found["naive", "0"][0].info.status == "FINISHED"
    assert found[OWN, "0"][0].info.status == "KILLED"
    assert (folder_of(parent) / "report.md").is_file()
    code, out, err = finish(folder, start(folder, "--json"))
    assert code == 0, err
    assert f"continuing run {parent.info.run_id}: 1 of 4 children are there" in err
    assert json.loads(out)["run_id"] == parent.info.run_id
    assert {row["seeds"] for row in json.loads(out)["rows"]} == {2}
    assert_complete(folder)
    earlier = found["naive", "0"][0].info.run_id
    [parent] = parents(folder)
    assert children(folder, parent)["naive", "0"][0].info.run_id == earlier


@pytest.mark.slow
def test_after_a_loss_of_power_the_same_command_goes_on_and_fresh_begins_anew(
    folder: Path,
) -> None:
    with start(folder) as first:
        wait_for(folder, "waiting.*")
        os.killpg(first.pid, signal.SIGKILL)
    [parent] = parents(folder)
    assert parent.info.status == "RUNNING"
    assert children(folder, parent)[OWN, "0"][0].info.status == "RUNNING"
    code, _, err = finish(folder, start(folder))
    assert code == 0, err
    assert "continuing run" in err
    assert_complete(folder)
    stopped = client(folder).search_runs(["1"], "tags.`comparison.stopped` LIKE '%'")
    assert [run.info.status for run in stopped] == ["KILLED"]
    code, _, err = finish(folder, start(folder, "--fresh"))
    assert code == 0, err
    assert "continuing" not in err
    assert len(parents(folder)) == 2


@pytest.mark.slow
def test_two_at_once_do_not_tread_on_each_other(folder: Path) -> None:
    first = start(folder)
    wait_for(folder, "waiting.*")
    second = start(folder)
    _, err = second.communicate(timeout=90)
    assert second.returncode == 1
    assert "is under way already" in err
    assert "--fresh" in err
    code, _, err = finish(folder, first)
    assert code == 0, err
    assert_complete(folder)


def test_a_lock_is_held_by_one_and_let_go() -> None:
    with at_work("0" * 32):
        with pytest.raises(StoreError, match="under way already"), at_work("0" * 32):
            pass
        with at_work("1" * 32):
            pass
    with at_work("0" * 32):
        pass


# -- a store that goes away ------------------------------------------------------------------------


@pytest.fixture
def store(folder: Path) -> Store:
    return open_store(f"sqlite:///{folder}/mlruns/mlflow.db", "here")


RESULT: dict[str, Any] = {
    "run_id": "0" * 32, "stream": "rotated-digits", "strategy": "ewc", "acc": 0.9, "bwt": None,
    "accuracy_matrix": [[0.9, 0.1], [0.8, 1.0]],
}  # fmt: skip


def test_a_result_that_could_not_be_sent_is_sent_later_once(store: Store, folder: Path) -> None:
    begun = store.start_run("half", params={"seed": "1"})
    outbox, tags = folder / "outbox", {"label": "ewc", "seed": "1", "mlflow.parentRunId": "old"}
    keep_unsent(outbox, "ewc", 1, {"seed": "1"}, tags, RESULT | {"run_id": begun.run_id}, True)
    keep_unsent(outbox, "a/b:c", 2, {"seed": "2"}, tags, RESULT, False)
    assert sorted(file.name for file in outbox.iterdir()) == ["a_b_c-2.json", "ewc-1.json"]
    assert send_unsent(store, outbox, {"mlflow.parentRunId": "new"}) == 2
    assert send_unsent(store, outbox) == 0
    found = {run.data.params["seed"]: run for run in store.client.search_runs(["1"])}
    assert len(found) == 2
    assert found["1"].info.run_id == begun.run_id
    for run in found.values():
        assert run.info.status == "FINISHED"
        assert run.data.tags["uploaded_later"] == "true"
        assert run.data.tags["mlflow.parentRunId"] == "new"
        assert run.data.metrics == {"continual/acc": 0.9}
        kept = json.loads((folder_of(run) / "result.json").read_text())
        assert kept["run_id"] == run.info.run_id
        assert kept["accuracy_matrix"] == RESULT["accuracy_matrix"]


def test_a_forgiving_client_writes_until_the_first_refusal(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, own = forgiving(store)
    run = kind.start_run("here", params={"a": 1})
    run.log_metrics({"x": 1.0})
    assert own.refusal is None
    assert store.client.get_run(run.run_id).data.metrics == {"x": 1.0}
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = ForgivingClient(f"http://127.0.0.1:{free.getsockname()[1]}")
        away = Store(gone, gone.tracking_uri, "here", "1").start_run("away", params={"a": 1})
        assert gone.refusal is not None
        assert gone.invented == {away.run_id}
        away.log_metrics({"x": 1.0})
        away.log_table([{"a": 1}], "table.json")
        away.log_text("text", "file.txt")
        away.set_name("other")
        away.finish("FINISHED")
    assert isinstance(away, TrackedRun)


@pytest.fixture
def server(folder: Path) -> Iterator[Any]:
    """A function that starts an MLflow server on the folder's store and returns its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, started = f"http://127.0.0.1:{port}", list[subprocess.Popen[bytes]]()

    def serve() -> tuple[str, subprocess.Popen[bytes]]:
        words = ["mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/mlruns/mlflow.db"]
        words += ["--port", str(port), "--workers", "1"]
        words += ["--artifacts-destination", str(folder / "artifacts")]
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=folder,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        started.append(process)
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=1).close()
                return address, process
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise AssertionError("the server did not start")

    yield serve
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_results_survive_a_server_that_goes_away_and_are_sent_on_the_next_start(
    folder: Path, server: Any
) -> None:
    address, process = server()
    first = start(folder, "--tracking-uri", address, "--json")
    wait_for(folder, "waiting.*")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    code, out, err = finish(folder, first)
    assert code == 1
    assert "Traceback" not in err
    assert {row["seeds"] for row in json.loads(out)["rows"]} == {2}
    assert "Results are kept in mlruns/outbox; the same command sends them" in err
    assert len(list((folder / "mlruns" / "outbox").glob("*/*.json"))) == 3
    server()
    code, out, err = finish(folder, start(folder, "--tracking-uri", address, "--json"))
    assert code == 0, err
    assert "3 runs of an earlier start sent to the store now" in err
    assert "4 of 4 children are there" in err
    assert not list((folder / "mlruns" / "outbox").glob("*/*.json"))
    [parent] = parents(folder)
    assert parent.info.status == "FINISHED"
    found = children(folder, parent)
    assert [len(runs) for runs in found.values()] == [1] * 4
    assert {runs[0].info.status for runs in found.values()} == {"FINISHED"}
    late = [runs[0] for runs in found.values() if "uploaded_later" in runs[0].data.tags]
    assert len(late) == 3
    assert all("continual/acc" in run.data.metrics for run in late)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [6, 30])
def test_four_processes_and_one_sqlite_lose_no_run(folder: Path, seeds: int) -> None:
    (folder / "waiting.go").touch()
    numbers = ",".join(map(str, range(seeds)))
    code, _, err = finish(folder, start(folder, "--jobs", "4", "--seeds", numbers))
    assert code == 0, err
    [parent] = parents(folder)
    found = children(folder, parent)
    assert len(found) == 2 * seeds
    needed = {"result.json", "configuration.json", "contexts.json", "report.html", "learning.png"}
    for (run,) in found.values():
        assert run.info.status == "FINISHED"
        assert run.data.metrics["continual/acc"] >= 0
        assert run.data.params["stream.contexts"] == "3"
        assert needed <= {file.name for file in folder_of(run).iterdir()}
        assert json.loads((folder_of(run) / "result.json").read_text())["run_id"] == run.info.run_id
    rows = json.loads((folder_of(parent) / "comparison.json").read_text())["rows"]
    assert {row["seeds"] for row in rows} == {seeds}
