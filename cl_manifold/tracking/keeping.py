"""Runs that are kept on this machine first, and sent to the store from there.

What a command could not send, because it died or the store did, the next command sends.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Literal, final

from filelock import FileLock, Timeout

from cl_manifold.errors import StoreError, public
from cl_manifold.tracking.folder_client import FolderClient
from cl_manifold.tracking.keys import legal_key
from cl_manifold.tracking.living import process_tags, settle
from cl_manifold.tracking.run_folder import (
    RunFolder,
    Start,
    create,
    read_run_id,
    read_start,
    reopen,
)
from cl_manifold.tracking.sending import Say, Sender, keep_one, local_id, send
from cl_manifold.tracking.store import Store, connect, run_tags
from cl_manifold.tracking.tracked_run import STORE_FAILURES, TrackedRun, store_errors

PATIENCE = 15.0
"""Seconds that a run waits for a store that does not answer, at its start and at its end."""


@final
class KeptRun:
    """A run that is being written to its folder.

    Attributes:
        run: writes it; its `run_id` is `local-…` where the store gave no id in time.
    """

    def __init__(self, store: Store, folder: RunFolder, fresh: bool, say: Say) -> None:
        """Begin to send what the folder holds; fresh: nobody can have sent any of it before."""
        self._folder, self._say, self._told = folder, say, False
        self._sender = Sender(store.client, folder, fresh, say)
        run_id = self._sender.wait_for_id(PATIENCE) or local_id(folder)
        self._client = FolderClient(folder, store.client.tracking_uri, self._check_disk)
        self.run = TrackedRun(self._client, store.experiment_id, run_id)

    @property
    def path(self) -> Path:
        """The folder of the run."""
        return self._folder.path

    def group(self) -> AbstractContextManager[None]:
        """What is written inside is kept and sent as one."""
        return self._client.group()

    def log_bytes(self, content: bytes, file: str) -> None:
        """A file of any kind."""
        self._client.log_bytes(content, file)

    def secure(self) -> None:
        """See to it that all so far outlives this process, in the store or on disk.

        Raises:
            StoreError: neither takes it.
        """
        if not self._folder.safe:
            self._folder.write()
        if not self._folder.safe:
            raise StoreError(f"{self.path} cannot be written ({self._folder.trouble}); make room")

    def _check_disk(self) -> None:
        """Say, once until it changes, that the disk takes nothing."""
        trouble = self._folder.trouble
        if trouble is not None and not self._told:
            self._say(
                f"{self.path} cannot be written ({trouble}); what was found since is kept in "
                "memory and written when there is room"
            )
        self._told = trouble is not None

    def finish(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """Close the run; waits for the store as long as it keeps answering."""
        self.run.finish(status)
        self._sender.close(PATIENCE)


def start(
    store: Store,
    name: str,
    description: str,
    rows: Sequence[tuple[str, str, str]],
    tags: Mapping[str, str],
    say: Say,
) -> KeptRun:
    """A new run.

    Args:
        store: an open store.
        name: of the run.
        description: Markdown.
        rows: key, value and source of every param.
        tags: beside those that every run has.
        say: is told what the user should know.

    Raises:
        StoreError: the disk takes nothing.
    """
    folder = create(
        folders_of(store),
        Start(
            uri=public(store.uri),
            experiment_id=store.experiment_id,
            name=name,
            params={legal_key(key): value for key, value, _ in rows},
            sources={key: source for key, _, source in rows},
            tags=run_tags(description, tags),
            time=int(time() * 1000),
        ),
    )
    return KeptRun(store, folder, True, say)


def adopt(store: Store, run_id: str, say: Say) -> KeptRun:
    """A run that the store has already; its folder goes when all is sent.

    Raises:
        StoreError: the disk takes nothing.
    """
    beginning = Start(
        uri=public(store.uri),
        experiment_id=store.experiment_id,
        name=run_id,
        run_id=run_id,
        time=int(time() * 1000),
    )
    return KeptRun(store, create(folders_of(store), beginning), False, say)


def go_on(store: Store, path: Path, say: Say) -> KeptRun:
    """A run whose folder was left behind, running again.

    Raises:
        StoreError: another process writes it, or its files are damaged.
    """
    folder = reopen(path)
    folder.append({"tags": process_tags(), "status": ("RUNNING", int(time() * 1000))})
    return KeptRun(store, folder, False, say)


@dataclass(frozen=True)
class Left:
    """A run that somebody left behind.

    Attributes:
        path: of its folder.
        start: what it begins with.
        run_id: the store's id, or `local-…`.
    """

    path: Path
    start: Start
    run_id: str

    @property
    def free(self) -> bool:
        """Whether no living process writes it."""
        try:
            with FileLock(self.path / "lock", timeout=0):
                return True
        except Timeout:
            return False


def left_behind(store: Store) -> Iterator[Left]:
    """The runs of this store that were stopped or are not sent, newest first.

    Folders that cannot be read are passed over.
    """
    found: list[Left] = []
    root = folders_of(store)
    for path in root.iterdir() if root.is_dir() else ():
        try:
            start, run_id = read_start(path), read_run_id(path)
        except (OSError, ValueError):
            continue
        if (start.uri, start.experiment_id) == (public(store.uri), store.experiment_id):
            found.append(Left(path, start, run_id or f"local-{path.name}"))
    yield from sorted(found, key=lambda left: left.start.time, reverse=True)


def open_store(uri: str, experiment: str) -> Store:
    """Open the store; send what earlier commands left behind, and mark the runs that died.

    Raises:
        StoreError: the address is not one of a store, or the store cannot be reached or written.
    """
    store = connect(uri, experiment)
    with suppress(StoreError):  # it stays where it is; `cl-manifold sync` says why
        sync(store)
    with suppress(*STORE_FAILURES):
        settle(store.client, store.experiment_id)
    return store


def sync(store: Store) -> int:
    """Send what is left of runs that nobody writes any more; those that died are marked KILLED.

    Returns:
        How many runs had something to send.

    Raises:
        StoreError: the store refuses, or a folder is damaged; the others are sent all the same.
    """
    count, problems = 0, list[StoreError]()
    for left in left_behind(store):
        try:
            count += left.free and _send_rest(store, left.path)
        except StoreError as error:
            problems.append(error)
    if problems:
        raise problems[0]
    return count


def _send_rest(store: Store, path: Path) -> bool:
    """Send what is left of one run; False where there is nothing."""
    folder = reopen(path)
    try:
        if folder.status is None:
            folder.append({"status": ("KILLED", int(time() * 1000))})
        if folder.complete:
            return False
        begun = folder.run_id is not None
        with store_errors(f"send run {folder.run_id or local_id(folder)}"):
            send(store.client, folder, sure=False)
            if not begun:
                keep_one(store.client, folder)
        return True
    finally:
        folder.close()


def folders_of(store: Store) -> Path:
    """Where the runs of a store are kept: beside its database, or in ./mlruns of a server."""
    return store.folder / ".runs"
