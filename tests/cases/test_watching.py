"""CASES.md, B: who watches, measures or asks changes nothing of what is watched."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import accuracy_metrics, class_accuracy_metrics, loss_metrics
from avalanche.evaluation.metrics.accuracy import AccuracyPerTaskPluginMetric
from avalanche.training.plugins import EvaluationPlugin
from mlflow import MlflowClient
from torch import Tensor

from cl_manifold.contexts import ByExperience
from cl_manifold.experiments.config import resolve
from cl_manifold.experiments.trial import Trial
from cl_manifold.geometry import Fourier
from cl_manifold.manifold.information import ExactInformation, FisherInformation
from cl_manifold.strategies import (
    DecisionOptions,
    InferredTesting,
    TopologyWatch,
    WeightManifoldPlugin,
)
from cl_manifold.tracking import MlflowLogger

from .parts import Scores, benchmark, blobs, context, mlp, naive, tasks, walk

PLACES = [0.0, 0.3, 0.6]


def circle(**options: Any) -> Any:
    contexts = ByExperience([[c] for c in PLACES])
    return WeightManifoldPlugin(Fourier(1), contexts=contexts, growable=True, **options)


def weights_of(plugin: Any, strategy: Any) -> dict[str, Tensor]:
    """Everything that was learned: what the manifold holds at each context, and the network."""
    found = {f"live {n}": p.detach().clone() for n, p in strategy.model.named_parameters()}
    if plugin is not None:
        for c in PLACES:
            found |= {f"{c} {n}": w for n, w in plugin.manifold.state(context(c)).items()}
    return found


def trained(plugin: Any, *others: SupervisedPlugin, **more: Any) -> dict[str, Tensor]:
    strategy = naive(plugin, mlp(), *others, train_epochs=2, **more)
    walk(strategy, benchmark(tasks(3)).train_stream)
    return weights_of(plugin, strategy)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, weights in a.items():
        assert torch.equal(weights, b[name]), name


WATCHERS: dict[str, Callable[[], dict[str, Any]]] = {
    "TopologyWatch": lambda: {"shaping": TopologyWatch()},
    "InferredTesting": lambda: {"testing": InferredTesting(batch=20)},
    "InferredTesting with features": lambda: {"testing": InferredTesting(batch=20, features=50)},
}


@pytest.mark.parametrize("name", WATCHERS)
def test_watched_weights_are_those_of_an_unwatched_run(name: str) -> None:
    same(trained(circle()), trained(circle(**WATCHERS[name]())))


class Client(MlflowClient):
    """Takes what would go to MLflow."""

    tracking_uri: Any = ""

    def __init__(self) -> None:
        self.metrics: list[Any] = []

    def log_batch(self, run_id: str, metrics: Any = (), *args: Any, **kwargs: Any) -> None:
        self.metrics += metrics


def logging_to(client: Client, *metrics: Any) -> EvaluationPlugin:
    return EvaluationPlugin(*metrics, loggers=[MlflowLogger("run", client=client)])


def test_a_logger_changes_nothing() -> None:
    plain, logged = naive(None, mlp()), naive(None, mlp())
    client = Client()
    measured = (accuracy_metrics(epoch=True, stream=True), loss_metrics(minibatch=True))
    evaluator = logging_to(client, *measured)
    logged.plugins[logged.plugins.index(logged.evaluator)] = evaluator
    logged.evaluator = evaluator
    for strategy in (plain, logged):
        torch.manual_seed(5)
        walk(strategy, benchmark(tasks(2)).train_stream)
    assert client.metrics
    same(weights_of(None, plain), weights_of(None, logged))


class Trained(SupervisedPlugin):
    """Where the last epoch led, before anything is measured or committed."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: dict[str, Tensor] = {}

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        self.weights = {n: p.detach().clone() for n, p in strategy.model.named_parameters()}


@pytest.mark.parametrize("other", [FisherInformation(16), FisherInformation(256)])
def test_measuring_changes_no_training(other: FisherInformation) -> None:
    """Without a price the second task starts and trains alike, whatever was measured."""

    def second(information: Any) -> dict[str, Tensor]:
        plugin, end = circle(information=information, price=0.0), Trained()
        strategy = naive(plugin, mlp(), end, train_epochs=2)
        walk(strategy, benchmark(tasks(2)).train_stream)
        return end.weights

    same(second(ExactInformation()), second(other))


def streams() -> list[Any]:
    """The state of the global random streams; Python's own is drawn from by beartype in tests."""
    return [torch.get_rng_state(), repr(np.random.get_state())]  # noqa: NPY002


class Before(SupervisedPlugin):
    """Stands before our plugin and remembers the random streams."""

    def __init__(self) -> None:
        super().__init__()
        self.state: list[Any] = []


class After(SupervisedPlugin):
    """Stands behind it and notes where they have moved."""

    def __init__(self, earlier: Before) -> None:
        super().__init__()
        self.earlier, self.moved = earlier, set[str]()


def _remember(self: Before, strategy: Any, **kwargs: Any) -> None:
    self.state = streams()


def _compare(name: str) -> Callable[..., None]:
    def compare(self: After, strategy: Any, **kwargs: Any) -> None:
        now = streams()
        if not torch.equal(now[0], self.earlier.state[0]) or now[1:] != self.earlier.state[1:]:
            self.moved.add(name)

    return compare


HOOKS = (
    "before_training",
    "after_train_dataset_adaptation",
    "before_training_exp",
    "before_update",
    "after_training_exp",
    "after_training",
    "before_eval",
    "before_eval_exp",
    "after_eval_forward",
    "after_eval",
)
for _hook in HOOKS:
    setattr(Before, _hook, _remember)
    setattr(After, _hook, _compare(_hook))

ASKERS = WATCHERS | {
    "nobody": dict,
    "deciding": lambda: {"deciding": DecisionOptions(probe_share=0.1)},
}


@pytest.mark.parametrize("name", ASKERS)
def test_nobody_draws_from_the_global_random_streams(name: str) -> None:
    plugin, before = circle(**ASKERS[name]()), Before()
    after = After(before)
    strategy = naive(None, mlp(), plugins=[before, plugin, after], train_epochs=2)
    made = benchmark(tasks(3))
    walk(strategy, made.train_stream)
    strategy.eval(made.test_stream)
    assert after.moved == set()


def test_the_last_evaluation_in_training_is_the_one_right_after() -> None:
    plugin, scores = circle(price=0.01), Scores()
    strategy = naive(plugin, mlp(), scores, eval_every=1, train_epochs=3)
    made = benchmark(tasks(3))
    for experience in made.train_stream:
        strategy.train(experience, eval_streams=[made.test_stream])
        inside = scores.answers[-1]
        strategy.eval(made.test_stream)
        for (a, _), (b, _) in zip(inside, scores.answers[-1], strict=True):
            torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-4)


def test_the_logger_keeps_the_task_label_where_several_share_a_step() -> None:
    client = Client()
    data = [blobs(t) for t in range(2)]
    made = benchmark(data, labels=[0, 1])
    evaluator = logging_to(
        client,
        class_accuracy_metrics(stream=True, classes={0: [0, 1], 1: [0, 1]}),
        AccuracyPerTaskPluginMetric(reset_at="stream", emit_at="stream", mode="eval"),
    )
    strategy = naive(None, mlp())
    strategy.plugins[strategy.plugins.index(strategy.evaluator)] = evaluator
    strategy.evaluator = evaluator
    strategy.train(made.train_stream[0])
    client.metrics.clear()
    strategy.eval(made.test_stream)
    places = [(m.key, m.step) for m in client.metrics]
    assert len(places) >= 6
    assert len(set(places)) == len(places), sorted(places)


def test_a_run_trains_the_same_with_and_without_inference() -> None:
    def learned(test: str) -> tuple[dict[str, Tensor], list[float]]:
        values: dict[str, Any] = {
            "stream.name": "rotated-digits",
            "stream.contexts": 2,
            "stream.samples": 60,
            "stream.test_samples": 20,
            "training.epochs": 1,
            "network.hidden": (16,),
            "contexts.test": test,
        }
        made = Trial(resolve([("test", values)]))
        assert list(made.steps()) == [0, 1]
        plugin: Any = made.manifold
        assert (plugin.testing is not None) == (test == "inferred")
        found = {
            f"{t} {n}": w
            for t, c in enumerate(plugin.coordinates())
            for n, w in plugin.manifold.state(c).items()
        }
        return found, live_sums(made.strategy)

    def live_sums(strategy: Any) -> list[float]:
        return [float(p.detach().sum()) for p in strategy.model.parameters()]

    (given, live), (inferred, other) = learned("given"), learned("inferred")
    same(given, inferred)
    assert live == other
