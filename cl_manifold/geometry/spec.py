"""From plain numbers and strings back to a basis: the one place that lists every kind."""

from collections.abc import Callable
from typing import Any

import torch

from cl_manifold.errors import ConfigError
from cl_manifold.geometry.basis import Basis, Fourier
from cl_manifold.geometry.polynomial import Bernstein
from cl_manifold.geometry.product import TensorProduct
from cl_manifold.geometry.simplex import Codes, Vertices
from cl_manifold.geometry.spline import BSpline, PeriodicBSpline


def _codes(vectors: list[list[float]]) -> Codes:
    return Codes(torch.tensor(vectors, dtype=torch.float64))


def _product(factors: list[dict[str, Any]]) -> TensorProduct:
    return TensorProduct(*(basis_from_spec(f) for f in factors))


KINDS: dict[str, Callable[..., Basis]] = {
    "fourier": Fourier,
    "bernstein": Bernstein,
    "bspline": BSpline,
    "periodic-bspline": PeriodicBSpline,
    "vertices": Vertices,
    "codes": _codes,
    "product": _product,
}


def basis_from_spec(spec: dict[str, Any]) -> Basis:
    """The inverse of `Basis.spec`.

    Raises:
        ConfigError: the spec names a kind that does not exist.

    >>> basis_from_spec(Fourier(2).spec()).spec()
    {'kind': 'fourier', 'harmonics': 2, 'period': 1.0}
    """
    kind = spec.get("kind")
    if kind not in KINDS:
        raise ConfigError(f"there is no basis of kind {kind!r}; choose one of {', '.join(KINDS)}")
    return KINDS[kind](**{key: value for key, value in spec.items() if key != "kind"})
