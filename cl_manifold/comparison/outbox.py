"""Results that the store did not take: kept in a folder, sent on the next start.

One JSON file per run, `mlruns/outbox/<comparison>/<label>-<seed>.json`.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cl_manifold.errors import StoreError
from cl_manifold.tracking import Store, TrackedRun

_SUMMARY = ("acc", "bwt", "forgetting", "fwt", "learning_acc", "unseen_acc")


def outbox_folder(digest: str) -> Path:
    """The folder for results of the comparison with that digest."""
    return Path.cwd() / "mlruns" / "outbox" / digest[:16]


def keep_unsent(
    folder: Path,
    label: str,
    seed: int,
    params: Mapping[str, str],
    tags: Mapping[str, str],
    result: Mapping[str, Any],
    known: bool,
) -> Path:
    """Write one result down; a crash in the middle leaves no half file.

    Args:
        folder: the outbox of the comparison.
        label: of the run, with `seed` part of the file's name.
        seed: of the run.
        params: all settings, as text.
        tags: of the run.
        result: `RunResult.as_dict()`.
        known: whether the store has begun a run of that id.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = f"-{tags['candidate']}" if "candidate" in tags else ""
    name = re.sub(r"[^\w.+-]+", "_", f"{label}{part}-{seed}")
    entry = {
        "name": f"{label} {result['acc']:.3f} · seed {seed}",
        "params": dict(params),
        "tags": dict(tags),
        "result": dict(result),
        "known": known,
    }
    file = folder / f"{name}.json"
    unfinished = file.with_suffix(f".{os.getpid()}.part")
    unfinished.write_text(json.dumps(entry, ensure_ascii=False), encoding="utf-8")
    unfinished.replace(file)
    return file


def send_unsent(store: Store, folder: Path, moved: Mapping[str, str] | None = None) -> int:
    """Send everything that waits in the folder; returns how many runs.

    Each becomes one finished run with params, tags, the last metrics and `result.json`, tagged
    `uploaded_later`. Its file is deleted after that.

    Args:
        store: an open store.
        folder: the outbox of a comparison; it need not exist.
        moved: tags that replace those of the runs, such as another parent.

    Raises:
        StoreError: the store refuses; what was not sent stays.
    """
    files = sorted(folder.glob("*.json"))
    for file in files:
        _send(store, json.loads(file.read_text(encoding="utf-8")), dict(moved or {}))
        file.unlink()
    return len(files)


def _send(store: Store, entry: dict[str, Any], moved: dict[str, str]) -> None:
    result = entry["result"]
    tags = {"stream": result["stream"], "strategy": result["strategy"]} | entry["tags"] | moved
    tags |= {"uploaded_later": "true"}
    run = _reopened(store, result["run_id"]) if entry["known"] else None
    if run is None:
        run = store.start_run(entry["name"], "Uploaded later.", entry["params"], tags)
    else:
        run.set_name(entry["name"])
        run.set_tags(tags)
    last = max(0, len(result["accuracy_matrix"]) - 1)
    run.log_metrics({f"continual/{key}": result.get(key) for key in _SUMMARY}, step=last)
    run.log_json(result | {"run_id": run.run_id}, "result.json")
    run.finish("FINISHED")


def _reopened(store: Store, run_id: str) -> TrackedRun | None:
    """The run that the store refused to continue; None where the store has lost it."""
    try:
        return store.reopen_run(run_id)
    except StoreError:
        return None
