"""What is handed to the encoder and to the search when contexts are inferred at test time."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.benchmarks.utils import AvalancheDataset
from torch import Tensor
from torch.utils.data import TensorDataset

from cl_manifold.contexts import ContextInference, InferenceSettings, RandomFeatureEncoder
from cl_manifold.geometry import Circle, Fourier, Simplex
from cl_manifold.manifold.weight_manifold import WeightManifold
from cl_manifold.strategies import InferredTesting
from tests.networks import shake, small_mlp

TURNS = torch.tensor([[0.1], [0.6]]).double()
SETTINGS = InferenceSettings(grid=6, shortlist=2)


def data(task: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(task)
    return 3 * task + torch.randn(50, 6, generator=g), torch.randint(3, (50,), generator=g)


def strategy_of(task: int) -> Any:
    return SimpleNamespace(
        model=small_mlp(),
        device=torch.device("cpu"),
        experience=SimpleNamespace(current_experience=task),
        adapted_dataset=AvalancheDataset([TensorDataset(*data(task))]),
    )


def encoder_of(seed: int) -> RandomFeatureEncoder:
    """An encoder that learned the shuffled data of both tasks."""
    encoder = RandomFeatureEncoder(Circle(), features=20, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for task, turn in enumerate(TURNS):
        (x, y), order = data(task), torch.randperm(50, generator=generator)
        encoder.learn(x[order], y[order], turn)
    return encoder


@pytest.mark.parametrize("seed", [0, 3])
def test_the_encoder_learns_every_task_at_its_coordinate(seed: int) -> None:
    testing = InferredTesting(5, 20, SETTINGS, seed)
    assert testing.stored_floats == 0
    for task, turn in enumerate(TURNS):
        testing.learn(strategy_of(task), turn, Circle())
    expected = encoder_of(seed)
    assert testing.encoder is not None
    for found, wanted in zip(
        testing.encoder.state().values(), expected.state().values(), strict=True
    ):
        assert torch.equal(found, wanted)
    assert testing.stored_floats == expected.stored_floats
    manifold = WeightManifold(small_mlp(), Fourier(1))
    for turn in TURNS:
        shake(manifold, turn, 1.0)
    testing.prepare(manifold)
    inference = ContextInference(expected, SETTINGS)
    inference.prepare(manifold)
    x = torch.cat([data(0)[0][:10], data(1)[0][:10]])
    contexts, logits = testing.predict((x,))
    wanted = inference.predict((x,), 5)
    assert torch.equal(contexts, wanted.contexts)
    assert torch.equal(logits, wanted.logits)
    assert [len(c.unique()) for c in contexts.split(5)] == [1] * 4


def test_an_encoder_follows_a_simplex_that_gains_tasks() -> None:
    testing = InferredTesting(features=20)
    for task in range(2):
        testing.learn(strategy_of(task), torch.eye(task + 1).double()[task], Simplex(task + 1))
    assert testing.encoder is not None
    assert testing.encoder.visited.tolist() == [[1, 0], [0, 1]]


def test_without_features_nothing_is_learned_and_64_inputs_share_a_context() -> None:
    testing = InferredTesting()
    testing.learn(strategy_of(0), TURNS[0], Circle())
    assert (testing.encoder, testing.stored_floats) == (None, 0)
    assert (testing.batch, testing.settings) == (64, InferenceSettings())
    with pytest.raises(AssertionError):
        testing.predict((torch.randn(2, 6),))


def test_the_least_values_are_fine() -> None:
    assert (InferredTesting(1, 0).batch, InferredTesting(1, 2).features) == (1, 2)


@pytest.mark.parametrize(
    ("batch", "features", "text"), [(0, 0, "1 or more inputs"), (1, -1, "0 or")]
)
def test_values_out_of_range(batch: int, features: int, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        InferredTesting(batch, features)
