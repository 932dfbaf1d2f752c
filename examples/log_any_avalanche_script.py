"""Only the logger: any Avalanche script, any strategy, recorded in MLflow.

    python examples/log_any_avalanche_script.py
    cl-manifold ui

Runs land in the store that MLFLOW_TRACKING_URI names, else in ./mlruns/mlflow.db, with what was
trained as their params. `mlflow.start_run` and `mlflow.set_experiment` are heeded, but not needed.
"""

import mlflow
import torch
from avalanche.benchmarks import ni_benchmark
from avalanche.evaluation.metrics import (
    accuracy_metrics,
    confusion_matrix_metrics,
    forgetting_metrics,
    loss_metrics,
)
from avalanche.models import SimpleMLP
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from cl_manifold.tracking import MlflowLogger


class Digits(TensorDataset):
    """Images, labels, and the labels again as Avalanche wants them."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        super().__init__(images, labels)
        self.targets = labels.tolist()


def main() -> None:
    """Train Naive on four batches of new instances and log losses, accuracies and a figure."""
    torch.manual_seed(0)
    pixels, classes = load_digits(return_X_y=True)
    images, labels = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(classes)
    benchmark = ni_benchmark(
        Digits(images[:1300], labels[:1300]),
        Digits(images[1300:], labels[1300:]),
        n_experiences=4,
        seed=0,
    )
    logger = MlflowLogger()
    net = SimpleMLP(num_classes=10, input_size=64)
    strategy = Naive(
        model=net,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=32,
        train_epochs=3,
        eval_mb_size=256,
        evaluator=EvaluationPlugin(
            accuracy_metrics(minibatch=True, epoch=True, experience=True, stream=True),
            loss_metrics(epoch=True),
            forgetting_metrics(stream=True),
            confusion_matrix_metrics(num_classes=10, stream=True),
            loggers=[logger],
        ),
    )
    for experience in benchmark.train_stream:
        strategy.train(experience)
        strategy.eval(benchmark.test_stream)
    data = mlflow.get_run(str(logger.run_id)).data
    print(f"run {logger.run_id}: {len(data.metrics)} metrics, {len(data.params)} params")
    for key in sorted(k for k in data.metrics if k.startswith("test/")):
        print(f"  {key:<20} {data.metrics[key]:.3f}")


if __name__ == "__main__":
    main()
