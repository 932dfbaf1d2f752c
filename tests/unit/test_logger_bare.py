"""A logger that is given nothing: where its run goes, what it says of it, and its keys."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import mlflow.tracking.fluent
import pytest
import torch
from avalanche.benchmarks.scenarios.deprecated.generators import tensors_benchmark
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.training.plugins import EvaluationPlugin, EWCPlugin, ReplayPlugin
from avalanche.training.supervised import Naive
from mlflow import MlflowClient
from torch import nn

from cl_manifold import Fourier
from cl_manifold.strategies import WeightManifoldPlugin
from cl_manifold.tracking.describing import LONGEST, MOST, strategy_params, stream_params
from cl_manifold.tracking.keys import Keys
from cl_manifold.tracking.living import PROCESS
from cl_manifold.tracking.logger import MlflowLogger

TEST = "eval_phase/test_stream"


@pytest.fixture(autouse=True)
def _nothing_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """MLflow in a new folder, as if it had not been imported; put back afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mlflow.tracking.fluent, "_active_experiment_id", None)
    for name in ("TRACKING_URI", "EXPERIMENT_ID", "EXPERIMENT_NAME", "RUN_ID"):
        monkeypatch.setenv(f"MLFLOW_{name}", "")
        monkeypatch.delenv(f"MLFLOW_{name}")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri("")
    yield
    mlflow.end_run()
    mlflow.set_tracking_uri(before)


def trained(logger: MlflowLogger, *plugins: Any, labels: tuple[int, ...] = (0, 0)) -> Naive:
    x, y = torch.randn(2, 24, 3), torch.arange(24) % 3
    tensors = [(x[i], y) for i in range(2)]
    benchmark: Any = tensors_benchmark(
        train_tensors=tensors, test_tensors=tensors, task_labels=list(labels)
    )
    model = nn.Linear(3, 3)
    strategy = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.25),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=8,
        train_epochs=2,
        eval_mb_size=24,
        plugins=list(plugins),
        evaluator=EvaluationPlugin(
            accuracy_metrics(epoch=True, experience=True, stream=True), loggers=[logger]
        ),
    )
    strategy.eval(benchmark.test_stream)
    for experience in benchmark.train_stream:
        strategy.train(experience)
        for other in benchmark.test_stream:
            strategy.eval(other)
    return strategy


def logged(logger: MlflowLogger) -> Any:
    assert logger.run_id is not None
    return MlflowClient(logger.tracking_uri).get_run(logger.run_id)


def test_a_bare_logger_writes_where_the_page_looks_and_says_what_was_trained(
    tmp_path: Path,
) -> None:
    logger = MlflowLogger()
    trained(logger, ReplayPlugin(mem_size=7), EWCPlugin(ewc_lambda=0.5))
    run = logged(logger)
    assert logger.tracking_uri == f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    experiment = mlflow.get_experiment(run.info.experiment_id)
    assert experiment.name == "cl-manifold"
    assert experiment.artifact_location == f"{tmp_path}/mlruns/cl-manifold"
    assert run.data.tags[PROCESS].startswith(f"{os.getpid()} ")
    assert (
        run.data.params.items()
        >= {
            "strategy.name": "Naive",
            "strategy.plugins": "ReplayPlugin, EWCPlugin",
            "training.train_mb_size": "8",
            "training.train_epochs": "2",
            "training.eval_mb_size": "24",
            "training.device": "cpu",
            "training.optimizer": "SGD",
            "training.learning_rate": "0.25",
            "training.criterion": "CrossEntropyLoss",
            "network.name": "Linear",
            "network.parameters": "12",
            "ReplayPlugin.mem_size": "7",
            "EWCPlugin.ewc_lambda": "0.5",
            "EWCPlugin.mode": "separate",
            "stream.name": "ClassificationScenario",
            "stream.part": "train",
            "stream.experiences": "2",
        }.items()
    )


def test_what_mlflow_was_told_is_heeded(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/own/mlflow.db")
    mlflow.set_experiment("mine")
    with mlflow.start_run():
        mlflow.log_param("training.learning_rate", "mine")
        logger = MlflowLogger()
        trained(logger)
    mine = logged(logger)
    assert mine.data.params["training.learning_rate"] == "mine"
    assert mine.data.params["strategy.name"] == "Naive"
    other = MlflowLogger()
    trained(other)
    assert logged(other).info.experiment_id == mine.info.experiment_id
    assert not (tmp_path / "mlruns").exists()


def test_an_experiment_that_is_only_named_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "named")
    logger = MlflowLogger()
    trained(logger)
    found = mlflow.get_experiment(logged(logger).info.experiment_id)
    assert (found.name, found.artifact_location) == ("named", f"{tmp_path}/mlruns/named")


def test_a_run_that_is_given_is_described_by_who_started_it(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    run = MlflowClient(uri).create_run("0")
    trained(MlflowLogger(run.info.run_id, uri))
    data = MlflowClient(uri).get_run(run.info.run_id).data
    assert data.params == {}
    assert data.metrics


def test_tasks_that_are_evaluated_one_by_one_have_keys_of_their_own() -> None:
    logger = MlflowLogger()
    last = trained(logger, labels=(0, 1)).evaluator.get_last_metrics()
    metrics = logged(logger).data.metrics
    for task in range(2):
        name = f"test/accuracy_task_{task:03d}"
        assert metrics[name] == last[f"Top1_Acc_Stream/{TEST}/Task{task:03d}"]
    client = MlflowClient(logger.tracking_uri)
    for key in metrics:
        steps = [m.step for m in client.get_metric_history(str(logger.run_id), key)]
        assert len(set(steps)) == len(steps), key


def test_the_manifold_and_what_it_is_made_of() -> None:
    model = nn.Linear(3, 3)
    plugin = WeightManifoldPlugin(Fourier(harmonics=2), price=3.0, strength=5.0)
    found = strategy_params(
        Naive(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=1), plugins=[plugin])
    )
    assert (
        found.items()
        >= {
            "strategy.plugins": "WeightManifoldPlugin",
            "WeightManifoldPlugin.basis": "Fourier",
            "WeightManifoldPlugin.basis.harmonics": "2",
            "WeightManifoldPlugin.price": "3.0",
            "WeightManifoldPlugin.information": "FisherInformation",
            "WeightManifoldPlugin.options.strength": "5.0",
        }.items()
    )


class Odd(SupervisedPlugin, supports_distributed=True):
    """Keeps what it is given, and more."""

    def __init__(self, text: str, flags: Any, many: Any, hook: Any, tensor: Any) -> None:
        super().__init__()
        self.text, self._flags, self.many, self.hook, self.tensor = text, flags, many, hook, tensor
        self.calls = 0


def test_few_and_short_and_twice() -> None:
    model = nn.Linear(3, 3)
    odd = Odd("x" * 900, (True, 2), {f"k{i}": i for i in range(99)}, torch.relu, torch.ones(9))
    groups = [{"params": [model.weight], "lr": 0.1}, {"params": [model.bias], "lr": 0.2}]
    optimizer = torch.optim.SGD(groups)
    found = strategy_params(Naive(model=model, optimizer=optimizer, plugins=[odd, odd]))
    assert len(found) == MOST
    assert found["strategy.plugins"] == "Odd, Odd_2"
    assert found["training.learning_rate"] == "0.1, 0.2"
    assert len(found["Odd.text"]) == LONGEST
    assert found["Odd.flags"] == "True, 2"
    assert not {"Odd.tensor", "Odd.calls"} & set(found)


def test_an_experience_that_tells_nothing() -> None:
    assert stream_params(object()) == {}
    assert stream_params(None) == {}


def name(metric: str, task: int | None) -> str:
    return f"{metric}/{TEST}" + ("" if task is None else f"/Task{task:03d}")


@pytest.mark.parametrize("together", [True, False])
def test_no_two_names_share_a_key_at_a_step(together: bool) -> None:
    names = [name("Top1_Acc_Stream", task) for task in (0, 1, None)]
    names += ["a[0]", "a(0)", "a{0}", "b" * 300 + "1", "b" * 300 + "2", "b" * 300 + "3"]
    keys = Keys()
    values = [(n, step) for step in (1, 2) for n in names]
    given = (
        keys.assign(values)
        if together
        else [key for value in values for key in keys.assign([value])]
    )
    places = list(zip(given, (step for _, step in values), strict=True))
    assert len(set(places)) == len(places)
    assert given[len(names) :][:3] == [
        "test/accuracy_task_000",
        "test/accuracy_task_001",
        "test/accuracy" if together else "test/accuracy_2",  # the first was sent already
    ]
    assert all(len(key) <= 250 for key in given)


def test_tasks_that_never_meet_share_a_curve() -> None:
    epoch = "Top1_Acc_Epoch/train_phase/train_stream/Task00"
    assert (
        Keys().assign([(f"{epoch}0", 1), (f"{epoch}0", 2), (f"{epoch}1", 3)])
        == ["train/accuracy"] * 3
    )


def test_what_is_evaluated_again_keeps_its_key() -> None:
    values = [(name("Top1_Acc_Stream", 0), 1)] * 2
    assert Keys().assign(values) == ["test/accuracy"] * 2
