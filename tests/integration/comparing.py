"""What tests of `compare` share: tiny settings, the store's runs, strategies that misbehave."""

import os
import signal
from pathlib import Path
from typing import Any

from avalanche.core import SupervisedPlugin
from avalanche.training.supervised import Naive
from mlflow import MlflowClient

from cl_manifold.strategies import Method, Setting

TINY = (
    "--epochs", "1", "--set", "stream.contexts=3", "--set", "stream.samples=48",
    "--set", "stream.test_samples=60", "--set", "network.hidden=8",
)  # fmt: skip
PARENT = "mlflow.parentRunId"
MARKER = "TEST_COMPARE_MARKER"


def client(folder: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{folder}/mlruns/mlflow.db")


def parents(folder: Path) -> list[Any]:
    """Runs of comparisons, newest first."""
    found = client(folder).search_runs(["1"], order_by=["attributes.start_time DESC"])
    return [run for run in found if "comparison.digest" in run.data.tags]


def children(folder: Path, parent: Any) -> dict[tuple[str, str], list[Any]]:
    """The runs below a parent, by label and seed."""
    found: dict[tuple[str, str], list[Any]] = {}
    for run in client(folder).search_runs(["1"], f"tags.`{PARENT}` = '{parent.info.run_id}'"):
        tags = run.data.tags
        found.setdefault((tags["label"], tags["seed"]), []).append(run)
    return found


def folder_of(run: Any, served: Path = Path()) -> Path:
    """The folder of a run's files; a server keeps them in `served`."""
    uri = run.info.artifact_uri
    if uri.startswith("mlflow-artifacts:/"):
        return served / uri.removeprefix("mlflow-artifacts:/")
    return Path(uri.removeprefix("file://"))


class DyingPlugin(SupervisedPlugin):
    """Kills its process in the second experience, once: the marker says that it happened."""

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        marker = Path(os.environ[MARKER])
        if strategy.clock.train_exp_counter == 1 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class WaitingPlugin(SupervisedPlugin):
    """Says that the second experience has begun, and waits while the marker's twin is missing."""

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        import time

        marker = Path(os.environ[MARKER])
        if strategy.clock.train_exp_counter == 1 and not marker.with_suffix(".go").exists():
            marker.with_name(f"{marker.name}.{os.getpid()}").touch()
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline and not marker.with_suffix(".go").exists():
                time.sleep(0.05)


class Dying(Method):
    """Fine-tuning that is killed once."""

    def build(self, setting: Setting) -> Any:
        return Naive(**setting.template(DyingPlugin()))


class Waiting(Method):
    """Fine-tuning that waits for a sign."""

    def build(self, setting: Setting) -> Any:
        return Naive(**setting.template(WaitingPlugin()))


class Mistaken(Method):
    """A strategy with a mistake in it."""

    def build(self, setting: Setting) -> Any:
        return {}["missing"]
