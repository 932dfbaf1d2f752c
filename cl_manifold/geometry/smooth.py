"""A smooth basis for any topology, where nobody chose one."""

from cl_manifold.geometry.basis import Basis
from cl_manifold.geometry.fourier import Fourier
from cl_manifold.geometry.polynomial import Bernstein
from cl_manifold.geometry.product import TensorProduct
from cl_manifold.geometry.simplex import Vertices
from cl_manifold.geometry.topology import Circle, Interval, Product, Topology


def smooth_basis(space: Topology, order: int) -> Basis:
    """Harmonics or polynomials up to `order`, vertices on a simplex, the product on a product."""
    if isinstance(space, Product):
        return TensorProduct(*(smooth_basis(factor, order) for factor in space.factors))
    if isinstance(space, Circle):
        return Fourier(order, space.period)
    if isinstance(space, Interval):
        return Bernstein(order, space.low, space.high)
    return Vertices(space.dim)
