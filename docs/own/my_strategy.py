"""A strategy of your own: `cl-manifold run --strategy my_strategy:Anchored` in this folder."""

from typing import Any

from avalanche.core import SupervisedPlugin
from avalanche.training.supervised import Naive

from cl_manifold.options import NotNegative, Share
from cl_manifold.strategies import Method, Setting, Stored


class Anchored(Method):
    """Pulls every weight towards an average of where experiences left it."""

    at_test = "not used"
    tried = {"pull": (0.001, 0.01, 0.1)}
    pull: NotNegative = 0.01
    """How strongly."""
    memory: Share = 0.5
    """How much of the average stays when an experience is added."""

    def build(self, setting: Setting) -> Naive:
        return Naive(**setting.template(Anchor(self.pull, self.memory)))

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        return Stored(2 * sum(p.numel() for p in strategy.model.parameters()))


class Anchor(SupervisedPlugin):
    def __init__(self, pull: float, memory: float) -> None:
        super().__init__()
        self.pull, self.memory, self.average = pull, memory, []

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        for p, a in zip(strategy.model.parameters(), self.average, strict=False):
            strategy.loss = strategy.loss + self.pull / 2 * (p - a).square().sum()

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        now = [p.detach().clone() for p in strategy.model.parameters()]
        self.average = [a.lerp(p, 1 - self.memory) for a, p in zip(self.average or now, now)]
