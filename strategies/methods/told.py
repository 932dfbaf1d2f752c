"""Methods that are told the context: a network each, parts of one network, a further input."""

from typing import Any

from cl_manifold.errors import ConfigError
from cl_manifold.options import Share

from .at_once import all_contexts, concatenated, wider
from .counting import network_and, plugin_of
from .method import Method, Setting, Stored


class Separate(Method):
    """A network of its own for every context: what memory can buy."""

    at_test = "given"

    def build(self, setting: Setting) -> Any:
        from avalanche.training.supervised import Naive

        from cl_manifold.strategies.separate import SeparateNetworks

        return Naive(**setting.template(SeparateNetworks(setting.stream.topology)))

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        """A network for every context."""
        from cl_manifold.strategies.separate import SeparateNetworks

        floats = plugin_of(strategy, SeparateNetworks).stored_floats
        return Stored(floats) if floats else network_and(strategy, input_shape)


class Packnet(Method):
    """Parts of one network, one per experience, told the context at test (strategy.pruned).

    The last fifth of the epochs, at least one, trains what was kept.
    """

    source = "Mallya and Lazebnik 2018; code of Avalanche, repaired"
    at_test = "given"
    tried = {"pruned": (0.5, 0.75, 0.9)}

    pruned: Share = 0.75
    """Share of the free weights that an experience leaves to later ones."""

    def build(self, setting: Setting) -> Any:
        from avalanche.models.packnet import PackNetModel
        from avalanche.training.supervised import Naive

        from cl_manifold.strategies.separate import PackedTasks

        epochs = setting.shared["train_epochs"]
        if epochs < 2:
            raise ConfigError(
                "packnet trains on after it has pruned, but training.epochs is 1; give at least 2"
            )
        try:
            packed = PackNetModel(setting.network)
        except ValueError as error:
            raise ConfigError(
                f"packnet prunes linear and convolution layers, but this network has others with "
                f"weights ({error}); choose network mlp"
            ) from None
        topology = setting.stream.topology
        plugin = PackedTasks(packed, topology, max(1, epochs // 5), self.pruned)
        return Naive(**setting.template(plugin))

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        """The network, and a byte per weight that says whose it is."""
        from cl_manifold.strategies.separate import PackedTasks

        return Stored(plugin_of(strategy, PackedTasks).stored_floats)


class Concat(Method):
    """The context as further inputs, one experience after the other or all contexts at once."""

    learns = ("tasks", "contexts")
    at_test = "given"
    reads = ("topology",)

    def build(self, setting: Setting) -> Any:
        from avalanche.training.supervised import Naive

        if setting.stream.at_once:
            return all_contexts(setting, concatenated(setting))
        return Naive(**_told("concat", setting))

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        """The network, which has further inputs."""
        return network_and(strategy, input_shape)


class JointConcat(Method):
    """The context as further inputs, trained on all experiences at once."""

    at_once = True
    at_test = "given"
    reads = ("topology",)

    def build(self, setting: Setting) -> Any:
        from cl_manifold.strategies.context_input import JointContextTraining

        return JointContextTraining(**_told("joint-concat", setting))

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        """The network, which has further inputs, and every sample of every task."""
        samples = sum(len(experience.dataset) for experience in strategy._experiences)
        return network_and(strategy, input_shape, samples=samples)


def _told(name: str, setting: Setting) -> dict[str, Any]:
    """The template with a network that has further inputs, and the plugin that fills them.

    Raises:
        ConfigError: the stream hides its contexts.
    """
    from cl_manifold.strategies.context_input import ContextFeatures, ContextInput, TellContext

    stream = setting.stream
    if stream.hidden_tasks() is not None:
        raise ConfigError(
            f"{name} reads the context of every experience, but {stream.name} hides its tasks; "
            "choose a stream that gives contexts"
        )
    features = ContextFeatures(setting.basis_on(stream.topology))
    inner, flat = wider(setting, features.size)
    network = ContextInput(inner, features.size, flat)
    optimizer = setting.optimizer_for(network)
    return setting.template(TellContext(features), model=network, optimizer=optimizer)
