"""What of MLflow's client a run needs, written to the run's folder instead of the store."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from math import isnan
from time import time
from typing import Any, final

from matplotlib.figure import Figure
from mlflow.entities import DatasetInput, Metric, Param, Run, RunData, RunInfo, RunTag
from PIL import Image

from cl_manifold.tracking.run_folder import Line, RunFolder


@final
class FolderClient:
    """Takes the calls of `MlflowClient` that write one run; nothing here waits for a store.

    Attributes:
        tracking_uri: of the store that the run will be sent to.
    """

    def __init__(
        self, folder: RunFolder, tracking_uri: str, written: Callable[[], None] = lambda: None
    ) -> None:
        """Write to a folder; `written` is called after every group."""
        self.folder, self.tracking_uri, self._written = folder, tracking_uri, written
        self._group: list[tuple[Line, dict[str, bytes]]] | None = None

    @contextmanager
    def group(self) -> Iterator[None]:
        """What is written inside is one line of the journal: all of it is there, or nothing."""
        self._group = group = []
        try:
            yield
        finally:
            self._group = None
        line: Line = {"metrics": [], "params": {}, "tags": {}, "inputs": []}
        contents: dict[str, bytes] = {}
        for part, files in group:
            for kind in ("params", "tags"):
                line[kind] |= part.get(kind, {})
            for kind in ("metrics", "inputs"):
                line[kind] += part.get(kind, [])
            line |= {kind: part[kind] for kind in ("name", "status") if kind in part}
            contents |= files
        if any(line.values()) or contents:
            self._append(line, contents)

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
        synchronous: bool | None = None,
    ) -> None:
        """Metrics, params and tags."""
        points = [
            (m.key, None if isnan(m.value) else m.value, m.timestamp, m.step) for m in metrics
        ]
        named = {"params": {p.key: p.value for p in params}, "tags": {t.key: t.value for t in tags}}
        self._write({"metrics": points, **named})

    def log_inputs(self, run_id: str, datasets: Sequence[DatasetInput]) -> None:
        """Data sets."""
        found = [(d.dataset.name, d.dataset.digest, d.tags[0].value) for d in datasets]
        self._write({"inputs": found})

    def update_run(self, run_id: str, status: str | None = None, name: str | None = None) -> None:
        """Name or status."""
        self._write(
            ({"name": name} if name else {}) | ({"status": (status, _now())} if status else {})
        )

    def set_terminated(self, run_id: str, status: str, end_time: int | None = None) -> None:
        """The end of the run."""
        self._write({"status": (status, end_time or _now())})

    def get_run(self, run_id: str) -> Run:
        """The tags so far."""
        tags = [RunTag(key, value) for key, value in self.folder.tags().items()]
        return Run(RunInfo(run_id, "", "", "RUNNING", 0, None, "active"), RunData(tags=tags))

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        """A text file."""
        self._write({}, {artifact_file: text.encode()})

    def log_dict(self, run_id: str, dictionary: Mapping[str, Any], artifact_file: str) -> None:
        """A JSON file."""
        self.log_text(run_id, json.dumps(dictionary, indent=2), artifact_file)

    def log_figure(
        self, run_id: str, figure: Figure, artifact_file: str, *, save_kwargs: Mapping[str, Any]
    ) -> None:
        """A figure."""
        file = BytesIO()
        kind = artifact_file.rpartition(".")[2]
        figure.savefig(file, format=kind, **save_kwargs)
        self._write({}, {artifact_file: file.getvalue()})

    def log_image(
        self, run_id: str, image: Image.Image, key: str, step: int, synchronous: bool = True
    ) -> None:
        """An image of a step."""
        file = BytesIO()
        image.save(file, format="png")
        self._write({}, {f"images/{key.replace('/', '_')}_{step:06d}.png": file.getvalue()})

    def log_bytes(self, content: bytes, artifact_file: str) -> None:
        """A file of any kind."""
        self._write({}, {artifact_file: content})

    def _write(self, line: Line, contents: dict[str, bytes] | None = None) -> None:
        if self._group is not None:
            self._group.append((line, contents or {}))
        else:
            self._append(line, contents)

    def _append(self, line: Line, contents: dict[str, bytes] | None) -> None:
        self.folder.append(line, contents)
        self._written()


def _now() -> int:
    return int(time() * 1000)
