"""From a configuration to objects: stream, network, strategy."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from torch import nn

from cl_manifold.data.images import image_stream
from cl_manifold.data.options import DataOptions, ImageOptions
from cl_manifold.data.table import table_stream
from cl_manifold.errors import ConfigError
from cl_manifold.experiments.architecture import built
from cl_manifold.experiments.config import RunConfig
from cl_manifold.experiments.names import STREAMS, load, lookup
from cl_manifold.experiments.settings import (
    ContinuumSettings,
    FileSettings,
    OwnStream,
    PictureSettings,
    StepTraining,
    StreamSettings,
)
from cl_manifold.experiments.topologies import build_basis
from cl_manifold.strategies import (
    ActiveOutputs,
    ActiveOutputsPlugin,
    FreshOptimizerPlugin,
    InMemoryLoaderPlugin,
    LinearDecayPlugin,
)
from cl_manifold.strategies.methods.method import Setting
from cl_manifold.streams import StreamOptions, TaskStream

OPTIMIZERS: Mapping[str, Any] = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
"""By training.optimizer; called with parameters and learning rate."""


def build_stream(
    config: StreamSettings | ContinuumSettings | FileSettings | PictureSettings,
    data_dir: Path | None,
    seed: int,
    data: DataOptions | ImageOptions | None = None,
) -> TaskStream:
    """The stream of that name.

    Args:
        config: which experiences there are.
        data_dir: the folder with images that must be found first.
        seed: of everything random.
        data: how a table or images are read.

    Raises:
        ConfigError: the options do not fit the data.
        DataError: data files are missing.
    """
    if isinstance(config, FileSettings | PictureSettings):
        return _of_path(config, data, seed)
    make = load(lookup("stream", STREAMS, config.name).target)
    if isinstance(config, ContinuumSettings):
        return make(config.images, config.test_samples, data_dir, config.holdout, config.download)
    options = StreamOptions(
        contexts=config.contexts,
        samples=config.samples,
        test_samples=config.test_samples,
        order=config.order,
        variant=config.variant,
        seed=seed,
    )
    if isinstance(config, OwnStream):
        stream = config.build(options, data_dir)
    else:
        stream = make(options, data_dir, config.holdout, config.download)
    if not isinstance(stream, TaskStream):
        raise ConfigError(f"stream {config.name!r} made {stream!r}, but needs to make a TaskStream")
    return stream


def _of_path(
    config: FileSettings | PictureSettings, data: DataOptions | ImageOptions | None, seed: int
) -> TaskStream:
    options = StreamOptions(
        samples=config.samples, test_samples=config.test_samples, order=config.order, seed=seed
    )
    path = Path(config.name)
    if isinstance(config, PictureSettings):
        images = data if isinstance(data, ImageOptions) else ImageOptions()
        return image_stream(
            path, images, replace(options, contexts=config.contexts), config.holdout
        )
    table = data if isinstance(data, DataOptions) else DataOptions()
    return table_stream(path, table, options, config.holdout)


def build_network(config: RunConfig, stream: TaskStream) -> nn.Module:
    """The network of a stream, initialised from the seed.

    Raises:
        ConfigError: it does not fit the stream's inputs or outputs.
    """
    return _initialised(config, stream.input_shape, stream.outputs)


def _initialised(config: RunConfig, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    torch.manual_seed(config.seed)
    return built(config.network, input_shape, classes)


def build_strategy(
    config: RunConfig,
    stream: TaskStream,
    network: nn.Module,
    plugins: Sequence[SupervisedPlugin],
    evaluator: EvaluationPlugin,
) -> Any:
    """The strategy of that name around a network.

    All strategies share optimizer, schedule, loader and network.

    Raises:
        ConfigError: it learns classes, but the stream gives numbers; or what its method says.
    """
    if stream.regression is not None and not config.strategy.numbers:
        raise ConfigError(
            f"strategy {config.strategy.name} learns classes, but {stream.name} gives "
            f"{' and '.join(stream.regression.targets)} to predict; choose another strategy"
        )
    return config.strategy.build(setting_of(config, stream, network, plugins, evaluator))


def setting_of(
    config: RunConfig,
    stream: TaskStream,
    network: nn.Module,
    plugins: Sequence[SupervisedPlugin],
    evaluator: EvaluationPlugin,
) -> Setting:
    """What a strategy is built for."""
    training = config.training
    workers = config.data.workers if isinstance(config.data, ImageOptions) else 0
    shared: list[SupervisedPlugin] = [InMemoryLoaderPlugin(workers=workers), FreshOptimizerPlugin()]
    shared += [LinearDecayPlugin()] if training.decay else []
    criterion: nn.Module = nn.MSELoss() if stream.regression else nn.CrossEntropyLoss()
    if stream.groups is not None:
        criterion = outputs = ActiveOutputs(criterion, stream.groups)
        shared.append(ActiveOutputsPlugin(outputs))

    def optimizer_for(module: nn.Module) -> torch.optim.Optimizer:
        return OPTIMIZERS[training.optimizer](module.parameters(), training.learning_rate)

    def network_for(input_shape: tuple[int, ...]) -> nn.Module:
        return _initialised(config, input_shape, stream.outputs)

    topology = config.topology
    return Setting(
        stream=stream,
        network=network,
        shared={
            "model": network,
            "optimizer": optimizer_for(network),
            "criterion": criterion,
            "train_mb_size": training.batch_size,
            "train_epochs": training.epochs,
            "eval_mb_size": 1024,
            "device": device_of(training.device),
            "evaluator": evaluator,
            "plugins": [*shared, *plugins],
        },
        seed=config.seed,
        steps=training.steps if isinstance(training, StepTraining) else None,
        network_for=network_for,
        another=lambda: config.network.build(stream.input_shape, stream.outputs),
        optimizer_for=optimizer_for,
        basis_on=partial(build_basis, topology, seed=config.seed),
        topology_kind=topology.kind,
        contexts=config.contexts,
    )


def device_of(name: str) -> torch.device:
    """The device of that name, tried once.

    Raises:
        ConfigError: torch does not know it, or this machine does not have it.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        said = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"training.device is {name!r}, but torch cannot use it ({said}); choose cpu, or cuda "
            "on a machine with a GPU"
        ) from None
    return device
