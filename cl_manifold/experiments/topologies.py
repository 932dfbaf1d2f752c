"""The bases that a configuration can name, each made for the space of a stream's contexts."""

from cl_manifold.errors import ConfigError
from cl_manifold.experiments.names import TOPOLOGIES, load, lookup
from cl_manifold.experiments.settings import TopologyOptions
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


def build_basis(config: TopologyOptions, space: Topology, seed: int) -> Basis:
    """The basis of that kind on the space that a stream's contexts live on.

    Raises:
        ConfigError: the kind does not fit the contexts, or its numbers do not fit each other.
    """
    make = load(lookup("topology", TOPOLOGIES, config.kind).target)
    try:
        basis: Basis = make(config, space, seed)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"topology {config.kind}: {error}") from None
    if basis.topology.dim != space.dim:
        raise ConfigError(
            f"topology {config.kind} has {_numbers(basis.topology.dim)}, but a context of this "
            f"stream has {_numbers(space.dim)}; {_advice(space)}"
        )
    return basis


def circle(config: TopologyOptions, space: Topology, seed: int) -> Basis:
    """Harmonics on a circle of the stream's period."""
    return Fourier(config.harmonics, _length(space))


def interval(config: TopologyOptions, space: Topology, seed: int) -> Basis:
    """Bernstein polynomials on the stream's range."""
    return Bernstein(config.degree, *_ends(space))


def spline(config: TopologyOptions, space: Topology, seed: int) -> Basis:
    """Splines with topology.size functions: periodic on a circle, clamped on an interval."""
    if isinstance(space, Circle):
        return PeriodicBSpline(max(config.size, config.degree + 1), config.degree, space.period)
    return BSpline(max(1, config.size - config.degree), config.degree, *_ends(space))


def product_of_circles(config: TopologyOptions, space: Topology, seed: int) -> Basis:
    """Products of harmonics, one circle per coordinate, at least two."""
    factors = space.factors if isinstance(space, Product) else (Circle(), Circle())
    return TensorProduct(*(Fourier(config.harmonics, _length(f)) for f in factors))


def cylinder(config: TopologyOptions, space: Topology, seed: int) -> Basis:
    """Products of harmonics on every circle and polynomials on every interval."""
    factors = space.factors if isinstance(space, Product) else (Circle(), Interval())
    return TensorProduct(
        *(
            Fourier(config.harmonics, factor.period)
            if isinstance(factor, Circle)
            else Bernstein(config.degree, *_ends(factor))
            for factor in factors
        )
    )


def simplex(config: TopologyOptions, space: Topology, seed: int) -> Basis:
    """One vertex per task."""
    return Vertices(_tasks("simplex", space))


def codes(config: TopologyOptions, space: Topology, seed: int) -> Basis:
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
    if isinstance(space, Product) and any(isinstance(f, Interval) for f in space.factors):
        return "choose --topology cylinder"
    return "choose --topology torus" if space.dim > 1 else "choose --topology circle or interval"
