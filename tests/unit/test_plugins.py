"""The small plugins, in a real strategy."""

from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.supervised import Naive
from torch import nn

from cl_manifold.errors import TrainingError
from cl_manifold.networks import mlp
from cl_manifold.strategies import (
    FiniteLossPlugin,
    FreshOptimizerPlugin,
    LinearDecayPlugin,
    ScorePlugin,
)
from cl_manifold.streams import StreamOptions, rotated_digits

STREAM = rotated_digits(StreamOptions(contexts=2, samples=32, test_samples=40))


def naive(*plugins: SupervisedPlugin, rate: float = 0.1) -> Any:
    torch.manual_seed(0)
    nothing: Any = None
    net = mlp(STREAM.input_shape, (16,), 10)
    return Naive(
        model=net,
        optimizer=torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=8,
        train_epochs=2,
        eval_mb_size=16,
        plugins=list(plugins),
        evaluator=nothing,
    )


class Rates(SupervisedPlugin):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        self.seen.append(strategy.optimizer.param_groups[0]["lr"])


def test_the_rate_falls_to_zero_in_every_experience_and_comes_back() -> None:
    rates = Rates()
    strategy = naive(LinearDecayPlugin(), rates)
    for experience in STREAM.train_stream:
        strategy.train(experience, eval_streams=[])
    once = [0.1 * (1 - s / 8) for s in range(8)]
    assert rates.seen == pytest.approx(once * 2)
    assert strategy.optimizer.param_groups[0]["lr"] == 0.1


def test_a_fresh_optimizer_forgets_momentum() -> None:
    strategy = naive(FreshOptimizerPlugin())
    strategy.train(STREAM.train_stream[0], eval_streams=[])
    assert strategy.optimizer.state
    FreshOptimizerPlugin().before_training_exp(strategy)
    assert not strategy.optimizer.state


def test_a_loss_that_explodes_stops_with_a_sentence_before_the_next_epoch() -> None:
    strategy = naive(FiniteLossPlugin(), rate=1e30)
    with pytest.raises(TrainingError, match=r"the loss became \w+ in experience 0, epoch 0; lower"):
        strategy.train(STREAM.train_stream[0], eval_streams=[])


def test_epochs_are_reported() -> None:
    class Notes:
        def __init__(self) -> None:
            self.seen: list[tuple[int, int]] = []

        def epoch(self, experience: int, epoch: int, loss: float) -> None:
            assert loss > 0
            self.seen.append((experience, epoch))

    notes = Notes()
    strategy = naive(FiniteLossPlugin(notes))
    for experience in STREAM.train_stream:
        strategy.train(experience, eval_streams=[])
    assert notes.seen == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_accuracy_is_the_share_of_right_predictions() -> None:
    accuracy = ScorePlugin()
    strategy = naive(accuracy)
    found = accuracy.measure(strategy, STREAM.test_stream)
    for share, experience in zip(found, STREAM.test_stream, strict=True):
        x = torch.stack([item[0] for item in experience.dataset])
        y = torch.tensor([item[1] for item in experience.dataset])
        right = (strategy.model(x).argmax(-1) == y).float().mean()
        assert share == pytest.approx(float(right))
    assert accuracy.measure(strategy, [STREAM.test_stream[1]]) == found[1:]
