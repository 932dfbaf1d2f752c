"""CASES.md, B: one context is one coordinate, one open visit and one task."""

from typing import Any

import pytest
import torch
from avalanche.benchmarks import split_online_stream

from cl_manifold.contexts import ByExperience
from cl_manifold.geometry import Fourier, Vertices
from cl_manifold.manifold.information import ExactInformation
from cl_manifold.strategies import WeightManifoldPlugin

from .parts import (
    Scores,
    accuracies,
    accuracy_at,
    benchmark,
    blobs,
    context,
    evaluated,
    mlp,
    naive,
    tasks,
    vertices,
    walk,
)

DEGREE = 1 / 360


def exact(contexts: Any, harmonics: int = 1) -> Any:
    policy = ByExperience([torch.as_tensor(c) for c in contexts])
    return WeightManifoldPlugin(Fourier(harmonics), contexts=policy, information=ExactInformation())


def degrees(*angles: float) -> list[torch.Tensor]:
    """Float32, as data loaders bring them."""
    return [torch.tensor([a], dtype=torch.float32) / 360 for a in angles]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("angles", [(350, -10), (350, 90, -10), (-10, 200, 90, 350)])
def test_350_and_minus_10_degrees_are_one_coordinate(angles: tuple[int, ...]) -> None:
    """In float32 they are 1.3e-8 apart: a return, which takes the place of the first visit."""
    data = tasks(len(angles))
    plugin = exact(degrees(*angles))
    strategy = naive(plugin, mlp())
    walk(strategy, benchmark(data).train_stream)
    assert plugin.traces[-1].decision == "reuse"
    for a, d in list(zip(angles, data, strict=True))[1:]:
        assert accuracy_at(strategy, plugin, context(a * DEGREE), d) >= 0.99


def test_a_context_twice_is_admitted_in_exact_mode() -> None:
    first, second = blobs(0, 100), blobs(0, 100, seed=0)
    plugin = exact([[0.25], [0.25], [0.75]])
    strategy = naive(plugin, mlp())
    walk(strategy, benchmark([first, second, blobs(1)]).train_stream)
    assert [t.decision for t in plugin.traces] == ["place", "reuse", "place"]
    assert accuracy_at(strategy, plugin, context(0.25), second) >= 0.99
    assert accuracy_at(strategy, plugin, context(0.75), blobs(1)) >= 0.99


@pytest.mark.parametrize("protection", ["exact", "Fisher"])
def test_an_online_stream_of_one_context_is_one_visit(protection: str) -> None:
    """What is stored after 40 chunks is what is stored after one."""
    data = blobs(0, 400)
    parts = list(split_online_stream(benchmark([data]).train_stream, 10, seed=1))
    assert len(parts) == 40
    information = ExactInformation() if protection == "exact" else None
    policy = ByExperience([[0.25]] * 40)
    plugin: Any = WeightManifoldPlugin(Fourier(1), contexts=policy, information=information)
    strategy = naive(plugin, mlp(), train_mb_size=10, train_epochs=2)
    strategy.train(parts[0], eval_streams=[])
    once, free = plugin.stored_floats, plugin.manifold.plasticity(context(0.5))
    walk(strategy, parts[1:])
    assert len(plugin.traces) == 40
    assert plugin.stored_floats == once
    # forty visits would leave a fortieth
    assert plugin.manifold.plasticity(context(0.5)) > 0.5 * free
    assert accuracy_at(strategy, plugin, context(0.25), data) >= 0.99


def test_degrees_on_a_circle_of_period_one_are_warned_of() -> None:
    """0, 90 and 180 all wrap to 0: three tasks at one coordinate."""
    policy = ByExperience([[0.0], [90.0], [180.0]])
    plugin = WeightManifoldPlugin(Fourier(1), contexts=policy)
    strategy = naive(plugin, mlp(), train_epochs=1)
    stream = benchmark(tasks(3)).train_stream
    with pytest.warns(UserWarning, match=r"(?i)period|wrap|coincide|same"):
        walk(strategy, stream)


def test_parts_of_an_experience_have_the_context_of_the_whole() -> None:
    """An online stream counts its parts; `ByExperience` goes by the experience they are from."""
    data, scores = tasks(5), Scores()
    made = benchmark(data)
    plugin = WeightManifoldPlugin(Vertices(5), contexts=vertices(5))
    strategy = naive(plugin, mlp(), scores, train_mb_size=10, train_epochs=4)
    walk(strategy, split_online_stream(made.train_stream, 50, seed=1))
    assert min(evaluated(strategy, scores, made.test_stream)) >= 0.97, scores.last
    assert min(accuracies(strategy, plugin, data)) >= 0.97
