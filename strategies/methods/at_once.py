"""Methods that learn all contexts at once: one model f(x, c) on samples drawn from all of them."""

from functools import partial
from typing import Any, Literal

from cl_manifold.errors import ConfigError
from cl_manifold.options import Count

from .counting import network_and
from .method import Method, Setting, Stored


class JointManifold(Method):
    """Weights are a smooth function of the context, trained at all contexts at once."""

    learns = ("contexts",)
    at_test = "given"
    reads = ("topology",)
    tried = {"natural": ("basis", "gradient", "no")}

    natural: Literal["basis", "gradient", "no"] = "basis"
    """Natural steps by an orthonormal basis, by G⁻¹∇ in the basis as written, or not at all."""

    def build(self, setting: Setting) -> Any:
        from cl_manifold.geometry import Orthonormal
        from cl_manifold.manifold.module import ManifoldModule
        from cl_manifold.manifold.natural_step import NaturalStep

        basis = setting.basis_on(setting.stream.topology)
        basis = Orthonormal(basis) if self.natural == "basis" else basis
        module = ManifoldModule(setting.network, basis)
        optimizer = setting.optimizer_for(module)
        wrapped = NaturalStep(optimizer, module) if self.natural == "gradient" else optimizer
        return all_contexts(setting, module, wrapped)

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        """Control points."""
        return network_and(strategy, input_shape)


class FilmMethod(Method):
    """Gain and shift of every feature, read from the context by a small network."""

    source = "Perez et al. 2018 (FiLM)"
    learns = ("contexts",)
    at_test = "given"
    reads = ("topology",)
    tried = {"hidden": (8, 32, 128)}

    hidden: Count = 32
    """Width of the network that reads the context."""

    def build(self, setting: Setting) -> Any:
        from cl_manifold.strategies.context_networks import Film

        return all_contexts(setting, Film(fresh(setting), features_of(setting), self.hidden))

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        """The network, and what reads the context."""
        return network_and(strategy, input_shape)


class Hypernetwork(Method):
    """Weights that are the last layer of a network of the context."""

    source = "Ha, Dai and Le 2017 (HyperNetworks)"
    learns = ("contexts",)
    at_test = "given"
    reads = ("topology",)
    tried = {"dimensions": (2, 4, 8)}

    hidden: Count = 32
    """Width of the network that reads the context."""
    dimensions: Count = 2
    """Numbers that it reads; the weights are an affine function of them."""

    def build(self, setting: Setting) -> Any:
        import torch

        from cl_manifold.geometry import Affine
        from cl_manifold.manifold.module import ManifoldModule
        from cl_manifold.strategies.context_networks import Configured, reader

        features = features_of(setting)
        manifold = ManifoldModule(fresh(setting), Affine(self.dimensions))
        read = reader(features.size, self.hidden, self.dimensions)
        return all_contexts(setting, Configured(manifold, features, read, torch.tanh))

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        """Control points, and what reads the context."""
        return network_and(strategy, input_shape)


class SubspaceConfigurable(Method):
    """A mixture of networks, with weights that a small network reads from the context."""

    source = "Saukh et al. 2023, arXiv 2305.13536"
    learns = ("contexts",)
    at_test = "given"
    reads = ("topology",)
    tried = {"networks": (3, 5, 8)}

    hidden: Count = 32
    """Width of the network that reads the context."""
    networks: Count = 3
    """How many networks are mixed; each starts at weights of its own, as in the source."""

    def build(self, setting: Setting) -> Any:
        import torch

        from cl_manifold.geometry import Vertices
        from cl_manifold.manifold.module import ManifoldModule
        from cl_manifold.strategies.context_networks import Configured, reader

        features = features_of(setting)
        manifold = ManifoldModule(fresh(setting), Vertices(self.networks))
        with torch.no_grad():
            for vertex in range(self.networks):
                starts = setting.another().parameters()
                for points, start in zip(manifold.parameters(), starts, strict=True):
                    points[vertex] = start
        read = reader(features.size, self.hidden, self.networks)
        return all_contexts(
            setting, Configured(manifold, features, read, partial(torch.softmax, dim=-1))
        )

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        """The networks, and what reads the context."""
        return network_and(strategy, input_shape)


class OnePerContextMethod(Method):
    """A network of its own for every part of the trained contexts; others take the nearest's."""

    learns = ("contexts",)
    at_test = "given"
    chosen = {
        "noise": {"strategy.networks": (5,)},
        "rotation-noise": {"strategy.networks": (9, 2)},
    }

    networks: tuple[Count, ...] = (9,)
    """Equal parts of each coordinate's trained range."""

    def build(self, setting: Setting) -> Any:
        from cl_manifold.geometry.quadrature import combined
        from cl_manifold.strategies.context_networks import OnePerContext
        from cl_manifold.streams.continuum import middles

        trained = setting.stream.trained or ()
        if len(self.networks) != len(trained):
            raise ConfigError(
                f"strategy.networks has {len(self.networks)} numbers, but a context of "
                f"{setting.stream.name} has {len(trained)}; give one for each"
            )
        pairs = zip(trained, self.networks, strict=True)
        centres = combined([middles(whole, parts) for whole, parts in pairs])
        networks = [fresh(setting), *(setting.another() for _ in centres[1:])]
        return all_contexts(setting, OnePerContext(networks, centres, setting.stream.topology))

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        """The networks."""
        return network_and(strategy, input_shape)


def fresh(setting: Setting) -> Any:
    """The network as the seed initialises it; torch's random numbers go on from there."""
    return setting.network_for(setting.stream.input_shape)


def features_of(setting: Setting) -> Any:
    """What is told of a context: the functions of the basis that the settings name."""
    from cl_manifold.strategies.context_input import ContextFeatures

    return ContextFeatures(setting.basis_on(setting.stream.topology))


def all_contexts(setting: Setting, module: Any, optimizer: Any = None) -> Any:
    """The strategy that trains a model f(x, c) on a stream of all contexts at once."""
    from cl_manifold.strategies.continuum import ContinuumTraining

    optimizer = optimizer or setting.optimizer_for(module)
    more = {"steps": setting.steps, "seed": setting.seed}
    return ContinuumTraining(**setting.template(model=module, optimizer=optimizer, **more))


def concatenated(setting: Setting) -> Any:
    """A network that reads features of the context beside its input."""
    from cl_manifold.strategies.context_networks import Concatenated

    features = features_of(setting)
    network, flat = wider(setting, features.size)
    return Concatenated(network, features, flat)


def wider(setting: Setting, features: int) -> tuple[Any, bool]:
    """The network for inputs with that many features beside them, and whether they are flat.

    They are where the network begins with flattening; else the features are channels.
    """
    from math import prod

    from torch import nn

    layers = (m for m in setting.network.modules() if not list(m.children()))
    flat = isinstance(next(layers), nn.Flatten)
    channels, *size = setting.stream.input_shape
    shape = (prod((channels, *size)) + features,) if flat else (channels + features, *size)
    return setting.network_for(shape), flat
