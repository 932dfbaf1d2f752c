"""ConditionedTraining in Avalanche: contexts travel with their samples."""

from typing import Any

import pytest
import torch
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.training.plugins import ReplayPlugin
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from cl_manifold.errors import ContextError
from cl_manifold.geometry import Fourier, TensorProduct
from cl_manifold.manifold.module import ManifoldModule
from cl_manifold.manifold.natural_step import NaturalStep
from cl_manifold.strategies import InMemoryLoaderPlugin, ScorePlugin
from cl_manifold.strategies.conditioned import (
    ConditionedTraining,
    conditioned_benchmark,
    conditioned_dataset,
    jointly,
    with_sample_contexts,
)
from cl_manifold.streams import StreamOptions, rotated_digits


def samples(count: int, seed: int, dim: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Points of the plane, whose class is the side of a line that turns with the context."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 2, generator=generator)
    contexts = torch.rand(count, dim, generator=generator, dtype=torch.float64)
    angle = 2 * torch.pi * contexts[:, 0]
    y = (x[:, 0] * angle.cos() + x[:, 1] * angle.sin() > 0).long()
    return x, y, contexts


class Witness(nn.Module):
    """Remembers what it was given; answers class 1."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(classes)[1])
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        self.seen.append((x.detach().clone(), context.clone()))
        return self.weight.expand(len(x), -1)


def strategy_of(model: nn.Module, *plugins: Any, **options: Any) -> ConditionedTraining:
    return ConditionedTraining(
        model=model,
        optimizer=options.pop("optimizer", torch.optim.SGD(model.parameters(), lr=0.1)),
        plugins=list(plugins),
        train_mb_size=8,
        eval_mb_size=32,
        evaluator=None,
        **options,
    )


def pairs(model: Witness) -> dict[tuple[float, ...], tuple[float, ...]]:
    return {
        tuple(x.tolist()): tuple(c.tolist())
        for batch, contexts in model.seen
        for x, c in zip(batch, contexts, strict=True)
    }


@pytest.mark.parametrize("dim", [1, 2])
def test_every_sample_keeps_its_context_on_the_way_to_the_model(dim: int) -> None:
    parts = [samples(20, seed, dim) for seed in (0, 1)]
    benchmark = conditioned_benchmark(parts, parts)
    model = Witness()
    strategy = strategy_of(model)
    for experience in benchmark.streams["train"]:
        strategy.train(experience)
    strategy.eval(benchmark.streams["test"])
    x, contexts = (torch.cat([part[i] for part in parts]) for i in (0, 2))
    expected = {tuple(a.tolist()): tuple(c.tolist()) for a, c in zip(x, contexts, strict=True)}
    assert pairs(model) == expected


def test_contexts_survive_subsets_replay_and_joining() -> None:
    parts = [samples(24, seed) for seed in (0, 1)]
    benchmark = conditioned_benchmark(parts, parts)
    x, contexts = (torch.cat([part[i] for part in parts]) for i in (0, 2))
    expected = {tuple(a.tolist()): tuple(c.tolist()) for a, c in zip(x, contexts, strict=True)}
    model = Witness()
    strategy = strategy_of(model, ReplayPlugin(mem_size=10))
    for experience in benchmark.streams["train"]:
        strategy.train(experience)
    assert pairs(model) == expected
    assert sum(len(batch) for batch, _ in model.seen) > 48
    joined = jointly(list(benchmark.streams["train"]))
    assert len(joined.dataset) == 48
    model = Witness()
    strategy_of(model).train(joined)
    assert pairs(model) == expected
    half = with_sample_contexts(AvalancheDataset([joined.dataset]), contexts).subset([5, 30])
    assert torch.equal(half[1][2], contexts[30])


def test_training_on_all_contexts_at_once_learns_the_turning_line() -> None:
    parts = [samples(300, seed) for seed in (0, 1)]
    benchmark = conditioned_benchmark(parts, [samples(300, 9)])
    accuracy = ScorePlugin()
    net = ManifoldModule(nn.Linear(2, 2), Fourier(1))
    optimizer = NaturalStep(torch.optim.SGD(net.parameters(), lr=0.2, momentum=0.9), net)
    strategy = strategy_of(net, accuracy, optimizer=optimizer, train_epochs=10)
    strategy.train(jointly(list(benchmark.streams["train"])))
    assert accuracy.measure(strategy, benchmark.streams["test"])[0] > 0.95
    blind = Witness()
    plain = strategy_of(blind, accuracy)
    assert accuracy.measure(plain, benchmark.streams["test"])[0] < 0.6


def test_the_same_steps_as_a_plain_loop() -> None:
    x, y, contexts = samples(40, 0)
    torch.manual_seed(1)
    linear = nn.Linear(2, 2)
    nets = [ManifoldModule(linear, Fourier(1)) for _ in range(2)]
    steps = [NaturalStep(torch.optim.Adam(net.parameters(), lr=0.05), net) for net in nets]
    torch.manual_seed(2)
    order = torch.randperm(40)
    for rows in order.split(8):
        steps[0].zero_grad()
        nn.functional.cross_entropy(nets[0](x[rows], contexts[rows]), y[rows]).backward()
        steps[0].step()
    [train] = conditioned_benchmark([(x, y, contexts)], []).streams["train"]
    strategy = strategy_of(nets[1], optimizer=steps[1])
    torch.manual_seed(2)
    strategy.train(train)
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(a, b)
    state = strategy.optimizer.state_dict()["state"]
    assert [int(entry["step"]) for entry in state.values()] == [5, 5]


def test_task_labels_become_contexts() -> None:
    x, y, _ = samples(12, 0)
    places = torch.tensor([[0.1], [0.7]], dtype=torch.float64)
    labelled = [conditioned_dataset(x, y, places[[t]].expand(12, 1), task_label=t) for t in (0, 1)]
    assert [float(c) for c in labelled[1][0][2:]] == [pytest.approx(0.7), 1]
    benchmark = rotated_digits(StreamOptions(contexts=2, samples=16, task_labels=True))
    model = Witness(10)
    strategy = strategy_of(model, task_contexts=places)
    strategy.eval(benchmark.test_stream)
    labels = [e.task_label for e in benchmark.test_stream for _ in range(450)]
    told = torch.cat([c for _, c in model.seen])
    assert torch.equal(told, places[labels])
    strategy = strategy_of(model, task_contexts=places[:1])
    with pytest.raises(ContextError, match=r"task label 1 has no context: task_contexts has 1 row"):
        strategy.eval(benchmark.test_stream)


def test_the_context_of_an_experience_serves_the_whole_batch() -> None:
    benchmark = rotated_digits(StreamOptions(contexts=3, samples=16, test_samples=8))
    model = Witness(10)
    strategy_of(model).eval(benchmark.test_stream)
    told = torch.stack([c for _, c in model.seen])
    assert torch.equal(told, torch.stack([e.context for e in benchmark.test_stream]))


def test_contexts_of_several_coordinates_reach_a_product() -> None:
    x, y, contexts = samples(32, 0, dim=2)
    [train] = conditioned_benchmark([(x, y, contexts)], []).streams["train"]
    net = ManifoldModule(nn.Linear(2, 2), TensorProduct(Fourier(1), Fourier(1)))
    before = [p.detach().clone() for p in net.parameters()]
    strategy_of(net).train(train)
    assert all(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_what_is_said_without_usable_contexts() -> None:
    x, y, contexts = samples(6, 0)
    with pytest.raises(ContextError, match=r"contexts of shape \(5, 1\) for 6 samples"):
        conditioned_dataset(x, y, contexts[:5])
    with pytest.raises(ContextError, match=r"contexts of shape \(6,\) for 6 samples"):
        with_sample_contexts(AvalancheDataset([TensorDataset(x, y)]), contexts[:, 0])
    with pytest.raises(ContextError, match="not a finite number"):
        conditioned_dataset(x, y, contexts * float("nan"))
    bare: Any = rotated_digits(StreamOptions(contexts=2, samples=8)).train_stream[0]
    bare.context = None
    with pytest.raises(ContextError, match="experience 0 carry no context"):
        strategy_of(Witness()).train(bare)
    net = ManifoldModule(nn.Linear(2, 2), TensorProduct(Fourier(1), Fourier(1)))
    [train] = conditioned_benchmark([(x, y, contexts)], []).streams["train"]
    with pytest.raises(ContextError, match="1 number, but product needs 2"):
        strategy_of(net).train(train)


def test_the_loader_is_the_one_in_memory() -> None:
    [train] = conditioned_benchmark([samples(16, 0)], []).streams["train"]
    strategy = strategy_of(Witness())
    strategy.train(train)
    assert any(isinstance(p, InMemoryLoaderPlugin) for p in strategy.plugins)
