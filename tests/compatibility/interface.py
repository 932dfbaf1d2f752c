"""The plugin's public interface as the matrix uses it: the one place that knows its spelling."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cl_manifold.errors import ClManifoldError
from cl_manifold.geometry import Basis, Bernstein, Simplex, Vertices
from cl_manifold.manifold.information import ExactInformation, FisherInformation
from cl_manifold.strategies import WeightManifoldPlugin

Number = int | float
Refusal = ClManifoldError

INFORMATION: dict[str, Callable[[], Any]] = {
    "Fisher": FisherInformation,
    "exact": ExactInformation,
}
"""Both ways to protect a finished task, with their defaults."""


def vertices(count: int) -> Basis:
    """One vertex per task: contexts are the integers 0 … count − 1."""
    return Vertices(count)


def interval(count: int) -> Basis:
    """As many control points as contexts on [0, 1]: contexts are floats."""
    return Bernstein(count - 1)


def context_of(basis: Basis, number: Number) -> Tensor:
    """A context as the tensor (dim,) that the manifold takes."""
    if isinstance(basis.topology, Simplex):
        return torch.eye(basis.size, dtype=torch.float64)[int(number)]
    return torch.tensor([float(number)], dtype=torch.float64)


def plugin(basis: Basis, number: Callable[[Any], Number], information: str) -> Any:
    """The plugin with its defaults.

    Args:
        basis: of the manifold.
        number: the context of an experience as a plain number.
        information: a key of `INFORMATION`.
    """
    return WeightManifoldPlugin(basis, contexts=number, information=INFORMATION[information]())


def state_at(manifold_plugin: Any, number: Number) -> dict[str, Tensor]:
    """The weights that the manifold holds at a context, by name."""
    manifold = manifold_plugin.manifold
    return dict(manifold.state(context_of(manifold.basis, number)))


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """Everything a module holds by name: parameters and buffers, persistent or not."""
    return dict(module.named_parameters()) | dict(module.named_buffers())
