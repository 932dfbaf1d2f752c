"""How much of Avalanche's time our loader saves: microseconds per training step, evaluation."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from torch import nn

from cl_manifold.strategies.loader import InMemoryLoaderPlugin
from cl_manifold.strategies.materialise import tensors_of
from cl_manifold.streams import ContextExperience, ImageSet, StreamOptions, TaskStream, rotated

SAMPLES, ROUNDS = 4096, 3
BATCHES = (16, 64, 256)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))


def seconds(work: Callable[[], object]) -> float:
    """The fastest of a few rounds, which other people's work disturbs least."""
    times: list[float] = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def avalanche(batch: int, *plugins: Any) -> Any:
    model = network()
    return Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
        train_mb_size=batch,
        eval_mb_size=batch,
        plugins=list(plugins),
        evaluator=EvaluationPlugin(),
    )


def train_plain(x: torch.Tensor, y: torch.Tensor, batch: int) -> None:
    """The same steps without Avalanche, on tensors."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    order = torch.randperm(len(y))
    for rows in order.split(batch):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()


@torch.no_grad()
def evaluate_plain(x: torch.Tensor, y: torch.Tensor, batch: int) -> None:
    model = network()
    for a, b in zip(x.split(batch), y.split(batch), strict=True):
        nn.functional.cross_entropy(model(a), b)


def tensors(experience: ContextExperience) -> tuple[torch.Tensor, torch.Tensor]:
    found = tensors_of(experience.dataset)
    assert found is not None
    return found[0], found[1]


@pytest.fixture(scope="module")
def stream() -> TaskStream:
    x = torch.randint(0, 256, (SAMPLES, 1, 28, 28), dtype=torch.uint8)
    y = torch.arange(SAMPLES) % 10
    return rotated(ImageSet("noise", x, y, x, y), StreamOptions(contexts=1))


@pytest.mark.benchmark
@pytest.mark.filterwarnings("ignore:No loggers specified:UserWarning")
def test_loader_benchmark(stream: TaskStream) -> None:
    train, test = stream.train_stream[0], stream.test_stream[0]
    train_data, test_data = tensors(train), tensors(test)
    print(f"\n{SAMPLES} images 28×28, MLP 784-100-10, best of {ROUNDS}, {torch.get_num_threads()}"
          " thread(s); × = ratio to plain PyTorch")  # fmt: skip
    print(f"{'':>14}{'plain':>10}{'stock':>18}{'ours':>18}{'stock/ours':>12}")
    for batch in BATCHES:
        stock, ours = avalanche(batch), avalanche(batch, InMemoryLoaderPlugin())
        steps = -(-SAMPLES // batch)
        report(
            f"train, {batch}",
            "µs/step",
            1e6 / steps,
            seconds(lambda batch=batch: train_plain(*train_data, batch)),
            seconds(lambda stock=stock: stock.train(train, eval_streams=[])),
            seconds(lambda ours=ours: ours.train(train, eval_streams=[])),
        )
        report(
            f"eval, {batch}",
            "ms",
            1e3,
            seconds(lambda batch=batch: evaluate_plain(*test_data, batch)),
            seconds(lambda stock=stock: stock.eval([test])),
            seconds(lambda ours=ours: ours.eval([test])),
        )


def report(what: str, unit: str, scale: float, *times: float) -> None:
    plain, stock, ours = times
    cells = [f"{t * scale:>9.1f} ({t / plain:>4.1f}×)" for t in (stock, ours)]
    print(f"{what:>14}{plain * scale:>10.1f}{''.join(f'{c:>18}' for c in cells)}"
          f"{stock / ours:>11.1f}×  {unit}")  # fmt: skip
