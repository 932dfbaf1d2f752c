"""What tests on a real store share: an empty one, a folder with it, the command line in there."""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cl_manifold.cli import main


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with MLflow's tables and nothing else: making them takes longer than a run."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def folder(tmp_path: Path, empty_store: Path) -> Path:
    """A folder with an empty store of a project."""
    (tmp_path / "mlruns").mkdir()
    shutil.copy(empty_store, tmp_path / "mlruns" / "mlflow.db")
    return tmp_path


@pytest.fixture
def call(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """`call("run", ...)`, in the folder -> exit code, standard output, standard error."""
    monkeypatch.chdir(folder)
    for name in list(os.environ):
        if name.startswith(("CL_MANIFOLD_", "MLFLOW_TRACKING")):
            monkeypatch.delenv(name)

    def run(*words: str) -> tuple[int, str, str]:
        before = signal.getsignal(signal.SIGTERM)
        monkeypatch.setattr(sys, "argv", ["cl-manifold", *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        signal.signal(signal.SIGTERM, before)
        said = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, said.out, said.err

    return run
