"""The systems that are compared, by name: how each is built and how it is trained.

All of them see the same batches, take the same number of steps and, but for the two that say SGD,
use Adam with the same rate.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, final

import torch
from torch import nn
from torch.optim import SGD, Adam

from cl_manifold.conditioning.problems import Problem, bin_centres, embed
from cl_manifold.conditioning.systems import (
    Concatenated,
    Configured,
    Film,
    OneForAll,
    OnePerContext,
    Undone,
)
from cl_manifold.errors import ConfigError
from cl_manifold.experiments.names import unknown
from cl_manifold.geometry import Affine, Basis, Orthonormal, Vertices
from cl_manifold.manifold.module import ManifoldModule
from cl_manifold.manifold.natural_step import NaturalStep
from cl_manifold.networks import mlp

Build = Callable[[tuple[int, ...], tuple[int, ...], int], nn.Sequential]
MIXED = 3
"""Networks that the subspace-configurable network mixes."""


@final
@dataclass(frozen=True)
class Setting:
    """What every system has in common.

    Attributes:
        problem: what contexts do.
        build: `mlp` (takes flat inputs) or `cnn` of `cl_manifold.networks`.
        input_shape: channels, height and width.
        widths: of the plain network's hidden layers.
        classes: number of outputs.
        moments: mean and standard deviation by which images are normalised.
        adam_rate: learning rate of Adam.
        sgd_rate: learning rate of SGD with momentum 0.9 on plain gradients.
        natural_rate: learning rate of SGD with momentum 0.9 on natural gradients.
    """

    problem: Problem
    build: Build
    input_shape: tuple[int, ...]
    widths: tuple[int, ...]
    classes: int
    moments: tuple[float, float]
    adam_rate: float
    sgd_rate: float
    natural_rate: float

    @property
    def flat(self) -> bool:
        """Whether the network begins by flattening its input."""
        return self.build is mlp

    def network(self, widths: tuple[int, ...] | None = None, inputs: int = 0) -> nn.Sequential:
        """A plain network, with other widths or with further inputs where asked."""
        channels, *rest = self.input_shape
        shape: tuple[int, ...] = (channels + inputs, *rest)
        if self.flat:
            shape = (prod(self.input_shape) + inputs,)
        return self.build(shape, widths or self.widths, self.classes)


Make = Callable[[Setting], nn.Module]
Optimize = Callable[[nn.Module, Setting], Any]


@final
@dataclass(frozen=True)
class System:
    """One line of the table.

    Attributes:
        name: as in the table.
        summary: what it is, in a few words.
        make: builds the module with torch's global random numbers.
        optimizer: of the module; has `zero_grad` and `step`.
    """

    name: str
    summary: str
    make: Make
    optimizer: Optimize


def parameters_of(module: nn.Module) -> int:
    """How many numbers training may change."""
    return sum(p.numel() for p in module.parameters())


def lineup(problem: Problem) -> dict[str, System]:
    """Every system that makes sense for the problem, the weight manifold first."""
    basis = problem.bases["manifold"]
    found = [
        System("manifold", f"{_shape(basis)}, natural step", _natural(basis), _adam),
        System("manifold-adam", f"{_shape(basis)}, plain Adam", _manifold(basis), _adam),
        System(
            "manifold-natural-sgd", f"{_shape(basis)}, natural SGD", _manifold(basis), _natural_sgd
        ),
        System("manifold-sgd", f"{_shape(basis)}, plain SGD", _manifold(basis), _sgd),
        *(
            System(name, f"{_shape(other)}, natural step", _natural(other), _adam)
            for name, other in problem.bases.items()
            if name != "manifold"
        ),
        System("concat", "context joined to the input, same width", _concat, _adam),
        System("concat-wide", "the same with the manifold's number of weights", _wide, _adam),
        System("film", "gain and shift of every feature from the context", _film, _adam),
        System("hypernetwork", "weights from a network of the context", _hypernetwork, _adam),
        System("scn", f"a learned mixture of {MIXED} networks", _configurable, _adam),
        System("one-for-all", "one network, not told the context", _one_for_all, _adam),
        System("one-per-context", f"{len(bin_centres(problem))} networks", _one_each, _adam),
        System("undo", "oracle: takes the change back first", _undone, _adam),
    ]
    if problem.name == "noise":
        found = [system for system in found if system.name != "undo"]
    return {system.name: system for system in found}


def chosen(problem: Problem, names: tuple[str, ...]) -> list[System]:
    """The systems of those names, or all of them where no name is given.

    Raises:
        ConfigError: the problem has no system of that name, or a name is given twice.
    """
    known = lineup(problem)
    for name in names:
        if name not in known:
            raise ConfigError(f"{unknown('system', name, known)} (for {problem.name})")
        if names.count(name) > 1:
            raise ConfigError(f"system {name!r} is named {names.count(name)} times; name it once")
    return [known[name] for name in names] if names else list(known.values())


def _shape(basis: Basis) -> str:
    return f"{basis.spec()['kind']} K = {basis.size}"


def _manifold(basis: Basis) -> Make:
    """The basis as it is written."""
    return lambda setting: ManifoldModule(setting.network(), basis)


def _natural(basis: Basis) -> Make:
    """The basis made orthonormal: there Adam's steps are natural steps."""
    return _manifold(Orthonormal(basis))


def _told(problem: Problem) -> int:
    """How many numbers an embedded context has."""
    return embed(problem.topology, bin_centres(problem)).shape[-1]


def _concat(setting: Setting) -> nn.Module:
    network = setting.network(inputs=_told(setting.problem))
    return Concatenated(network, setting.problem, setting.flat)


def _wide(setting: Setting) -> nn.Module:
    """Widths multiplied until the number of weights is nearest to that of the manifold."""
    inputs = _told(setting.problem)
    with torch.device("meta"):
        target = setting.problem.bases["manifold"].size * parameters_of(setting.network())

        def miss(width: int) -> int:
            wide = setting.network(_scaled(setting.widths, width), inputs)
            return abs(parameters_of(wide) - target)

        width = setting.widths[0]
        while miss(width + 1) < miss(width):
            width += 1
    network = setting.network(_scaled(setting.widths, width), inputs)
    return Concatenated(network, setting.problem, setting.flat)


def _scaled(widths: tuple[int, ...], first: int) -> tuple[int, ...]:
    return tuple(round(w * first / widths[0]) for w in widths)


def _film(setting: Setting) -> nn.Module:
    return Film(setting.network(), setting.problem)


def _hypernetwork(setting: Setting) -> nn.Module:
    inputs = setting.problem.bases["manifold"].size - 1
    manifold = ManifoldModule(setting.network(), Affine(inputs))
    return Configured(manifold, inputs, torch.tanh, setting.problem)


def _configurable(setting: Setting) -> nn.Module:
    """Every vertex of the simplex starts at a network of its own, as in the source."""
    manifold = ManifoldModule(setting.network(), Vertices(MIXED))
    with torch.no_grad():
        for vertex in range(MIXED):
            fresh = setting.network().parameters()
            for points, start in zip(manifold.parameters(), fresh, strict=True):
                points[vertex] = start
    return Configured(manifold, MIXED, partial(torch.softmax, dim=-1), setting.problem)


def _one_for_all(setting: Setting) -> nn.Module:
    return OneForAll(setting.network())


def _one_each(setting: Setting) -> nn.Module:
    return OnePerContext(setting.network, setting.problem)


def _undone(setting: Setting) -> nn.Module:
    return Undone(setting.network(), setting.problem, setting.moments)


def _adam(module: nn.Module, setting: Setting) -> Any:
    return Adam(module.parameters(), lr=setting.adam_rate)


def _sgd(module: nn.Module, setting: Setting) -> Any:
    return SGD(module.parameters(), lr=setting.sgd_rate, momentum=0.9)


def _natural_sgd(module: nn.Module, setting: Setting) -> Any:
    assert isinstance(module, ManifoldModule)
    optimizer = SGD(module.parameters(), lr=setting.natural_rate, momentum=0.9)
    return NaturalStep(optimizer, module)
