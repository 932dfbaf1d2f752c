"""Watching topologies, and growing into the best one, in a real strategy on small digits."""

import pytest
import torch
from avalanche.core import SupervisedPlugin

from cl_manifold.contexts import GivenContext, InferredContext
from cl_manifold.errors import ContextError
from cl_manifold.geometry import Basis, Circle, Fourier, Vertices
from cl_manifold.networks import mlp
from cl_manifold.strategies import (
    DecisionOptions,
    ScorePlugin,
    TopologyWatch,
    WeightManifoldPlugin,
    WeightManifoldTraining,
)
from cl_manifold.streams import StreamOptions, TaskStream, permuted_digits, rotated_digits


def trained(
    stream: TaskStream, watch: TopologyWatch, basis: Basis, *others: SupervisedPlugin
) -> WeightManifoldTraining:
    torch.manual_seed(0)
    net = mlp(stream.input_shape, (32,), stream.outputs)
    made = WeightManifoldTraining(
        model=net,
        optimizer=torch.optim.Adam(net.parameters(), 3e-3),
        manifold=WeightManifoldPlugin(basis, shaping=watch),
        plugins=others,
        train_mb_size=32,
        train_epochs=6,
    )
    for experience in stream.train_stream:
        made.train(experience)
    return made


def test_rotations_turn_into_a_circle_and_earlier_tasks_are_kept() -> None:
    stream = rotated_digits(StreamOptions(contexts=9, samples=300, test_samples=100))
    watch = TopologyWatch(follows=True)
    accuracy = ScorePlugin()
    made = trained(stream, watch, Vertices(1), accuracy)
    assert watch.topology in ("circle", "ellipse")
    assert made.manifold is not None
    assert isinstance(made.manifold.basis.topology, Circle)
    assert made.manifold.basis.size in (3, 7)
    assert [t.topologies != {} for t in made.manifold_plugin.traces] == [False] + 8 * [True]
    assert watch.stored_floats > 0
    places = torch.stack(made.manifold_plugin.coordinates())
    assert torch.equal(places, stream.contexts())
    found = accuracy.measure(made, stream.test_stream)
    assert min(found) > 0.6
    assert sum(found) / 9 > 0.8


def test_watching_alone_changes_nothing() -> None:
    stream = rotated_digits(StreamOptions(contexts=3, samples=100, test_samples=50))
    watched = trained(stream, TopologyWatch(), Fourier(1))
    torch.manual_seed(0)
    assert watched.manifold is not None
    assert watched.manifold.basis.size == 3
    assert watched.manifold_plugin.shaping is not None
    assert watched.manifold_plugin.shaping.evidence


def test_unrelated_contexts_get_a_vertex_each() -> None:
    """Ten labels on a circle that say nothing: permutations, each under a made-up angle."""
    stream = permuted_digits(StreamOptions(contexts=5, samples=400, test_samples=100))
    turns = [0.0, 0.4, 0.8, 0.2, 0.6]
    for part in (stream.train_stream, stream.test_stream):
        for experience, turn in zip(part, turns, strict=True):
            experience.context = torch.tensor([turn], dtype=torch.float64)
    watch = TopologyWatch(follows=True)
    accuracy = ScorePlugin()
    made = trained(stream, watch, Vertices(1), accuracy)
    assert watch.evidence["codes"] == max(watch.evidence.values())
    assert made.manifold is not None
    assert isinstance(made.manifold.basis, Vertices)
    places = made.manifold_plugin.coordinates()
    assert torch.equal(torch.stack(places), torch.eye(5, dtype=torch.float64))
    # evaluation of a context without a vertex does not fail
    elsewhere = stream.test_stream[0]
    elsewhere.context = torch.tensor([0.33], dtype=torch.float64)
    assert len(accuracy.measure(made, [elsewhere])) == 1


def test_topologies_need_given_contexts() -> None:
    plugin = WeightManifoldPlugin(
        Vertices(1),
        contexts=InferredContext(),
        deciding=DecisionOptions(),
        shaping=TopologyWatch(),
    )
    net = mlp((1, 16, 16), (8,), 10)
    made = WeightManifoldTraining(
        model=net,
        optimizer=torch.optim.SGD(net.parameters(), 0.1),
        manifold=plugin,
    )
    stream = rotated_digits(StreamOptions(contexts=1, samples=100, test_samples=50))
    with pytest.raises(ContextError, match="experience 0 has no given context"):
        made.train(stream.train_stream[0])


def test_given_is_the_default() -> None:
    assert isinstance(
        WeightManifoldPlugin(Fourier(0), shaping=TopologyWatch()).coordinates_of.policy,
        GivenContext,
    )
