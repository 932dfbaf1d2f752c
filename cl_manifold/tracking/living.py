"""Which process writes a run, and what becomes of runs whose process is dead.

A process that is killed cannot say so. Every run records who writes it; whoever opens the store
next marks what died.
"""

import os
import platform
from collections.abc import Mapping
from pathlib import Path

import psutil
from mlflow import MlflowClient

HOST = "cl_manifold.host"
PROCESS = "cl_manifold.process"
"""`<pid> <when it started>`: numbers of processes are used again."""

MOST = 200
"""So many runs are looked at, newest first; opening a store must not take long."""


def host() -> str:
    """This machine, as tags name it; containers that share its name have processes of their own."""
    space = Path("/proc/self/ns/pid")
    inside = f" {space.readlink()}" if space.is_symlink() else ""
    return f"{platform.node() or 'unknown'}{inside}"


def process_tags() -> dict[str, str]:
    """Who writes: this process, on this machine."""
    return {HOST: host(), PROCESS: f"{os.getpid()} {_started(os.getpid())}"}


def lives(tags: Mapping[str, str]) -> bool | None:
    """Whether the process that wrote these tags is alive; None where nobody here can tell."""
    if tags.get(HOST) != host() or PROCESS not in tags:
        return None
    pid, _, started = tags[PROCESS].partition(" ")
    try:
        alive = psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE
        return alive and _started(int(pid)) == started
    except (psutil.Error, OSError, ValueError, IndexError):
        return False


def _started(pid: int) -> str:
    """When a process started, in a form that a corrected clock does not change: ticks since boot.

    Source: proc(5), field 22 of /proc/<pid>/stat; elsewhere the second that the system remembers.
    """
    stat = Path(f"/proc/{pid}/stat")
    if stat.exists():
        return stat.read_text().rpartition(")")[2].split()[19]
    return f"{psutil.Process(pid).create_time():.0f}"


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
