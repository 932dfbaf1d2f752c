"""Runs that are stopped at random moments: each goes on, and ends as if it had not been stopped."""

import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

from cl_manifold.errors import StoreError
from cl_manifold.experiments.config import resolve
from cl_manifold.experiments.leaving import resume
from cl_manifold.experiments.result import Result
from cl_manifold.experiments.running import run
from cl_manifold.tracking import open_store, resolve_tracking_uri

TINY = {
    "stream.name": "rotated-digits",
    "stream.contexts": 12,
    "stream.samples": 40,
    "stream.test_samples": 30,
    "training.epochs": 2,
    "network.hidden": (12,),
}
STRATEGIES = ("weight-manifold", "naive", "replay", "online-ewc", "si", "der++", "packnet")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
INSTANTS = 9
"""For each strategy."""


def forked(folder: Path, work: Callable[[], Result]) -> int:
    """Begin the work in a process of its own that has loaded everything already."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.chdir(folder)
        sys.stdout = sys.stderr = Path("err.txt").open("a", buffering=1)  # noqa: SIM115
        signal.signal(signal.SIGTERM, stop)
        torch.manual_seed(random.SystemRandom().randrange(10**6))
        result = work().as_dict()
        Path("result.json").write_text(json.dumps(result))
        code = 0
    except (KeyboardInterrupt, StoreError) as error:
        sys.stderr.write(f"{type(error).__name__} {error}\n")
    except BaseException:  # noqa: BLE001 the test reads it
        traceback.print_exc()
    finally:
        os._exit(code)


def stop(number: int, frame: FrameType | None) -> None:
    """What the command line does."""
    raise KeyboardInterrupt


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def new_folder(place: Path, empty_store: Path) -> Path:
    (place / "mlruns").mkdir(parents=True)
    shutil.copy(empty_store, place / "mlruns" / "mlflow.db")
    return place


def rows(folder: Path, query: str) -> list[Any]:
    with sqlite3.connect(folder / "mlruns" / "mlflow.db", timeout=30) as database:
        return database.execute(query).fetchall()


def statuses(folder: Path) -> list[str]:
    return [status for (status,) in rows(folder, "select status from runs")]


def points(folder: Path) -> Counter[tuple[Any, ...]]:
    """Every point of every metric but times, as often as the store has it."""
    found = rows(folder, "select key, step, value, is_nan from metrics")
    return Counter(row for row in found if "seconds" not in row[0])


def result(folder: Path) -> dict[str, Any]:
    """What the run printed, without names and times."""
    found = json.loads((folder / "result.json").read_text())
    del found["run_id"], found["train_seconds"]
    for decision in found["decisions"]:
        del decision["seconds"]
    return found


def states(folder: Path) -> list[str]:
    """The manifolds that the store holds, as fingerprints."""
    files = (folder / "mlruns").rglob("artifacts/manifold.safetensors")
    return sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)


def settings(strategy: str) -> Any:
    memory = {"strategy.replay_samples": 30} if strategy in ("replay", "der++") else {}
    return resolve([("test", TINY | {"strategy.name": strategy} | memory)])


def go_on() -> Result:
    return resume("last", None, "cl-manifold")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be copied")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_that_is_stopped_at_any_moment_ends_as_if_it_had_not_been(
    strategy: str, tmp_path: Path, empty_store: Path
) -> None:
    whole = new_folder(tmp_path / "whole", empty_store)
    begun = time.monotonic()
    code = ended(forked(whole, lambda: run(settings(strategy))))
    assert code == 0, (whole / "err.txt").read_text()
    lasted = time.monotonic() - begun
    moments = random.Random(strategy)
    for instant in range(INSTANTS):
        folder = new_folder(tmp_path / str(instant), empty_store)
        child = forked(folder, lambda: run(settings(strategy)))
        time.sleep(moments.uniform(0, lasted))
        os.kill(child, SIGNALS[instant % 3])
        code = ended(child)
        had = statuses(folder)
        assert code == 0 or "FINISHED" not in had or (folder / "mlruns/.runs").exists()
        if code != 0:
            open_again(folder)
            assert "RUNNING" not in statuses(folder)
            again = ended(forked(folder, go_on))
            text = (folder / "err.txt").read_text()
            assert "Traceback" not in text, text
            if again != 0:  # nothing was begun, or all was done
                assert "nothing to go on with" in text, text
                assert statuses(folder) in ([], ["FINISHED"])
                if not statuses(folder):
                    continue
            else:
                assert result(folder) == result(whole)
        assert statuses(folder) == ["FINISHED"]
        assert points(folder) == points(whole)
        assert states(folder) == states(whole)
        assert not list((folder / "mlruns" / ".runs").iterdir())
        shutil.rmtree(folder)


def open_again(folder: Path) -> None:
    """What any next command does."""

    def work() -> Any:
        open_store(resolve_tracking_uri(), "cl-manifold")
        os._exit(0)

    assert ended(forked(folder, work)) == 0
