"""How well a plan, made without data, ranks what streams cost their tasks.

    python -m pytest -o addopts= -m benchmark tests/benchmark/test_plan_benchmark.py -s

Takes about a quarter of an hour on one core. For each pair of a stream and a topology, mean of
seeds 0–4 (a single seed ranges from 0.7 to 0.9):

    predicted   what the plan says the topology refuses
    shortfall   mean over tasks of (accuracy right after unconstrained fine-tuning along the stream
                − accuracy right after training on the manifold), same network, order and budget

The statistic was chosen on seeds 0 and 1. Noise levels are the hard case: these tasks are nearly
one task, which no plan can know.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import mean
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from scipy.stats import spearmanr
from torch import nn

from cl_manifold.contexts.plan import plan
from cl_manifold.geometry import (
    Basis,
    Bernstein,
    Fourier,
    PeriodicBSpline,
    Vertices,
    random_codes,
)
from cl_manifold.networks import mlp
from cl_manifold.strategies import (
    FreshOptimizerPlugin,
    InMemoryLoaderPlugin,
    LinearDecayPlugin,
    WeightManifoldPlugin,
)
from cl_manifold.streams import StreamOptions, TaskStream, load_digits, noisy, permuted, rotated

SEEDS = (0, 1, 2, 3, 4)
CIRCLES: Mapping[str, Basis] = {f"circle:{h}": Fourier(h) for h in (0, 1, 2, 3, 5)} | {
    "spline:5": PeriodicBSpline(5, 3, 1.0),
    "interval:3": Bernstein(3),
    "interval:6": Bernstein(6),
}
INTERVALS: Mapping[str, Basis] = {f"interval:{d}": Bernstein(d) for d in (0, 1, 2, 3, 5)} | {
    "circle:2": Fourier(2)
}


def problems(seed: int) -> list[tuple[Callable[..., TaskStream], int, Mapping[str, Basis], float]]:
    """Stream, number of tasks, topologies, strength of the prior."""
    unrelated = [(permuted, n, codes(n, seed), 1e-5) for n in (10, 6)]
    circles = [(rotated, n, CIRCLES, 1e-4) for n in (12, 24)]
    return [*circles, (noisy, 10, INTERVALS, 1e-4), *unrelated]


def codes(count: int, seed: int) -> dict[str, Basis]:
    found: dict[str, Basis] = {f"codes:{k}": random_codes(k, count, seed) for k in (1, 2, 3, 5, 8)}
    return found | {"simplex": Vertices(count)}


def accuracy(stream: TaskStream, seed: int, extra: Sequence[SupervisedPlugin]) -> float:
    """Mean over the tasks of the accuracy right after training."""
    torch.manual_seed(seed)
    net = mlp(stream.input_shape, (64, 64), stream.outputs)
    strategy = Naive(
        model=net,
        optimizer=torch.optim.Adam(net.parameters(), lr=1e-3),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=16,
        train_epochs=5,
        evaluator=EvaluationPlugin(),
        plugins=[InMemoryLoaderPlugin(), FreshOptimizerPlugin(), LinearDecayPlugin(), *extra],
    )
    found: list[float] = []
    for experience, test in zip(stream.train_stream, stream.test_stream, strict=True):
        strategy.train(experience, eval_streams=[])
        found.append(_accuracy(net, test))
    return mean(found)


def _accuracy(net: nn.Module, experience: Any) -> float:
    batches = torch.utils.data.DataLoader(experience.dataset, batch_size=1000)
    with torch.no_grad():
        right = [(net(x).argmax(1) == y).double() for x, y, *_ in batches]
    return float(torch.cat(right).mean())


Pair = tuple[str, str]


def measured(seed: int) -> Iterator[tuple[Pair, float, float]]:
    """(stream, topology), what the plan says is refused, and the shortfall."""
    for make, count, bases, strength in problems(seed):
        stream = make(load_digits(), StreamOptions(contexts=count, samples=400, seed=seed))
        free, contexts = accuracy(stream, seed, []), stream.contexts()
        for name, basis in bases.items():
            item = plan(contexts, basis, name=name, space=stream.topology, strength=strength)
            manifold = WeightManifoldPlugin(basis, price=100.0, strength=strength)
            shortfall = free - accuracy(stream, seed, [manifold])
            yield (f"{stream.name} {count}", name), item.refused, shortfall


@pytest.mark.benchmark
def test_a_plan_ranks_what_streams_cost_their_tasks() -> None:
    found: dict[Pair, list[tuple[float, float]]] = {}
    for seed in SEEDS:
        for pair, refused, shortfall in measured(seed):
            found.setdefault(pair, []).append((refused, shortfall))
    rows = {pair: [mean(column) for column in zip(*v, strict=True)] for pair, v in found.items()}
    print("\n| stream | topology | refused (plan) | shortfall (measured) |\n|---|---|---|---|")
    for (stream, name), (refused, shortfall) in rows.items():
        print(f"| {stream} | {name} | {refused:.3f} | {shortfall:+.3f} |")
    spearman: Any = spearmanr
    agreement = float(spearman(*zip(*rows.values(), strict=True))[0])
    print(f"\nSpearman {agreement:.3f} over {len(rows)} pairs, mean of seeds {SEEDS}")
    assert len(rows) >= 30
    assert agreement >= 0.8
