"""Runs on a disk that becomes full, at one write after another: finished experiences stay finished,
what is said is true, and with room again each run ends as if there had been enough all the time.
"""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cl_manifold.cli import main
from cl_manifold.cli.display import console
from cl_manifold.experiments import leaving, recording

pytestmark = pytest.mark.slow

EXPERIENCES = 6
RUN = ("run", "rotated-digits", "--json", "--set", "training.epochs=1")
RUN += ("--set", f"stream.contexts={EXPERIENCES}")
RUN += ("--set", "stream.samples=40", "--set", "stream.test_samples=30")
ROOMY = "96m"
SIZES = 12
assert leaving  # loads what each process would load
WITHIN = 15.0
"""Seconds after which somebody is told, at most; counted from the start of the run."""
TOLD = re.compile(r"takes nothing now|cannot be written|is full|^Error: ", re.MULTILINE)


@dataclass(frozen=True)
class Ended:
    """What a command came to."""

    code: int
    out: str
    err: str
    told: float | None
    """Seconds until it said that something is wrong."""

    @property
    def learned(self) -> set[int]:
        """The experiences that it said it had learned."""
        return {int(number) for number in re.findall(rf"^ +(\d+)/{EXPERIENCES} ", self.err, re.M)}

    @property
    def matrix(self) -> Any:
        return json.loads(self.out)["score_matrix"]


@dataclass(frozen=True)
class Disk:
    """A small disk with an empty store of a project, and a place for temporary files."""

    place: Path

    def resize(self, size: int | str) -> None:
        mount("-o", f"remount,size={size}", self.place)

    @property
    def used(self) -> int:
        found = os.statvfs(self.place)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def fill(self) -> None:
        """Somebody else takes all there is."""
        with suppress(OSError), (self.place / "somebody.else").open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def call(self, *words: str, watch: Callable[[str], None] = lambda err: None) -> Ended:
        """A command in a process of its own; `watch` sees again and again what it has said."""
        out, err = self.place.with_suffix(".out"), self.place.with_suffix(".err")
        begun, told = time.monotonic(), None
        err.write_text("")
        child = forked(self.place, words, out, err)
        while (found := os.waitpid(child, os.WNOHANG))[0] == 0:
            watch(err.read_text())
            if told is None and TOLD.search(err.read_text()):
                told = time.monotonic() - begun
            time.sleep(0.002)
        if told is None and TOLD.search(err.read_text()):
            told = time.monotonic() - begun
        code = os.waitstatus_to_exitcode(found[1])
        return Ended(code, out.read_text(), err.read_text(), told)

    def rows(self, query: str) -> list[Any]:
        with sqlite3.connect(self.place / "mlruns" / "mlflow.db") as database:
            return database.execute(query).fetchall()

    @property
    def points(self) -> Counter[tuple[Any, ...]]:
        """Every point of every metric but times, as often as the store has it."""
        found = self.rows("select key, step, value, is_nan from metrics")
        return Counter(row for row in found if "seconds" not in row[0])


def mount(*words: Any) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


def forked(folder: Path, words: tuple[str, ...], out: Path, err: Path) -> int:
    """Begin a command in a process that has loaded everything already."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.chdir(folder)
        tempfile.tempdir = str(folder / "tmp")
        for name in list(os.environ):
            if name.startswith(("CL_MANIFOLD_", "MLFLOW_TRACKING")):
                del os.environ[name]
        sys.stdout, sys.stderr = out.open("w"), err.open("w")
        os.dup2(sys.stdout.fileno(), 1)
        os.dup2(sys.stderr.fileno(), 2)
        console.cache_clear()
        sys.argv = ["cl-manifold", *words]
        main()
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    except BaseException:  # noqa: BLE001 the test reads it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@pytest.fixture(scope="module")
def new_disk(
    tmp_path_factory: pytest.TempPathFactory, empty_store: Path
) -> Iterator[Callable[[str], Disk]]:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root can make a disk that is small enough to become full")
    root, places = tmp_path_factory.mktemp("disks"), list[Path]()

    def made(size: str) -> Disk:
        place = root / str(len(places))
        place.mkdir()
        try:
            mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", place)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("this system mounts no tmpfs, so no disk can become full")
        places.append(place)
        (place / "tmp").mkdir()
        (place / "mlruns").mkdir()
        shutil.copy(empty_store, place / "mlruns" / "mlflow.db")
        return Disk(place)

    yield made
    for place in places:
        subprocess.run(["umount", "--lazy", place], check=True)


@dataclass(frozen=True)
class Whole:
    """What a run comes to on a disk with room, and how much of it is used at first and at most."""

    matrix: Any
    points: Counter[tuple[Any, ...]]
    start: int
    peak: int


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "PATIENCE", 2.0)


@pytest.fixture(scope="module")
def whole(new_disk: Callable[[str], Disk]) -> Whole:
    disk = new_disk(ROOMY)
    used = [disk.used]
    ended = disk.call(*RUN, watch=lambda err: used.append(disk.used))
    assert (ended.code, ended.told) == (0, None), ended.err
    assert ended.learned == set(range(1, EXPERIENCES + 1))
    return Whole(ended.matrix, disk.points, used[0], max(used))


def check_first(disk: Disk, ended: Ended) -> None:
    """Nobody is told anything untrue, and soon."""
    assert "Traceback" not in ended.err, ended.err
    assert ended.out or ended.code != 0, ended.err
    if ended.code != 0:
        assert ended.told is not None, ended.err
    if ended.told is not None:
        assert ended.told <= WITHIN, ended.err


def check_end(disk: Disk, first: Ended, whole: Whole) -> None:
    """With room again the next command ends what was begun; one experience is repeated at most."""
    if first.code == 0:
        again = disk.call("sync")
        assert again.code == 0, again.err
    else:
        again = disk.call("resume", "--json")
        if "nothing to go on with" in again.err:  # there was not even room to begin
            assert first.learned == set()
            again = disk.call(*RUN)
        assert again.code == 0, (first.err, again.err)
        assert again.matrix == whole.matrix
    assert "Traceback" not in again.err, again.err
    repeated = first.learned & again.learned
    assert len(repeated) <= 1, (first.err, again.err)
    assert all(f"experience {number} is not kept" in first.err for number in repeated), first.err
    assert disk.rows("select status, lifecycle_stage from runs") == [("FINISHED", "active")]
    assert disk.points == whole.points
    assert not list((disk.place / "mlruns" / ".runs").iterdir())


@pytest.mark.parametrize("part", range(SIZES))
def test_a_disk_that_is_too_small(part: int, new_disk: Callable[[str], Disk], whole: Whole) -> None:
    disk = new_disk(ROOMY)
    disk.resize(int(whole.start + (whole.peak - whole.start) * (part + 0.5) / SIZES))
    first = disk.call(*RUN)
    check_first(disk, first)
    disk.resize(ROOMY)
    check_end(disk, first, whole)


@pytest.mark.parametrize("learned", [0, 2, 5])
@pytest.mark.parametrize("greedy", [False, True])
def test_a_disk_that_somebody_else_fills(
    greedy: bool, learned: int, new_disk: Callable[[str], Disk], whole: Whole
) -> None:
    """Once, or again whenever there is room."""
    disk, filled = new_disk(ROOMY), list[bool]()

    def fill(err: str) -> None:
        begun = re.search(rf"{learned}/{EXPERIENCES} " if learned else "seed", err)
        if begun and (greedy or not filled):
            disk.fill()
            filled.append(True)

    first = disk.call(*RUN, watch=fill)
    check_first(disk, first)
    (disk.place / "somebody.else").unlink()
    check_end(disk, first, whole)
