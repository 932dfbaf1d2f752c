"""The torch and torchvision zoo in a few samples: each network with Naive, two or three tasks.

Tasks are the same inputs with classes renamed, so that every task contradicts the one before.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from avalanche import models as av
from avalanche.benchmarks import dataset_benchmark
from avalanche.benchmarks.utils.classification_dataset import (
    _make_taskaware_classification_dataset,
)
from avalanche.core import SupervisedPlugin
from avalanche.training.supervised import Naive
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.data import TensorDataset

from . import interface, zoo
from . import layers as L
from .cells import Cell
from .layers import CLASSES, DIM, LENGTH, WORDS
from .recording import Score, accuracy, first
from .scenarios import Probe, Scenario, index_of
from .strategies import evaluator

COUNT = 24


def vectors(count: int) -> tuple[Tensor, Tensor]:
    """Blobs around three centres."""
    y = torch.arange(count) % CLASSES
    return 2 * torch.eye(DIM)[y] + 0.3 * torch.randn(count, DIM), y


def images(count: int, size: int = 8, channels: int = 3) -> tuple[Tensor, Tensor]:
    """A bright band at one of three heights, over noise."""
    y = torch.arange(count) % CLASSES
    x = 0.2 * torch.randn(count, channels, size, size)
    height = size // CLASSES
    for row, label in zip(x, y, strict=True):
        row[:, label * height : (label + 1) * height] += 1.5
    return x, y


def sequences(count: int) -> tuple[Tensor, Tensor]:
    x, y = vectors(count)
    return x[:, None] + 0.1 * torch.randn(count, LENGTH, DIM), y


def texts(count: int) -> tuple[Tensor, Tensor]:
    """Words of which most belong to the class."""
    y = torch.arange(count) % CLASSES
    return 4 * y[:, None] + torch.randint(0, WORDS // CLASSES, (count, LENGTH)), y


def maps(count: int) -> tuple[Tensor, Tensor]:
    """Per position: which of three levels is it?"""
    y = torch.randint(0, CLASSES, (count, 8, 8))
    return y[:, None].float().repeat(1, 3, 1, 1) + 0.1 * torch.randn(count, 3, 8, 8), y


adam = partial(torch.optim.Adam, lr=0.01)
descent = partial(torch.optim.SGD, lr=0.2)


@dataclass(frozen=True)
class Network:
    """A network and what it reads.

    Attributes:
        build: makes it.
        data: samples and classes.
        loss: of its outputs; cross-entropy by default.
        tasks: how many.
        count: samples per task.
        epochs: passes over them.
        plugins: others, before ours.
        optimizer: of the network's parameters.
        score: of outputs and classes.
        skip: why it cannot run on this machine.
    """

    build: Callable[[], Any]
    data: Callable[[int], tuple[Tensor, Tensor]] = vectors
    loss: Callable[[Any, Tensor], Tensor] = nn.functional.cross_entropy
    tasks: int = 3
    count: int = COUNT
    epochs: int = 4
    plugins: Callable[[], list[Any]] = list
    optimizer: Callable[..., Any] = adam
    score: Score = accuracy
    skip: str = ""


class Unfreeze(SupervisedPlugin, supports_distributed=True):
    """Frees all layers before the second task."""

    def before_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if strategy.clock.train_exp_counter == 1:
            strategy.model.requires_grad_(True)


def of_first(outputs: Any, y: Tensor) -> Tensor:
    """Cross-entropy of the first answer."""
    return nn.functional.cross_entropy(first(outputs), y)


def vae_loss(outputs: Any, y: Tensor) -> Tensor:
    """The reconstruction is to show its class; the latent spread is held."""
    image, mean, spread = outputs
    goal = torch.eye(DIM)[y].reshape(image.shape)
    return nn.functional.mse_loss(image, goal) + 1e-3 * (mean.square() + spread.square()).mean()


def scripted() -> Any:
    return torch.jit.script(nn.Sequential(nn.Linear(DIM, 16), nn.ReLU(), nn.Linear(16, CLASSES)))


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.LazyLinear(CLASSES))


picture = partial(Network, data=images)
sequence = partial(Network, data=sequences)
text = partial(Network, data=texts)
large = partial(Network, data=partial(images, size=32), tasks=2, count=8, epochs=2)

LAYERS: dict[str, Network] = {
    "MLP": Network(L.mlp),
    "MLP, Dropout": Network(lambda: L.mlp(nn.Dropout(0.2))),
    "MLP, BatchNorm1d": Network(lambda: L.mlp(nn.BatchNorm1d(16))),
    "CNN": picture(L.cnn),
    "CNN, BatchNorm2d": picture(lambda: L.cnn(nn.BatchNorm2d(8))),
    "CNN, BatchNorm2d momentum=None": picture(lambda: L.cnn(nn.BatchNorm2d(8, momentum=None))),
    "CNN, BatchNorm2d untracked": picture(
        lambda: L.cnn(nn.BatchNorm2d(8, track_running_stats=False))
    ),
    "CNN, SyncBatchNorm": picture(lambda: L.cnn(nn.SyncBatchNorm(8))),
    "CNN, GroupNorm": picture(lambda: L.cnn(nn.GroupNorm(2, 8))),
    "CNN, LayerNorm": picture(lambda: L.cnn(nn.LayerNorm([8, 8, 8]))),
    "CNN, InstanceNorm2d": picture(lambda: L.cnn(nn.InstanceNorm2d(8, affine=True))),
    "CNN, InstanceNorm2d tracked": picture(
        lambda: L.cnn(nn.InstanceNorm2d(8, track_running_stats=True))
    ),
    "CNN, LocalResponseNorm": picture(lambda: L.cnn(nn.LocalResponseNorm(2))),
    "CNN, Dropout2d": picture(lambda: L.cnn(nn.Dropout2d(0.2))),
    "CNN, PReLU": picture(lambda: L.cnn(nn.PReLU(8))),
    "CNN, channels_last": picture(lambda: L.cnn().to(memory_format=torch.channels_last)),
    "CNN1d, BatchNorm1d": sequence(lambda: L.cnn1d(nn.BatchNorm1d(8))),
    "CNN3d, BatchNorm3d": Network(lambda: L.cnn3d(nn.BatchNorm3d(4))),
    "MLP, RMSNorm": Network(lambda: L.mlp(nn.RMSNorm(16))),
    "RNN": sequence(lambda: L.Recurrent(nn.RNN(DIM, 8, batch_first=True))),
    "LSTM": sequence(lambda: L.Recurrent(nn.LSTM(DIM, 8, batch_first=True))),
    "GRU": sequence(lambda: L.Recurrent(nn.GRU(DIM, 8, batch_first=True))),
    "LSTM, bidirectional, two layers": sequence(
        lambda: L.Recurrent(nn.LSTM(DIM, 4, 2, batch_first=True, bidirectional=True))
    ),
    "GRU, bidirectional": sequence(
        lambda: L.Recurrent(nn.GRU(DIM, 4, batch_first=True, bidirectional=True))
    ),
    "RNNCell": sequence(lambda: L.Cells(nn.RNNCell(DIM, 8))),
    "LSTMCell": sequence(lambda: L.Cells(nn.LSTMCell(DIM, 8))),
    "GRUCell": sequence(lambda: L.Cells(nn.GRUCell(DIM, 8))),
    "MultiheadAttention": sequence(lambda: L.Attention(None)),
    "MultiheadAttention, causal mask of −∞": sequence(lambda: L.Attention(False)),
    "MultiheadAttention, boolean mask": sequence(lambda: L.Attention(True)),
    "TransformerEncoder": sequence(L.encoder),
    "TransformerDecoder": sequence(L.Decoder),
    "MLP-Mixer": sequence(L.Mixer),
    "Embedding": text(L.words),
    "Embedding, padding_idx": text(lambda: L.words(padding_idx=0)),
    "Embedding, max_norm": text(lambda: L.words(max_norm=1.0)),
    "Embedding, sparse": text(lambda: L.words(sparse=True), optimizer=descent),
    "EmbeddingBag": text(L.bag),
    "tied weights": text(L.Tied),
    "frozen layer": Network(L.frozen),
    "frozen layer, freed at the second task": Network(L.frozen, plugins=lambda: [Unfreeze()]),
    "LoRA": Network(L.LowRank),
    "weight_norm": Network(lambda: L.parametrised(parametrizations.weight_norm)),
    "spectral_norm": Network(lambda: L.parametrised(parametrizations.spectral_norm)),
    "orthogonal": Network(lambda: L.parametrised(parametrizations.orthogonal)),
    "weight_norm, the old one": Network(lambda: L.parametrised(nn.utils.weight_norm)),
    "spectral_norm, the old one": Network(lambda: L.parametrised(nn.utils.spectral_norm)),
    "float64": Network(lambda: L.cast(torch.float64)),
    "bfloat16": Network(lambda: L.cast(torch.bfloat16)),
    "float16": Network(lambda: L.cast(torch.float16), optimizer=descent),
    "complex": Network(L.Complex),
    "lazy": Network(lazy),
    "quantised features": Network(L.quantised),
    "torch.jit.script": Network(scripted),
    "torch.compile": Network(lambda: torch.compile(L.mlp(), backend="aot_eager")),
    "DataParallel": Network(lambda: nn.DataParallel(L.mlp())),
    "idle and empty parameters": Network(L.Idle),
    "buffers only": Network(L.Buffers),
    "counters and own statistics": Network(L.Counting),
    "returns a tuple": Network(lambda: L.Several(lambda a, b: (a, b)), loss=of_first),
    "returns a dictionary": Network(
        lambda: L.Several(lambda a, b: {"logits": a, "features": b}), loss=of_first
    ),
    "U-Net, an answer per position": Network(L.Uneven, data=maps),
    "Bilinear": Network(lambda: zoo.Pairs()),
}

LIBRARY: dict[str, Network] = {
    "Avalanche SimpleMLP": Network(lambda: av.SimpleMLP(CLASSES, DIM, 16)),
    "Avalanche MTSimpleMLP": Network(lambda: av.MTSimpleMLP(DIM, 16)),
    "Avalanche SimpleCNN": large(lambda: av.SimpleCNN(CLASSES)),
    "Avalanche LeNet5": Network(
        lambda: av.LeNet5(CLASSES, 1), data=partial(images, size=32, channels=1), tasks=2, epochs=2
    ),
    "Avalanche SlimResNet18": large(lambda: zoo.slim_resnet()),
    "Avalanche MlpVAE": Network(
        lambda: av.MlpVAE((1, 1, DIM), 2),
        loss=vae_loss,
        score=lambda outputs, y: accuracy(first(outputs).flatten(1), y),
    ),
    "Avalanche cosine head": Network(zoo.cosine),
    "Avalanche SimpleSequenceClassifier": sequence(
        lambda: av.SimpleSequenceClassifier(DIM, 8, CLASSES)
    ),
    **{name: large(build) for name, build in zoo.TORCHVISION.items()},
    "GoogLeNet, auxiliary heads": large(zoo.googlenet_with_heads, loss=zoo.with_heads),
}

NETWORKS = LAYERS | LIBRARY


def scenario(network: Network) -> Scenario:
    """A stream in which task t renames the classes by t."""
    torch.manual_seed(11)
    train, test = network.data(network.count), network.data(network.count)
    probes: dict[interface.Number, Probe] = {}
    parts: tuple[list[Any], list[Any]] = [], []
    for t in range(network.tasks):
        for data, (x, y) in zip(parts, (train, test), strict=True):
            renamed = (y + t) % CLASSES
            targets = renamed.flatten(1)[:, 0] if renamed.ndim > 1 else renamed
            data.append(
                _make_taskaware_classification_dataset(
                    TensorDataset(x, renamed), targets=targets.tolist(), task_labels=0
                )
            )
        probes[t] = Probe(test[0], (test[1] + t) % CLASSES, 0)
    benchmark = dataset_benchmark(*parts)
    return Scenario(
        "networks", "plain", benchmark.train_stream, benchmark.test_stream, index_of,
        interface.vertices(network.tasks), probes,
    )  # fmt: skip


class Loss(nn.Module):
    """A function as a criterion."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, outputs: Any, y: Tensor) -> Tensor:
        return self.function(outputs, y)


def strategy(network: Network, scenario: Scenario, plugins: list[Any], loggers: list[Any]) -> Any:
    """Naive with Adam."""
    plain = network.loss is nn.functional.cross_entropy
    net = network.build()
    return Naive(
        model=net, optimizer=network.optimizer(net.parameters()),
        criterion=nn.CrossEntropyLoss() if plain else Loss(network.loss),
        train_mb_size=8, train_epochs=network.epochs, eval_mb_size=32,
        plugins=[*network.plugins(), *plugins], evaluator=evaluator([], accuracies=False),
    )  # fmt: skip


def cells() -> list[Cell]:
    """Every network in a stream of its own."""
    return [
        Cell("networks", name, "Naive", partial(scenario, network), partial(strategy, network),
             score=network.score, skip=network.skip)
        for name, network in NETWORKS.items()
    ]  # fmt: skip
