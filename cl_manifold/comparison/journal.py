"""What the store remembers of a comparison: which runs are there, and who is at work on it.

A comparison is known by its digest, a run in it by its key; both are tags. A comparison whose run
is not FINISHED is continued by the next one with the same digest.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from filelock import FileLock, Timeout
from mlflow.entities import Run

from cl_manifold.comparison.jobs import KEY, PARENT
from cl_manifold.errors import StoreError
from cl_manifold.experiments.result import Result, parsed
from cl_manifold.tracking import Store, read_artifact
from cl_manifold.tracking.keeping import Left, left_behind
from cl_manifold.tracking.living import HOST, host
from cl_manifold.tracking.tracked_run import store_errors

DIGEST = "comparison.digest"
STOPPED = "comparison.stopped"
"""The parent that a run was under before it was stopped and done again."""


def earlier_comparison(store: Store, digest: str) -> str | None:
    """The run of the newest comparison of that digest, where it is unfinished and may be continued.

    One that another machine has under way is left alone, since nobody here can tell whether it
    lives.

    Raises:
        StoreError: the store refuses.
    """
    with store_errors("search for earlier comparisons"):
        found = store.client.search_runs(
            [store.experiment_id],
            f"tags.`{DIGEST}` = '{digest}'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
    if not found or found[0].info.status == "FINISHED":
        return None
    running = found[0].info.status == "RUNNING"
    if running and found[0].data.tags.get(HOST) != host():
        return None
    return found[0].info.run_id


def children(store: Store, parent_run_id: str) -> list[Run]:
    """The runs below a comparison.

    Raises:
        StoreError: the store refuses.
    """
    found: list[Run] = []
    token: str | None = None
    with store_errors(f"search for the runs below {parent_run_id}"):
        while True:
            page = store.client.search_runs(
                [store.experiment_id],
                f"tags.`{PARENT}` = '{parent_run_id}'",
                max_results=1000,
                page_token=token,
            )
            found += page
            token = page.token
            if not token:
                return found


def finished_results(store: Store, parent_run_id: str) -> dict[str, dict[str, Any]]:
    """Results of the finished runs below a comparison, by key.

    Raises:
        StoreError: the store refuses, or a finished run has lost its result.
    """
    return {
        run.data.tags[KEY]: _result(store, run.info.run_id)
        for run in children(store, parent_run_id)
        if run.info.status == "FINISHED" and KEY in run.data.tags
    }


def _result(store: Store, run_id: str) -> dict[str, Any]:
    text = read_artifact(store, run_id, "result.json")
    return parsed(Result, text, f"result.json of run {run_id}").as_dict()


def left_here(store: Store, parent_run_id: str) -> dict[str, Left]:
    """The runs below a comparison that were stopped and can go on on this machine, by key."""
    return {
        left.start.tags[KEY]: left
        for left in left_behind(store)
        if left.start.tags.get(PARENT) == parent_run_id and KEY in left.start.tags and left.free
    }


def retire(store: Store, parent_run_id: str, key: str | None = None) -> int:
    """Take runs that will be done again away from their comparison; returns how many.

    Those that can go on on this machine stay.

    Those that still count as running are marked KILLED: their process is dead. A tag says which
    comparison they belonged to.

    Args:
        store: an open store.
        parent_run_id: of the comparison.
        key: of the run whose process died; by default all that are not FINISHED.

    Raises:
        StoreError: the store refuses.
    """
    here = left_here(store, parent_run_id)
    stopped = [
        run
        for run in children(store, parent_run_id)
        if run.data.tags.get(KEY) not in here
        and (run.info.status != "FINISHED" if key is None else run.data.tags.get(KEY) == key)
    ]
    for run in stopped:
        run_id = run.info.run_id
        with store_errors(f"mark run {run_id}"):
            if run.info.status == "RUNNING":
                store.client.update_run(run_id, status="KILLED")
            store.client.set_tag(run_id, STOPPED, parent_run_id)
            store.client.delete_tag(run_id, PARENT)
    return len(stopped)


@contextmanager
def at_work(parent_run_id: str) -> Iterator[None]:
    """Keep others on this machine from continuing the same comparison at the same time.

    The lock goes with the process, however that ends.

    Raises:
        StoreError: somebody else is at work on it.
    """
    lock = FileLock(Path(gettempdir()) / f"cl-manifold-{parent_run_id}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise StoreError(
            f"this comparison is under way already as run {parent_run_id}; wait for it, or "
            "begin another one with --fresh"
        ) from None
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
