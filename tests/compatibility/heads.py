"""Networks of the scenarios, and those that single strategies ask for."""

from typing import Any

from avalanche.models import (
    BaseModel,
    IncrementalClassifier,
    MlpVAE,
    MultiHeadClassifier,
    MultiTaskModule,
)
from torch import Tensor, nn

from .scenarios import CLASSES, DIM, Scenario

HIDDEN = 32


def features() -> nn.Module:
    return nn.Sequential(nn.Linear(DIM, HIDDEN), nn.ReLU())


class Plain(nn.Module, BaseModel):
    """Features and a head, as Avalanche's own models have them."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.features, self.classifier = features(), head

    def get_features(self, x: Tensor) -> Any:
        return self.features(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


class Multi(MultiTaskModule, BaseModel):
    """Features and a head per task."""

    def __init__(self) -> None:
        super().__init__()
        self.features = features()
        self.classifier = MultiHeadClassifier(HIDDEN, initial_out_features=CLASSES)

    def get_features(self, x: Tensor) -> Any:
        return self.features(x)

    def forward(self, x: Tensor, task_labels: Tensor) -> Tensor:
        return self.classifier(self.features(x), task_labels)


def network(scenario: Scenario) -> Any:
    """An MLP 8-32 with the head that the scenario needs."""
    if scenario.head == "multi":
        return Multi()
    if scenario.head == "growing":
        return Plain(IncrementalClassifier(HIDDEN, initial_out_features=2))
    return Plain(nn.Linear(HIDDEN, CLASSES))


class Remembering(nn.Module):
    """Keeps its last features as an attribute, as FeatureDistillation asks."""

    def __init__(self) -> None:
        super().__init__()
        self.features: Any = None
        self.body, self.classifier = features(), nn.Linear(HIDDEN, 6)

    def forward(self, x: Tensor) -> Tensor:
        self.features = self.body(x)
        return self.classifier(self.features)


class FlatVAE(MlpVAE):
    """Avalanche's generator of images, for vectors."""

    def __init__(self) -> None:
        super().__init__((1, 1, DIM), nhid=2, n_classes=CLASSES)

    def generate(self, batch_size: int | None = None) -> Tensor:
        return super().generate(batch_size).flatten(1)

    def forward(self, x: Tensor) -> Any:
        image, mean, spread = super().forward(x)
        return image.flatten(1), mean, spread
