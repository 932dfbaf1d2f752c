"""The same runs and tables on every kind of store: a file, a server, one on PostgreSQL."""

import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from mlflow import MlflowClient

from tests.integration.comparing import TINY
from tests.integration.servers import Server, free_port

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
COMPARE = ("compare", "--strategies", "weight-manifold,naive", "--seeds", "0,1", *TINY, "--json")
WRITTEN = ("result.json", "report.html", "contexts.json", "configuration.json", "learning.png")


@pytest.fixture
def postgresql() -> Iterator[str]:
    """The address of a database of its own."""
    program = shutil.which("pg_ctl") or next(
        iter(map(str, Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))), None
    )
    if program is None or find_spec("psycopg2") is None:
        pytest.skip("install postgresql and psycopg2-binary to run this test")
    owner: dict[str, Any] = {}
    port = free_port()
    with TemporaryDirectory() as folder:
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            user = pwd.getpwnam("postgres")
            owner = {"user": user.pw_uid, "group": user.pw_gid}
            shutil.chown(folder, user.pw_uid, user.pw_gid)

        def control(*words: str) -> None:
            program_of = [program, "-D", f"{folder}/db", *words]
            subprocess.run(program_of, check=True, cwd=folder, **owner)

        control("init", "-o", "--auth=trust --username=me")
        control("start", "-w", "-l", f"{folder}/log", "-o", f"-p {port} -k {folder}")
        yield f"postgresql+psycopg2://me@127.0.0.1:{port}/postgres"
        control("stop", "-m", "immediate")


@pytest.fixture(params=["file", "server", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a store."""
    if request.param == "file":
        yield f"sqlite:///{tmp_path}/mlruns/mlflow.db"
        return
    database = request.getfixturevalue("postgresql") if request.param == "postgresql" else ""
    server = Server(tmp_path, database)
    try:
        server.start()
        yield server.address
    finally:
        server.kill()


def called(folder: Path, *words: str) -> str:
    """Standard output of the command line."""
    dropped = ("CL_MANIFOLD_", "MLFLOW_TRACKING")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    done = subprocess.run(
        [sys.executable, "-m", "cl_manifold", *words],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_a_comparison_is_the_same_on_every_store(address: str, tmp_path: Path) -> None:
    result = json.loads(called(tmp_path, *COMPARE, "--tracking-uri", address))
    alone = tmp_path / "alone"
    alone.mkdir()
    known = json.loads(called(alone, *COMPARE))
    assert [(row["label"], row["score"], row["unseen_score"]) for row in result["rows"]] == [
        (row["label"], row["score"], row["unseen_score"]) for row in known["rows"]
    ]
    client = MlflowClient(address)
    [experiment] = [e for e in client.search_experiments() if e.name == "cl-manifold"]
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 5
    for run in runs:
        assert run.info.status == "FINISHED"
        if "seed" not in run.data.tags:
            continue
        history = client.get_metric_history(run.info.run_id, "continual/acc")
        assert [point.step for point in history] == [0, 1, 2]
        present = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert present.issuperset(WRITTEN)
    assert not list((tmp_path / "mlruns" / ".runs").iterdir())
    shown = called(tmp_path, "show", "last", "--json", "--tracking-uri", address)
    assert json.loads(shown)["run_id"] == result["run_id"]
