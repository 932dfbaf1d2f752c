"""MLflow's active run, which a logger that is given none writes to: found, or started."""

import os

import mlflow

from cl_manifold.errors import StoreError, public
from cl_manifold.tracking.living import process_tags
from cl_manifold.tracking.store import connect, resolve_tracking_uri
from cl_manifold.tracking.tracked_run import EXPERIMENT, store_errors


def active_run(tracking_uri: str | None) -> str:
    """The id of MLflow's active run; where there is none, of a new one, which becomes it.

    A new run goes to the store that `cl-manifold ui` shows, and to its experiment, unless MLflow
    was told another one (`mlflow.set_tracking_uri`, `mlflow.set_experiment`, or its variables).

    Args:
        tracking_uri: the store; where a run is active already, it must be that run's.

    Raises:
        StoreError: the active run is in another store, or the store refuses.
    """
    active = mlflow.active_run()
    if active is None:
        return _started(resolve_tracking_uri(tracking_uri))
    if tracking_uri not in (None, mlflow.get_tracking_uri()):
        raise StoreError(
            f"MlflowLogger was given the store {public(tracking_uri)}, but the active run is in "
            f"{public(mlflow.get_tracking_uri())}; leave tracking_uri out, give a run_id of that "
            "store, or end the active run first"
        )
    return active.info.run_id


def _started(uri: str) -> str:
    """A new run, with the process that writes it: whoever opens the store next sees if it died."""
    experiment_id = os.environ.get("MLFLOW_EXPERIMENT_ID")
    if not experiment_id:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        experiment_id = connect(uri, name).experiment_id
    with store_errors("start a run"):
        mlflow.set_tracking_uri(uri)
        return mlflow.start_run(experiment_id=experiment_id, tags=process_tags()).info.run_id
