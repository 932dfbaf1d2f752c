"""Runs and a tracking server that is killed, or frozen, while they record."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric

from cl_manifold.tracking import KeptRun, Store, keeping, open_store, sending
from tests.integration.servers import Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def store(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(tmp_path)
    return open_store(server.address.replace("//", "//me:sesame@"), "x")


def begin(store: Store, name: str, said: list[str]) -> KeptRun:
    return keeping.start(store, name, "", [("p", "1", "default")], {}, said.append)


def record(kept: KeptRun, steps: range) -> None:
    for step in steps:
        with kept.group():
            kept.run.log_metrics({"a": step / 7}, step=step)
            kept.run.log_text(str(step), "t.txt")


def check(store: Store, run_id: str, steps: int) -> None:
    history = [(m.step, m.value) for m in store.client.get_metric_history(run_id, "a")]
    assert history == [(step, step / 7) for step in range(steps)]
    path = store.client.download_artifacts(run_id, "t.txt")
    assert Path(path).read_text() == str(steps - 1)


def test_a_server_that_is_killed_and_comes_back(
    server: Server, store: Store, said: list[str], capfd: Any
) -> None:
    kept = begin(store, "r", said)
    assert not kept.run.run_id.startswith("local-")
    record(kept, range(5))
    assert kept._sender.wait(60.0)
    server.kill()
    began = time.monotonic()
    record(kept, range(5, 10))
    assert time.monotonic() - began < 2.0, "training does not wait"
    while not said:
        assert time.monotonic() < began + 15.0
        time.sleep(0.05)
    assert "takes nothing now (" in said[0]
    server.start()
    kept.finish("FINISHED")
    assert len(said) == 2
    assert "answers again" in said[1]
    assert not any("sesame" in sentence for sentence in said)
    assert capfd.readouterr() == ("", ""), "neither links nor warnings of urllib3"
    check(store, kept.run.run_id, 10)
    assert not kept.path.exists()


def test_a_server_that_freezes_keeps_nobody_waiting_and_makes_no_twin(
    server: Server, store: Store, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "PATIENCE", 1.0)
    monkeypatch.setattr(sending, "SILENCE", 2.0)
    monkeypatch.setattr(sending, "PAUSES", (0.5,))
    monkeypatch.setitem(sending._SETTINGS, "MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    server.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        kept = begin(store, "frozen", said)
        assert kept.run.run_id.startswith("local-")
        record(kept, range(5))
        assert time.monotonic() - began < 4.0
        time.sleep(6.0)
        assert "takes nothing now (it does not answer)" in said[0]
    finally:
        server.signal(signal.SIGCONT)
    monkeypatch.setattr(keeping, "PATIENCE", 60.0)
    assert kept._sender.wait(60.0)
    kept.finish("FINISHED")
    found = store.client.search_runs([store.experiment_id], "attributes.run_name = 'frozen'")
    assert len(found) == 1
    assert found[0].info.status == "FINISHED"
    check(store, found[0].info.run_id, 5)


def test_a_server_takes_the_same_point_once(store: Store) -> None:
    run = store.client.create_run(store.experiment_id)
    points = [Metric("a", 0.1, 1000, 0), Metric("b", float("nan"), 1000, 0)]
    for _ in range(3):
        store.client.log_batch(run.info.run_id, metrics=points)
    assert len(store.client.get_metric_history(run.info.run_id, "a")) == 1
    assert len(store.client.get_metric_history(run.info.run_id, "b")) == 1


def test_what_is_left_is_sent_by_the_sync_command(
    server: Server, store: Store, said: list[str], tmp_path: Path
) -> None:
    kept = begin(store, "later", said)
    server.kill()
    record(kept, range(3))
    kept.finish("FINISHED")
    assert "the next command sends them" in said[-1]
    words = [sys.executable, "-m", "cl_manifold", "sync", "--tracking-uri", server.address]
    words += ["--experiment", "x"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}

    def sync() -> Any:
        return subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    refused = sync()
    assert refused.returncode == 1
    assert "cannot open the tracking store" in refused.stderr
    assert "Traceback" not in refused.stderr
    server.start()
    done = sync()
    assert done.returncode == 0, done.stderr
    assert "1 run sent" in done.stderr
    check(store, kept.run.run_id, 3)
    assert "nothing was left to send" in sync().stderr
