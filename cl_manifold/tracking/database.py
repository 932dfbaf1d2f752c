"""The sqlite file of a store: where it lies, what lies beside it, and how it is made once."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from mlflow import MlflowClient

SQLITE = "sqlite:///"


def database_of(uri: str) -> Path | None:
    """The absolute path of a sqlite address; None for other stores and for one in memory."""
    path = uri.partition("?")[0].removeprefix(SQLITE)
    if not uri.startswith(SQLITE) or path in ("", ":memory:"):
        return None
    return Path(path).expanduser().absolute()


def beside(database: Path) -> Path:
    """The folder `mlruns`, which holds the database or lies beside it."""
    folder = database.parent
    return folder if folder.name == "mlruns" else folder / "mlruns"


def artifact_folder(database: Path, experiment: str) -> Path:
    """The experiment's folder under `mlruns`."""
    return beside(database) / (re.sub(r"[^\w\-.]+", "-", experiment).strip("-.") or "experiment")


def make(database: Path | None) -> None:
    """MLflow's tables, all of them or none: a process that dies on the way leaves no half store."""
    if database is None or database.stat().st_size:
        return
    part = database.with_name(f"{database.name}.part")
    part.unlink(missing_ok=True)
    MlflowClient(f"{SQLITE}{part}").search_experiments(max_results=1)
    part.replace(database)


@contextmanager
def alone(database: Path | None) -> Iterator[None]:
    """Keep other processes out: two that create the same tables at once break each other.

    Raises:
        OSError: the database's folder cannot be created.
        sqlite3.Error: it cannot be written, or the file is not a database.
    """
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(database, timeout=5)) as probe:
        probe.execute("PRAGMA schema_version")
    lock = database.with_name(database.name + ".lock")
    with closing(sqlite3.connect(lock, timeout=120, isolation_level=None)) as guard:
        guard.execute("BEGIN EXCLUSIVE")
        yield
