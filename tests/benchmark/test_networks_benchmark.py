"""What the weight manifold costs beside training a ResNet-18 of its usual width.

The time of a training step is that of an epoch divided by its steps. Everything else of an
experience, which a longer one pays only once, is timed beside it: checking weights out before the
first epoch; Fisher information, commit and what else follows the last.
"""

import os
import time
from statistics import median
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from torch import nn

from cl_manifold.geometry import Fourier
from cl_manifold.manifold.information import FisherInformation
from cl_manifold.networks import resnet18
from cl_manifold.strategies import FreshOptimizerPlugin, InMemoryLoaderPlugin, WeightManifoldPlugin
from cl_manifold.streams import ImageSet, StreamOptions, TaskStream, rotated

BATCH, STEPS, TASKS = 64, int(os.environ.get("STEPS", "20")), 2
IMAGES, EPOCHS = 10_000, 5
"""Of an experience of realistic length: 157 steps an epoch."""
ALLOWED = 0.03
SAMPLES = int(os.environ.get("INFORMATION_SAMPLES", "256"))
pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.filterwarnings("ignore:No loggers specified:UserWarning"),
]


class Stopwatch(SupervisedPlugin, supports_distributed=True):
    """Seconds of the processor, which other programs do not change, from lap to lap."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[float] = []
        self.started: list[float] = []
        self.ended: list[float] = []
        self.at = 0.0

    def lap(self) -> float:
        """Seconds since the last lap."""
        then, self.at = self.at, time.process_time()
        return self.at - then

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        self.started.append(self.lap())

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        self.steps.append(self.lap() / len(strategy.dataloader))


def stream() -> TaskStream:
    count = BATCH * STEPS
    x = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    y = torch.arange(count) % 10
    return rotated(ImageSet("noise", x, y, x[:10], y[:10]), StreamOptions(contexts=TASKS))


def timed(*plugins: Any) -> Stopwatch:
    """One epoch of each task."""
    torch.manual_seed(0)
    net, watch = resnet18((3, 32, 32), 10), Stopwatch()
    strategy = Naive(
        model=net,
        optimizer=torch.optim.Adam(net.parameters(), lr=1e-3),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=BATCH,
        train_epochs=1,
        plugins=[InMemoryLoaderPlugin(), FreshOptimizerPlugin(), *plugins, watch],
        evaluator=EvaluationPlugin(),
    )
    for experience in stream().train_stream:
        watch.at = time.process_time()
        strategy.train(experience, eval_streams=[])
        watch.ended.append(watch.lap())
    return watch


def test_the_share_of_check_out_and_commit_in_training_a_resnet() -> None:
    """Beyond what Naive does before and after its epochs; on one thread."""
    torch.set_num_threads(1)
    naive = timed()
    ours = timed(WeightManifoldPlugin(Fourier(3), information=FisherInformation(SAMPLES)))
    step, plain = median(ours.steps), median(naive.steps)
    parts = {
        name: max(median(getattr(ours, name)) - median(getattr(naive, name)), 0.0)
        for name in ("started", "ended")
    }
    extra = sum(parts.values())
    steps = -(-IMAGES // BATCH)
    print(
        f"\nResNet-18, width 64, 32×32, batch {BATCH}, one thread, "
        f"{SAMPLES} samples of information, K = 7, {TASKS} tasks of {STEPS} steps: "
        f"{step:.3f} s/step (naive {plain:.3f}), check-out {parts['started']:.2f} s, "
        f"information and commit {parts['ended']:.2f} s"
    )
    for epochs in (1, EPOCHS):
        whole = steps * epochs * step
        print(f"  {IMAGES:,} images × {epochs} epochs = {steps * epochs} steps: "
              f"{extra / whole:.2%} of {whole:.0f} s")  # fmt: skip
    print(f"  {ALLOWED:.0%} from {extra / ALLOWED / step:.0f} steps on")
    assert extra < ALLOWED * steps * EPOCHS * step
