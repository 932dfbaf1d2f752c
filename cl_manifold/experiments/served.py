"""The model of a run in a store, and the rows of a file for it."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

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


def rows_of(path: Path) -> Any:
    """The rows of a CSV or Parquet file as a frame, or the array `x` of an `.npz`.

    Raises:
        DataError: the file cannot be read.
    """
    import numpy as np
    import pandas as pd

    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return file["x"]
        return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise DataError(
            f"{path} cannot be read ({str(error)[:150]}); give a .csv, .parquet or .npz file"
        ) from None
