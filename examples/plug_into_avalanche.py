"""Our plugin inside a user's own Avalanche script: own data, own model, other plugins beside it.

The task is to read digits from a drum that stands in another position in every experience; the
context is the position, a point on a circle. Only the two marked places belong to cl-manifold.

    python examples/plug_into_avalanche.py
"""

import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.benchmarks.utils.data_attribute import DataAttribute
from avalanche.evaluation.metrics import accuracy_metrics, forgetting_metrics
from avalanche.logging import TextLogger
from avalanche.training.plugins import EvaluationPlugin, LRSchedulerPlugin
from avalanche.training.supervised import Naive
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import TensorDataset

from cl_manifold import ByExperience, Fourier  # <-- 1: a basis on a circle, and contexts
from cl_manifold.strategies import WeightManifoldPlugin

POSITIONS = [3, 0, 6, 1, 4]  # eighths of a turn
EPOCHS = 5


class ConvNet(nn.Module):
    """A network of the user's own, with BatchNorm: its statistics ride along."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.head = nn.Linear(16 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of 8×8 images."""
        return self.head(self.features(x).flatten(1))


def experience(images: Tensor, labels: Tensor, position: int) -> AvalancheDataset:
    """Digits whose columns are turned around the drum."""
    targets = labels.tolist()
    return AvalancheDataset(
        [TensorDataset(images.roll(position, dims=-1), labels)],
        data_attributes=[DataAttribute(targets, "targets")],  # pyright: ignore[reportArgumentType]
    )


def main() -> None:
    """Train on five positions, one after the other, then print accuracy and forgetting."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    pixels, classes = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    labels = torch.tensor(classes)
    benchmark = benchmark_from_datasets(
        train=[experience(images[:1300], labels[:1300], p) for p in POSITIONS],
        test=[experience(images[1300:], labels[1300:], p) for p in POSITIONS],
    )
    net = ConvNet()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    scheduler = CosineAnnealingLR(optimizer, T_max=EPOCHS)
    evaluation = EvaluationPlugin(
        accuracy_metrics(experience=True, stream=True),
        forgetting_metrics(stream=True),
        loggers=[TextLogger()],
    )
    manifold = WeightManifoldPlugin(  # <-- 2: one plugin among others
        Fourier(harmonics=2), contexts=ByExperience([p / 8 for p in POSITIONS])
    )
    strategy = Naive(
        model=net,
        optimizer=optimizer,
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=32,
        train_epochs=EPOCHS,
        eval_mb_size=256,
        plugins=[manifold, LRSchedulerPlugin(scheduler)],
        evaluator=evaluation,
    )
    results = {}
    for train in benchmark.streams["train"]:
        strategy.train(train)
        results = strategy.eval(benchmark.streams["test"])
    print("\nat the end of the stream")
    for name, value in results.items():
        if "Stream" in name:
            print(f"  {name.split('/')[0]:<18} {float(value):.3f}")
    assert manifold.manifold is not None
    print(f"  control points     {manifold.manifold.basis.size}, no samples stored")


if __name__ == "__main__":
    main()
