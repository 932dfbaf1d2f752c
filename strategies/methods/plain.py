"""Nothing, or everything: fine-tuning, chance, joint and cumulative training."""

from typing import Any

from .counting import network_and
from .method import Method, Setting, Stored


class Naive(Method):
    """Fine-tuning on one experience after the other, no protection."""

    source = "Avalanche"
    at_test = "not used"

    def build(self, setting: Setting) -> Any:
        from avalanche.training.supervised import Naive as Strategy

        return Strategy(**setting.template())

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        return network_and(strategy, input_shape)


class Random(Method):
    """Chance: guesses every answer, trains nothing."""

    at_test = "not used"

    def build(self, setting: Setting) -> Any:
        from avalanche.training.supervised import Naive as Strategy

        from cl_manifold.strategies.plugins import RandomGuess

        return Strategy(**setting.template(RandomGuess(setting.seed)))

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        return network_and(strategy, input_shape)


class Joint(Method):
    """One network trained on all experiences at once, blind to the context."""

    source = "Avalanche"
    at_test = "not used"

    def build(self, setting: Setting) -> Any:
        from avalanche.training.supervised import JointTraining

        return JointTraining(**setting.template())

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        samples = sum(len(experience.dataset) for experience in strategy._experiences)
        return network_and(strategy, input_shape, samples=samples)


class Cumulative(Method):
    """Each experience trained together with all earlier ones, kept in full."""

    source = "Avalanche"
    at_test = "not used"

    def build(self, setting: Setting) -> Any:
        from avalanche.training.supervised import Cumulative as Strategy

        return Strategy(**setting.template())

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        return network_and(strategy, input_shape, samples=len(strategy.dataset or ()))
