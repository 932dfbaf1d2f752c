"""What the weight manifold costs beside Naive: time per step, time per commit, peak memory.

Ratios come from one run in which both take turns. Time of a step is that of whole training calls
divided by their steps, commit excluded; the commit is timed inside the plugin.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from cl_manifold.geometry import Fourier
from cl_manifold.networks import mlp
from cl_manifold.strategies import FreshOptimizerPlugin, InMemoryLoaderPlugin, WeightManifoldPlugin
from cl_manifold.strategies.materialise import tensors_of
from cl_manifold.streams import ImageSet, StreamOptions, TaskStream, rotated

SAMPLES, EPOCHS, TASKS, ROUNDS = 10_000, 2, 3, 8
pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.filterwarnings("ignore:No loggers specified:UserWarning"),
]


class Stopwatch(SupervisedPlugin):
    """Seconds from the end of the last epoch to the end of the experience: the commit."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[float] = []
        self.steps: list[float] = []
        self._start = self._end = 0.0

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        self._start = time.perf_counter()

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        self._end = time.perf_counter()
        self.steps.append((self._end - self._start) / len(strategy.dataloader))

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.commits.append(time.perf_counter() - self._end)


def stream(samples: int = SAMPLES) -> TaskStream:
    x = torch.randint(0, 256, (samples, 1, 28, 28), dtype=torch.uint8)
    y = torch.arange(samples) % 10
    return rotated(ImageSet("noise", x, y, x[:100], y[:100]), StreamOptions(contexts=TASKS))


def strategy(batch: int, net: nn.Module, *plugins: Any) -> Any:
    return Naive(
        model=net,
        optimizer=torch.optim.Adam(net.parameters(), lr=1e-3),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=batch,
        train_epochs=EPOCHS,
        plugins=[InMemoryLoaderPlugin(), FreshOptimizerPlugin(), *plugins],
        evaluator=EvaluationPlugin(),
    )


class PlainLoop:
    """Five lines of PyTorch over tensors that are ready: nothing could cost less."""

    def __init__(self, batch: int, net: nn.Module) -> None:
        self.batch, self.net = batch, net
        self.steps: list[float] = []

    def train(self, x: Tensor, y: Tensor) -> None:
        optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-3)
        criterion = nn.CrossEntropyLoss()
        for _ in range(EPOCHS):
            start = time.perf_counter()
            for rows in torch.randperm(len(x)).split(self.batch):
                optimizer.zero_grad()
                criterion(self.net(x[rows]), y[rows]).backward()
                optimizer.step()
            self.steps.append((time.perf_counter() - start) / -(-len(x) // self.batch))


def test_time_beside_naive_and_a_plain_loop() -> None:
    """All in turn, experience by experience; medians, and of ratios pair by pair."""
    data = stream()
    print(f"\nMLP 784-256-256-10, K = 7, {SAMPLES} samples × {EPOCHS} epochs, "
          f"{torch.get_num_threads()} thread(s)")  # fmt: skip
    for batch in (32, 64, 256):
        steps: dict[str, list[float]] = {"plain": [], "naive": [], "manifold": []}
        commits: list[float] = []
        for _ in range(ROUNDS):
            loop = PlainLoop(batch, mlp((1, 28, 28), (256, 256), 10))
            naive, ours = Stopwatch(), Stopwatch()
            first = strategy(batch, mlp((1, 28, 28), (256, 256), 10), naive)
            plugin = WeightManifoldPlugin(Fourier(3))
            second = strategy(batch, mlp((1, 28, 28), (256, 256), 10), plugin, ours)
            for experience in data.train_stream:
                x, y, *_ = tensors_of(experience.dataset) or []
                loop.train(x, y)
                for one in (first, second):
                    one.train(experience, eval_streams=[])
            for name, watch in (("plain", loop), ("naive", naive), ("manifold", ours)):
                steps[name] += watch.steps
            commits += ours.commits
        middle = {name: median(found) for name, found in steps.items()}
        ratios = [
            median(ours / other for ours, other in zip(steps["manifold"], steps[name], strict=True))
            for name in ("plain", "naive")
        ]
        task = middle["manifold"] * -(-SAMPLES // batch) * EPOCHS
        print(
            f"batch {batch:>3}: plain loop {middle['plain'] * 1e6:6.0f} µs/step, "
            f"naive {middle['naive'] * 1e6:6.0f}, manifold {middle['manifold'] * 1e6:6.0f} "
            f"({ratios[0]:.2f}× the loop, {ratios[1]:.2f}× naive); Fisher + drift + commit "
            f"{median(commits) * 1e3:.1f} ms = {median(commits) / task:.1%} of a task's "
            f"{task:.2f} s"
        )


def peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes that torch held at once beyond what it held at the start."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        work()
    held = highest = 0
    profiler: Any = found.profiler
    for event in profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            highest = max(highest, held)
    return highest


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_peak_memory_beside_naive(kind: str) -> None:
    """Peak of two experiences, in models, for a network of some millions of weights."""
    torch.manual_seed(0)
    data = stream(128)
    peaks: dict[str, float] = {}
    size = 0
    for name in ("naive", "manifold"):
        net: nn.Module = mlp((1, 28, 28), (2048, 1024), 10)
        if kind == "cnn":
            net = nn.Sequential(
                nn.Conv2d(1, 32, 3, stride=2),
                nn.BatchNorm2d(32),
                nn.ReLU(),
                nn.Conv2d(32, 512, 3, stride=3),
                nn.ReLU(),
                nn.Conv2d(512, 512, 3),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(2048, 10),
            )
        size = sum(p.numel() for p in net.parameters())
        extra = [WeightManifoldPlugin(Fourier(3))] if name == "manifold" else []
        one = strategy(32, net, *extra)

        def work(one: Any = one) -> None:
            for experience in list(data.train_stream)[:2]:
                one.train(experience, eval_streams=[])

        peaks[name] = peak_bytes(work) / 4 / size
    beyond = peaks["manifold"] - peaks["naive"]
    print(f"\n{kind}, {size:,} weights, K = 7: naive {peaks['naive']:.2f} models, manifold "
          f"{peaks['manifold']:.2f}, beyond naive {beyond:.2f} (allowed K + 3 = 10)")  # fmt: skip
