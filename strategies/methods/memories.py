"""Methods that remember training samples: replay, GDumb, A-GEM, GEM, DER, DER++, ER-ACE."""

from typing import Any

from cl_manifold.errors import ConfigError
from cl_manifold.options import Count, NotNegative

from .counting import network_and, plugin_of
from .method import Method, Setting, Stored

_OUTPUTS = (0.1, 0.3, 1.0)

REFERENCE_SAMPLES = 256
"""Remembered samples per step of A-GEM. Source: Chaudhry et al. 2019."""


class Replay(Method):
    """Old samples beside new ones in every mini-batch (strategy.replay_samples)."""

    source = "Chaudhry et al. 2019 (tiny memories); code of Avalanche"
    at_test = "not used"

    replay_samples: Count = 500
    """How many training samples are remembered in all."""

    def build(self, setting: Setting) -> Any:
        from avalanche.training.supervised import Naive

        from cl_manifold.strategies.repairs import Replay as Plugin

        return Naive(**setting.template(Plugin(self.replay_samples)))

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        """The network and samples."""
        from cl_manifold.strategies.repairs import Replay as Plugin

        buffer = plugin_of(strategy, Plugin).storage_policy.buffer
        return network_and(strategy, input_shape, samples=len(buffer))


class Gdumb(Method):
    """A fresh network trained on remembered samples alone."""

    source = "Prabhu et al. 2020; code of Avalanche"
    numbers = False
    at_test = "not used"

    replay_samples: Count = 500
    """How many training samples are remembered in all."""

    def build(self, setting: Setting) -> Any:
        from avalanche.training.supervised import Naive

        from cl_manifold.strategies.repairs import GreedySampler

        return Naive(**setting.template(GreedySampler(self.replay_samples)))

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        """The network and samples."""
        from cl_manifold.strategies.repairs import GreedySampler

        buffer = plugin_of(strategy, GreedySampler).storage_policy.buffer
        return network_and(strategy, input_shape, samples=len(buffer))


class Agem(Method):
    """Steps that do not hurt remembered samples on average."""

    source = "Chaudhry et al. 2019 (A-GEM); code of Avalanche, repaired"
    at_test = "not used"

    replay_samples: Count = 500
    """How many training samples are remembered in all."""

    def build(self, setting: Setting) -> Any:
        from avalanche.training.supervised import Naive

        from cl_manifold.strategies.repairs import AveragedGradients

        each = _per_experience("agem", self.replay_samples, setting)
        return Naive(**setting.template(AveragedGradients(each, REFERENCE_SAMPLES)))

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        """The network and samples."""
        from cl_manifold.strategies.repairs import AveragedGradients

        buffers = plugin_of(strategy, AveragedGradients).buffers
        return network_and(strategy, input_shape, samples=sum(map(len, buffers)))


class Gem(Method):
    """Steps that hurt the remembered samples of no earlier experience (strategy.margin)."""

    source = "Lopez-Paz and Ranzato 2017; code of Avalanche"
    at_test = "not used"

    replay_samples: Count = 500
    """How many training samples are remembered in all."""
    margin: NotNegative = 0.5
    """How far steps lean towards the past."""

    def build(self, setting: Setting) -> Any:
        from avalanche.training.plugins import GEMPlugin
        from avalanche.training.supervised import Naive

        each = _per_experience("gem", self.replay_samples, setting)
        return Naive(**setting.template(GEMPlugin(each, self.margin)))

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        """The network and samples."""
        from avalanche.training.plugins import GEMPlugin

        kept = plugin_of(strategy, GEMPlugin).memory_x.values()
        return network_and(strategy, input_shape, samples=sum(map(len, kept)))


class Der(Method):
    """Remembered samples keep the outputs they had (strategy.alpha)."""

    source = "Buzzega et al. 2020; code of Avalanche"
    numbers = False
    at_test = "not used"
    tried = {"alpha": _OUTPUTS}

    replay_samples: Count = 500
    """How many training samples are remembered in all."""
    alpha: NotNegative = 0.1
    """Weight of the remembered outputs in the loss."""

    def build(self, setting: Setting) -> Any:
        return _dark("der", setting, self.replay_samples, self.alpha, 0.0)

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        """The network, samples and the outputs they had."""
        return _of_dark(strategy, input_shape)


class DerPlusPlus(Method):
    """Der, and the remembered samples' classes too (strategy.beta)."""

    source = "Buzzega et al. 2020; code of Avalanche"
    numbers = False
    at_test = "not used"
    tried = {"alpha": _OUTPUTS}

    replay_samples: Count = 500
    """How many training samples are remembered in all."""
    alpha: NotNegative = 0.1
    """Weight of the remembered outputs in the loss."""
    beta: NotNegative = 0.5
    """Weight of the remembered classes in the loss."""

    def build(self, setting: Setting) -> Any:
        return _dark("der++", setting, self.replay_samples, self.alpha, self.beta)

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        """The network, samples and the outputs they had."""
        return _of_dark(strategy, input_shape)


class ErAce(Method):
    """Replay in which new samples compete only among the experience's classes."""

    source = "Caccia et al. 2022; code of Avalanche"
    numbers = False
    at_test = "not used"

    replay_samples: Count = 500
    """How many training samples are remembered in all."""

    def build(self, setting: Setting) -> Any:
        from cl_manifold.strategies.repairs import AsymmetricReplay

        _check_loss("er-ace", setting)
        return AsymmetricReplay(**_with_memory(setting, self.replay_samples))

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        """The network and samples."""
        samples = len(strategy.storage_policy.buffer)
        return network_and(strategy, input_shape, samples=samples)


def _dark(name: str, setting: Setting, samples: int, alpha: float, beta: float) -> Any:
    from cl_manifold.strategies.repairs import DarkReplay

    _check_loss(name, setting)
    return DarkReplay(**_with_memory(setting, samples), alpha=alpha, beta=beta)


def _of_dark(strategy: Any, input_shape: tuple[int, ...]) -> Stored:
    """Samples with what the network answered to them."""
    buffer = strategy.storage_policy.buffer
    answer = len(buffer[0][-1]) if len(buffer) else 0
    return network_and(strategy, input_shape, samples=len(buffer), floats_each=answer)


def _with_memory(setting: Setting, samples: int) -> dict[str, Any]:
    size = setting.shared["train_mb_size"]
    return setting.template(mem_size=samples, batch_size_mem=size)


def _per_experience(name: str, total: int, setting: Setting) -> int:
    """An equal share of the memory."""
    count = len(setting.stream.train_stream)
    if total < count:
        raise ConfigError(
            f"strategy.replay_samples is {total}, but {name} keeps samples of each of the {count} "
            f"experiences; give at least {count}"
        )
    return total // count


def _check_loss(name: str, setting: Setting) -> None:
    if setting.stream.groups is not None:
        raise ConfigError(
            f"{name} brings a loss of its own over all classes, but of a sample of "
            f"{setting.stream.name} only the outputs of its own group count; choose replay"
        )
