"""Sending the folder of a run to the store: in order, and each point once, wherever it is cut off.

Params, tags and files may be sent twice without harm. Points may not: where nobody knows whether
the last lines arrived, those that the store has are left out.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from math import nan
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, final

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

from cl_manifold.errors import public
from cl_manifold.tracking.run_folder import Line, RunFolder
from cl_manifold.tracking.store import environment
from cl_manifold.tracking.tracked_run import STORE_FAILURES, reason

# tracebacks of a database that refuses; whoever sends says it in a sentence
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

KEY = "cl_manifold.key"
"""The tag with the key of a run's folder."""

SILENCE = 10.0
"""Seconds without an answer before somebody is told."""

PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds between attempts; the last for all further ones."""

LAST_TRY = 5.0
"""Seconds that a run waits at its end for a store that took nothing before."""

_MOST = 900
"""Points that MLflow takes at once."""

_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}

Say = Callable[[str], None]
"""Takes a sentence for the user, in any thread."""

_TEXTS = (".json", ".html", ".md")


def send(client: MlflowClient, folder: RunFolder, sure: bool) -> int:
    """Send what the store does not have, some lines at a time.

    Args:
        client: of the store.
        folder: of the run.
        sure: nothing can have arrived that the folder does not know of.

    Returns:
        How many lines.

    Raises:
        Exception: of `STORE_FAILURES`; everything can be sent again.
    """
    if folder.run_id is None:
        folder.arrived(_created(client, folder, sure))
    assert folder.run_id is not None
    total = 0
    for lines in _parts(folder.unsent()):
        _log(client, folder, folder.run_id, lines, sure)
        for path, name in _merged(lines, "files").items():
            _upload(client, folder, folder.run_id, path, name)
        for line in lines:
            _describe(client, folder.run_id, line)
        sent = tuple(name for line in lines for name in line.get("files", {}).values())
        folder.arrived(folder.run_id, len(lines), sent)
        total += len(lines)
    return total


def _parts(lines: Sequence[Line]) -> Iterator[list[Line]]:
    """As many lines at once as the store takes points."""
    part, points = list[Line](), 0
    for line in lines:
        count = len(line.get("metrics", ()))
        if part and points + count > _MOST:
            yield part
            part, points = [], 0
        part.append(line)
        points += count
    if part:
        yield part


def _created(client: MlflowClient, folder: RunFolder, sure: bool) -> str:
    """The run in the store: the one with this key, or a new one."""
    start = folder.start
    if not sure:
        found = client.search_runs([start.experiment_id], f"tags.`{KEY}` = '{folder.key}'")
        if found:
            return found[0].info.run_id
    tags = start.tags | {KEY: folder.key}
    run = client.create_run(start.experiment_id, start.time, tags, start.name)
    params = [Param(key, value) for key, value in start.params.items()]
    client.log_batch(run.info.run_id, params=params)
    return run.info.run_id


def _merged(lines: Sequence[Line], kind: str) -> dict[str, str]:
    """What several lines say by key; the last one holds."""
    return {key: value for line in lines for key, value in line.get(kind, {}).items()}


def _log(
    client: MlflowClient, folder: RunFolder, run_id: str, lines: Sequence[Line], sure: bool
) -> None:
    """Points, params and tags."""
    points = [point for line in lines for point in line.get("metrics", ())]
    params, tags = _merged(lines, "params"), _merged(lines, "tags")
    if not sure:
        points = list(_new(client, run_id, points))
        params |= folder.start.params
    for first in range(0, max(1, len(points)), _MOST):
        client.log_batch(
            run_id,
            [
                Metric(key, nan if value is None else value, time, step)
                for key, value, time, step in points[first : first + _MOST]
            ],
            [Param(key, value) for key, value in params.items()] if not first else (),
            [RunTag(key, value) for key, value in tags.items()] if not first else (),
        )


def _describe(client: MlflowClient, run_id: str, line: Line) -> None:
    """Data sets, name and status."""
    for name, digest, context in line.get("inputs", ()):
        dataset = Dataset(name=name, digest=digest, source_type="local", source=name)
        described = DatasetInput(dataset, [InputTag("mlflow.data.context", context)])
        client.log_inputs(run_id, [described])
    if "name" in line:
        client.update_run(run_id, name=line["name"])
    if "status" in line:
        status, time = line["status"]
        if status == "RUNNING":
            client.update_run(run_id, status=status)
        else:
            client.set_terminated(run_id, status, time)


def _upload(client: MlflowClient, folder: RunFolder, run_id: str, path: str, name: str) -> None:
    content = folder.content(name)
    if content is None:
        return
    if path.endswith(_TEXTS):
        content = content.replace(local_id(folder).encode(), run_id.encode())
    below, _, last = path.rpartition("/")
    with TemporaryDirectory() as place:
        file = Path(place) / last
        file.write_bytes(content)
        client.log_artifact(run_id, str(file), below or None)


def _new(client: MlflowClient, run_id: str, points: Sequence[Any]) -> Iterator[Any]:
    """The points whose step the store does not have."""
    known: dict[str, set[int]] = {}
    for key, value, time, step in points:
        if key not in known:
            known[key] = {m.step for m in client.get_metric_history(run_id, key)}
        if step not in known[key]:
            yield key, value, time, step


def keep_one(client: MlflowClient, folder: RunFolder) -> None:
    """Delete empty twins: a frozen store may have made the run after the attempt was given up."""
    fits = f"tags.`{KEY}` = '{folder.key}'"
    for found in client.search_runs([folder.start.experiment_id], fits):
        if found.info.run_id != folder.run_id:
            client.delete_run(found.info.run_id)


def local_id(folder: RunFolder) -> str:
    """What a run is called before the store has given it an id."""
    return f"local-{folder.key}"


@final
class Sender:
    """A thread that sends one run while this process writes it.

    The thread may hang in a call for as long as the store likes; it ends with the process. What was
    not sent by then is sent by a later command.
    """

    def __init__(self, client: MlflowClient, folder: RunFolder, fresh: bool, say: Say) -> None:
        """Begin to send.

        Args:
            client: of the store.
            folder: of the run.
            fresh: nobody can have sent anything of it before.
            say: is told where the store does not answer, and when it does again.
        """
        self._client, self.folder, self._say = client, folder, say
        self._name = public(client.tracking_uri)
        self._told = False
        self._closing, self._hurry = threading.Event(), threading.Event()
        self._fresh = self._sure = fresh
        self._twins = False
        self._thread = threading.Thread(target=self._run, name="cl-manifold sender", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait until the store has everything, as long as it keeps taking something."""
        folder = self.folder
        last, since = folder.sent, monotonic()
        with folder.changed:
            while not folder.complete:
                folder.changed.wait(0.1)
                if folder.sent != last:
                    last, since = folder.sent, monotonic()
                if monotonic() - since > seconds:
                    return False
        return True

    def wait_for_id(self, seconds: float) -> str | None:
        """The store's id of the run; None where it gives none in this time."""
        with self.folder.changed:
            self.folder.changed.wait_for(lambda: self.folder.run_id is not None, seconds)
            return self.folder.run_id

    def close(self, seconds: float) -> None:
        """Send the rest, for as long as the store keeps answering, and let go of the folder.

        A store that took nothing so far is tried once more, at once.
        """
        self._hurry.set()
        if not self.wait(min(seconds, LAST_TRY) if self._told else seconds):
            folder = self.folder
            left = len(folder.unsent())
            kept = f"they are kept in {folder.path}, and the next command sends them"
            folder.write()
            if not folder.safe:
                kept = (
                    f"{folder.path} cannot be written either ({folder.trouble}), so what came last "
                    "ends with this process; make room, then `cl-manifold resume` finds it again"
                )
            self._say(
                f"{left} records of run {folder.run_id or local_id(folder)} are not in the store "
                f"{self._name} yet; {kept}"
            )
        self._closing.set()
        self._hurry.set()
        with self.folder.changed:
            self.folder.changed.notify_all()
        self.folder.close()

    def _run(self) -> None:
        failures = 0
        while not self._closing.is_set():
            with self.folder.changed:
                self.folder.changed.wait_for(self._something, 1.0)
            if not self._something() or self._closing.is_set():
                continue
            clock = threading.Timer(SILENCE, self._trouble, ["it does not answer"])
            clock.daemon = True
            clock.start()
            try:
                with environment(_SETTINGS):
                    send(self._client, self.folder, self._sure)
                    if self._twins and self.folder.status is not None:
                        keep_one(self._client, self.folder)
            except STORE_FAILURES as error:
                self._sure, self._twins = False, self._twins or self.folder.run_id is None
                self._trouble(reason(error))
                self._hurry.wait(PAUSES[min(failures, len(PAUSES) - 1)])
                self._hurry.clear()
                failures += 1
            else:
                # the store may hold points that a full disk kept from the journal of a stopped run
                failures, self._sure = 0, self._fresh
                self._recovered()
            finally:
                clock.cancel()

    def _something(self) -> bool:
        return self._closing.is_set() or not self.folder.complete

    def _trouble(self, why: str) -> None:
        """Say so, once until the store answers again."""
        if not self._told:
            self._told = True
            place = self.folder.path if self.folder.trouble is None else "memory"
            self._say(
                f"the store {self._name} takes nothing now ({why}); training goes on, results are "
                f"kept in {place} and sent when it does"
            )

    def _recovered(self) -> None:
        if self._told:
            self._told = False
            self._say(f"the store {self._name} answers again; what was kept is sent")
