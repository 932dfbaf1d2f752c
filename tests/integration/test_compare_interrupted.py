"""Comparisons that are stopped, killed, started twice, or lose their store; and go on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from cl_manifold.comparison.journal import at_work
from cl_manifold.errors import StoreError
from tests.integration.comparing import MARKER, TINY, children, client, folder_of, parents
from tests.integration.servers import Server

ROOT = Path(__file__).parents[2]
OWN = "tests.integration.comparing:Waiting"
WORDS = ("compare", "--strategies", f"naive,{OWN}", "--seeds", "0,1", "--jobs", "1", *TINY)


def start(folder: Path, *more: str, **variables: str) -> subprocess.Popen[str]:
    """The comparison WORDS in a session of its own."""
    dropped = ("CL_MANIFOLD_", "MLFLOW_TRACKING")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    environment |= {"PYTHONPATH": str(ROOT), MARKER: str(folder / "waiting")} | variables
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


def finish(
    folder: Path, process: subprocess.Popen[str], seconds: float = 300
) -> tuple[int, str, str]:
    (folder / "waiting.go").touch()
    out, err = process.communicate(timeout=seconds)
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
        assert (folder_of(run, folder / "artifacts") / "result.json").is_file()


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
    assert client(folder).search_runs(["1"], "tags.`comparison.stopped` LIKE '%'") == []
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


@pytest.mark.slow
def test_a_node_of_a_cluster_that_dies_loses_no_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec("ray") is None:
        pytest.skip("install cl-manifold[ray] to run this test")
    from ray.cluster_utils import Cluster

    for name, value in {"PYTHONPATH": str(ROOT), MARKER: str(folder / "waiting")}.items():
        monkeypatch.setenv(name, value)  # work has the environment of its node
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        node = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        words = ("--engine", "ray", "--jobs", "2", "--strategies", OWN, "--seeds", "0,1,2")
        process = start(folder, *words, RAY_ADDRESS=str(cluster.address))
        deadline = time.monotonic() + 180
        while len(list(folder.glob("waiting.*"))) < 2:
            assert time.monotonic() < deadline, "no two runs began"
            time.sleep(0.1)
        cluster.remove_node(node, allow_graceful=False)
        code, _, err = finish(folder, process)
    finally:
        cluster.shutdown()
    assert code == 0, err
    assert f"the process of {OWN}, seed" in err
    [parent] = parents(folder)
    found = children(folder, parent)
    assert [len(runs) for runs in found.values()] == [1, 1, 1]
    assert {runs[0].info.status for runs in found.values()} == {"FINISHED"}
    rows = json.loads((folder_of(parent) / "comparison.json").read_text())["rows"]
    assert [row["seeds"] for row in rows] == [3]


# -- a store that goes away ------------------------------------------------------------------------


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    """A server on the folder's store."""
    server = Server(folder, f"sqlite:///{folder}/mlruns/mlflow.db")
    server.start()
    yield server
    server.kill()


@pytest.mark.slow
def test_results_survive_a_server_that_goes_away_and_are_sent_by_the_next_command(
    folder: Path, server: Server
) -> None:
    first = start(folder, "--tracking-uri", server.address, "--json")
    wait_for(folder, "waiting.*")
    server.kill()
    code, out, err = finish(folder, first)
    assert code == 0, err
    assert "Traceback" not in err
    assert {row["seeds"] for row in json.loads(out)["rows"]} == {2}
    assert "takes nothing now" in err
    assert "the next command sends them" in err
    assert len(list((folder / "mlruns" / ".runs").iterdir())) == 4
    server.start()
    words = [sys.executable, "-m", "cl_manifold", "sync", "--tracking-uri", server.address]
    sent = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    assert "4 runs sent" in sent.stderr
    assert not list((folder / "mlruns" / ".runs").iterdir())
    assert_complete(folder)
    [parent] = parents(folder)
    assert (folder_of(parent, folder / "artifacts") / "report.html").is_file()
    for (run,) in children(folder, parent).values():
        history = client(folder).get_metric_history(run.info.run_id, "continual/acc")
        assert [point.step for point in history] == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [6, 30])
def test_four_processes_and_one_sqlite_lose_no_run(folder: Path, seeds: int) -> None:
    (folder / "waiting.go").touch()
    numbers = ",".join(map(str, range(seeds)))
    code, _, err = finish(folder, start(folder, "--jobs", "4", "--seeds", numbers), 60.0 * seeds)
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
