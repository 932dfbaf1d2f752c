"""Which process writes a run, and what becomes of runs whose process is dead.

A process that is killed cannot say so. Every run records who writes it; whoever opens the store
next marks what died.
"""

import os
import platform
from collections.abc import Mapping

import psutil
from mlflow import MlflowClient

HOST = "cl_manifold.host"
PROCESS = "cl_manifold.process"
"""`<pid> <seconds since 1970 at which it started>`: numbers of processes are used again."""

MOST = 200
"""So many runs are looked at, newest first; opening a store must not take long."""


def host() -> str:
    """This machine, as tags name it."""
    return platform.node() or "unknown"


def process_tags() -> dict[str, str]:
    """Who writes: this process, on this machine."""
    return {HOST: host(), PROCESS: f"{os.getpid()} {psutil.Process().create_time():.2f}"}


def lives(tags: Mapping[str, str]) -> bool | None:
    """Whether the process that wrote these tags is alive; None where nobody here can tell."""
    if tags.get(HOST) != host() or PROCESS not in tags:
        return None
    pid, _, started = tags[PROCESS].partition(" ")
    try:
        process = psutil.Process(int(pid))
        same = abs(process.create_time() - float(started)) < 1.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError):
        return False


def settle(client: MlflowClient, experiment_id: str) -> list[str]:
    """Mark as KILLED the runs of this machine that still count as running but whose process died.

    Returns:
        Their ids.
    """
    running = client.search_runs(
        [experiment_id],
        f"attributes.status = 'RUNNING' and tags.`{HOST}` = '{host()}'",
        max_results=MOST,
    )
    dead = [run.info.run_id for run in running if lives(run.data.tags) is False]
    for run_id in dead:
        client.update_run(run_id, status="KILLED")
    return dead
