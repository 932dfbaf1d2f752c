"""Accuracy with contexts inferred at test time, beside contexts given.

    export CL_MANIFOLD_DATA_DIR=data
    python -m pytest -o addopts= -m benchmark tests/benchmark/test_inference_benchmark.py -s

Takes about 25 minutes on two busy cores. Settings were chosen on validation images with seed 0
(CL_MANIFOLD_BENCHMARK_HOLDOUT=validation); the table is on test images.
"""

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor

from cl_manifold.contexts.encoder import RandomFeatureEncoder
from cl_manifold.contexts.inference import ContextInference, InferenceSettings
from cl_manifold.contexts.sweep import logits_at
from cl_manifold.experiments.build import build_network, build_strategy, build_stream
from cl_manifold.experiments.config import RunConfig, resolve
from cl_manifold.geometry import Circle
from cl_manifold.manifold.weight_manifold import WeightManifold
from cl_manifold.strategies import WeightManifoldPlugin
from cl_manifold.streams import (
    ContextExperience,
    ImageDataset,
    StreamFacts,
    TaskStream,
    load_mnist,
    rotate,
    validation_split,
)

SEEDS = (0, 1)
HOLDOUT = os.environ.get("CL_MANIFOLD_BENCHMARK_HOLDOUT", "test")
SMALL = 400
"""Images per context where batches are small or the network judges every candidate."""


@dataclass(frozen=True)
class Trained:
    """A stream, its manifold and its encoder."""

    stream: TaskStream
    manifold: WeightManifold
    encoder: RandomFeatureEncoder
    seconds: tuple[float, float]


def half_circle(folder: Path, seed: int) -> TaskStream:
    """20 random angles in [0°, 180°), 10,000 training and 2,000 test images each."""
    images = load_mnist(folder)
    images = validation_split(images) if HOLDOUT == "validation" else images
    generator = torch.Generator().manual_seed(1000 + seed)
    turns = torch.rand(20, 1, generator=generator, dtype=torch.float64) / 2

    def experiences(x: Tensor, y: Tensor, count: int) -> list[ContextExperience]:
        found: list[ContextExperience] = []
        for turn in turns:
            rows = torch.randperm(len(y), generator=generator)[:count]
            turned = rotate(x[rows], 360 * float(turn))
            data = ImageDataset(turned, y[rows], *images.moments)
            found.append(ContextExperience(data, turn, f"{360 * float(turn):.0f}°"))
        return found

    facts = StreamFacts("half-circle", "", Circle(), 10, images.input_shape, images.digest)
    train = experiences(images.train_x, images.train_y, 10_000)
    return TaskStream(facts, train, experiences(images.test_x, images.test_y, 2_000))


def tensors(experience: Any) -> tuple[Tensor, Tensor]:
    """Normalised images and classes of an experience."""
    data = experience.dataset
    images = [data[i][0] for i in range(len(data))]
    return torch.stack(images), torch.tensor(list(data.targets))


def trained(name: str, folder: Path, seed: int) -> Trained:
    stream_name = "rotated-mnist" if name == "half-circle" else name
    values = {"stream.name": stream_name, "stream.holdout": HOLDOUT, "seed": seed}
    config: RunConfig = resolve([("benchmark", values)]).config
    if name == "half-circle":
        stream = half_circle(folder, seed)
    else:
        stream = build_stream(config.stream, folder, seed)
    network = build_network(config, stream)
    strategy = build_strategy(config, stream, network, [], EvaluationPlugin(loggers=[]))
    (plugin,) = [p for p in strategy.plugins if isinstance(p, WeightManifoldPlugin)]
    encoder, spent = RandomFeatureEncoder(stream.topology), [0.0, 0.0]
    for experience in stream.train_stream:
        x, y = tensors(experience)
        start = time.perf_counter()
        strategy.train(experience, eval_streams=[])
        middle = time.perf_counter()
        encoder.learn(x, y, experience.context)
        spent = [spent[0] + middle - start, spent[1] + time.perf_counter() - middle]
    assert plugin.manifold is not None
    return Trained(stream, plugin.manifold, encoder, (spent[0], spent[1]))


def row(found: Trained, inference: ContextInference, batch: int, count: int | None) -> str:
    """Accuracy, accuracy with contexts given on the same images, contexts found, seconds."""
    manifold = found.manifold
    topology = manifold.basis.topology
    right = given = near = total = 0
    seconds = 0.0
    inference.prepare(manifold)
    for experience in found.stream.test_stream:
        x, y = (part[:count] for part in tensors(experience))
        context = topology.wrap(experience.context)
        answer = logits_at(manifold, context[None], (x,))[0]
        given += int((answer.argmax(-1) == y).sum())
        total += len(y)
        start = time.perf_counter()
        inferred = inference.predict((x,), batch)
        seconds += time.perf_counter() - start
        right += int((inferred.logits.argmax(-1) == y).sum())
        away = topology.distance(inferred.contexts, context.expand_as(inferred.contexts))
        near += int((away <= 20 / 360 + 1e-9).sum())
    return (
        f"{right / total:.4f} | {given / total:.4f} | {100 * (right - given) / total:+.2f} | "
        f"{near / total:.4f} | {seconds:.0f}"
    )


@pytest.mark.benchmark
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["rotated-mnist", "half-circle", "split-mnist"])
def test_inference(name: str, seed: int, mnist_dir: Path) -> None:
    torch.manual_seed(seed)
    found = trained(name, mnist_dir, seed)
    encoder, usual = found.encoder, InferenceSettings()
    print(
        f"\n{name}, seed {seed}, {HOLDOUT}: network {found.seconds[0]:.0f} s, encoder "
        f"{found.seconds[1]:.0f} s, τ {encoder.temperature:.1f}, "
        f"{encoder.stored_floats:,} floats beside {found.manifold.stored_floats:,}"
    )
    print("| inferred by | images at a time | acc | given | points | context found | s |")
    print("|---|---|---|---|---|---|---|")
    plain = replace(usual, steps=0)
    cases = [
        ("encoder and entropy, refined", encoder, usual, 64, None),
        ("encoder and entropy", encoder, plain, 64, None),
        ("encoder and entropy", encoder, plain, 8, SMALL),
        ("encoder and entropy", encoder, plain, 1, None),
        ("entropy", None, plain, 64, SMALL),
        ("entropy", None, plain, 8, SMALL),
        ("entropy", None, plain, 1, SMALL),
    ]
    for words, helper, settings, batch, count in cases:
        line = row(found, ContextInference(helper, settings), batch, count)
        print(f"| {words} | {batch} | {line} |", flush=True)
