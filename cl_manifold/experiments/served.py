"""The model of a run in a store, and the rows of a file for it."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import BadZipFile

from cl_manifold.data.reading import read_rows
from cl_manifold.errors import DataError, StoreError
from cl_manifold.experiments.model import ContextModel
from cl_manifold.tracking import Store
from cl_manifold.tracking.store import environment
from cl_manifold.tracking.tracked_run import store_errors


def served(store: Store, run_id: str) -> ContextModel:
    """The model of a run.

    Raises:
        StoreError: the run has none, or the store does not give it.
    """
    with store_errors(f"list the files of run {run_id}"):
        present = [entry.path for entry in store.client.list_artifacts(run_id, "model")]
    if "model/data" not in present:
        raise StoreError(
            f"run {run_id} has no model; run weight-manifold, or a strategy with one network that "
            "knows no context"
        )
    quiet = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    with TemporaryDirectory() as folder:
        with store_errors(f"read the model of run {run_id}"), environment(quiet):
            path = store.client.download_artifacts(run_id, "model/data", folder)
        return ContextModel(Path(path))


def rows_of(path: Path, model: ContextModel) -> Any:
    """The rows of a file as a frame, or the images `x` of an `.npz` as an array.

    Raises:
        DataError: the file cannot be read, or has no images.
    """
    if model.preprocessing is not None:
        return read_rows(path)
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            return file["x"]
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise DataError(
            f"{path} has no images ({str(error)[:150]}); give an .npz file with an array x"
        ) from None
