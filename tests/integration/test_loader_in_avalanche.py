"""Avalanche strategies see the same samples with our loader as without it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from avalanche.benchmarks.utils.data_loader import ReplayDataLoader, TaskBalancedDataLoader
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
from avalanche.training.supervised import Naive
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, default_collate

from cl_manifold.strategies.loader import InMemoryLoaderPlugin, TensorLoader
from cl_manifold.streams import StreamOptions, TaskStream, rotated_digits, split_digits

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified:UserWarning")
OPTIONS = StreamOptions(contexts=2, samples=70, test_samples=30)


class Recorder(SupervisedPlugin[Any]):
    """Writes down every mini-batch and the loaders they came from."""

    def __init__(self) -> None:
        super().__init__()
        self.train: list[list[bytes]] = []
        self.eval: list[list[bytes]] = []
        self.loaders: list[type] = []

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.loaders.append(type(strategy.dataloader))

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.train.append(rows(strategy.mbatch))

    def before_eval_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.eval.append(rows(strategy.mbatch))


def rows(batch: list[torch.Tensor]) -> list[bytes]:
    return [b"".join(value.numpy().tobytes() for value in row) for row in zip(*batch, strict=True)]


def run(stream: TaskStream, *plugins: Any, **options: Any) -> tuple[Recorder, nn.Module]:
    torch.manual_seed(0)
    recorder = Recorder()
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    strategy = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
        train_mb_size=16,
        eval_mb_size=11,
        plugins=[*plugins, recorder],
        evaluator=EvaluationPlugin(),
        **options,
    )
    for experience in stream.train_stream:
        strategy.train(experience, eval_streams=[stream.test_stream])
        strategy.eval(stream.test_stream)
    return recorder, model


def samples(batches: list[list[bytes]]) -> Counter[bytes]:
    return Counter(row for batch in batches for row in batch)


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("build", [rotated_digits, split_digits])
def test_an_epoch_has_the_same_samples(build: Any, labels: bool) -> None:
    stream = build(replace(OPTIONS, task_labels=labels))
    stock, _ = run(stream)
    ours, _ = run(stream, InMemoryLoaderPlugin())
    assert samples(ours.train) == samples(stock.train)
    assert [len(batch) for batch in ours.train] == [len(batch) for batch in stock.train]
    assert ours.eval == stock.eval
    assert set(ours.loaders) == {TensorLoader}
    assert TensorLoader not in stock.loaders


@pytest.mark.parametrize("labels", [False, True])
def test_every_epoch_is_shuffled_anew_also_with_evaluation_in_between(labels: bool) -> None:
    stream = rotated_digits(replace(OPTIONS, contexts=1, task_labels=labels))
    recorder, _ = run(stream, InMemoryLoaderPlugin(), train_epochs=2, eval_every=1)
    first, second = recorder.train[:5], recorder.train[5:]
    assert len(second) == 5
    assert first != second
    assert samples(first) == samples(second)


def test_equal_seeds_give_equal_weights() -> None:
    stream = rotated_digits(OPTIONS)
    a, b = (run(stream, InMemoryLoaderPlugin())[1] for _ in range(2))
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("labels", [False, True])
def test_shuffle_and_drop_last_are_obeyed(labels: bool) -> None:
    stream = rotated_digits(replace(OPTIONS, contexts=1, task_labels=labels))
    recorder, model = Recorder(), nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    strategy = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
        train_mb_size=16,
        plugins=[InMemoryLoaderPlugin(), recorder],
        evaluator=EvaluationPlugin(),
    )
    strategy.train(stream.train_stream[0], shuffle=False, drop_last=True)
    data = stream.train_stream[0].dataset
    expected = [b"".join(torch.as_tensor(v).numpy().tobytes() for v in item) for item in data]
    assert [row for batch in recorder.train for row in batch] == expected[:64]


@pytest.mark.parametrize("first", [True, False])
def test_replay_keeps_its_own_loader(first: bool) -> None:
    stream = rotated_digits(replace(OPTIONS, contexts=3))
    replay, ours = ReplayPlugin(mem_size=20), InMemoryLoaderPlugin()
    recorder, _ = run(stream, *([ours, replay] if first else [replay, ours]))
    assert recorder.loaders == [TensorLoader, ReplayDataLoader, ReplayDataLoader]
    stock, _ = run(stream, ReplayPlugin(mem_size=20))
    assert [len(b) for b in recorder.train] == [len(b) for b in stock.train]
    fresh = {row for batch in recorder.train for row in batch}
    assert fresh == {row for batch in stock.train for row in batch}


class OwnLoader(DataLoader[Any]):
    """A user's loader."""


def own(stream: TaskStream) -> OwnLoader:
    data: Any = stream.train_stream[0].dataset
    return OwnLoader(data, batch_size=16)


def balanced(stream: TaskStream) -> TaskBalancedDataLoader:
    first, second = (experience.dataset for experience in stream.train_stream)
    return TaskBalancedDataLoader(first.concat(second), batch_size=16)


def twice(stream: TaskStream) -> DataLoader[Any]:
    data: Any = stream.train_stream[0].dataset
    sampler = RandomSampler(data, replacement=True, num_samples=140)
    return DataLoader(data, batch_size=16, sampler=sampler)


def reversed_rows(stream: TaskStream) -> DataLoader[Any]:
    data: Any = stream.train_stream[0].dataset
    return DataLoader(data, batch_size=16, collate_fn=lambda b: default_collate(b[::-1]))


FOREIGN: dict[str, Callable[[TaskStream], Any]] = {
    "a list": lambda _: [[torch.zeros(2, 1, 16, 16), torch.zeros(2).long(), torch.zeros(2)]],
    "a subclass": own,
    "several tasks": balanced,
    "other sampling": twice,
    "other collating": reversed_rows,
}


@pytest.mark.parametrize("ours_first", [False, True])
@pytest.mark.parametrize("kind", FOREIGN)
def test_other_loaders_are_left_alone(kind: str, ours_first: bool) -> None:
    stream = rotated_digits(replace(OPTIONS, task_labels=True))
    loader = FOREIGN[kind](stream)
    seen: list[Any] = []

    class Mine(SupervisedPlugin[Any]):
        def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            strategy.dataloader = loader

        def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            seen.append(strategy.dataloader)

    plugins = [Mine(), InMemoryLoaderPlugin()]
    run(stream, *(plugins[::-1] if ours_first else plugins))
    assert len(seen) == 2
    assert all(used is loader for used in seen)


def test_evaluation_data_are_read_once() -> None:
    stream, plugin = rotated_digits(OPTIONS), InMemoryLoaderPlugin()
    run(stream, plugin)
    assert len(plugin.cache) == len(stream.test_stream)
    small = InMemoryLoaderPlugin(cache_bytes=0)
    run(stream, small)
    assert len(small.cache) == 0


def test_data_that_are_too_large_are_read_avalanches_way() -> None:
    recorder, _ = run(rotated_digits(OPTIONS), InMemoryLoaderPlugin(dataset_bytes=1000))
    assert TensorLoader not in recorder.loaders
