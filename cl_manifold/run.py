"""A run: one strategy on one stream with one seed, from configuration to result.

The one place that knows everybody. Nothing here is mathematics, nothing here prints.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any
from warnings import catch_warnings, simplefilter

import torch
from avalanche.evaluation.metrics import accuracy_metrics, loss_metrics
from avalanche.training.plugins import EvaluationPlugin

from cl_manifold.experiments.build import build_network, build_strategy, build_stream
from cl_manifold.experiments.config import Resolved, RunConfig
from cl_manifold.publish import Place, Publisher, result_of
from cl_manifold.strategies import AccuracyPlugin, FiniteLossPlugin
from cl_manifold.tracking import MlflowLogger, open_store, resolve_tracking_uri
from cl_manifold.walk import Observer, Silence, Walk, walk_through


@dataclass(frozen=True)
class RunResult:
    """What a run found; accuracies in [0, 1], fields as in `run --json`.

    Attributes:
        bwt: backward transfer; this and the next three are None for joint training, which has no
            earlier and later.
        learning_acc: mean accuracy on each experience right after training on it.
        accuracy_matrix: R[i][j], None where it was not measured; joint training has only a last
            row.
        unseen_acc: mean accuracy at contexts that were never trained; None without such contexts.
        stored_floats: everything kept between tasks, in units of 32 bits; None, like
            replay_samples, where the strategy does not say.
        model_floats: parameters of the network.
        replay_samples: training samples kept at the end; they count in `stored_floats`.
        context_at_test: "given", "inferred", "not used" or "not stated".
        decision_f1: how well first visits and returns were told apart; None without a truth.
        decisions: one dict per task, `TaskRecord` plus the final accuracy.
    """

    run_id: str
    stream: str
    strategy: str
    seed: int
    acc: float
    bwt: float | None
    forgetting: float | None
    fwt: float | None
    learning_acc: float | None
    unseen_acc: float | None
    accuracy_matrix: list[list[float | None]]
    control_points: int | None
    stored_floats: int | None
    model_floats: int
    replay_samples: int | None
    train_seconds: float
    context_at_test: str
    decision_f1: float | None
    decisions: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def run(
    resolved: Resolved, observer: Observer | None = None, place: Place | None = None
) -> RunResult:
    """Train and evaluate; record everything in one MLflow run.

    Store, stream and strategy are opened and built before the MLflow run exists, so that wrong
    names, missing data and closed stores leave nothing behind.

    Args:
        resolved: the configuration.
        observer: is told how far it is.
        place: where it is recorded; default is the store of the configuration.

    Raises:
        ClManifoldError: anything that a user can correct.
    """
    config, watcher = resolved.config, observer or Silence()
    place = place or _own_place(config)
    stream = build_stream(config.stream, config.data_dir, config.seed)
    network = build_network(config, stream)
    accuracy, guard = AccuracyPlugin(), FiniteLossPlugin(watcher)
    evaluator = _evaluator()
    strategy = build_strategy(config, stream, network, [accuracy, guard], evaluator)
    walk = Walk(config, stream, strategy, network, accuracy)
    publisher = Publisher(place, resolved, stream)
    with _threads(config.training.threads), publisher.truthful_end(walk):
        logger = MlflowLogger(publisher.run.run_id, place.store.uri, client=place.store.client)
        evaluator.loggers = [logger]
        watcher.recording(publisher.run)
        for step in walk_through(walk, watcher):
            publisher.task(walk, step)
        publisher.end(walk)
    return RunResult(**result_of(walk, publisher.run.run_id))


def _own_place(config: RunConfig) -> Place:
    """A run of its own, titled by its strategy."""
    store = open_store(resolve_tracking_uri(config.tracking_uri), config.experiment)
    return Place(store, config.strategy.name)


def _evaluator() -> EvaluationPlugin:
    """Loss and accuracy per epoch; its logger joins when the MLflow run exists."""
    with catch_warnings():
        simplefilter("ignore")
        return EvaluationPlugin(loss_metrics(epoch=True), accuracy_metrics(epoch=True), loggers=[])


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """So many threads inside, as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
