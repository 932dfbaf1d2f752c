"""A project folder that is moved: said, refused, and mended."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cl_manifold.errors import StoreError
from cl_manifold.strategies import FiniteLossPlugin
from cl_manifold.tracking import Store, keeping, open_store, sending
from cl_manifold.tracking.moving import mend, moved_from

TINY = ["--epochs", "1", "--set", "stream.contexts=3", "--set", "stream.samples=100"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "old").mkdir()
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


@pytest.fixture
def old(folder: Path) -> Path:
    return folder


def store_in(folder: Path) -> Store:
    return open_store(f"sqlite:///{folder}/mlruns/mlflow.db", "cl-manifold")


def unsent(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is finished, and of which the store takes nothing."""

    def refused(*words: Any, **named: Any) -> None:
        raise MlflowException("full")

    with monkeypatch.context() as patch:
        patch.setattr(sending, "PAUSES", (0.05,))
        patch.setattr(keeping, "PATIENCE", 0.3)
        patch.setattr(MlflowClient, "log_batch", refused)
        kept = keeping.start(store, "waits", "", [("a", "1", "")], {}, lambda text: None)
        kept.run.log_text("hello", "note.txt")
        kept.finish("FINISHED")


def places(database: Path) -> set[str]:
    with closing(sqlite3.connect(database)) as connection:
        runs = connection.execute("SELECT artifact_uri FROM runs").fetchall()
        return {place for (place,) in runs}


def test_a_project_with_runs_of_all_kinds_is_moved(
    call: Any, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = call("run", *TINY, "--json")
    assert code == 0, err
    finished = json.loads(out)["run_id"]
    original = FiniteLossPlugin.after_training_epoch

    def poisoned(self: Any, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if strategy.experience.current_experience == 1:
            strategy.loss = strategy.loss * float("nan")
        original(self, strategy, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(FiniteLossPlugin, "after_training_epoch", poisoned)
        assert call("run", *TINY, "--seed", "1")[0] == 1
    unsent(store_in(old), monkeypatch)

    new = old.with_name("new")
    old.rename(new)
    os.chdir(new)
    for words in (["show", finished], ["run", *TINY], ["resume"], ["sync"], ["ui"]):
        code, out, err = call(*words)
        assert (code, out) == (1, ""), words
        assert f"was moved here from {old}" in err
        assert "`cl-manifold mend` corrects that" in err
    assert not old.exists()

    code, _, err = call("mend")
    assert code == 0
    assert f"places are noted below {new} instead of {old};" in err
    assert "is mlflow.db.before-mend" in err
    assert "1 run sent" in err
    assert all(place.startswith(f"{new}/mlruns/") for place in places(new / "mlruns/mlflow.db"))
    assert all(
        place.startswith(f"{old}/mlruns/") for place in places(new / "mlruns/mlflow.db.before-mend")
    )

    assert call("show", finished)[0] == 0
    # in a process of its own: MLflow remembers for as long as it lives where a run's files were
    words = [sys.executable, "-W", "ignore", "-m", "cl_manifold", "resume", "--json"]
    resumed = json.loads(subprocess.check_output(words, stderr=subprocess.DEVNULL))
    assert resumed["seed"] == 1
    assert len(resumed["decisions"]) == 3
    store = store_in(new)
    runs = store.client.search_runs([store.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 3
    [waited] = [run for run in runs if run.info.run_name == "waits"]
    assert (Path(str(waited.info.artifact_uri)) / "note.txt").read_text() == "hello"
    assert not list(keeping.left_behind(store))
    assert not old.exists()
    assert "nothing was moved" in call("mend")[2]


def moved(old: Path) -> tuple[str, Path]:
    """A store with one run, moved away with its folder: its new address and database."""
    store_in(old).start_run("here").log_text("x", "x.txt")
    new = old.with_name("new")
    old.rename(new)
    database = new / "mlruns" / "mlflow.db"
    return f"sqlite:///{database}?timeout=3", database


def test_only_what_lies_below_the_old_folder_is_changed(old: Path) -> None:
    uri, database = moved(old)
    neighbours = [f"{old}-2/mlruns/x", f"{old}", "s3://bucket/x", f"file://{old}/mlruns/y z"]
    with closing(sqlite3.connect(database)) as connection, connection:
        for n, place in enumerate(neighbours):
            connection.execute(
                "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage)"
                " VALUES (?, ?, ?, 'active')",
                (100 + n, f"other {n}", place),
            )
    mended = mend(uri, "cl-manifold")
    assert mended is not None
    assert (mended.old, mended.new) == (old, database.parents[1])
    assert mended.places == 4  # Default, cl-manifold and its run, the last neighbour
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute(
            "SELECT artifact_location FROM experiments WHERE experiment_id >= 100"
        ).fetchall()
    new = f"file://{database.parents[1]}/mlruns/y z"
    assert [place for (place,) in rows] == [*neighbours[:3], new]
    assert mend(uri, "cl-manifold") is None


def test_an_experiment_of_another_name_is_named_in_the_command(old: Path) -> None:
    open_store(f"sqlite:///{old}/mlruns/mlflow.db", "my digits")
    new = old.with_name("new")
    old.rename(new)
    uri = f"sqlite:///{new}/mlruns/mlflow.db"
    with pytest.raises(StoreError, match="`cl-manifold mend --experiment 'my digits'` corrects"):
        open_store(uri, "my digits")
    os.chdir(new.parent)
    with pytest.raises(StoreError, match=f"`cl-manifold mend --tracking-uri {uri} --experiment"):
        open_store(uri, "my digits")
    assert mend(uri, "my digits") is not None
    open_store(uri, "my digits")


def test_a_second_copy_has_a_name_of_its_own(old: Path) -> None:
    uri, database = moved(old)
    database.with_name("mlflow.db.before-mend").write_text("kept")
    mended = mend(uri, "cl-manifold")
    assert mended is not None
    assert mended.copy.name == "mlflow.db.before-mend-1"
    assert database.with_name("mlflow.db.before-mend").read_text() == "kept"


def test_a_mending_that_breaks_off_changes_no_place_and_is_begun_again(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsent(store_in(old), monkeypatch)
    uri, database = moved(old)
    before = places(database)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(
            "CREATE TRIGGER no BEFORE UPDATE ON runs BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
    with pytest.raises(StoreError, match="no room"):
        mend(uri, "cl-manifold")
    assert places(database) == before
    with pytest.raises(StoreError, match="was moved here"):
        open_store(uri, "cl-manifold")
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DROP TRIGGER no")
    assert mend(uri, "cl-manifold") is not None
    store = store_in(database.parents[1])  # sends what waits
    assert not list(keeping.left_behind(store))
    names = {run.info.run_name for run in store.client.search_runs([store.experiment_id])}
    assert names == {"waits", "here"}


def test_a_run_that_is_written_meanwhile_is_waited_for(old: Path) -> None:
    kept = keeping.start(store_in(old), "lives", "", [], {}, lambda text: None)
    new = old.with_name("new")
    shutil.copytree(old, new)
    kept.finish("FINISHED")
    shutil.rmtree(old)
    uri = f"sqlite:///{new}/mlruns/mlflow.db"
    [folder] = (new / "mlruns" / ".runs").iterdir()
    before = places(new / "mlruns" / "mlflow.db")
    from filelock import FileLock

    with (
        FileLock(folder / "lock", timeout=0),
        pytest.raises(StoreError, match="written by another process"),
    ):
        mend(uri, "cl-manifold")
    assert places(new / "mlruns" / "mlflow.db") == before
    assert mend(uri, "cl-manifold") is not None


@pytest.mark.parametrize("uri", ["http://host:1", "sqlite:///{tmp}/none.db", "sqlite:///:memory:"])
def test_what_cannot_be_mended_is_one_sentence(uri: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is no sqlite file"):
        mend(uri.format(tmp=tmp_path), "cl-manifold")
    assert list(tmp_path.iterdir()) == []


def test_when_a_store_counts_as_moved(tmp_path: Path) -> None:
    """Only where the noted folder is gone, and nothing says that it was another one."""
    database = tmp_path / "new" / "mlruns" / "mlflow.db"
    (database.parent / "digits").mkdir(parents=True)
    (tmp_path / "copied" / "mlruns" / "digits").mkdir(parents=True)
    (tmp_path / "cleared" / "mlruns").mkdir(parents=True)
    gone = tmp_path / "gone" / "mlruns"
    assert moved_from(database, f"{gone}/digits") == tmp_path / "gone"
    assert moved_from(database, f"file://{gone}/digits") == tmp_path / "gone"
    assert moved_from(database, f"{gone}/empty") == tmp_path / "gone"  # no run has any file yet
    assert moved_from(database, f"{tmp_path}/cleared/mlruns/digits") == tmp_path / "cleared"
    assert moved_from(database, f"{tmp_path}/cleared/mlruns/empty") is None  # its files are deleted
    assert moved_from(database, f"{tmp_path}/copied/mlruns/digits") is None
    assert moved_from(database, f"{database.parent}/empty") is None
    assert moved_from(database, "/mnt/artifacts/digits") is None
    assert moved_from(database, "s3://bucket/mlruns/digits") is None
    assert moved_from(database, "mlflow-artifacts:/1") is None
