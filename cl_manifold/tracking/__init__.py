"""Tracking: an MLflow logger for Avalanche, the project's MLflow store, figures and the report.

`MlflowLogger` is imported when first used: it needs avalanche, which the store can do without.
"""

import os
from typing import TYPE_CHECKING, Any

# before MLflow is imported: it reports its use to an outside host unless it is told not to
if not {"MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"} & set(os.environ):
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

from cl_manifold.tracking.keeping import KeptRun, open_store
from cl_manifold.tracking.keys import short_key
from cl_manifold.tracking.store import (
    Store,
    find_run,
    read_artifact,
    read_result,
    resolve_tracking_uri,
)
from cl_manifold.tracking.tracked_run import Addresses, TrackedRun
from cl_manifold.tracking.versions import version_tags

if TYPE_CHECKING:
    from cl_manifold.tracking.logger import MlflowLogger

__all__ = [
    "Addresses",
    "KeptRun",
    "MlflowLogger",
    "Store",
    "TrackedRun",
    "find_run",
    "open_store",
    "read_artifact",
    "read_result",
    "resolve_tracking_uri",
    "short_key",
    "version_tags",
]


def __getattr__(name: str) -> Any:
    if name == "MlflowLogger":
        from cl_manifold.tracking.logger import MlflowLogger

        return MlflowLogger
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
