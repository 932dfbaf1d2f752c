"""A run on this machine: a folder that holds what was recorded, whatever becomes of the store.

    start.json       what the run is called in the store, written once
    journal.jsonl    one line per group of writes, in order: as a whole or not at all
    files/           the contents of artifacts, numbered by the line that brought them
    sent.json        the run's id in the store, and how many lines the store has
    lock             held by the process that writes the run, for as long as it lives

What a full disk does not take is kept in memory, and written with the next line.
"""

import json
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, final
from uuid import uuid4

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from cl_manifold.errors import StoreError
from cl_manifold.files import publish

Line = dict[str, Any]

_POINT = tuple[str, float | None, int, int]


class Start(BaseModel):
    """What a run begins with.

    Attributes:
        uri: of the store, without passwords.
        experiment_id: in that store.
        sources: where the params come from.
        run_id: of a run that the store has already; None for one that is to be created.
        time: milliseconds since 1970.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    uri: str
    experiment_id: str
    name: str
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    sources: dict[str, str] = {}
    run_id: str | None = None
    time: int


class _Line(BaseModel):
    """What a line of the journal may hold."""

    model_config = ConfigDict(extra="forbid")
    metrics: list[_POINT] = []
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    files: dict[str, str] = {}
    inputs: list[tuple[str, str, str]] = []
    name: str | None = None
    status: tuple[str, int] | None = None


class _Sent(BaseModel):
    model_config = ConfigDict(extra="forbid")
    run_id: str | None = None
    lines: int = 0


@final
class RunFolder:
    """The folder of one run, open for writing by this process.

    Attributes:
        path: of the folder; its name is the run's key.
        start: what the run begins with.
        run_id: the store's id; None before it has one.
        sent: how many lines the store has.
        changed: notified with every line and every answer of the store.
        trouble: why the disk takes nothing; None while it does.
    """

    def __init__(self, path: Path, start: Start, lock: FileLock) -> None:
        """Use `create` or `reopen`."""
        self.path, self.start, self._lock = path, start, lock
        self.run_id, self.sent = start.run_id, 0
        self.changed = threading.Condition()
        self.trouble: OSError | None = None
        self._lines: list[Line] = []
        self._kept: dict[str, bytes] = {}
        self._replaced: list[str] = []
        self._written = (0, 0)  # lines and bytes on disk, replaced at once
        self._points: set[tuple[str, int]] = set()
        self._latest: dict[str, str] = {}

    @property
    def key(self) -> str:
        """Names the run before the store gives it an id."""
        return self.path.name

    @property
    def complete(self) -> bool:
        """Whether the store has everything so far."""
        return self.run_id is not None and self.sent == len(self._lines)

    @property
    def safe(self) -> bool:
        """Whether everything so far outlives this process, in the store or on disk."""
        return self.complete or (self._written[0] == len(self._lines) and not self._kept)

    @property
    def status(self) -> str | None:
        """How the run ended; None while it goes on."""
        found = [line["status"][0] for line in self._lines if line.get("status")]
        return found[-1] if found and found[-1] != "RUNNING" else None

    # -- writing -------------------------------------------------------------------------------

    def append(self, line: Line, contents: Mapping[str, bytes] | None = None) -> None:
        """Write a group down, with the contents of its files by path.

        Points that an earlier line holds are left out: a run that goes on repeats some. A disk
        that takes nothing raises no error; it stands in `trouble`, and the group stays in memory.
        """
        points = [p for p in line.get("metrics", ()) if (p[0], p[3]) not in self._points]
        self._points |= {(key, step) for key, _, _, step in points}
        number = len(self._lines)
        names = {p: f"{number:06d}-{p.replace('/', '~')}" for p in contents or ()}
        line = {**line, "metrics": points, "files": names}
        for path in names.keys() & self._latest.keys():
            self._replaced.append(self._latest[path])
            self._kept.pop(self._latest[path], None)
        self._latest |= names
        self._kept |= {names[p]: content for p, content in (contents or {}).items()}
        with self.changed:
            self._lines.append({key: value for key, value in line.items() if value})
            self.changed.notify_all()
        self.write()

    def write(self) -> None:
        """Write what is only in memory, or note in `trouble` why that fails."""
        try:
            self._to_disk()
        except OSError as error:
            self.trouble = error
        else:
            self.trouble = None

    def _to_disk(self) -> None:
        """Files first, then the lines that speak of them; then older files can go."""
        for name in list(self._kept):
            part = self.path / "files" / f"{name}.part"
            try:
                part.write_bytes(self._kept[name])
            except OSError:
                part.unlink(missing_ok=True)
                raise
            part.replace(self.path / "files" / name)
            self._kept.pop(name, None)
        text = "".join(f"{json.dumps(line)}\n" for line in self._lines[self._written[0] :])
        self._write_at_end(text.encode(), len(self._lines))
        while self._replaced:
            (self.path / "files" / self._replaced[-1]).unlink(missing_ok=True)
            self._replaced.pop()

    def _write_at_end(self, text: bytes, lines: int) -> None:
        """Over whatever half line an interrupted write has left there."""
        length = self._written[1]
        descriptor = os.open(self.path / "journal.jsonl", os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.ftruncate(descriptor, length)
            os.lseek(descriptor, 0, os.SEEK_END)
            rest = memoryview(text)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._written = lines, length + len(text)

    # -- for who sends it ----------------------------------------------------------------------

    def unsent(self) -> list[Line]:
        """The lines that the store does not have, oldest first."""
        with self.changed:
            return self._lines[self.sent :]

    def content(self, name: str) -> bytes | None:
        """The content of a file of a line; None where a later line has brought another."""
        kept = self._kept.get(name)
        if kept is not None:
            return kept
        try:
            return (self.path / "files" / name).read_bytes()
        except FileNotFoundError:
            return self._kept.get(name)

    def arrived(self, run_id: str, lines: int = 0, files: tuple[str, ...] = ()) -> None:
        """The store has the run under that id, and so many more lines; their files can go."""
        try:
            for name in files:  # first: a full disk may need their room
                (self.path / "files" / name).unlink(missing_ok=True)
            _replace(self.path / "sent.json", {"run_id": run_id, "lines": self.sent + lines})
        except OSError as error:
            self.trouble = error
        # last: whoever waits for it may delete the folder
        with self.changed:
            self.run_id, self.sent = run_id, self.sent + lines
            self.changed.notify_all()

    def tags(self) -> dict[str, str]:
        """All tags so far."""
        found = dict(self.start.tags)
        for line in self._lines:
            found |= line.get("tags", {})
        return found

    def close(self) -> None:
        """Nobody here writes the run any more; a finished one that the store has is deleted."""
        # a comparison goes on by its finished runs, not by its own folder
        resumable = self.status != "FINISHED" and self.start.run_id is None
        if self.complete and self.status is not None and not resumable:
            delete(self.path)
        self._lock.release()


def create(root: Path, start: Start) -> RunFolder:
    """A new folder below `root`.

    Raises:
        StoreError: the disk takes nothing.
    """
    path = root / uuid4().hex
    lock = FileLock(path / "lock")
    try:
        (path / "files").mkdir(parents=True)
        lock.acquire(timeout=0)
        _replace(path / "start.json", start.model_dump())
    except OSError as error:
        lock.release()
        delete(path)
        raise StoreError(
            f"cannot keep a run in {root} ({error}); make room, or use a folder that can be written"
        ) from error
    return RunFolder(path, start, lock)


def reopen(path: Path) -> RunFolder:
    """The folder of a run that nobody writes any more.

    Raises:
        StoreError: a living process writes it, or its files are damaged.
    """
    lock = FileLock(path / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreError(
            f"run {path.name} is being written by another process; wait for it, or stop it"
        ) from None
    try:
        folder = RunFolder(path, read_start(path), lock)
        sent = _sent(path)
        lines, length = _journal(path / "journal.jsonl")
    except (OSError, ValueError) as error:
        lock.release()
        why = "of another form" if isinstance(error, ValidationError) else str(error)
        raise StoreError(
            f"the run in {path} cannot be read ({why}); delete the folder to give it up"
        ) from error
    folder._lines, folder._written = lines, (len(lines), length)
    folder.run_id, folder.sent = sent.run_id or folder.run_id, min(sent.lines, len(lines))
    folder._latest = {p: name for line in lines for p, name in line.get("files", {}).items()}
    folder._points = {(key, step) for line in lines for key, _, _, step in line.get("metrics", ())}
    return folder


def read_start(path: Path) -> Start:
    """What a run began with.

    Raises:
        OSError: there is no such file.
        ValueError: it is damaged.
    """
    return Start.model_validate_json((path / "start.json").read_bytes())


def read_run_id(path: Path) -> str | None:
    """The store's id of a run; None before it has one."""
    return _sent(path).run_id


def delete(path: Path) -> None:
    """Delete the folder of a run; what another process deletes meanwhile is no error."""
    for below in sorted(path.rglob("*"), reverse=True):
        with suppress(OSError):
            below.rmdir() if below.is_dir() else below.unlink()
    with suppress(OSError):
        path.rmdir()


def _journal(path: Path) -> tuple[list[Line], int]:
    """The whole lines of a journal, and how many bytes they are.

    Raises:
        ValueError: a line that is not the last is damaged.
    """
    text = path.read_bytes() if path.exists() else b""
    whole = text[: text.rfind(b"\n") + 1]
    lines: list[Line] = []
    for raw in whole.splitlines():
        lines.append(_Line.model_validate_json(raw).model_dump(exclude_defaults=True))
    return lines, len(whole)


def _sent(path: Path) -> _Sent:
    """What the store has; where nobody knows, nothing, so that it is sent again."""
    try:
        return _Sent.model_validate_json((path / "sent.json").read_bytes())
    except (OSError, ValueError):
        return _Sent()


def _replace(path: Path, value: Any) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(value), encoding="utf-8")
    publish(part, path)
