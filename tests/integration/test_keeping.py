"""Runs that are kept here first: everything arrives once, whatever happens to process and store."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cl_manifold.errors import StoreError
from cl_manifold.tracking import KeptRun, Store, keeping, open_store, sending
from cl_manifold.tracking.run_folder import RunFolder

ROWS = [("a.b", "1", "default"), ("c", "2", "command line")]


@pytest.fixture
def store(folder: Path) -> Store:
    return open_store(f"sqlite:///{folder}/mlruns/mlflow.db", "here")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def begin(store: Store, said: list[str]) -> Callable[[], KeptRun]:
    return lambda: keeping.start(store, "a run", "what it is", ROWS, {"t": "1"}, said.append)


def runs_of(store: Store) -> list[Any]:
    return list(store.client.search_runs([store.experiment_id]))


def history(store: Store, run_id: str, key: str) -> list[tuple[int, float]]:
    found = store.client.get_metric_history(run_id, key)
    return sorted((point.step, point.value) for point in found)


def write(kept: KeptRun, *steps: int) -> None:
    """What a run records of some of its tasks."""
    for step in steps:
        with kept.group():
            kept.run.log_metrics({"acc": step / 10, "loss": float("nan")}, step=step)
            kept.run.log_table([{"task": i} for i in range(step + 1)], "contexts.json")


def end(kept: KeptRun) -> None:
    kept.run.log_json({"run_id": kept.run.run_id}, "result.json")
    kept.finish("FINISHED")


def assert_whole(store: Store, steps: int) -> Any:
    """One finished run with every point once, and nothing left here."""
    [run] = runs_of(store)
    run_id = run.info.run_id
    assert run.info.status == "FINISHED"
    assert history(store, run_id, "acc") == [(step, step / 10) for step in range(steps)]
    assert len(history(store, run_id, "loss")) == steps
    assert run.data.params == {"a.b": "1", "c": "2"}
    root = Path(run.info.artifact_uri)
    assert len(json.loads((root / "contexts.json").read_text())["data"]) == steps
    assert json.loads((root / "result.json").read_text()) == {"run_id": run_id}
    assert not list(keeping.left_behind(store))
    return run


def test_what_a_run_records_arrives(store: Store, begin: Any) -> None:
    kept = begin()
    assert kept.run.run_id == runs_of(store)[0].info.run_id
    kept.run.log_dataset("digits", "abc", "test")
    kept.run.set_name("better")
    kept.run.set_description("**done**")
    kept.run.log_figure(Figure(), "figure.png")
    kept.log_bytes(b"own", "deep/down/own.bin")
    write(kept, 0, 1)
    end(kept)
    run = assert_whole(store, 2)
    assert run.info.run_name == "better"
    assert run.data.tags["t"] == "1"
    assert run.data.tags["mlflow.note.content"] == "**done**"
    assert run.inputs.dataset_inputs[0].dataset.name == "digits"
    root = Path(run.info.artifact_uri)
    assert (root / "deep" / "down" / "own.bin").read_bytes() == b"own"
    assert (root / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [
        {"path": "contexts.json", "type": "table"}
    ]


def test_a_group_that_breaks_off_is_not_written(store: Store, begin: Any) -> None:
    kept = begin()
    with pytest.raises(KeyboardInterrupt), kept.group():  # noqa: PT012
        kept.run.log_metrics({"acc": 9.0}, step=0)
        raise KeyboardInterrupt
    write(kept, 0)
    end(kept)
    assert_whole(store, 1)


def test_a_stopped_run_goes_on_as_the_same_one(store: Store, begin: Any, said: list[str]) -> None:
    kept = begin()
    write(kept, 0, 1)
    kept.finish("KILLED")
    assert runs_of(store)[0].info.status == "KILLED"
    [left] = keeping.left_behind(store)
    assert (left.run_id, left.free) == (kept.run.run_id, True)
    again = keeping.go_on(store, left.path, said.append)
    again.run.log_metrics({"acc": 0.1, "loss": 0.0}, step=1)
    write(again, 1, 2)
    end(again)
    assert_whole(store, 3)
    assert said == []


def test_a_run_whose_id_was_not_noted_goes_on_without_a_twin(
    store: Store, begin: Any, said: list[str]
) -> None:
    """The process died after the store had made the run, and the next command could not look."""
    kept = begin()
    write(kept, 0)
    kept.finish("KILLED")
    (kept.path / "sent.json").unlink()
    again = keeping.go_on(store, kept.path, said.append)
    write(again, 0, 1)
    end(again)
    assert_whole(store, 2)


def test_points_that_only_the_store_has_are_not_doubled(
    store: Store, begin: Any, said: list[str]
) -> None:
    """A full disk kept them from the journal, and from the note of what was sent."""
    kept = begin()
    write(kept, 0, 1, 2)
    kept.finish("KILLED")
    journal = (kept.path / "journal.jsonl").read_text().splitlines(keepends=True)
    (kept.path / "journal.jsonl").write_text(journal[0])
    (kept.path / "sent.json").write_text(json.dumps({"run_id": kept.run.run_id, "lines": 1}))
    again = keeping.go_on(store, kept.path, said.append)
    for step in range(4):
        write(again, step)
        assert again._sender.wait(30.0)
    end(again)
    assert_whole(store, 4)


class Broken:
    """Breaks calls of MLflow's client for a while."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch, self.error = monkeypatch, MlflowException("the disk of the server is full")

    def refuse(self, name: str) -> None:
        def refused(*words: Any, **named: Any) -> None:
            raise self.error

        self._patch.setattr(MlflowClient, name, refused)

    def mend(self) -> None:
        self._patch.undo()


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Broken:
    monkeypatch.setattr(sending, "PAUSES", (0.05,))
    return Broken(monkeypatch)


def test_a_store_that_refuses_is_said_once_and_so_is_its_return(
    store: Store, begin: Any, said: list[str], broken: Broken
) -> None:
    kept = begin()
    broken.refuse("log_batch")
    write(kept, 0, 1)
    time.sleep(0.5)
    [first] = said
    assert first.startswith(f"the store {store.uri} takes nothing now (the disk of the server is")
    assert f"results are kept in {kept.path} and sent when it does" in first
    broken.mend()
    write(kept, 2)
    end(kept)
    assert said[1:] == [f"the store {store.uri} answers again; what was kept is sent"]
    assert_whole(store, 3)


def test_what_the_store_never_takes_is_sent_by_the_next_command(
    store: Store, begin: Any, said: list[str], broken: Broken
) -> None:
    kept = begin()
    broken.refuse("log_batch")
    write(kept, 0, 1)
    began = time.monotonic()
    end(kept)
    assert time.monotonic() - began < 20
    assert said[-1].endswith(f"they are kept in {kept.path}, and the next command sends them")
    broken.mend()
    assert keeping.sync(store) == 1
    assert keeping.sync(store) == 0
    assert_whole(store, 2)


def test_a_run_that_the_store_could_not_begin(
    store: Store, begin: Any, broken: Broken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "PATIENCE", 0.3)
    broken.refuse("create_run")
    kept = begin()
    assert kept.run.run_id == f"local-{kept.path.name}"
    assert kept.run.addresses().run == kept.run.addresses().experiment
    write(kept, 0)
    end(kept)
    broken.mend()
    assert runs_of(store) == []
    open_store(store.uri, store.experiment)
    assert_whole(store, 1)


def test_a_locked_database_is_said_by_the_clock(
    store: Store, begin: Any, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = begin()
    assert kept._sender.wait(60.0)
    monkeypatch.setattr(sending, "SILENCE", 0.3)
    with sqlite3.connect(store.uri.removeprefix("sqlite:///"), isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        write(kept, 0)
        time.sleep(1.5)
        [sentence] = said
        assert "takes nothing now (it does not answer)" in sentence
        other.execute("ROLLBACK")
    write(kept, 1)
    end(kept)
    assert "answers again" in said[-1]
    assert_whole(store, 2)


# -- processes that die ----------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["arrived", "_log", "_upload", "_describe"])
def test_nothing_is_doubled_where_nobody_knows_what_arrived(
    store: Store, begin: Any, said: list[str], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sending breaks off right after a step of it, and again; then somebody else goes on."""
    monkeypatch.setattr(sending, "PAUSES", (0.05,))
    where: Any = RunFolder if place == "arrived" else sending
    real = getattr(where, place)
    calls = []

    def then_break(*words: Any, **named: Any) -> None:
        if place != "arrived":
            real(*words, **named)
        calls.append(place)
        if len(calls) <= 3:
            raise OSError("the line went dead")
        if place == "arrived":
            real(*words, **named)

    monkeypatch.setattr(where, place, then_break)
    kept = begin()
    write(kept, 0, 1, 2)
    end(kept)
    assert len(calls) > 3
    assert_whole(store, 3)
    assert len(said) <= 6


SCRIPT = """
import sys, time
from cl_manifold.tracking import keeping, open_store
store = open_store(sys.argv[1], "here")
kept = keeping.start(store, "a run", "", [("a.b", "1", ""), ("c", "2", "")], {}, print)
for step in range(200):
    with kept.group():
        kept.run.log_metrics({"acc": step / 10, "loss": float("nan")}, step=step)
        kept.run.log_table([{"task": i} for i in range(step + 1)], "contexts.json")
    print(step, flush=True)
    time.sleep(0.002)
"""


@pytest.mark.parametrize("lines", [1, 40, 120])
def test_after_a_kill_the_next_command_says_so_and_the_run_goes_on(
    store: Store, said: list[str], lines: int
) -> None:
    words = [sys.executable, "-c", SCRIPT, store.uri]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    open_store(store.uri, store.experiment)
    [run] = runs_of(store)
    assert run.info.status == "KILLED"
    [left] = keeping.left_behind(store)
    kept = keeping.go_on(store, left.path, said.append)
    write(kept, *range(200))
    end(kept)
    assert_whole(store, 200)


def test_a_living_run_is_left_alone(store: Store, begin: Any) -> None:
    kept = begin()
    [left] = keeping.left_behind(store)
    assert not left.free
    open_store(store.uri, store.experiment)
    assert runs_of(store)[0].info.status == "RUNNING"
    with pytest.raises(StoreError, match="is being written by another process"):
        keeping.go_on(store, left.path, print)
    end(kept)


def test_a_damaged_folder_is_one_sentence_and_in_nobodys_way(
    store: Store, begin: Any, broken: Broken
) -> None:
    kept = begin()
    broken.refuse("log_batch")
    write(kept, 0)
    end(kept)
    broken.mend()
    for name, text in (("damaged", "{"), ("other", "{}"), ("empty", "")):
        shutil.copytree(kept.path, kept.path.with_name(name))
        (kept.path.with_name(name) / "start.json").write_text(text)
    journal = kept.path.with_name("half") / "journal.jsonl"
    shutil.copytree(kept.path, journal.parent)
    journal.write_text("{\n")
    with pytest.raises(StoreError, match=r"half cannot be read .*; delete the folder"):
        keeping.sync(store)
    open_store(store.uri, store.experiment)
    assert [run.info.status for run in runs_of(store)] == ["FINISHED"]


def test_a_run_of_another_store_waits_for_it(store: Store, begin: Any, broken: Broken) -> None:
    kept = begin()
    broken.refuse("log_batch")
    write(kept, 0)
    end(kept)
    broken.mend()
    start = kept.path / "start.json"
    other = json.loads(start.read_text()) | {"uri": "http://elsewhere:5000"}
    start.write_text(json.dumps(other))
    assert keeping.sync(store) == 0
    assert kept.path.exists()


def test_no_password_lies_in_the_folder(store: Store, said: list[str], broken: Broken) -> None:
    secret = Store(store.client, "http://me:sesame@host:1", "here", store.experiment_id)
    os.chdir(Path(store.uri.removeprefix("sqlite:///")).parent)
    kept = keeping.start(secret, "a run", "", ROWS, {}, said.append)
    broken.refuse("log_batch")
    end(kept)
    texts = [f.read_bytes() for f in kept.path.rglob("*") if f.is_file()]
    assert b"http://host:1" in b"".join(texts)
    assert not any(b"sesame" in text for text in texts)
