"""Which run "last" means."""

import time
from pathlib import Path

import pytest

from cl_manifold.errors import StoreError
from cl_manifold.experiments.leaving import find
from cl_manifold.tracking import KeptRun, Store, keeping, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"sqlite:///{tmp_path}/mlruns/mlflow.db", "here")


def begun(store: Store, name: str) -> KeptRun:
    time.sleep(0.002)  # runs are ordered by milliseconds
    return keeping.start(store, name, "", [], {}, lambda text: None)


def test_last_is_the_newest_that_nobody_writes(store: Store) -> None:
    begun(store, "older").finish("FAILED")
    stopped = begun(store, "stopped")
    stopped.finish("KILLED")
    alive = begun(store, "alive")
    assert [left.start.name for left in keeping.left_behind(store)] == ["alive", "stopped", "older"]
    assert find(store, "last").run_id == stopped.run.run_id
    assert find(store, alive.run.run_id).start.name == "alive"
    alive.finish("KILLED")
    assert find(store, "last").run_id == alive.run.run_id


def test_last_among_runs_that_are_all_alive_is_one_sentence(store: Store) -> None:
    with pytest.raises(StoreError, match="there is nothing to go on with"):
        find(store, "last")
    alive = begun(store, "alive")
    with pytest.raises(StoreError, match=r"no run was stopped here: those .* are being written"):
        find(store, "last")
    alive.finish("FINISHED")
