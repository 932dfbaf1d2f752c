"""Topologies, bases and their integrals: pure functions of tensors, without any weights."""

from cl_manifold.geometry.affine import Affine
from cl_manifold.geometry.basis import (
    Basis,
    Growth,
    gram_by_quadrature,
    stiffness_by_quadrature,
)
from cl_manifold.geometry.fourier import Fourier
from cl_manifold.geometry.growth import compose, times
from cl_manifold.geometry.orthonormal import Orthonormal
from cl_manifold.geometry.polynomial import Bernstein
from cl_manifold.geometry.product import TensorProduct
from cl_manifold.geometry.simplex import Codes, Vertices, random_codes
from cl_manifold.geometry.smooth import smooth_basis
from cl_manifold.geometry.spec import basis_from_spec
from cl_manifold.geometry.spline import BSpline, PeriodicBSpline
from cl_manifold.geometry.topology import (
    Circle,
    Interval,
    Product,
    Simplex,
    Topology,
    topology_from_spec,
    torus,
)

__all__ = [
    "Affine",
    "BSpline",
    "Basis",
    "Bernstein",
    "Circle",
    "Codes",
    "Fourier",
    "Growth",
    "Interval",
    "Orthonormal",
    "PeriodicBSpline",
    "Product",
    "Simplex",
    "TensorProduct",
    "Topology",
    "Vertices",
    "basis_from_spec",
    "compose",
    "gram_by_quadrature",
    "random_codes",
    "smooth_basis",
    "stiffness_by_quadrature",
    "times",
    "topology_from_spec",
    "torus",
]
