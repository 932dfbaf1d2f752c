"""What is sent of the folder of a run, to a client that only remembers it."""

import math
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from mlflow import MlflowClient

from cl_manifold.tracking import sending
from cl_manifold.tracking.run_folder import RunFolder, Start, create
from cl_manifold.tracking.sending import KEY, Sender, keep_one, local_id, send

START = Start(uri="sqlite:///x.db", experiment_id="1", name="a run", params={"a": "1"}, time=7)
RUN = "f" * 32
LIMIT = 1000
"""Points that MLflow takes at once."""


def run_of(run_id: str) -> Any:
    return SimpleNamespace(info=SimpleNamespace(run_id=run_id))


class Remembering(MlflowClient):
    """A client that sends nothing."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.batches: list[list[tuple[Any, ...]]] = []
        self.there: list[str] = []
        self.asked: list[str] = []
        self.steps: dict[str, list[int]] = {}
        self.refuses_batch = -1

    @property
    def tracking_uri(self) -> str:
        return "http://me:secret@store"

    def search_runs(self, *words: Any, **named: Any) -> Any:
        self.calls.append(("search", *words))
        return [run_of(run_id) for run_id in self.there]

    def create_run(self, *words: Any, **named: Any) -> Any:
        self.calls.append(("create", *words))
        return run_of(RUN)

    def log_batch(
        self,
        run_id: str,
        metrics: Any = (),
        params: Any = (),
        tags: Any = (),
        synchronous: Any = None,
    ) -> None:
        assert run_id == RUN
        if len(self.batches) == self.refuses_batch:
            raise OSError("the line went dead")
        self.batches.append([(m.key, m.value, m.timestamp, m.step) for m in metrics])
        texts = [{item.key: item.value for item in items} for items in (params, tags)]
        self.calls.append(("log", len(metrics), *texts))

    def get_metric_history(self, run_id: str, key: str) -> Any:
        self.asked.append(key)
        return [SimpleNamespace(step=step) for step in self.steps.get(key, [])]

    def log_inputs(self, run_id: str, datasets: Any = None, models: Any = None) -> None:
        for one in datasets:
            found = one.dataset
            self.calls.append(("input", found.name, found.digest, one.tags[0].value))

    def update_run(self, run_id: str, status: Any = None, name: Any = None) -> None:
        self.calls.append(("update", status, name))

    def set_terminated(self, run_id: str, status: Any = None, end_time: Any = None) -> None:
        self.calls.append(("end", status, end_time))

    def log_artifact(self, run_id: str, local_path: str, artifact_path: Any = None) -> None:
        file = Path(local_path)
        self.calls.append(("file", file.name, file.read_bytes(), artifact_path))

    def delete_run(self, run_id: str) -> None:
        self.calls.append(("delete", run_id))


@pytest.fixture
def client() -> Remembering:
    return Remembering()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return create(tmp_path, START)


def points(key: str, *steps: int) -> list[tuple[str, float | None, int, int]]:
    return [(key, step / 2, 1000 + step, step) for step in steps]


def test_everything_is_sent_in_order_and_the_folder_knows(
    client: Remembering, folder: RunFolder
) -> None:
    folder.append({"metrics": points("score", 0), "params": {"p": "1"}, "tags": {"t": "1"}})
    files = {"a/b.md": local_id(folder).encode(), "c.png": local_id(folder).encode()}
    folder.append({"inputs": [("data", "abc", "test")], "name": "b", "tags": {"t": "2"}}, files)
    folder.append({"status": ("RUNNING", 8)})
    folder.append({"status": ("KILLED", 9)})
    assert send(client, folder, sure=True) == 4
    assert client.calls == [
        ("create", "1", 7, {KEY: folder.key}, "a run"),
        ("log", 0, {"a": "1"}, {}),
        ("log", 1, {"p": "1"}, {"t": "2"}),
        ("file", "b.md", RUN.encode(), "a"),
        ("file", "c.png", local_id(folder).encode(), None),
        ("input", "data", "abc", "test"),
        ("update", None, "b"),
        ("update", "RUNNING", None),
        ("end", "KILLED", 9),
    ]
    assert (folder.run_id, folder.sent, folder.complete) == (RUN, 4, True)
    assert not list((folder.path / "files").iterdir())
    assert send(client, folder, sure=True) == 0
    assert len(client.calls) == 9


def test_a_file_that_a_later_line_replaced_is_not_sent(
    client: Remembering, folder: RunFolder
) -> None:
    for line in ({}, {"metrics": points("score", *range(LIMIT))}):
        folder.append(line, {"x.json": f"{len(line)}".encode()})
    send(client, folder, sure=True)
    assert [call[2] for call in client.calls if call[0] == "file"] == [b"1"]


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [([2 * LIMIT], None), ([300, 300, 300, 1], [900, 1]), ([500, 500], [500, 500]), ([0, 0], [0])],
)
def test_no_more_points_at_once_than_the_store_takes(
    client: Remembering, folder: RunFolder, sizes: list[int], batches: list[int] | None
) -> None:
    folder.arrived(RUN)
    every: list[Any] = []
    for number, size in enumerate(sizes):
        every += (mine := points(f"m{number}", *range(size)))
        folder.append({"metrics": mine, "tags": {f"t{number}": "1"}})
    assert send(client, folder, sure=True) == len(sizes)
    sent = [len(batch) for batch in client.batches]
    assert max(sent) < LIMIT
    assert batches is None or sent == batches
    assert [point for batch in client.batches for point in batch] == every
    tags = [call[3] for call in client.calls]
    assert [key for found in tags for key in found] == [f"t{i}" for i in range(len(sizes))]


def test_what_was_taken_before_a_refusal_is_not_sent_again(
    client: Remembering, folder: RunFolder
) -> None:
    folder.arrived(RUN)
    for number in range(3):
        folder.append({"metrics": points(f"m{number}", *range(600))})
    client.refuses_batch = 2
    with pytest.raises(OSError, match="went dead"):
        send(client, folder, sure=True)
    assert folder.sent == 2
    client.refuses_batch = -1
    assert send(client, folder, sure=True) == 1
    assert [len(batch) for batch in client.batches] == [600, 600, 600]


def test_a_value_that_is_none_is_not_a_number(client: Remembering, folder: RunFolder) -> None:
    folder.arrived(RUN)
    folder.append({"metrics": [("loss", None, 1, 0), ("score", 0.0, 1, 0)]})
    send(client, folder, sure=True)
    [[loss, acc]] = client.batches
    assert math.isnan(loss[1])
    assert acc == ("score", 0.0, 1, 0)


def test_where_nobody_knows_only_new_points_are_sent_to_the_run_that_is_there(
    client: Remembering, folder: RunFolder
) -> None:
    folder.append({"metrics": [*points("score", 0, 1, 2), *points("loss", 0)]})
    client.there, client.steps = [RUN], {"score": [0, 1]}
    assert send(client, folder, sure=False) == 1
    assert client.calls == [
        ("search", ["1"], f"tags.`{KEY}` = '{folder.key}'"),
        ("log", 2, {"a": "1"}, {}),
    ]
    assert client.batches == [[*points("score", 2), *points("loss", 0)]]


def test_a_run_that_is_not_there_is_made(client: Remembering, folder: RunFolder) -> None:
    send(client, folder, sure=False)
    assert [call[0] for call in client.calls] == ["search", "create", "log"]


def test_twins_go_and_the_run_stays(client: Remembering, folder: RunFolder) -> None:
    folder.arrived(RUN)
    client.there = ["a", RUN, "b"]
    keep_one(client, folder)
    assert client.calls[1:] == [("delete", "a"), ("delete", "b")]


# -- the thread ----------------------------------------------------------------------------------


def test_a_thread_sends_what_comes_and_says_nothing(client: Remembering, folder: RunFolder) -> None:
    said: list[str] = []
    sender = Sender(client, folder, True, said.append)
    assert sender._thread.daemon  # it ends with the process
    assert sender.wait_for_id(30.0) == RUN
    folder.append({"metrics": points("score", 0)})
    assert sender.wait(30.0)
    folder.append({"status": ("FINISHED", 9)})
    sender.close(30.0)
    assert not folder.path.exists()
    assert [call[0] for call in client.calls] == ["create", "log", "log", "log", "end"]
    assert client.asked == []  # who is sure asks for no points
    assert said == []


def test_what_a_refusing_store_lacks_is_said_at_the_end(
    client: Remembering, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "PAUSES", (0.01,))
    client.refuses_batch = 0
    said: list[str] = []
    folder.append({"metrics": points("score", 0)})
    folder.append({"metrics": points("score", 1)})
    sender = Sender(client, folder, True, said.append)
    assert sender.wait_for_id(0.2) is None
    assert not sender.wait(0.2)
    monkeypatch.setattr(sending, "LAST_TRY", 0.2)
    began = time.monotonic()
    sender.close(20.0)
    assert time.monotonic() - began < 10
    first, last = said
    assert first.startswith("the store http://store takes nothing now (the line went dead); tr")
    assert last == (
        f"2 records of run {local_id(folder)} are not in the store http://store yet; they are "
        f"kept in {folder.path}, and the next command sends them"
    )


def test_what_neither_store_nor_disk_takes_is_not_said_to_be_kept(
    client: Remembering, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "PAUSES", (0.01,))
    monkeypatch.setattr(sending, "LAST_TRY", 0.2)
    client.refuses_batch = 0
    said: list[str] = []
    sender = Sender(client, folder, True, said.append)
    assert not sender.wait(0.2)

    def full(*words: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    folder.append({"tags": {"a": "1"}})
    sender.close(20.0)
    assert "kept" not in said[-1]
    assert (
        f"yet; {folder.path} cannot be written either ([Errno 28] No space left on device), so "
        "what came last ends with this process; make room, then `cl-manifold resume` finds it again"
    ) in said[-1]


def test_a_store_that_answers_again_has_one_run_and_is_told_of_once(
    client: Remembering, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt may have made a run; the second finds it and takes its twin away."""
    monkeypatch.setattr(sending, "PAUSES", (0.3,))
    client.refuses_batch = 0
    said: list[str] = []
    sender = Sender(client, folder, True, said.append)
    assert sender.wait_for_id(0.1) is None
    client.refuses_batch, client.there = -1, [RUN, "a twin"]
    assert sender.wait_for_id(30.0) == RUN
    folder.append({"status": ("KILLED", 9)})
    sender.close(30.0)
    assert [call[0] for call in client.calls].count("create") == 1
    assert ("delete", "a twin") in client.calls
    assert ("delete", RUN) not in client.calls
    assert said[1:] == ["the store http://store answers again; what was kept is sent"]


class Counted(tuple[float, ...]):
    """Pauses that remember which of them were taken."""

    taken: ClassVar[list[int]] = []

    def __getitem__(self, place: Any) -> Any:
        self.taken.append(place)
        return super().__getitem__(place)


def test_pauses_grow_to_the_last_and_begin_anew_after_an_answer(
    client: Remembering, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def until(count: int) -> None:
        deadline = time.monotonic() + 30
        while len(taken) < count and time.monotonic() < deadline:
            time.sleep(0.01)

    monkeypatch.setattr(Counted, "taken", taken := [])
    monkeypatch.setattr(sending, "PAUSES", Counted([0.02] * 3))
    folder.arrived(RUN)
    folder.append({"metrics": points("score", 0)})
    client.refuses_batch = 0
    sender = Sender(client, folder, True, [].append)
    until(5)
    client.refuses_batch = -1
    assert sender.wait(30.0)
    before = len(taken)
    assert taken == [0, 1, *[2] * (before - 2)]
    client.refuses_batch = 1
    folder.append({"metrics": points("score", 1)})
    until(before + 2)
    client.refuses_batch = -1
    sender.close(30.0)
    assert taken[before : before + 2] == [0, 1]
