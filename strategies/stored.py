"""What a strategy keeps between experiences, and what it is told when it is tested.

Values are counted that cannot be had again from others: an anchor that equals the network's present
weights, or a copy of it, counts once. The weights at first come from the seed.
"""

from dataclasses import dataclass
from functools import singledispatch
from math import prod
from typing import Any, final

from avalanche.training.plugins import (
    AGEMPlugin,
    EWCPlugin,
    GDumbPlugin,
    GEMPlugin,
    MASPlugin,
    ReplayPlugin,
    SynapticIntelligencePlugin,
)
from avalanche.training.supervised import DER, ER_ACE, Cumulative, JointTraining
from torch import nn

from .context_input import TellContext
from .manifold.plugin import WeightManifoldPlugin
from .penalties import SummedPenalties
from .separate import PackedTasks, SeparateNetworks


@final
@dataclass(frozen=True)
class Stored:
    """What is kept.

    Attributes:
        floats: everything, in units of 32 bits.
        samples: training samples among it.
    """

    floats: int
    samples: int


@final
@dataclass(frozen=True)
class _Beside:
    """What a part of a strategy keeps beside the network.

    Attributes:
        networks: values in units of the network's size.
        samples: training samples, each with its class.
        floats_each: further values kept with each sample.
    """

    networks: int = 0
    samples: int = 0
    floats_each: int = 0


def stored(strategy: Any, input_shape: tuple[int, ...]) -> Stored:
    """Everything that a strategy keeps: its network, what it knows about weights, and samples.

    Args:
        strategy: between two experiences.
        input_shape: of one sample.
    """
    size = _size(strategy.model)
    for plugin in strategy.plugins:
        if isinstance(plugin, WeightManifoldPlugin | SeparateNetworks | PackedTasks):
            return Stored(plugin.stored_floats or size, 0)
    kept = [_beside(part) for part in (strategy, *strategy.plugins)]
    numbers = [size * (1 + sum(k.networks for k in kept))]
    numbers += [k.samples * (prod(input_shape) + 1 + k.floats_each) for k in kept]
    return Stored(sum(numbers), sum(k.samples for k in kept))


def context_at_test(strategy: Any) -> str:
    """Where the context comes from when the strategy is tested: given, inferred or not used."""
    for plugin in strategy.plugins:
        if isinstance(plugin, WeightManifoldPlugin):
            return "given" if plugin.testing is None else "inferred"
        if isinstance(plugin, SeparateNetworks | PackedTasks | TellContext):
            return "given"
    return "not used"


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@singledispatch
def _beside(part: Any) -> _Beside:
    """What a strategy or a plugin keeps; most keep nothing."""
    return _Beside()


@_beside.register
def _of_ewc(plugin: EWCPlugin) -> _Beside:
    """Importances; anchors of all tasks but the last, whose weights are the network's."""
    return _Beside(networks=len(plugin.importances) + max(0, len(plugin.saved_params) - 1))


@_beside.register
def _of_summed_ewc(plugin: SummedPenalties) -> _Beside:
    """Summed importances and their anchor."""
    return _Beside(networks=2 * bool(plugin.firmness))


@_beside.register
def _of_si(plugin: SynapticIntelligencePlugin) -> _Beside:
    return _Beside(networks=int(bool(plugin.ewc_data[1])))


@_beside.register
def _of_mas(plugin: MASPlugin) -> _Beside:
    return _Beside(networks=int(bool(plugin.importance)))


@_beside.register
def _of_replay(plugin: ReplayPlugin) -> _Beside:
    return _Beside(samples=len(plugin.storage_policy.buffer))


@_beside.register
def _of_gdumb(plugin: GDumbPlugin) -> _Beside:
    return _Beside(samples=len(plugin.storage_policy.buffer))


@_beside.register
def _of_agem(plugin: AGEMPlugin) -> _Beside:
    return _Beside(samples=sum(len(buffer) for buffer in plugin.buffers))


@_beside.register
def _of_gem(plugin: GEMPlugin) -> _Beside:
    return _Beside(samples=sum(len(x) for x in plugin.memory_x.values()))


@_beside.register
def _of_der(strategy: DER) -> _Beside:
    """Samples with what the network answered to them."""
    buffer: Any = strategy.storage_policy.buffer
    answer = len(buffer[0][-1]) if len(buffer) else 0
    return _Beside(samples=len(buffer), floats_each=answer)


@_beside.register
def _of_er_ace(strategy: ER_ACE) -> _Beside:
    return _Beside(samples=len(strategy.storage_policy.buffer))


@_beside.register
def _of_cumulative(strategy: Cumulative) -> _Beside:
    return _Beside(samples=len(strategy.dataset or ()))


@_beside.register
def _of_joint(strategy: JointTraining) -> _Beside:
    return _Beside(samples=sum(len(e.dataset) for e in strategy._experiences))
