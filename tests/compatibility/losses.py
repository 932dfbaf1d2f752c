"""Losses of every kind on one small network: classes, yes or no, numbers, counts, distributions."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.training.supervised import Naive
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from . import interface
from .cells import Cell
from .recording import Score
from .scenarios import Probe, Scenario, index_of
from .strategies import evaluator

TASKS, COUNT, DIM, HIDDEN, CLASSES = 3, 48, 8, 24, 3
Targets = Callable[[Tensor], Tensor]
"""From (n, 3) real numbers, different for every task, to what the loss wants."""


def classes(z: Tensor) -> Tensor:
    return z.argmax(1)


def shares(z: Tensor) -> Tensor:
    """Probabilities instead of a class."""
    return (3 * z).softmax(1)


def per_position(z: Tensor) -> Tensor:
    """A class for each of two positions."""
    return torch.stack([z.argmax(1), z.argmin(1)], 1)


def several(z: Tensor) -> Tensor:
    return z


def one(z: Tensor) -> Tensor:
    """One number, as a column."""
    return z[:, :1]


def flat(z: Tensor) -> Tensor:
    """One number, without an axis of its own."""
    return z[:, 0]


def column_of_bits(z: Tensor) -> Tensor:
    return (z[:, :1] > 0).float()


def bits(z: Tensor) -> Tensor:
    return (z > 0).float()


def signs(z: Tensor) -> Tensor:
    return z.sign()


def counts(z: Tensor) -> Tensor:
    return z.exp().round()


def hits(outputs: Tensor, y: Tensor) -> float:
    """Share of right classes; also per position and for soft targets."""
    truth = y.argmax(1) if y.is_floating_point() else y
    return float((outputs.argmax(1) == truth).float().mean())


def right_bits(outputs: Tensor, y: Tensor) -> float:
    return float(((outputs > 0) == (y > 0)).float().mean())


def right_shares(outputs: Tensor, y: Tensor) -> float:
    return float(((outputs > 0.5) == (y > 0)).float().mean())


def explained(outputs: Tensor, y: Tensor) -> float:
    """R²: the share of the variance that is explained."""
    return 1 - float((outputs - y).square().mean() / y.var())


def explained_mean(outputs: Tensor, y: Tensor) -> float:
    """R² where the network answers with mean and log variance."""
    return explained(outputs[:, :1], y)


def explained_rate(outputs: Tensor, y: Tensor) -> float:
    """R² where the network answers with logarithms of rates."""
    return explained(outputs.exp(), y)


def gaussian(outputs: Tensor, y: Tensor) -> Tensor:
    """½ (log σ² + (y − μ)² / σ²), averaged."""
    mean, log_variance = outputs[:, :1], outputs[:, 1:]
    return 0.5 * (log_variance + (y - mean).square() / log_variance.exp()).mean()


def crooked(outputs: Tensor, y: Tensor) -> Tensor:
    """A user's own loss without a name: log cosh."""
    return (outputs - y).cosh().log().mean()


def hinge(outputs: Tensor, y: Tensor) -> Tensor:
    """max(0, 1 − y f), with y = ±1."""
    return (1 - outputs * y).clamp(min=0).mean()


@dataclass(frozen=True)
class Loss:
    """A criterion with the targets that it wants.

    Attributes:
        criterion: as a user passes it.
        targets: made from real numbers.
        outputs: how many the network has.
        score: how well outputs fit.
        end: after the last layer.
    """

    criterion: Callable[[], Any]
    targets: Targets
    outputs: int = CLASSES
    score: Score = hits
    end: Callable[[], nn.Module] = nn.Identity


number = partial(Loss, targets=several, score=explained)
LOSSES: dict[str, Loss] = {
    "CrossEntropyLoss": Loss(nn.CrossEntropyLoss, classes),
    "CrossEntropyLoss, label_smoothing": Loss(
        lambda: nn.CrossEntropyLoss(label_smoothing=0.1), classes
    ),
    "CrossEntropyLoss, weight": Loss(
        lambda: nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5])), classes
    ),
    "CrossEntropyLoss, sum": Loss(lambda: nn.CrossEntropyLoss(reduction="sum"), classes),
    "CrossEntropyLoss, soft targets": Loss(nn.CrossEntropyLoss, shares),
    "CrossEntropyLoss, per position": Loss(
        nn.CrossEntropyLoss, per_position, 2 * CLASSES, end=lambda: nn.Unflatten(1, (CLASSES, 2))
    ),
    "functional.cross_entropy": Loss(lambda: functional.cross_entropy, classes),
    "NLLLoss": Loss(nn.NLLLoss, classes, end=lambda: nn.LogSoftmax(1)),
    "MultiMarginLoss": Loss(nn.MultiMarginLoss, classes),
    "BCEWithLogitsLoss, one logit": Loss(nn.BCEWithLogitsLoss, column_of_bits, 1, right_bits),
    "BCEWithLogitsLoss, many": Loss(nn.BCEWithLogitsLoss, bits, CLASSES, right_bits),
    "BCEWithLogitsLoss, pos_weight": Loss(
        lambda: nn.BCEWithLogitsLoss(pos_weight=torch.tensor([2.0])), column_of_bits, 1, right_bits
    ),
    "BCELoss": Loss(nn.BCELoss, bits, CLASSES, right_shares, nn.Sigmoid),
    "MultiLabelSoftMarginLoss": Loss(nn.MultiLabelSoftMarginLoss, bits, CLASSES, right_bits),
    "SoftMarginLoss": Loss(nn.SoftMarginLoss, signs, CLASSES, right_bits),
    "hinge, a function": Loss(lambda: hinge, signs, CLASSES, right_bits),
    "MSELoss, one output": number(nn.MSELoss, targets=one, outputs=1),
    "MSELoss, one output without an axis": number(
        nn.MSELoss, targets=flat, outputs=1, end=lambda: nn.Flatten(0)
    ),
    "MSELoss, several outputs": number(nn.MSELoss),
    "MSELoss, sum": number(lambda: nn.MSELoss(reduction="sum")),
    "L1Loss": number(nn.L1Loss),
    "SmoothL1Loss": number(nn.SmoothL1Loss),
    "HuberLoss": number(nn.HuberLoss),
    "Gaussian likelihood, a function": Loss(lambda: gaussian, one, 2, explained_mean),
    "PoissonNLLLoss": Loss(nn.PoissonNLLLoss, counts, CLASSES, explained_rate),
    "KLDivLoss": Loss(
        lambda: nn.KLDivLoss(reduction="batchmean"), shares, end=lambda: nn.LogSoftmax(1)
    ),
    "log cosh, a function": number(lambda: crooked),
}


def _samples(task: int, count: int, seed: int, targets: Targets) -> tuple[Tensor, Tensor]:
    """Targets of a linear map that every task has anew."""
    draw = torch.Generator().manual_seed(1000 * seed + task)
    maps = torch.Generator().manual_seed(50 + task)
    x = torch.randn(count, DIM, generator=draw)
    mapping = torch.linalg.qr(torch.randn(DIM, DIM, generator=maps)).Q[:, :CLASSES]
    return x, targets(x @ mapping)


def scenario(loss: Loss) -> Scenario:
    """A stream without any attribute of classes: float targets have none in Avalanche."""
    train = [_samples(t, COUNT, 1, loss.targets) for t in range(TASKS)]
    test = [_samples(t, COUNT, 1, loss.targets) for t in range(TASKS)]
    parts = {"train": [_dataset(*s) for s in train], "test": [_dataset(*s) for s in test]}
    streams = benchmark_from_datasets(**parts).streams
    return Scenario(
        "losses", "plain", streams["train"], streams["test"], index_of,
        interface.vertices(TASKS), {t: Probe(x, y, None) for t, (x, y) in enumerate(test)},
    )  # fmt: skip


def _dataset(x: Tensor, y: Tensor) -> Any:
    data: Any = TensorDataset(x, y)
    return AvalancheDataset([data])


def strategy(loss: Loss, scenario: Scenario, plugins: list[Any], loggers: list[Any]) -> Any:
    """Naive with Adam."""
    net = nn.Sequential(
        nn.Linear(DIM, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, loss.outputs), loss.end()
    )
    return Naive(
        model=net, optimizer=torch.optim.Adam(net.parameters(), lr=0.02),
        criterion=loss.criterion(), train_mb_size=8, train_epochs=8, eval_mb_size=COUNT,
        plugins=plugins, evaluator=evaluator(loggers, accuracies=False),
    )  # fmt: skip


def cells() -> list[Cell]:
    """Every loss in a stream of its own."""
    return [
        Cell("losses", name, "Naive", partial(scenario, loss), partial(strategy, loss),
             score=loss.score)
        for name, loss in LOSSES.items()
    ]  # fmt: skip
