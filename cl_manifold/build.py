"""From a configuration to objects: stream, basis, network, strategy."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from torch import nn

from cl_manifold.catalog import STRATEGIES, STREAMS, TOPOLOGIES, load, lookup
from cl_manifold.config import RunConfig, StreamConfig, TopologyConfig
from cl_manifold.contexts import GivenContext, InferredContext
from cl_manifold.contexts.replay import rule_named
from cl_manifold.errors import ConfigError
from cl_manifold.geometry import (
    Basis,
    Bernstein,
    BSpline,
    Circle,
    Codes,
    Fourier,
    Interval,
    PeriodicBSpline,
    Product,
    Simplex,
    TensorProduct,
    Topology,
    Vertices,
    random_codes,
)
from cl_manifold.manifold.information import ExactInformation, FisherInformation
from cl_manifold.networks import mlp
from cl_manifold.strategies import (
    ActiveOutputs,
    ActiveOutputsPlugin,
    DecisionOptions,
    FreshOptimizerPlugin,
    InferredTesting,
    InMemoryLoaderPlugin,
    LinearDecayPlugin,
    TopologyWatch,
    WeightManifoldPlugin,
)
from cl_manifold.streams import StreamOptions, TaskStream

# -- streams -------------------------------------------------------------------------------------


def build_stream(config: StreamConfig, data_dir: Path | None, seed: int) -> TaskStream:
    """The stream of that name.

    Raises:
        ConfigError: the options do not fit the data.
        DataError: data files are missing.
    """
    options = StreamOptions(
        contexts=config.contexts,
        samples=config.samples,
        test_samples=config.test_samples,
        order=config.order,
        variant=config.variant,
        seed=seed,
    )
    make = load(lookup("stream", STREAMS, config.name).target)
    return make(options, data_dir, config.holdout, config.download)


# -- topologies ----------------------------------------------------------------------------------


def build_basis(config: TopologyConfig, space: Topology, seed: int) -> Basis:
    """The basis of that kind on the space that a stream's contexts live on.

    Raises:
        ConfigError: the kind does not fit the dimension of the contexts.
    """
    make = load(lookup("topology", TOPOLOGIES, config.kind).target)
    basis: Basis = make(config, space, seed)
    if basis.topology.dim != space.dim:
        raise ConfigError(
            f"topology {config.kind} has {_numbers(basis.topology.dim)}, but a context of this "
            f"stream has {_numbers(space.dim)}; {_advice(space)}"
        )
    return basis


def circle(config: TopologyConfig, space: Topology, seed: int) -> Basis:
    """Harmonics on a circle of the stream's period."""
    return Fourier(config.harmonics, _length(space))


def interval(config: TopologyConfig, space: Topology, seed: int) -> Basis:
    """Bernstein polynomials on the stream's range."""
    return Bernstein(config.degree, *_ends(space))


def spline(config: TopologyConfig, space: Topology, seed: int) -> Basis:
    """Splines with topology.size functions: periodic on a circle, clamped on an interval."""
    if isinstance(space, Circle):
        return PeriodicBSpline(max(config.size, config.degree + 1), config.degree, space.period)
    return BSpline(max(1, config.size - config.degree), config.degree, *_ends(space))


def product_of_circles(config: TopologyConfig, space: Topology, seed: int) -> Basis:
    """Products of harmonics, one circle per coordinate, at least two."""
    factors = space.factors if isinstance(space, Product) else (Circle(), Circle())
    return TensorProduct(*(Fourier(config.harmonics, _length(f)) for f in factors))


def simplex(config: TopologyConfig, space: Topology, seed: int) -> Basis:
    """One vertex per task."""
    return Vertices(_tasks("simplex", space))


def codes(config: TopologyConfig, space: Topology, seed: int) -> Basis:
    """Random unit vectors in topology.size dimensions, one per task."""
    basis: Codes = random_codes(config.size, _tasks("codes", space), seed)
    return basis


def _tasks(kind: str, space: Topology) -> int:
    if isinstance(space, Simplex):
        return space.vertices
    raise ConfigError(
        f"topology {kind} is for unrelated tasks, but contexts of this stream live on "
        f"{_article(space)} with {_numbers(space.dim)}; {_advice(space)}"
    )


def _length(space: Topology) -> float:
    if isinstance(space, Circle):
        return space.period
    return space.high - space.low if isinstance(space, Interval) else 1.0


def _ends(space: Topology) -> tuple[float, float]:
    if isinstance(space, Interval):
        return space.low, space.high
    return 0.0, _length(space)


def _numbers(dim: int) -> str:
    return f"{dim} coordinate{'s' if dim != 1 else ''}"


def _article(space: Topology) -> str:
    kind = space.spec()["kind"]
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _advice(space: Topology) -> str:
    if isinstance(space, Simplex):
        return "choose --topology simplex or codes"
    return "choose --topology torus" if space.dim > 1 else "choose --topology circle or interval"


# -- networks and strategies ---------------------------------------------------------------------

OPTIMIZERS: Mapping[str, Any] = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
"""By training.optimizer; called with parameters and learning rate."""


def build_network(config: RunConfig, stream: TaskStream) -> nn.Sequential:
    """The network, initialised from the seed."""
    torch.manual_seed(config.seed)
    return mlp(stream.input_shape, config.training.hidden, stream.classes)


def build_strategy(
    config: RunConfig,
    stream: TaskStream,
    network: nn.Module,
    plugins: Sequence[SupervisedPlugin],
    evaluator: EvaluationPlugin,
) -> Any:
    """The strategy of that name around a network.

    All strategies share optimizer, schedule, loader and network. Each is a function of
    (config, stream, template): what it adds, and what Avalanche's template takes.
    """
    make = load(lookup("strategy", STRATEGIES, config.strategy.name).target)
    training = config.training
    shared: list[SupervisedPlugin] = [InMemoryLoaderPlugin(), FreshOptimizerPlugin()]
    shared += [LinearDecayPlugin()] if training.decay else []
    criterion: nn.Module = nn.CrossEntropyLoss()
    if stream.groups is not None:
        criterion = outputs = ActiveOutputs(criterion, stream.groups)
        shared.append(ActiveOutputsPlugin(outputs))
    template: dict[str, Any] = {
        "model": network,
        "optimizer": OPTIMIZERS[training.optimizer](network.parameters(), training.learning_rate),
        "criterion": criterion,
        "train_mb_size": training.batch_size,
        "train_epochs": training.epochs,
        "eval_mb_size": 1024,
        "device": training.device,
        "evaluator": evaluator,
        "plugins": [*shared, *plugins],
    }
    return make(config, stream, template)


def weight_manifold(config: RunConfig, stream: TaskStream, template: dict[str, Any]) -> Naive:
    """Naive training between check-out and commit."""
    chosen = config.strategy
    exact = chosen.protection == "exact"
    inferred = config.contexts.training == "inferred"
    manifold = WeightManifoldPlugin(
        starting_basis(config, stream),
        contexts=InferredContext() if inferred else GivenContext(),
        deciding=build_deciding(config),
        testing=InferredTesting(config.contexts.batch, config.contexts.features, seed=config.seed)
        if config.contexts.test == "inferred"
        else None,
        shaping=TopologyWatch(_length(stream.topology), config.contexts.topology == "auto")
        if config.contexts.topology != "fixed"
        else None,
        price=chosen.price,
        information=ExactInformation() if exact else FisherInformation(chosen.information_samples),
        blocks=chosen.blocks,
        strength=chosen.strength,
        storage=chosen.storage,
    )
    template["plugins"].append(manifold)
    return Naive(**template)


def starting_basis(config: RunConfig, stream: TaskStream) -> Basis:
    """The basis of the first task: where contexts are inferred, a simplex starts at one vertex."""
    given = config.contexts.training == "given"
    if config.contexts.topology != "fixed" and not given:
        raise ConfigError(
            f"contexts.topology is {config.contexts.topology}, which compares given contexts, but "
            "contexts.training is inferred; leave contexts.topology fixed"
        )
    if config.contexts.topology == "auto":
        if config.contexts.rule not in ("auto", "none"):
            raise ConfigError(
                f"contexts.topology is auto and contexts.rule is {config.contexts.rule}, but only "
                "one of them can change the basis; leave one out"
            )
        return Vertices(1)
    if given:
        return build_basis(config.topology, stream.topology, config.seed)
    if config.topology.kind == "codes":
        raise ConfigError(
            "topology codes needs to know how many tasks there are, but contexts are inferred; "
            "choose --topology simplex, which grows a vertex per new task"
        )
    if config.topology.kind == "simplex":
        return Vertices(1)
    space = Circle() if isinstance(stream.topology, Simplex) else stream.topology
    return build_basis(config.topology, space, config.seed)


def build_deciding(config: RunConfig) -> DecisionOptions | None:
    """The rule of that name and its limits; "auto" decides only where contexts are inferred.

    Raises:
        ConfigError: contexts are inferred, but nothing decides.
    """
    chosen, inferred = config.contexts, config.contexts.training == "inferred"
    if inferred and chosen.rule == "none":
        raise ConfigError(
            "contexts.rule is none, but contexts.training is inferred, which needs a rule that "
            "tells returning tasks from new ones; choose evidence"
        )
    if chosen.rule == "none" or (chosen.rule == "auto" and not inferred):
        return None
    name = "evidence" if chosen.rule == "auto" else chosen.rule
    return DecisionOptions(
        rule_named(name, chosen.level, chosen.tolerance, chosen.drift),
        chosen.held_out,
        chosen.probe_share,
        chosen.max_control_points,
        config.seed,
    )
