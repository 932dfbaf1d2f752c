"""Steps per second with half of 60,000 images in memory, against all of them."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from PIL import Image
from torch import nn

from cl_manifold.networks import cnn
from cl_manifold.strategies.loader import InMemoryLoaderPlugin
from cl_manifold.strategies.materialise import layout_of
from cl_manifold.streams import StreamOptions, TaskStream, load_mnist, rotated
from cl_manifold.streams.listing import listed_folder
from cl_manifold.streams.stored import in_memory, stored

WORKERS, BATCH, SIZE = 2, 64, 28 * 28


def written(folder: Path, data: Path) -> Path:
    mnist = load_mnist(data)
    for part, x, y in (
        ("train", mnist.train_x, mnist.train_y),
        ("test", mnist.test_x[:100], mnist.test_y[:100]),
    ):
        for label in range(10):
            (folder / part / str(label)).mkdir(parents=True)
        for row, (image, label) in enumerate(zip(x, y.tolist(), strict=True)):
            place = folder / part / str(label) / f"{row:05}.png"
            Image.fromarray(image[0].numpy()).save(place, compress_level=1)
    return folder


def seconds(stream: TaskStream) -> float:
    """One epoch of the first experience."""
    torch.manual_seed(0)
    model: nn.Module = cnn((1, 28, 28), (16, 32, 32), 10)
    strategy: Any = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
        train_mb_size=BATCH,
        plugins=[InMemoryLoaderPlugin(workers=WORKERS)],
        evaluator=EvaluationPlugin(),
    )
    start = time.perf_counter()
    strategy.train(stream.train_stream[0], eval_streams=[])
    return time.perf_counter() - start


@pytest.mark.benchmark
@pytest.mark.filterwarnings("ignore:No loggers specified:UserWarning")
def test_images_benchmark(tmp_path: Path, mnist_dir: Path) -> None:
    listing = listed_folder(written(tmp_path / "mnist", mnist_dir))
    budget = len(listing.label) * SIZE // 2
    options = StreamOptions(contexts=1)
    half = rotated(stored(listing, budget, WORKERS), options)
    [part] = layout_of(half.train_stream[0].dataset).parts
    kept = part.leaf.pixels.kept.nbytes
    steps = -(-60_000 // BATCH)
    whole = steps / seconds(rotated(in_memory(listing, WORKERS), options))
    some = steps / seconds(half)
    print(f"\nMNIST as 60,000 PNG, CNN 16-32-32, batches of {BATCH}, {WORKERS} workers: "
          f"{whole:.0f} steps/s in memory, {some:.0f} steps/s with {kept / 2**20:.1f} of "
          f"{budget / 2**20:.1f} MiB kept: {some / whole:.0%}")  # fmt: skip
    assert kept <= budget
