"""The folder of a run: nothing half written, nothing twice, nothing lost to a full disk."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cl_manifold.errors import StoreError
from cl_manifold.tracking.run_folder import (
    RunFolder,
    Start,
    create,
    delete,
    read_run_id,
    read_start,
    reopen,
)

START = Start(uri="sqlite:///x.db", experiment_id="1", name="a run", params={"a": "1"}, time=7)


def point(key: str, step: int, value: float | None = 0.5) -> tuple[str, float | None, int, int]:
    return key, value, 1000 + step, step


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return create(tmp_path / "runs", START)


def again(folder: RunFolder) -> RunFolder:
    """The same folder in a later process."""
    folder._lock.release()
    return reopen(folder.path)


def test_what_was_written_is_read_again(folder: RunFolder) -> None:
    folder.append({"metrics": [point("score", 0), point("loss", 0, None)], "tags": {"t": "1"}})
    folder.append({"params": {"p": "2"}, "inputs": [("data", "abc", "train")], "name": "b"})
    folder.append({}, {"report.html": b"<p>", "deep/down.json": b"{}"})
    folder.append({"status": ("KILLED", 9)})
    later = again(folder)
    assert later.start == START
    assert later.unsent() == folder.unsent()
    first, second, third, last = later.unsent()
    assert first == {"metrics": [point("score", 0), point("loss", 0, None)], "tags": {"t": "1"}}
    assert second == {"params": {"p": "2"}, "inputs": [("data", "abc", "train")], "name": "b"}
    assert [later.content(name) for name in third["files"].values()] == [b"<p>", b"{}"]
    assert last == {"status": ("KILLED", 9)}
    assert later.status == "KILLED"
    assert later.tags() == {"t": "1"}


def test_a_run_that_goes_on_repeats_no_point(folder: RunFolder) -> None:
    folder.append({"metrics": [point("score", 0), point("score", 1)]})
    later = again(folder)
    later.append({"metrics": [point("score", 1), point("score", 2), point("loss", 1)]})
    assert later.unsent()[1]["metrics"] == [point("score", 2), point("loss", 1)]


@pytest.mark.parametrize("cut", range(1, 30))
def test_half_a_line_is_none_and_the_next_one_is_whole(folder: RunFolder, cut: int) -> None:
    folder.append({"tags": {"a": "1"}})
    folder.append({"tags": {"b": "some text here"}})
    journal = folder.path / "journal.jsonl"
    os.truncate(journal, journal.stat().st_size - cut)
    later = again(folder)
    assert later.unsent() == [{"tags": {"a": "1"}}]
    later.append({"tags": {"c": "3"}})
    assert again(later).unsent() == [{"tags": {"a": "1"}}, {"tags": {"c": "3"}}]


def test_a_write_that_was_interrupted_is_made_again_whole(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write

    def half(descriptor: int, data: Any) -> int:
        real(descriptor, data[: len(data) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(KeyboardInterrupt):
        folder.append({"tags": {"a": "1"}})
    monkeypatch.undo()
    folder.append({"tags": {"b": "2"}})
    assert again(folder).unsent() == [{"tags": {"a": "1"}}, {"tags": {"b": "2"}}]


def test_a_full_disk_loses_nothing(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*words: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder.append({"tags": {"a": "1"}})
    monkeypatch.setattr(os, "write", full)
    monkeypatch.setattr(Path, "write_bytes", full)
    folder.append({"tags": {"b": "2"}}, {"x.json": b"{}"})
    folder.append({"tags": {"c": "3"}})
    assert folder.trouble is not None
    assert folder.trouble.errno == errno.ENOSPC
    name = folder.unsent()[1]["files"]["x.json"]
    assert folder.content(name) == b"{}"
    assert len(folder.unsent()) == 3
    monkeypatch.undo()
    folder.append({"tags": {"d": "4"}})
    assert folder.trouble is None
    later = again(folder)
    tags = [line["tags"] for line in later.unsent()]
    assert tags == [{"a": "1"}, {"b": "2"}, {"c": "3"}, {"d": "4"}]
    assert later.content(name) == b"{}"


def test_what_a_full_disk_refuses_takes_no_room_and_is_not_safe(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> int:
        path.open("wb").close()
        raise OSError(errno.ENOSPC, "No space left on device")

    folder.append({}, {"x.json": b"0"})
    assert folder.safe
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        folder.append({}, {"x.json": b"1"})
        folder.append({}, {"x.json": b"2"})
    first, second, third = (line["files"]["x.json"] for line in folder.unsent())
    assert not folder.safe
    assert [path.name for path in (folder.path / "files").iterdir()] == [first]
    assert folder.content(second) is None  # the next one replaced it
    assert folder.content(third) == b"2"
    folder.write()
    assert folder.safe
    assert [path.name for path in (folder.path / "files").iterdir()] == [third]


def test_what_the_store_has_is_safe_whatever_the_disk_takes(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*words: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    folder.append({"tags": {"a": "1"}})
    assert not folder.safe
    folder.arrived("f" * 32, 1)
    assert folder.safe


def test_the_room_of_files_that_were_sent_is_free_though_nothing_can_be_noted(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*words: Any, **named: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder.append({}, {"x.json": b"1"})
    name = folder.unsent()[0]["files"]["x.json"]
    monkeypatch.setattr(Path, "write_text", full)
    folder.arrived("f" * 32, 1, (name,))
    assert not (folder.path / "files" / name).exists()


def test_a_run_that_there_is_no_room_for_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*words: Any, **named: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(StoreError, match="make room"):
        create(tmp_path, START)
    assert not list(tmp_path.iterdir())


def test_what_the_store_has_is_not_sent_again(folder: RunFolder) -> None:
    assert (folder.run_id, folder.complete) == (None, False)
    folder.append({"tags": {"a": "1"}}, {"x.json": b"1"})
    [line] = folder.unsent()
    folder.arrived("f" * 32)
    assert (folder.run_id, folder.complete) == ("f" * 32, False)
    folder.arrived("f" * 32, 1, tuple(line["files"].values()))
    assert folder.complete
    assert folder.content(line["files"]["x.json"]) is None
    assert read_run_id(folder.path) == "f" * 32
    later = again(folder)
    assert (later.run_id, later.unsent(), later.complete) == ("f" * 32, [], True)


def test_a_newer_file_replaces_the_older_one(folder: RunFolder) -> None:
    folder.append({}, {"x.json": b"1", "y.json": b"2"})
    folder.append({}, {"x.json": b"3"})
    first, second = folder.unsent()
    assert folder.content(first["files"]["x.json"]) is None
    assert folder.content(first["files"]["y.json"]) == b"2"
    assert folder.content(second["files"]["x.json"]) == b"3"
    later = again(folder)
    later.append({}, {"y.json": b"4"})
    assert later.content(first["files"]["y.json"]) is None


def test_a_file_that_is_gone_already_is_no_trouble(folder: RunFolder) -> None:
    folder.append({}, {"x.json": b"1"})
    folder.append({}, {"x.json": b"2"})
    names = [name for line in folder.unsent() for name in line["files"].values()]
    folder.arrived("f" * 32, 2, tuple(names))
    assert folder.trouble is None
    folder.append({}, {"x.json": b"3"})
    assert folder.trouble is None


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"run_id": 3}', '{"lines": "x"}'])
def test_where_nobody_knows_what_was_sent_all_is_sent_again(folder: RunFolder, damage: str) -> None:
    folder.append({"tags": {"a": "1"}})
    folder.arrived("f" * 32, 1)
    (folder.path / "sent.json").write_text(damage)
    assert read_run_id(folder.path) is None
    assert len(again(folder).unsent()) == 1


def test_more_lines_sent_than_there_are(folder: RunFolder) -> None:
    folder.append({"tags": {"a": "1"}})
    folder.arrived("f" * 32, 5)
    later = again(folder)
    later.append({"tags": {"b": "2"}})
    assert later.unsent() == [{"tags": {"b": "2"}}]


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"metrics": [[1]]}', '{"other": 1}', '{"status": "KILLED"}', "\x00"]
)
def test_a_damaged_line_is_one_sentence(folder: RunFolder, line: str) -> None:
    folder.append({"tags": {"a": "1"}})
    journal = folder.path / "journal.jsonl"
    journal.write_text(line + "\n" + journal.read_text())
    with pytest.raises(StoreError, match=r"cannot be read .*; delete the folder to give it up"):
        again(folder)
    folder._lock.acquire(timeout=0)  # it was let go


@pytest.mark.parametrize(
    "text", ["", "{", '{"uri": 1}', json.dumps(START.model_dump() | {"other": 1})]
)
def test_a_damaged_start_is_one_sentence(folder: RunFolder, text: str) -> None:
    (folder.path / "start.json").write_text(text)
    with pytest.raises(ValueError, match=r".+"):
        read_start(folder.path)
    with pytest.raises(StoreError, match="cannot be read"):
        again(folder)


def test_the_start_of_a_run_is_not_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(START, "name", "another run")  # noqa: B010


def test_one_process_writes_a_run(folder: RunFolder) -> None:
    with pytest.raises(StoreError, match="is being written by another process; wait for it"):
        reopen(folder.path)


@pytest.mark.parametrize(
    ("status", "sent", "stays"),
    [("FINISHED", 1, False), ("FINISHED", 0, True), ("KILLED", 1, True), ("FAILED", 1, True)],
)
def test_a_finished_run_that_the_store_has_goes(
    folder: RunFolder, status: str, sent: int, stays: bool
) -> None:
    folder.append({"status": (status, 1)})
    folder.arrived("f" * 32, sent)
    folder.close()
    assert folder.path.exists() == stays


def test_a_run_that_was_only_adopted_goes_however_it_ended(tmp_path: Path) -> None:
    folder = create(tmp_path, START.model_copy(update={"run_id": "f" * 32}))
    folder.append({"status": ("KILLED", 1)})
    folder.arrived("f" * 32, 1)
    folder.close()
    assert not folder.path.exists()


def test_a_folder_goes_with_all_that_is_in_it(folder: RunFolder) -> None:
    folder.append({}, {"x.json": b"1", "deep/down.json": b"2"})
    delete(folder.path)
    assert not folder.path.exists()


def test_a_run_that_goes_on_has_no_status(folder: RunFolder) -> None:
    folder.append({"status": ("KILLED", 1)})
    folder.append({"status": ("RUNNING", 2)})
    assert folder.status is None


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot keep a run in .*; make room"):
        create(tmp_path / "file", START)


def test_the_start_is_plain_json(folder: RunFolder) -> None:
    assert json.loads((folder.path / "start.json").read_text())["params"] == {"a": "1"}
