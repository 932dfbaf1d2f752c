"""A project folder that was moved: noticed when its store is opened, and mended on request.

MLflow notes absolute places of artifacts in its database. After a move it finds none, says nothing,
and writes new ones to the old place. Runs that wait to be sent name their store by its old address.
"""

import json
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import final

from filelock import FileLock, Timeout

from cl_manifold.errors import StoreError, public
from cl_manifold.files import publish
from cl_manifold.tracking.database import SQLITE, alone, beside, database_of
from cl_manifold.tracking.run_folder import Start, read_start
from cl_manifold.tracking.tracked_run import EXPERIMENT, named_store, store_errors

_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
_FILE = "file://"


@final
@dataclass(frozen=True)
class Mended:
    """What was changed.

    Attributes:
        old: the folder that the project was moved from.
        new: where it is now.
        places: how many places of artifacts were noted anew.
        copy: of the database as it was.
    """

    old: Path
    new: Path
    places: int
    copy: Path


def refuse_moved(database: Path, experiment: str, location: str, uri: str) -> None:
    """Let nobody read from, or write to, a place where the project was before.

    Args:
        database: of the store.
        experiment: name of the one that is opened.
        location: where its artifacts are noted to be.
        uri: of the store.

    Raises:
        StoreError: the project was moved.
    """
    old = moved_from(database, location)
    if old is not None:
        words = f"cl-manifold mend{named_store(public(uri))}"
        words += "" if experiment == EXPERIMENT else f" --experiment {shlex.quote(experiment)}"
        raise StoreError(
            f"the store {public(uri)} was moved here from {old}, where MLflow still looks for the "
            f"files of its runs; `{words}` corrects that"
        )


def moved_from(database: Path, location: str) -> Path | None:
    """The folder that the project was moved from; None where it lies where it always did.

    It was moved if the noted folder of artifacts is gone, with the whole `mlruns` around it, or if
    one of its name lies beside the database.
    """
    noted, here = Path(location.removeprefix(_FILE)), beside(database)
    if not noted.is_absolute() or noted.exists() or noted.parent == here:
        return None
    if noted.parent.name != here.name:
        return None
    is_here = (here / noted.name).is_dir() or not noted.parent.exists()
    return noted.parent.parent if is_here else None


def mend(uri: str, experiment: str) -> Mended | None:
    """Note where a moved project is now: in its database, and in the runs that wait to be sent.

    A copy of the database is made first; all its places change at once or not at all.

    Args:
        uri: of the store.
        experiment: the one that tells where the project was; all others move with it.

    Returns:
        None where nothing was moved.

    Raises:
        StoreError: it is no sqlite file, a run is being written, or the disk takes nothing.
    """
    database = database_of(uri)
    if database is None or not database.is_file():
        raise StoreError(
            f"{public(uri)} is no sqlite file; only such a store notes places of this machine"
        )
    with (
        store_errors(f"mend the store {public(uri)}"),
        alone(database),
        closing(sqlite3.connect(database, timeout=20, isolation_level=None)) as connection,
        ExitStack() as held,
    ):
        named = "SELECT artifact_location FROM experiments WHERE name = ?"
        noted = connection.execute(named, (experiment,)).fetchone()
        old = moved_from(database, noted[0]) if noted and noted[0] else None
        new = beside(database).parent
        if old is None:
            return None
        waiting = list(_waiting(database, held))
        copy = _copy(connection, database)
        # first: a mending that breaks off here is begun again
        for path, start in waiting:
            _rename(path, start, old, new)
        return Mended(old, new, _note(connection, old, new), copy)


def _waiting(database: Path, held: ExitStack) -> Iterator[tuple[Path, Start]]:
    """The runs that wait beside the database; nobody else writes them meanwhile."""
    root = beside(database) / ".runs"
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        try:
            held.enter_context(FileLock(path / "lock", timeout=0))
            yield path, read_start(path)
        except Timeout:
            raise StoreError(
                f"run {path.name} is being written by another process; wait for it, or stop it"
            ) from None
        except (OSError, ValueError):  # damaged: it is in nobody's way
            continue


def _rename(path: Path, start: Start, old: Path, new: Path) -> None:
    """Let a waiting run name its store by the new address."""
    database = database_of(start.uri)
    if database is not None and database.is_relative_to(old):
        _, mark, options = start.uri.partition("?")
        uri = f"{SQLITE}{new / database.relative_to(old)}{mark}{options}"
        part = path / "start.json.part"
        part.write_text(json.dumps(start.model_dump() | {"uri": uri}), encoding="utf-8")
        publish(part, path / "start.json")


def _copy(connection: sqlite3.Connection, database: Path) -> Path:
    """A copy of the database, beside it, under a name that nothing has."""
    names = (f"{database.name}.before-mend{f'-{n}' if n else ''}" for n in count())
    path = next(p for p in map(database.with_name, names) if not p.exists())
    with closing(sqlite3.connect(path)) as target:
        connection.backup(target)
    return path


def _note(connection: sqlite3.Connection, old: Path, new: Path) -> int:
    """Write every place below the old folder as one below the new; in one transaction."""
    changed = 0
    connection.execute("BEGIN IMMEDIATE")
    try:
        for table, column in _PLACES:
            if column not in {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}:
                continue
            for kind in ("", _FILE):
                before, after = f"{kind}{old}/", f"{kind}{new}/"
                changed += connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE substr({column}, 1, ?) = ?",
                    (after, len(before) + 1, len(before), before),
                ).rowcount
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return changed
