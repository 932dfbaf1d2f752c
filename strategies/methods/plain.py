"""Nothing, or everything: fine-tuning, chance, joint and cumulative training."""

from typing import Any

from .at_once import all_contexts
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
        """The network."""
        return network_and(strategy, input_shape)


class Random(Method):
    """Chance: guesses every answer, trains nothing."""

    numbers = False
    at_test = "not used"

    def build(self, setting: Setting) -> Any:
        from avalanche.training.supervised import Naive as Strategy

        from cl_manifold.strategies.plugins import RandomGuess

        return Strategy(**setting.template(RandomGuess(setting.seed)))

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        """The network."""
        return network_and(strategy, input_shape)


class Joint(Method):
    """One network trained on everything at once, blind to the context."""

    source = "Avalanche"
    learns = ("tasks", "contexts")
    at_once = True
    at_test = "not used"

    def build(self, setting: Setting) -> Any:
        from avalanche.training.supervised import JointTraining

        from cl_manifold.strategies.context_networks import Untold

        if setting.stream.at_once:
            return all_contexts(setting, Untold(setting.network))
        return JointTraining(**setting.template())

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        """The network and every sample of every task; what is drawn anew is not kept."""
        kept = getattr(strategy, "_experiences", ())
        samples = sum(len(experience.dataset) for experience in kept)
        return network_and(strategy, input_shape, samples=samples)


class Cumulative(Method):
    """Each experience trained together with all earlier ones, kept in full."""

    source = "Avalanche"
    at_test = "not used"

    def build(self, setting: Setting) -> Any:
        from avalanche.training.supervised import Cumulative as Strategy

        return Strategy(**setting.template())

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        """The network and every sample of every task."""
        return network_and(strategy, input_shape, samples=len(strategy.dataset or ()))
