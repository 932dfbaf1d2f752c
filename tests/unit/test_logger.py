"""The MLflow logger in plain Avalanche scripts, without anything else of this package."""

import json
import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import mlflow
import pytest
import torch
from avalanche.benchmarks.scenarios.deprecated.generators import tensors_benchmark
from avalanche.evaluation.metric_results import AlternativeValues, MetricValue, TensorImage
from avalanche.evaluation.metrics import (
    accuracy_metrics,
    confusion_matrix_metrics,
    forgetting_metrics,
    loss_metrics,
)
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from mlflow import MlflowClient
from mlflow.entities import Metric
from PIL import Image
from torch import nn

from cl_manifold.errors import StoreError
from cl_manifold.tracking import Store, open_store, read_artifact
from cl_manifold.tracking.keys import legal_key
from cl_manifold.tracking.logger import DistributedHelper, MlflowLogger, short_key, thinned

TRAIN = "train_phase/train_stream"
TEST = "eval_phase/test_stream"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(f"sqlite:///{tmp_path_factory.mktemp('logger')}/mlflow.db", "avalanche")


@pytest.fixture(autouse=True)
def _fluent(monkeypatch: pytest.MonkeyPatch, store: Store) -> Iterator[None]:
    """MLflow's global state points to the test's store and is put back afterwards."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "")  # `set_experiment` writes it
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(store.uri)
    mlflow.set_experiment(store.experiment)
    yield
    mlflow.end_run()
    mlflow.set_tracking_uri(before)


@pytest.fixture
def logger(store: Store) -> MlflowLogger:
    return MlflowLogger(store.start_run("logger").run_id, store.uri)


def history(store: Store, run_id: str | None, key: str) -> list[tuple[int, float]]:
    assert run_id is not None
    return [(m.step, m.value) for m in store.client.get_metric_history(run_id, key)]


@pytest.mark.parametrize(
    ("name", "key", "experience"),
    [
        (f"Top1_Acc_MB/{TRAIN}/Task000", "train/accuracy_minibatch", None),
        (f"Top1_Acc_Epoch/{TRAIN}/Task000", "train/accuracy", None),
        (f"Top1_Acc_Epoch/{TRAIN}", "train/accuracy", None),
        (f"Top1_RunningAcc_Epoch/{TRAIN}/Task002", "train/accuracy_running", None),
        (f"Loss_Epoch/{TRAIN}/Task000", "train/loss", None),
        (f"Loss_MB/{TRAIN}/Task000", "train/loss_minibatch", None),
        (f"Time_Exp/{TRAIN}/Task000/Exp002", "train/time_experience", 2),
        (f"Top1_Acc_Stream/{TEST}/Task001", "test/accuracy", None),
        (f"Top1_Acc_Stream/{TEST}", "test/accuracy", None),
        (f"Top1_Acc_Exp/{TEST}/Task000/Exp001", "test_experiences/accuracy_001", 1),
        (f"Top1_Acc_Exp/{TEST}/Exp123", "test_experiences/accuracy_123", 123),
        (f"Loss_Exp/{TEST}/Task000/Exp001", "test_experiences/loss_001", 1),
        (f"Loss_Stream/{TEST}/Task001", "test/loss", None),
        (f"Topk_5_Acc_Stream/{TEST}", "test/accuracy_top5", None),
        (f"Accuracy_On_Trained_Experiences/{TEST}", "test/accuracy_trained", None),
        (f"StreamForgetting/{TEST}", "test/forgetting", None),
        (f"ExperienceForgetting/{TEST}/Task000/Exp000", "test_experiences/forgetting_000", 0),
        (f"StreamBWT/{TEST}", "test/bwt", None),
        (f"StreamForwardTransfer/{TEST}", "test/fwt", None),
        (f"MaxRAMUsage_Stream/{TEST}", "test/max_ram_usage", None),
        (f"Top1_ClassAcc_Stream/{TEST}/Task000/7", "test/accuracy_class_7", None),
        ("Top1_Acc_Stream/eval_phase/unseen_stream/Task000", "unseen/accuracy", None),
        ("Top1_Acc_Stream/eval_phase/train_stream/Task000", "train_eval/accuracy", None),
        ("manifold/plasticity", "manifold/plasticity", None),
        ("EvalStream/Acc_Matrix", "EvalStream/Acc_Matrix", None),
        ("W&BConfusionMatrix/a[0]//b=1%", "W_BConfusionMatrix/a_0_/b_1_", None),
    ],
)
def test_short_keys(name: str, key: str, experience: int | None) -> None:
    assert short_key(name) == (key, experience)


@pytest.mark.parametrize("name", ["", "/", "..", "a/../b", "./x", "κ", "a" * 400, "a b:c-d.e"])
def test_every_name_becomes_a_key_that_mlflow_takes(store: Store, name: str) -> None:
    run = store.start_run("keys")
    key = legal_key(name)
    store.client.log_metric(run.run_id, key, 1.0)
    assert store.client.get_run(run.run_id).data.metrics == {key: 1.0}


def tiny_benchmark() -> Any:
    x, y = torch.randn(2, 24, 3), torch.arange(24) % 3
    tensors = [(x[i], y) for i in range(2)]
    return tensors_benchmark(train_tensors=tensors, test_tensors=tensors, task_labels=[0, 0])


def train(logger: MlflowLogger, epochs: int = 2, eval_every: int = -1) -> Naive:
    benchmark = tiny_benchmark()
    model = nn.Linear(3, 3)
    strategy = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=8,
        train_epochs=epochs,
        eval_mb_size=24,
        eval_every=eval_every,
        evaluator=EvaluationPlugin(
            accuracy_metrics(minibatch=True, epoch=True, experience=True, stream=True),
            loss_metrics(epoch=True),
            forgetting_metrics(experience=True, stream=True),
            confusion_matrix_metrics(num_classes=3, stream=True, save_image=True),
            loggers=[logger],
        ),
    )
    for experience in benchmark.train_stream:
        evaluated = [benchmark.test_stream] if eval_every >= 0 else []
        strategy.train(experience, eval_streams=evaluated)
        strategy.eval(benchmark.test_stream)
    return strategy


def test_an_avalanche_run_end_to_end(
    store: Store, logger: MlflowLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    original = MlflowClient.log_batch

    def counted(self: MlflowClient, run_id: str, **batch: Any) -> None:
        batches.append(len(batch["metrics"]))
        original(self, run_id, **batch)

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("one call per value")

    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    monkeypatch.setattr(MlflowClient, "log_metric", forbidden)
    strategy = train(logger)
    last = strategy.evaluator.get_last_metrics()

    # 2 experiences × (2 epochs + 1 evaluation); 3 minibatches + accuracy + loss in each epoch
    assert [batches[i] for i in (0, 1, 3, 4)] == [5] * 4
    assert len(batches) == 6
    assert [step for step, _ in history(store, logger.run_id, "train/accuracy")] == [3, 6, 9, 12]
    minibatches = history(store, logger.run_id, "train/accuracy_minibatch")
    assert [step for step, _ in minibatches] == list(range(12))
    accuracies = history(store, logger.run_id, "test/accuracy")
    assert [step for step, _ in accuracies] == [1, 2]
    assert accuracies[-1][1] == last[f"Top1_Acc_Stream/{TEST}/Task000"]
    second = history(store, logger.run_id, "test_experiences/accuracy_001")
    assert second[-1] == (2, last[f"Top1_Acc_Exp/{TEST}/Task000/Exp001"])
    forgetting = history(store, logger.run_id, "test_experiences/forgetting_000")
    assert forgetting == [(2, last[f"ExperienceForgetting/{TEST}/Task000/Exp000"])]
    images = [a.path for a in store.client.list_artifacts(str(logger.run_id), "images")]
    assert sum("test~confusion_matrix+step+2+" in path for path in images) == 2
    assert plt.get_fignums() == []


def test_evaluation_during_training_counts_the_experience_in_training(
    store: Store, logger: MlflowLogger
) -> None:
    train(logger, epochs=1, eval_every=0)
    steps = [step for step, _ in history(store, logger.run_id, "test/accuracy")]
    assert steps == [0, 1, 1, 1, 2, 2]


def test_the_active_run_is_used_and_left_open(store: Store) -> None:
    active = mlflow.start_run()
    logger = MlflowLogger()
    publish(logger, "a", 1.0, 5)
    logger.flush()
    assert logger.run_id == active.info.run_id
    assert history(store, active.info.run_id, "a") == [(5, 1.0)]
    assert mlflow.active_run() is not None


def test_without_a_run_one_is_started_when_values_arrive(store: Store) -> None:
    logger = MlflowLogger(tracking_uri=store.uri)
    logger.flush()
    assert mlflow.active_run() is None
    publish(logger, "a", 1.0)
    logger.flush()
    started = mlflow.active_run()
    assert started is not None
    assert started.info.run_id == logger.run_id


def test_an_active_run_of_another_store_is_refused(tmp_path: Path) -> None:
    mlflow.start_run()
    logger = MlflowLogger(tracking_uri=f"sqlite:///{tmp_path}/other.db")
    publish(logger, "a", 1.0)
    with pytest.raises(StoreError, match="end the active run first"):
        logger.flush()
    assert list(tmp_path.iterdir()) == []


def publish(logger: MlflowLogger, name: str, value: Any, x: int = 0) -> None:
    logger.log_metrics([MetricValue(None, name, value, x)])  # pyright: ignore[reportArgumentType]


def test_nothing_is_sent_without_values(
    logger: MlflowLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MlflowClient, "log_batch", lambda *_, **__: pytest.fail("a call"))
    logger.log_metrics([])
    logger.after_training(None, [])
    logger.flush()


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1.0),
        (True, 1.0),
        (torch.tensor([0.5]), 0.5),
        (torch.tensor(2), 2.0),
        (math.inf, math.nan),
        (-math.inf, math.nan),
        (math.nan, math.nan),
        (AlternativeValues("text", 0.75), 0.75),
    ],
)
def test_numbers_of_every_kind(
    store: Store, logger: MlflowLogger, value: Any, number: float
) -> None:
    publish(logger, "value", value, 7)
    logger.flush()
    [(step, stored)] = history(store, logger.run_id, "value")
    assert step == 7
    assert stored == pytest.approx(number, nan_ok=True)


@pytest.mark.parametrize("value", ["text", b"bytes", None, AlternativeValues("text")])
def test_what_mlflow_cannot_show_is_left_out(
    store: Store, logger: MlflowLogger, value: Any
) -> None:
    publish(logger, "value", value)
    logger.flush()
    assert store.client.get_run(str(logger.run_id)).data.metrics == {}


def test_dicts_are_spread_over_keys(store: Store, logger: MlflowLogger) -> None:
    publish(logger, f"Share_Stream/{TEST}", {"a": 0.25, "b": 0.75})
    logger.flush()
    metrics = store.client.get_run(str(logger.run_id)).data.metrics
    assert metrics == {"test/share_a": 0.25, "test/share_b": 0.75}


@pytest.mark.parametrize(
    ("image", "size", "pixel"),
    [
        (Image.new("RGB", (4, 3), (255, 0, 0)), (4, 3), (255, 0, 0)),
        (
            TensorImage(torch.tensor([0.0, 9.0, 0.0]).view(3, 1, 1).expand(3, 3, 4)),
            (4, 3),
            (0, 255, 0),
        ),
        (TensorImage(torch.full((1, 3, 4), 0.5)), (4, 3), 127),
    ],
    ids=["PIL", "color tensor", "grey tensor"],
)
def test_images_become_a_series(
    store: Store, logger: MlflowLogger, tmp_path: Path, image: Any, size: Any, pixel: Any
) -> None:
    publish(logger, f"Samples_Stream/{TEST}", image)
    [png] = [
        entry.path
        for entry in store.client.list_artifacts(str(logger.run_id), "images")
        if entry.path.endswith(".png")
    ]
    assert png.startswith("images/test~samples+step+0+")
    with Image.open(
        store.client.download_artifacts(str(logger.run_id), png, str(tmp_path))
    ) as kept:
        assert kept.size == size
        assert kept.getpixel((0, 0)) == pixel


def test_figures_are_sent_and_closed_even_when_hidden(store: Store, logger: MlflowLogger) -> None:
    logger.max_experiences = 1
    publish(logger, f"Picture_Exp/{TEST}/Exp000", plt.figure())
    publish(logger, f"Picture_Exp/{TEST}/Exp001", plt.figure())
    assert plt.get_fignums() == []
    files = [entry.path for entry in store.client.list_artifacts(str(logger.run_id), "images")]
    assert len(files) == 2
    assert all("picture_000" in file for file in files)


def test_other_tensors_become_json(store: Store, logger: MlflowLogger) -> None:
    publish(logger, "EvalStream/Acc_Matrix", torch.eye(2), 3)
    kept = read_artifact(store, str(logger.run_id), "EvalStream/Acc_Matrix_000003.json")
    assert json.loads(kept) == {"values": [[1.0, 0.0], [0.0, 1.0]]}


def test_single_experiences_are_capped_but_streams_are_not(
    store: Store, logger: MlflowLogger
) -> None:
    logger.max_experiences = 2
    for index in range(4):
        publish(logger, f"Top1_Acc_Exp/{TEST}/Exp{index:03}", 0.5)
    publish(logger, f"Top1_Acc_Stream/{TEST}", 0.5)
    logger.flush()
    assert set(store.client.get_run(str(logger.run_id)).data.metrics) == {
        "test_experiences/accuracy_000",
        "test_experiences/accuracy_001",
        "test/accuracy",
    }


def test_minibatch_values_are_thinned_evenly_and_keep_the_last() -> None:
    metrics = [Metric("a_minibatch", float(i), 0, i) for i in range(10)]
    metrics.insert(5, Metric("epoch", 1.0, 0, 5))
    kept = thinned(metrics, 4)
    assert [(m.key, m.step) for m in kept] == [
        ("a_minibatch", 1),
        ("a_minibatch", 4),
        ("epoch", 5),
        ("a_minibatch", 6),
        ("a_minibatch", 9),
    ]
    assert thinned(metrics, 10) == metrics
    with pytest.raises(ValueError, match="1 or more, got 0"):
        MlflowLogger(minibatch_points=0)


def test_a_pickled_logger_writes_on_to_the_same_run(store: Store, logger: MlflowLogger) -> None:
    publish(logger, "a", 1.0, 1)
    logger.flush()
    publish(logger, "a", 2.0, 2)
    copy = pickle.loads(pickle.dumps(logger))
    copy.flush()
    assert copy.run_id == logger.run_id
    assert history(store, logger.run_id, "a") == [(1, 1.0), (2, 2.0)]


def test_values_survive_a_store_that_refuses(
    store: Store, logger: MlflowLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise mlflow.MlflowException("disk full")

    publish(logger, "a", 1.0)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", broken)
        with pytest.raises(StoreError, match="disk full"):
            logger.flush()
    logger.flush()
    assert history(store, logger.run_id, "a") == [(0, 1.0)]


def test_other_processes_of_distributed_training_send_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(type(DistributedHelper), "is_main_process", property(lambda _: False))
    logger = MlflowLogger()
    publish(logger, "a", 1.0)
    publish(logger, "figure", plt.figure())
    logger.flush()
    assert logger.run_id is None
    assert mlflow.active_run() is None
    assert plt.get_fignums() == []
