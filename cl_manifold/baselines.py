"""The strategies that a weight manifold is compared with, Avalanche's and our own.

Each is a function of (config, stream, template) as in `build_strategy`: all share optimizer,
schedule, loader and network. What Avalanche's code needs to work here is in
`cl_manifold.strategies.repairs`.
"""

from math import prod
from typing import Any

import torch
from avalanche.core import BaseSGDPlugin
from avalanche.models.packnet import PackNetModel
from avalanche.training.plugins import EWCPlugin, GEMPlugin, MASPlugin
from avalanche.training.supervised import Cumulative, JointTraining, Naive
from torch import nn

from cl_manifold.build import OPTIMIZERS, build_basis
from cl_manifold.config import RunConfig
from cl_manifold.errors import ConfigError
from cl_manifold.networks import mlp
from cl_manifold.strategies import (
    AsymmetricReplay,
    AveragedGradients,
    ContextFeatures,
    ContextInput,
    DarkReplay,
    Distillation,
    GreedySampler,
    JointContextTraining,
    PackedTasks,
    RandomGuess,
    Replay,
    SeparateNetworks,
    SummedPenalties,
    SynapticIntelligence,
    TellContext,
)
from cl_manifold.streams import TaskStream

Template = dict[str, Any]

REFERENCE_SAMPLES = 256
"""Remembered samples per step of A-GEM. Source: Chaudhry et al. 2019."""

DAMPING = 0.1
"""ξ of synaptic intelligence. Source: Zenke et al. 2017, for permuted MNIST."""


def _with(template: Template, *plugins: BaseSGDPlugin) -> Template:
    """The template with further plugins, called after the shared ones."""
    return template | {"plugins": [*template["plugins"], *plugins]}


# -- nothing, or everything ----------------------------------------------------------------------


def naive(config: RunConfig, stream: TaskStream, template: Template) -> Naive:
    """Fine-tuning."""
    return Naive(**template)


def random(config: RunConfig, stream: TaskStream, template: Template) -> Naive:
    """Chance: an answer drawn for every sample, whatever it shows."""
    return Naive(**_with(template, RandomGuess(config.seed)))


def joint(config: RunConfig, stream: TaskStream, template: Template) -> JointTraining:
    """Everything at once: trained by one call on the whole stream."""
    return JointTraining(**template)


def cumulative(config: RunConfig, stream: TaskStream, template: Template) -> Cumulative:
    """Each experience together with all earlier ones."""
    return Cumulative(**template)


# -- penalties -----------------------------------------------------------------------------------


def ewc(config: RunConfig, stream: TaskStream, template: Template) -> Naive:
    """EWC with a penalty per experience."""
    return Naive(**_with(template, SummedPenalties(config.strategy.penalty)))


def online_ewc(config: RunConfig, stream: TaskStream, template: Template) -> Naive:
    """Avalanche's EWC with one running penalty."""
    chosen = config.strategy
    plugin = EWCPlugin(chosen.penalty, mode="online", decay_factor=chosen.decay)
    return Naive(**_with(template, plugin))


def si(config: RunConfig, stream: TaskStream, template: Template) -> Naive:
    """Synaptic intelligence: importance is what a weight's way has done for the loss."""
    return Naive(**_with(template, SynapticIntelligence(config.strategy.penalty, eps=DAMPING)))


def mas(config: RunConfig, stream: TaskStream, template: Template) -> Naive:
    """Avalanche's MAS: importance is how much the outputs' length reacts."""
    return Naive(**_with(template, MASPlugin(lambda_reg=config.strategy.penalty)))


def lwf(config: RunConfig, stream: TaskStream, template: Template) -> Naive:
    """Distillation of the network as it was before the experience, on the new samples."""
    chosen = config.strategy
    return Naive(**_with(template, Distillation(chosen.penalty, chosen.temperature)))


# -- memories of samples -------------------------------------------------------------------------


def replay(config: RunConfig, stream: TaskStream, template: Template) -> Naive:
    """As many remembered samples as new ones in every mini-batch."""
    return Naive(**_with(template, Replay(config.strategy.replay_samples)))


def gdumb(config: RunConfig, stream: TaskStream, template: Template) -> Naive:
    """A fresh network trained on the memory alone, before every evaluation."""
    return Naive(**_with(template, GreedySampler(config.strategy.replay_samples)))


def agem(config: RunConfig, stream: TaskStream, template: Template) -> Naive:
    """No step may increase the loss on a sample of the memory."""
    plugin = AveragedGradients(_per_experience("agem", config, stream), REFERENCE_SAMPLES)
    return Naive(**_with(template, plugin))


def gem(config: RunConfig, stream: TaskStream, template: Template) -> Naive:
    """No step may increase the loss on the memory of any earlier experience."""
    each = _per_experience("gem", config, stream)
    return Naive(**_with(template, GEMPlugin(each, config.strategy.margin)))


def der(config: RunConfig, stream: TaskStream, template: Template) -> DarkReplay:
    """Remembered samples keep the outputs that the network had on them."""
    return _dark("der", config, stream, template, 0.0)


def der_plus_plus(config: RunConfig, stream: TaskStream, template: Template) -> DarkReplay:
    """DER, and the remembered samples' classes as well."""
    return _dark("der++", config, stream, template, config.strategy.beta)


def _dark(
    name: str, config: RunConfig, stream: TaskStream, template: Template, beta: float
) -> DarkReplay:
    _check_loss(name, stream)
    chosen = config.strategy
    memory: Template = {
        "mem_size": chosen.replay_samples,
        "batch_size_mem": config.training.batch_size,
    }
    return DarkReplay(**template | memory, alpha=chosen.alpha, beta=beta)


def er_ace(config: RunConfig, stream: TaskStream, template: Template) -> AsymmetricReplay:
    """Replay in which new samples compete only among the classes of the experience."""
    _check_loss("er-ace", stream)
    size = config.strategy.replay_samples
    memory: Template = {"mem_size": size, "batch_size_mem": config.training.batch_size}
    return AsymmetricReplay(**template | memory)


def _per_experience(name: str, config: RunConfig, stream: TaskStream) -> int:
    """An equal share of the memory."""
    total, count = config.strategy.replay_samples, len(stream.train_stream)
    if total < count:
        raise ConfigError(
            f"strategy.replay_samples is {total}, but {name} keeps samples of each of the {count} "
            f"experiences; give at least {count}"
        )
    return total // count


def _check_loss(name: str, stream: TaskStream) -> None:
    if stream.groups is not None:
        raise ConfigError(
            f"{name} brings a loss of its own over all classes, but of a sample of {stream.name} "
            "only the outputs of its own group count; choose replay"
        )


# -- told the context ----------------------------------------------------------------------------


def separate(config: RunConfig, stream: TaskStream, template: Template) -> Naive:
    """A network per context; where contexts are hidden, per experience."""
    return Naive(**_with(template, SeparateNetworks(stream.topology)))


def packnet(config: RunConfig, stream: TaskStream, template: Template) -> Naive:
    """Parts of one network: an experience trains what is free, then keeps the largest weights.

    The last fifth of the epochs, at least one, trains what was kept.

    Raises:
        ConfigError: there is only one epoch.
    """
    epochs = config.training.epochs
    if epochs < 2:
        raise ConfigError(
            "packnet trains on after it has pruned, but training.epochs is 1; give at least 2"
        )
    packed = PackNetModel(template["model"])
    pruned = config.strategy.pruned
    plugin = PackedTasks(packed, stream.topology, max(1, epochs // 5), pruned)
    return Naive(**_with(template, plugin))


def concat(config: RunConfig, stream: TaskStream, template: Template) -> Naive:
    """The context as further inputs, one experience after the other."""
    return Naive(**_told("concat", config, stream, template))


def joint_concat(config: RunConfig, stream: TaskStream, template: Template) -> JointContextTraining:
    """The context as further inputs, everything at once."""
    return JointContextTraining(**_told("joint-concat", config, stream, template))


def _told(name: str, config: RunConfig, stream: TaskStream, template: Template) -> Template:
    """The template with a network that has further inputs, and the plugin that fills them.

    Raises:
        ConfigError: the stream hides its contexts.
    """
    if stream.hidden_tasks() is not None:
        raise ConfigError(
            f"{name} reads the context of every experience, but {stream.name} hides its tasks; "
            "choose a stream that gives contexts"
        )
    features = ContextFeatures(build_basis(config.topology, stream.topology, config.seed))
    training = config.training
    torch.manual_seed(config.seed)
    inputs = prod(stream.input_shape) + features.size
    inner: nn.Module = mlp((inputs,), training.hidden, stream.classes)
    network = ContextInput(inner, features.size)
    optimizer = OPTIMIZERS[training.optimizer](network.parameters(), training.learning_rate)
    told = template | {"model": network, "optimizer": optimizer}
    return _with(told, TellContext(features))
