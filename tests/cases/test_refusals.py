"""CASES.md, C: what cannot work is said in one sentence, before the first training step."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.training.supervised import Naive
from torch import Tensor, nn
from torch.utils.data import Dataset

from cl_manifold.errors import ClManifoldError
from cl_manifold.geometry import Vertices
from cl_manifold.manifold.information import ExactInformation
from cl_manifold.strategies import WeightManifoldPlugin
from cl_manifold.streams.images import load_mnist

from .parts import (
    DIM,
    Data,
    Steps,
    accuracy_at,
    benchmark,
    blobs,
    incompatible,
    mlp,
    naive,
    one_sentence,
    tasks,
    untold,
    vertex,
    vertices,
    walk,
)

INFORMATION: dict[str, Callable[[], Any]] = {"default": lambda: None, "exact": ExactInformation}
both = pytest.mark.parametrize("information", INFORMATION)


def refused(net: Any, stream: Any, match: str, information: str = "default", **more: Any) -> None:
    """IncompatibleError before any training step."""
    plugin: Any = WeightManifoldPlugin(
        Vertices(2), contexts=vertices(2), information=INFORMATION[information]()
    )
    steps = Steps()
    with incompatible(match, steps):
        walk(naive(plugin, net, steps, **more), stream)


def plain() -> Any:
    return benchmark(tasks(2)).train_stream


# -- optimizers, streams and batches ---------------------------------------------------------


@both
def test_no_optimizer(information: str) -> None:
    refused(mlp(), plain(), "optimizer", information, optimizer=None)


def test_a_generator_as_a_list_of_experiences() -> None:
    """Avalanche evaluates it first, which uses it up: nothing is trained and nothing is said."""
    plugin, steps = WeightManifoldPlugin(Vertices(2), contexts=vertices(2)), Steps()
    strategy = naive(plugin, mlp(), steps, train_epochs=1)
    stream = plain()
    experiences: Any = (e for e in stream)
    try:
        strategy.train(experiences)
    except ClManifoldError:
        assert steps.count == 0
    else:
        assert len(plugin.traces) == 2


class Named(Dataset[Any]):
    """Samples as dictionaries."""

    def __init__(self, data: Data) -> None:
        self.data = data
        self.targets = data.y.tolist()

    def __len__(self) -> int:
        return len(self.data.y)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"x": self.data.x[i], "y": self.data.y[i]}


class ByName(Naive):
    """A strategy that knows how to read them."""

    def _unpack_minibatch(self) -> None:
        batch: Any = self.mbatch
        self.mbatch = [batch["x"], batch["y"], torch.zeros(len(batch["y"]), dtype=torch.int64)]


@both
def test_batches_of_dictionaries(information: str) -> None:
    made: list[Any] = []
    for d in tasks(2):
        named: Any = Named(d)
        made.append(AvalancheDataset([named]))
    stream = benchmark_from_datasets(train=made).streams["train"]
    refused(mlp(), stream, "(?i)dict", information, kind=ByName)


# -- networks --------------------------------------------------------------------------------


class Words(nn.Module):
    """The sign of each number as a word."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(2, 8, sparse=True)
        self.head = nn.Linear(8 * DIM, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.words((x > 0).long()).flatten(1))


@both
def test_sparse_gradients(information: str) -> None:
    net = Words()
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    refused(net, plain(), "(?i)sparse", information, optimizer=sgd)


class Complex(nn.Module):
    """A layer with complex weights."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(DIM, 16, dtype=torch.complex64)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x.to(torch.complex64)).abs())


@both
def test_complex_weights(information: str) -> None:
    refused(Complex(), plain(), "(?i)complex", information)


@both
@pytest.mark.filterwarnings("ignore")
def test_lazy_layers(information: str) -> None:
    net = nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.Linear(16, 4))
    refused(net, plain(), "(?i)lazy|uninitialized|not initialized", information)


class Quantised(nn.Module):
    """A frozen body in eight bits and a head in floating point."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        body = torch.quantize_per_tensor(torch.randn(16, DIM), 0.1, 0, torch.qint8)
        self.body, self.head = nn.Parameter(body, requires_grad=False), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(x @ self.body.dequantize().mT))


@both
@pytest.mark.filterwarnings("ignore:.*quantiz")
def test_quantised_weights_are_left_alone_or_refused(information: str) -> None:
    """Whole numbers cannot be interpolated: they stay bit by bit, or the network is refused."""
    plugin: Any = WeightManifoldPlugin(
        Vertices(2), contexts=vertices(2), information=INFORMATION[information]()
    )
    net, steps = Quantised(), Steps()
    before = net.body.detach().int_repr().clone()
    strategy = naive(plugin, net, steps, optimizer=torch.optim.SGD(net.head.parameters(), lr=0.1))
    stream = plain()
    try:
        walk(strategy, stream)
        strategy.eval(stream)
    except ClManifoldError as error:
        assert type(error).__name__ == "IncompatibleError", error  # noqa: PT017
        assert steps.count == 0
    assert torch.equal(net.body.int_repr(), before)


# -- data ------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("label", [255, -1, 4])
def test_labels_out_of_range(label: int, information: str) -> None:
    data = blobs(0)
    data.y[::2] = label
    refused(mlp(), benchmark([data, blobs(1)]).train_stream, "(?i)label|class|target", information)


@both
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite(value: float, information: str) -> None:
    data = blobs(0)
    data.x[::2, 3] = value
    refused(mlp(), benchmark([data, blobs(1)]).train_stream, "(?i)finite|nan", information)


@both
def test_inputs_that_are_all_zero(information: str) -> None:
    data = Data(torch.zeros(200, DIM), blobs(0).y)
    stream = benchmark([data, blobs(1)]).train_stream
    refused(mlp(), stream, "(?i)zero|same|constant|nothing to learn", information)


def write_images(folder: Path, count: int, labels: int) -> None:
    """Files as MNIST has them, with as many labels as asked for."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        header = struct.pack(">4i", 0x00000803, count, 28, 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + bytes(count * 784))
        header = struct.pack(">2i", 0x00000801, labels)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(header + bytes(labels))


def test_ten_thousand_labels_for_sixty_thousand_images(tmp_path: Path) -> None:
    """Images and labels of different files: said where they come together."""
    write_images(tmp_path, 60, 10)
    with one_sentence(r"60\D+10\b|10\D+60\b"):
        load_mnist(tmp_path)


def test_a_learning_rate_of_a_thousand() -> None:
    """Weights in the ten thousands: what was learned is held, or it is said that it is not."""
    net, data = mlp(), tasks(2)
    adam = torch.optim.Adam(net.parameters(), lr=1000.0)
    plugin = WeightManifoldPlugin(Vertices(2), contexts=vertices(2))
    strategy = naive(plugin, net, optimizer=adam)
    stream, said, first = benchmark(data).train_stream, False, 0.0
    try:
        strategy.train(stream[0], eval_streams=[])
        first = accuracy_at(strategy, plugin, vertex(0, 2), data[0])
        strategy.train(stream[1], eval_streams=[])
    except (ClManifoldError, UserWarning):
        said = True
    assert said or accuracy_at(strategy, plugin, vertex(0, 2), data[0]) >= first - 0.02


def test_regression_targets_for_a_classification_loss() -> None:
    data = [Data(d.x, torch.rand(len(d.x), 7)) for d in tasks(2)]
    refused(mlp(), untold(data, targets=False).streams["train"], "(?i)target|loss|criterion|shape")
