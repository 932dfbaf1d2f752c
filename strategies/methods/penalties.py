"""Methods that add a penalty to the loss: EWC, online EWC, SI, MAS, LwF."""

from typing import Any

from cl_manifold.options import NotNegative, Positive

from .counting import network_and, plugin_of
from .method import Method, Setting, Stored

_WIDE = (100.0, 1000.0, 10_000.0, 100_000.0)

DAMPING = 0.1
"""ξ of synaptic intelligence. Source: Zenke et al. 2017, for permuted MNIST."""


class Ewc(Method):
    """Elastic weight consolidation, a penalty for each finished experience."""

    source = "Kirkpatrick et al. 2017; importances as Avalanche measures them"
    at_test = "not used"
    tried = {"penalty": _WIDE}

    penalty: NotNegative = 1000.0
    """λ, the weight of the penalty in the loss."""

    def build(self, setting: Setting) -> Any:
        from avalanche.training.supervised import Naive

        from cl_manifold.strategies.penalties import SummedPenalties

        return Naive(**setting.template(SummedPenalties(self.penalty)))

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        """The network, summed importances and their anchor."""
        from cl_manifold.strategies.penalties import SummedPenalties

        held = bool(plugin_of(strategy, SummedPenalties).firmness)
        return network_and(strategy, input_shape, networks=2 * held)


class OnlineEwc(Method):
    """Elastic weight consolidation with one running penalty (strategy.decay)."""

    source = "Schwarz et al. 2018; code of Avalanche"
    at_test = "not used"
    tried = {"penalty": _WIDE}

    penalty: NotNegative = 1000.0
    """λ, the weight of the penalty in the loss."""
    decay: NotNegative = 1.0
    """How much of the importances so far remains when those of an experience are added."""

    def build(self, setting: Setting) -> Any:
        from avalanche.training.plugins import EWCPlugin
        from avalanche.training.supervised import Naive

        plugin = EWCPlugin(self.penalty, mode="online", decay_factor=self.decay)
        return Naive(**setting.template(plugin))

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        """The network, importances, and anchors of all tasks but the last, which is the network."""
        from avalanche.training.plugins import EWCPlugin

        plugin = plugin_of(strategy, EWCPlugin)
        networks = len(plugin.importances) + max(0, len(plugin.saved_params) - 1)
        return network_and(strategy, input_shape, networks=networks)


class Si(Method):
    """Synaptic intelligence: a weight whose movement lowered the loss is held firmly."""

    source = "Zenke et al. 2017; code of Avalanche, repaired"
    at_test = "not used"
    tried = {"penalty": (1.0, 10.0, 100.0, 1000.0)}

    penalty: NotNegative = 10.0
    """λ, the weight of the penalty in the loss."""

    def build(self, setting: Setting) -> Any:
        from avalanche.training.supervised import Naive

        from cl_manifold.strategies.repairs import SynapticIntelligence

        return Naive(**setting.template(SynapticIntelligence(self.penalty, eps=DAMPING)))

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        """The network and its importances."""
        from cl_manifold.strategies.repairs import SynapticIntelligence

        held = bool(plugin_of(strategy, SynapticIntelligence).ewc_data[1])
        return network_and(strategy, input_shape, networks=int(held))


class Mas(Method):
    """Memory aware synapses: a weight that the outputs react to is held firmly."""

    source = "Aljundi et al. 2018; code of Avalanche"
    at_test = "not used"
    tried = {"penalty": (0.01, 0.1, 1.0, 10.0)}

    penalty: NotNegative = 1.0
    """λ, the weight of the penalty in the loss."""

    def build(self, setting: Setting) -> Any:
        from avalanche.training.plugins import MASPlugin
        from avalanche.training.supervised import Naive

        return Naive(**setting.template(MASPlugin(lambda_reg=self.penalty)))

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        """The network and its importances."""
        from avalanche.training.plugins import MASPlugin

        held = bool(plugin_of(strategy, MASPlugin).importance)
        return network_and(strategy, input_shape, networks=int(held))


class Lwf(Method):
    """Learning without forgetting: the earlier network's answers to new samples are kept."""

    source = "Li and Hoiem 2016; code of Avalanche"
    numbers = False
    at_test = "not used"
    tried = {"penalty": (0.1, 0.3, 1.0, 3.0)}

    penalty: NotNegative = 1.0
    """Weight of the earlier answers in the loss."""
    temperature: Positive = 2.0
    """By which outputs are divided before they are compared."""

    def build(self, setting: Setting) -> Any:
        from avalanche.training.supervised import Naive

        from cl_manifold.strategies.repairs import Distillation

        return Naive(**setting.template(Distillation(self.penalty, self.temperature)))

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        """The network."""
        return network_and(strategy, input_shape)
