"""Topologies, bases and their integrals: pure functions of tensors, without any weights."""

from cl_manifold.geometry.basis import Basis, Fourier, Growth, compose
from cl_manifold.geometry.gram import (
    gram_by_quadrature,
    hierarchical_prior,
    stiffness_by_quadrature,
)
from cl_manifold.geometry.polynomial import Bernstein
from cl_manifold.geometry.product import TensorProduct, times
from cl_manifold.geometry.simplex import Codes, Vertices, random_codes
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
    "BSpline",
    "Basis",
    "Bernstein",
    "Circle",
    "Codes",
    "Fourier",
    "Growth",
    "Interval",
    "PeriodicBSpline",
    "Product",
    "Simplex",
    "TensorProduct",
    "Topology",
    "Vertices",
    "basis_from_spec",
    "compose",
    "gram_by_quadrature",
    "hierarchical_prior",
    "random_codes",
    "stiffness_by_quadrature",
    "times",
    "topology_from_spec",
    "torus",
]
