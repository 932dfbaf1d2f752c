"""An Avalanche logger that sends metrics to MLflow. Knows no strategy, stream or manifold.

    EvaluationPlugin(accuracy_metrics(epoch=True, stream=True), loggers=[MlflowLogger()])

Values are buffered and sent in one batch at the end of an epoch, an experience and an evaluation:
one call per value costs several milliseconds, a batch of a thousand about as much as two of them.
"""

import io
import time
from math import isfinite, nan
from numbers import Real
from typing import Any, final

import matplotlib.pyplot as plt
import mlflow
import numpy as np
import torch
from avalanche.distributed import DistributedHelper
from avalanche.evaluation.metric_results import AlternativeValues, TensorImage
from avalanche.logging import BaseLogger
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from PIL import Image

from cl_manifold.tracking.describing import strategy_params, stream_params
from cl_manifold.tracking.fluent import active_run
from cl_manifold.tracking.folder_client import FolderClient
from cl_manifold.tracking.keys import MINIBATCH, Keys, short_key
from cl_manifold.tracking.tracked_run import store_errors

__all__ = ["MlflowLogger", "short_key"]

_SUPPORTED = (Real, torch.Tensor, Figure, Image.Image, TensorImage)


@final
class MlflowLogger(BaseLogger):
    """Sends Avalanche's metrics to an MLflow run.

    The run is the one given, else MLflow's active run, else a new one that MLflow ends when the
    process exits, in the store and experiment that `cl-manifold ui` shows; it is chosen when the
    first values arrive. Unless the run was given, strategy, network, plugins and stream become its
    params, where it has none of that name. Training metrics are plotted over
    training iterations, evaluation metrics over the number of experiences trained so far. Numbers
    become metrics (NaN where not finite), figures and images a series with a slider over the
    steps, other tensors JSON artifacts; text and bytes are left out. Figures are closed. Outside
    the main process of distributed training the logger does nothing.

    Args:
        run_id: the run to write to.
        tracking_uri: the store that holds it, or in which to start one; default is the one that
            MLflow was told, else the project's, `sqlite:///mlruns/mlflow.db`.
        minibatch_points: how many values of a per-minibatch metric are kept in each epoch.
        max_experiences: metrics of single experiences beyond this many are left out, because
            MLflow draws one chart for each; averages over streams are always sent.
        client: what writes; default is a client of its own.
    """

    def __init__(
        self,
        run_id: str | None = None,
        tracking_uri: str | None = None,
        *,
        minibatch_points: int = 50,
        max_experiences: int = 50,
        client: MlflowClient | FolderClient | None = None,
    ) -> None:
        # BaseLogger.__init__ is not called: it raises outside the main process.
        if minibatch_points < 1:
            raise ValueError(f"minibatch_points must be 1 or more, got {minibatch_points}")
        self.run_id = run_id
        self.tracking_uri = tracking_uri
        self.minibatch_points = minibatch_points
        self.max_experiences = max_experiences
        self._client = client
        self._buffer: list[tuple[str, Metric]] = []
        self._keys = Keys()
        self._params: dict[str, str] = {}
        self._describes = run_id is None
        self._experiences = 0
        self._evaluating = False

    def log_single_metric(self, name: str, value: Any, x_plot: int) -> None:
        """Buffer a number; send an image or a tensor at once."""
        if isinstance(value, AlternativeValues):
            value = value.best_supported_value(*_SUPPORTED)
        key, experience = short_key(name)
        hidden = experience is not None and experience >= self.max_experiences
        if hidden or not DistributedHelper.is_main_process or not isinstance(value, _SUPPORTED):
            _close(value)
            return
        in_evaluation = self._evaluating or "/eval_phase/" in name
        step = self._experiences if in_evaluation else int(x_plot)
        number = _number(value)
        if number is None:
            self._send_artifact(key, value, step)
        else:
            metric = Metric(key, number, int(time.time() * 1000), step)
            self._buffer.append((name, metric))

    def flush(self) -> None:
        """Send everything that is buffered.

        Raises:
            StoreError: MLflow refused; the values stay buffered for another attempt.
        """
        if not self._buffer:
            return
        client, run_id = self._attach()
        keys = self._keys.assign([(name, metric.step) for name, metric in self._buffer])
        metrics = [
            Metric(key, m.value, m.timestamp, m.step)
            for key, (_, m) in zip(keys, self._buffer, strict=True)
        ]
        with store_errors(f"send metrics to run {run_id}"):
            if self._params:
                known = client.get_run(run_id).data.params
                params = [Param(k, v) for k, v in self._params.items() if k not in known]
                client.log_batch(run_id, params=params)
                self._params = {}
            client.log_batch(run_id, metrics=thinned(metrics, self.minibatch_points))
        self._buffer = []

    def before_training_exp(self, strategy: Any, metric_values: list[Any], **kwargs: Any) -> None:
        """From here on evaluations count this experience as seen."""
        self._experiences = strategy.clock.train_exp_counter + 1
        if self._describes and DistributedHelper.is_main_process:
            self._params = strategy_params(strategy) | stream_params(strategy.experience)
            self._describes = False

    def before_eval(self, strategy: Any, metric_values: list[Any], **kwargs: Any) -> None:
        """Evaluation metrics follow."""
        self._evaluating = True
        self._experiences = max(self._experiences, strategy.clock.train_exp_counter)
        if self._describes and DistributedHelper.is_main_process:
            self._params = strategy_params(strategy)

    def after_eval(self, strategy: Any, metric_values: list[Any], **kwargs: Any) -> None:
        """Evaluation metrics are complete."""
        self._evaluating = False
        self.flush()

    def after_training_epoch(self, strategy: Any, metric_values: list[Any], **kwargs: Any) -> None:
        """An epoch is complete."""
        self.flush()

    def after_training_exp(self, strategy: Any, metric_values: list[Any], **kwargs: Any) -> None:
        """An experience is complete."""
        self.flush()

    def after_training(self, strategy: Any, metric_values: list[Any], **kwargs: Any) -> None:
        """Training is complete."""
        self.flush()

    def _send_artifact(self, key: str, value: Any, step: int) -> None:
        client, run_id = self._attach()
        with store_errors(f"send {key} to run {run_id}"):
            if isinstance(value, torch.Tensor):
                client.log_dict(run_id, {"values": value.tolist()}, f"{key}_{step:06d}.json")
            else:
                name = key.replace(":", "_")
                client.log_image(run_id, _image(value), key=name, step=step, synchronous=True)
        _close(value)

    def _attach(self) -> tuple[MlflowClient | FolderClient, str]:
        """The client and the run, both chosen when first needed."""
        if self.run_id is None:
            self.run_id = active_run(self.tracking_uri)
            self.tracking_uri = mlflow.get_tracking_uri()
        if self._client is None:
            self._client = MlflowClient(self.tracking_uri)
            self.tracking_uri = self._client.tracking_uri
        return self._client, self.run_id

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_client": None}


def thinned(metrics: list[Metric], points: int) -> list[Metric]:
    """The metrics, with at most `points` evenly spread values of each per-minibatch key."""
    places: dict[str, list[int]] = {}
    for place, metric in enumerate(metrics):
        if metric.key.endswith(MINIBATCH):
            places.setdefault(metric.key, []).append(place)
    dropped: set[int] = set()
    for found in places.values():
        count = min(points, len(found))
        kept = {found[len(found) * (i + 1) // count - 1] for i in range(count)}
        dropped.update(set(found) - kept)
    return [metric for place, metric in enumerate(metrics) if place not in dropped]


def _number(value: Any) -> float | None:
    """The value as a float, NaN if it is not finite; None if it is not one number."""
    if isinstance(value, Real) or (isinstance(value, torch.Tensor) and value.numel() == 1):
        number = float(value)
        return number if isfinite(number) else nan
    return None


def _image(value: Figure | Image.Image | TensorImage) -> Image.Image:
    if isinstance(value, Image.Image):
        return value
    if isinstance(value, Figure):
        file = io.BytesIO()
        value.savefig(file, format="png")
        return Image.open(file)
    pixels = value.image.detach().cpu()
    if pixels.ndim == 3:
        pixels = pixels.permute(1, 2, 0).squeeze(-1)
    if pixels.is_floating_point():
        pixels = pixels.nan_to_num().clamp(0, 1) * 255
    return Image.fromarray(pixels.numpy().astype(np.uint8))


def _close(value: Any) -> None:
    if isinstance(value, Figure):
        plt.close(value)
