"""From plain numbers and strings back to a basis: the one place that lists every kind."""

from collections.abc import Callable
from typing import Any

import torch

from cl_manifold.errors import ConfigError
from cl_manifold.geometry.affine import Affine
from cl_manifold.geometry.basis import Basis
from cl_manifold.geometry.fourier import Fourier
from cl_manifold.geometry.named import class_at
from cl_manifold.geometry.orthonormal import Orthonormal
from cl_manifold.geometry.polynomial import Bernstein
from cl_manifold.geometry.product import TensorProduct
from cl_manifold.geometry.simplex import Codes, Vertices
from cl_manifold.geometry.spline import BSpline, PeriodicBSpline
from cl_manifold.geometry.topology import topology_from_spec


def _codes(vectors: list[list[float]]) -> Codes:
    return Codes(torch.tensor(vectors, dtype=torch.float64))


def _product(factors: list[dict[str, Any]]) -> TensorProduct:
    return TensorProduct(*(basis_from_spec(f) for f in factors))


def _orthonormal(basis: dict[str, Any]) -> Orthonormal:
    return Orthonormal(basis_from_spec(basis))


KINDS: dict[str, Callable[..., Basis]] = {
    "fourier": Fourier,
    "bernstein": Bernstein,
    "bspline": BSpline,
    "periodic-bspline": PeriodicBSpline,
    "vertices": Vertices,
    "codes": _codes,
    "product": _product,
    "affine": Affine,
    "orthonormal": _orthonormal,
}


def basis_from_spec(spec: dict[str, Any]) -> Basis:
    """The inverse of `Basis.spec`.

    Raises:
        ConfigError: the spec names a kind that does not exist, or does not fit it.

    >>> basis_from_spec(Fourier(2).spec()).spec()
    {'kind': 'fourier', 'harmonics': 2, 'period': 1.0}
    """
    kind = spec.get("kind")
    values = {key: value for key, value in spec.items() if key != "kind"}
    if kind in KINDS:
        return _built(kind, KINDS[kind], values)
    if isinstance(kind, str) and ":" in kind:
        own = {key: _restored(value) for key, value in values.items()}
        return _built(kind, class_at(kind, Basis), own)
    raise ConfigError(
        f"there is no basis of kind {kind!r}; choose one of {', '.join(KINDS)}, "
        "or name a class of your own as package.module:Class"
    )


def _built(kind: str, make: Callable[..., Basis], values: dict[str, Any]) -> Basis:
    try:
        return make(**values)
    except TypeError as error:
        raise ConfigError(
            f"a basis of kind {kind} cannot be built from {values} ({error}); "
            "give the arguments that its spec() names"
        ) from error


def _restored(value: Any) -> Any:
    """The inverse of how `Basis.spec` describes an argument."""
    match value:
        case {"topology": spec}:
            return topology_from_spec(spec)
        case {"basis": spec}:
            return basis_from_spec(spec)
        case list():
            return [_restored(part) for part in value]  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value
