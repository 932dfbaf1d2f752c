"""Contexts that experiences carry for good, whatever the benchmark does with them."""

from typing import Any

import pytest
import torch
from avalanche.benchmarks import dataset_benchmark
from avalanche.benchmarks.utils.classification_dataset import (
    _make_taskaware_classification_dataset,
)
from torch.utils.data import TensorDataset

from cl_manifold.errors import ContextError
from cl_manifold.strategies import with_contexts


def benchmark(train: int, test: int, other: int) -> Any:
    """Classic streams, which build an experience anew each time it is asked for."""

    def parts(count: int) -> list[Any]:
        targets: Any = [0, 1]
        pair: Any = TensorDataset(torch.zeros(2, 1), torch.arange(2))
        make: Any = _make_taskaware_classification_dataset
        return [make(pair, task_labels=i, targets=targets) for i in range(count)]

    return dataset_benchmark(
        parts(train), parts(test), other_streams_datasets={"other": parts(other)}
    )


def test_streams_as_long_as_the_training_stream_have_its_contexts() -> None:
    made = benchmark(3, 3, 2)
    told = with_contexts(made, [0.5, 0.25, 0.75])
    for name in ("train", "test"):
        for _ in range(2):
            stream = told.streams[name]
            assert [e.context for e in stream] == [0.5, 0.25, 0.75]
            assert [e.current_experience for e in stream] == [0, 1, 2]
            assert [e.task_label for e in stream] == [0, 1, 2]
            # their origin is the benchmark's own, where metrics look up the classes of the whole
            assert {type(e.origin_stream) for e in stream} == {type(made.streams[name])}
            assert all(e.origin_stream.benchmark is made for e in stream)
    assert [e.current_experience for e in told.streams["other"]] == [0, 1]
    assert not any("context" in vars(e) for e in told.streams["other"])


@pytest.mark.parametrize("count", [0, 2, 4])
def test_every_experience_needs_one(count: int) -> None:
    message = f"the training stream has 3 experiences, but got {count} contexts"
    with pytest.raises(ContextError, match=message):
        with_contexts(benchmark(3, 2, 4), [0.5] * count)
