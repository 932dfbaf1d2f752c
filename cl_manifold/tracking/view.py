"""The columns of MLflow's list of runs: what a run found, instead of where its code lies.

MLflow keeps the columns that somebody chose in that browser, but opens a view that lies in a tag of
the experiment, named in the address. Versions from 3.17 on list such views by name and wrap the
state; earlier ones read it from the tag itself, so it stands there twice.
"""

import json
import time

VIEW = "cl-manifold"
"""The key of the view, in the tag and in addresses."""

TAG = f"mlflow.sharedViewState.{VIEW}"

COLUMNS = (
    "metrics.`continual/acc`",
    "metrics.`continual/r2`",
    "metrics.`continual/bwt`",
    "metrics.`continual/forgetting`",
    "metrics.`continual/unseen_score`",
    "metrics.`manifold/stored_ratio`",
    "tags.`context_at_test`",
)
"""Accuracy or R², backward transfer, forgetting, unseen contexts, memory ÷ model, context."""


def view_tag() -> dict[str, str]:
    """The tag that an experiment needs for the view."""
    now = int(time.time() * 1000)
    state = {"selectedColumns": list(COLUMNS)}
    named = {"name": "Results", "createdAt": now, "updatedAt": now, "state": json.dumps(state)}
    return {TAG: json.dumps(named | state)}


def list_address(site: str, experiment_id: str) -> str:
    """The address of an experiment's list of runs, with these columns."""
    page = f"{site}/#/experiments/{experiment_id}/runs"
    return f"{page}?workflowType=machine_learning&viewStateShareKey={VIEW}"
