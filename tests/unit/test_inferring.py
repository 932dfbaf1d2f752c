"""Contexts inferred while a real strategy evaluates."""

import pytest
import torch

from cl_manifold.contexts import InferredContext
from cl_manifold.geometry import Fourier, Vertices
from cl_manifold.networks import mlp
from cl_manifold.strategies import (
    DecisionOptions,
    InferredTesting,
    ScorePlugin,
    WeightManifoldPlugin,
    WeightManifoldTraining,
)
from cl_manifold.streams import StreamOptions, TaskStream, recurring_digits, rotated_digits

ROTATED = rotated_digits(StreamOptions(contexts=4, samples=400, test_samples=128))


def accuracies(
    stream: TaskStream, plugin: WeightManifoldPlugin
) -> tuple[list[float], WeightManifoldTraining]:
    torch.manual_seed(0)
    net = mlp(stream.input_shape, (64,), stream.outputs)
    accuracy = ScorePlugin()
    made = WeightManifoldTraining(
        model=net,
        optimizer=torch.optim.Adam(net.parameters(), 3e-3),
        manifold=plugin,
        plugins=[accuracy],
        train_mb_size=32,
        train_epochs=6,
        eval_mb_size=128,
    )
    for experience in stream.train_stream:
        made.train(experience, eval_streams=[])
    return accuracy.measure(made, stream.test_stream), made


@pytest.mark.parametrize(
    ("batch", "features", "loss"), [(64, 0, 0.1), (64, 300, 0.03), (1, 300, 0.15)]
)
def test_inferred_contexts_come_close_to_given_ones(batch: int, features: int, loss: float) -> None:
    given, _ = accuracies(ROTATED, WeightManifoldPlugin(Fourier(1), drift_limit=1.0))
    testing = InferredTesting(batch, features)
    inferred, made = accuracies(
        ROTATED, WeightManifoldPlugin(Fourier(1), drift_limit=1.0, testing=testing)
    )
    assert sum(inferred) / 4 >= sum(given) / 4 - loss
    assert made.manifold is not None
    extra = made.manifold_plugin.stored_floats - made.manifold.stored_floats
    assert (extra > 300 * 301 / 2) if features else (extra == 0)


def test_the_given_context_is_not_read_at_test_time() -> None:
    _, made = accuracies(
        ROTATED, WeightManifoldPlugin(Fourier(1), drift_limit=1.0, testing=InferredTesting())
    )
    accuracy = next(p for p in made.plugins if isinstance(p, ScorePlugin))
    test = ROTATED.test_stream[0]
    (right,) = accuracy.measure(made, [test])
    kept = test.context
    test.context = kept + 0.5
    (wrong,) = accuracy.measure(made, [test])
    test.context = kept
    assert right == wrong


def test_nothing_is_given_at_all() -> None:
    stream = recurring_digits(StreamOptions(contexts=6, samples=400, test_samples=128))
    plugin = WeightManifoldPlugin(
        Vertices(1),
        contexts=InferredContext(),
        deciding=DecisionOptions(held_out=60),
        testing=InferredTesting(64, 300),
    )
    found, made = accuracies(stream, plugin)
    assert made.manifold is not None
    assert made.manifold.basis.size == 5
    assert sum(found) / len(found) > 0.75
