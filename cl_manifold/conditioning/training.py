"""Training and testing one system: batches with a context per sample, made on the fly.

The batches depend on the seed alone, so that all systems see the same ones.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float32, Float64, Int64, UInt8
from torch import Tensor, nn

from cl_manifold.conditioning.problems import Problem, draw, evaluation_contexts, in_range
from cl_manifold.errors import TrainingError
from cl_manifold.streams import ImageSet

REPORTS = 20
"""How often training reports how far it is."""
TEST_BATCH = 500


@final
@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """Test images at every tested context, changed once and kept as bytes.

    Attributes:
        contexts: one per cell.
        seen: whether training sees such contexts.
        images: n images for each context.
        targets: their classes.
        told: for each image a wrong context: another one of the trained range (the image's own
            where there is only one).
        moments: mean and standard deviation by which images are normalised.
    """

    contexts: Float64[Tensor, "cells dim"]
    seen: Bool[Tensor, " cells"]
    images: UInt8[Tensor, "cells n C H W"]
    targets: Int64[Tensor, "cells n"]
    told: Float64[Tensor, "cells n dim"]
    moments: tuple[float, float]


@final
@dataclass(frozen=True)
class Found:
    """What one system reached with one seed.

    Attributes:
        accuracy: at every tested context, in [0, 1].
        wrong_context: mean over the trained range when told another context.
        seconds: time in training steps, without making the batches.
    """

    accuracy: tuple[float, ...]
    wrong_context: float
    seconds: float


def normalised(
    images: Float32[Tensor, "*batch C H W"], moments: tuple[float, float]
) -> Float32[Tensor, "*batch C H W"]:
    """(x − mean) / std."""
    return (images - moments[0]) / moments[1]


def batches(
    problem: Problem, pictures: ImageSet, steps: int, batch_size: int, seed: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Images normalised, classes and contexts of each step; images drawn with replacement."""
    generator = torch.Generator().manual_seed(seed)
    moments = pictures.moments
    for _ in range(steps):
        rows = torch.randint(len(pictures.train_x), (batch_size,), generator=generator)
        contexts = draw(problem, batch_size, generator)
        images = problem.apply(pictures.train_x[rows].float() / 255, contexts, generator)
        yield normalised(images, moments), pictures.train_y[rows], contexts


@torch.no_grad()
def evaluation_set(problem: Problem, pictures: ImageSet, per_context: int) -> EvaluationSet:
    """The test images at every tested context, the same for all systems and seeds.

    Each context takes the next `per_context` test images in a fixed random order, or all there are.
    """
    generator = torch.Generator().manual_seed(0)
    total = len(pictures.test_x)
    count = min(per_context, total)
    order = torch.randperm(total, generator=generator)
    contexts = evaluation_contexts(problem)
    images, targets = [], []
    for cell, context in enumerate(contexts):
        rows = order[(cell * count + torch.arange(count)) % total]
        changed = problem.apply(
            pictures.test_x[rows].float() / 255, context.expand(count, -1), generator
        )
        images.append((changed * 255).round_().to(torch.uint8))
        targets.append(pictures.test_y[rows])
    seen = in_range(problem, contexts)
    told = _wrong(contexts, seen, count, generator)
    moments = pictures.moments
    return EvaluationSet(contexts, seen, torch.stack(images), torch.stack(targets), told, moments)


def _wrong(contexts: Tensor, seen: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """For every image a context of the trained range that is not its own."""
    known = seen.nonzero().squeeze(-1)
    place = torch.zeros(len(contexts), dtype=torch.int64)
    place[known] = torch.arange(len(known))
    others = max(1, len(known) - 1)
    step = 1 + torch.randint(others, (len(contexts), count), generator=generator)
    return contexts[known[(place[:, None] + step) % len(known)]]


def train(
    module: nn.Module,
    optimizer: Any,
    stream: Iterator[tuple[Tensor, Tensor, Tensor]],
    steps: int,
    report: Callable[[int], None],
) -> float:
    """Minimise the cross-entropy; returns the seconds spent in steps.

    Raises:
        TrainingError: the loss is not finite.
    """
    module.train()
    every, seconds = max(1, steps // REPORTS), 0.0
    loss = torch.zeros(())
    for step, (x, y, contexts) in enumerate(stream, 1):
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = F.cross_entropy(module(x, contexts), y)
        loss.backward()
        optimizer.step()
        seconds += time.perf_counter() - start
        if step % every == 0 or step == steps:
            if not bool(loss.isfinite()):
                raise TrainingError(
                    f"the loss became {float(loss.detach())} at step {step}; lower the learning "
                    "rate, or leave this system out with --systems"
                )
            report(step)
    return seconds


@torch.no_grad()
def accuracies(module: nn.Module, test: EvaluationSet) -> tuple[tuple[float, ...], float]:
    """Accuracy at every tested context, and the mean in range when told a wrong one."""
    module.eval()
    at = [_accuracy(module, test, cell, context) for cell, context in enumerate(test.contexts)]
    known = test.seen.nonzero().squeeze(-1).tolist()
    wrong = [_accuracy(module, test, cell, test.told[cell]) for cell in known]
    return tuple(at), sum(wrong) / len(wrong)


def _accuracy(module: nn.Module, test: EvaluationSet, cell: int, context: Tensor) -> float:
    """Accuracy on the images of a cell, told one context or one for each image."""
    right = 0
    for rows in torch.arange(len(test.targets[cell])).split(TEST_BATCH):
        x = normalised(test.images[cell, rows].float() / 255, test.moments)
        answers = module(x, context if context.ndim == 1 else context[rows]).argmax(-1)
        right += int((answers == test.targets[cell, rows]).sum())
    return right / len(test.targets[cell])
