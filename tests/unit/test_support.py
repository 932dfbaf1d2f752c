"""What is held out for a decision, against the whole data set."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.benchmarks.utils.data_attribute import DataAttribute
from torch import Tensor
from torch.utils.data import TensorDataset

from cl_manifold.errors import ContextError
from cl_manifold.strategies.manifold.samples import read
from cl_manifold.strategies.manifold.support import Support, hold_out
from tests.networks import small_mlp


def strategy_of(y: Tensor, told: bool = True, **experience: Any) -> Any:
    """Sample i has the input i."""
    targets: Any = y.tolist()
    data: Any = TensorDataset(torch.arange(float(len(y)))[:, None], y)
    known = [DataAttribute(targets, "targets")] if told else []
    return SimpleNamespace(
        model=small_mlp(),
        device=torch.device("cpu"),
        experience=SimpleNamespace(current_experience=4, **experience),
        adapted_dataset=AvalancheDataset([data], data_attributes=known),
    )


def held(strategy: Any, most: int = 100, seed: int = 0) -> Support:
    return hold_out(strategy, most, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("count", "most", "expected"), [(34, 100, 6), (34, 4, 4), (35, 7, 7)])
def test_a_random_fifth_at_most_is_held_out_and_the_rest_is_trained(
    count: int, most: int, expected: int
) -> None:
    strategy = strategy_of(torch.arange(count) % 3)
    found = held(strategy, most)
    rest = read(strategy, strategy.adapted_dataset).inputs[0][:, 0].tolist()
    mine = found.inputs[0][:, 0].tolist()
    assert (len(mine), found.trained, found.classes) == (expected, count - expected, 3)
    assert sorted(mine + rest) == list(range(count))
    assert mine == sorted(mine)
    assert rest == sorted(rest)
    assert found.y.tolist() == [i % 3 for i in mine]
    others = [
        held(strategy_of(torch.arange(count) % 3), most, s).inputs[0][:, 0].tolist()
        for s in range(3)
    ]
    assert others[0] == mine
    assert others[1] != mine
    assert others[2] != others[1]


@pytest.mark.parametrize(("classes", "least"), [(1, 10), (2, 10), (3, 15)])
@pytest.mark.filterwarnings("ignore:experience 4 has a single class")
def test_one_sample_per_class_and_two_at_least_must_be_held_out(classes: int, least: int) -> None:
    assert len(held(strategy_of(torch.arange(least) % classes)).y) == least // 5
    text = (
        f"experience 4 brings {least - 1} samples of {classes} classes, so only "
        f"{least // 5 - 1} can .* at least {least} samples"
    )
    with pytest.raises(ContextError, match=text):
        held(strategy_of(torch.arange(least - 1) % classes))


def test_where_there_are_samples_enough_more_of_them_may_be_held_out() -> None:
    with pytest.raises(ContextError, match=r"so only 2 can .*; raise held_out to 3, or leave"):
        held(strategy_of(torch.arange(15) % 3), most=2)
    with pytest.raises(ContextError, match=r"so only 2 can .*; give at least 15 samples, or leave"):
        held(strategy_of(torch.arange(14) % 3), most=2)
    assert len(held(strategy_of(torch.arange(15) % 3), most=3).y) == 3


def test_nothing_can_be_held_out_of_four_samples() -> None:
    with pytest.raises(ContextError, match="brings 4 samples of 2 classes, so only 0 can"):
        held(strategy_of(torch.arange(4) % 2))


def test_classes_are_those_of_the_experience_or_of_the_targets_where_anybody_knows_them() -> None:
    y = torch.arange(40) % 2
    assert held(strategy_of(y, classes_in_this_experience=[0, 1, 2, 3])).classes == 4
    assert held(strategy_of(y)).classes == 2
    assert held(strategy_of(y, told=False)).classes == 0
    with pytest.warns(UserWarning, match="experience 4 has a single class"):
        assert held(strategy_of(0 * y)).classes == 1


def test_labels_that_are_no_classes_name_the_experience() -> None:
    with pytest.raises(ContextError, match="experience 4 brings no class labels"):
        held(strategy_of((torch.arange(40) % 2).float()))
