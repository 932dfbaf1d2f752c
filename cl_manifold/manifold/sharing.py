"""The same control points for both ways to train: all contexts at once, one after the other.

What `as_module` and `as_manifold` return shares its memory with what they were given: a step of an
optimizer on the module moves the weights of the manifold, and a commit those of the module.
"""

from typing import Any

from cl_manifold.errors import LayoutError
from cl_manifold.manifold.layout import State
from cl_manifold.manifold.module import ManifoldModule
from cl_manifold.manifold.points import ControlPoints, Dense, computed_in
from cl_manifold.manifold.weight_manifold import WeightManifold


def as_module(manifold: WeightManifold) -> ManifoldModule:
    """A network with a context per sample on the manifold's own control points.

    What finished tasks hold is not asked: an optimizer may move what they protect. Buffers are
    those that the live network holds now, in every context.

    Raises:
        LayoutError: a parameter is not on the manifold, or its points are stored in fewer bits.
    """
    net = ManifoldModule(manifold.module, manifold.basis)
    offset = manifold.points.offset
    for name, p in net.module.named_parameters():
        if name not in manifold.layout.names:
            raise LayoutError(
                f"{name} is not on the weight manifold, but a context per sample needs every "
                "parameter there; leave out select=..."
            )
        stored = manifold.points.of(name)
        if not isinstance(stored, Dense) or stored.values.dtype != p.dtype:
            raise LayoutError(
                f"the control points of {name} are stored as {manifold.points.storage}, which no "
                "optimizer can train; use storage='float32' and a network in that precision"
            )
        p.data = stored.values.data
        if offset is not None:
            net.keep_offset(name, offset[name])
    return net


def as_manifold(net: ManifoldModule, **options: Any) -> WeightManifold:
    """A weight manifold without finished tasks on the module's own control points.

    Hold what was trained jointly by checking out each context and committing its information; the
    weights do not move.

    Args:
        net: trained at all contexts at once, or not at all.
        **options: of `WeightManifold`: blocks and strength.

    Raises:
        LayoutError: the options ask for what shared control points cannot be, or the module
            computes in half precision.
    """
    if options.get("storage", "float32") != "float32" or "select" in options:
        raise LayoutError(
            "shared control points are stored as the module's parameters are, all of them; leave "
            "out storage and select"
        )
    for name, p in net.module.named_parameters():
        if p.dtype != computed_in(p):
            raise LayoutError(
                f"{name} is {p.dtype}, in which commits would be too coarse; "
                "use a network in float32"
            )
    start = net.basis.topology.grid(2)[0]
    manifold = WeightManifold(net.materialise(start), net.basis, **options)
    offset = net.offset()
    if options.get("growable") and not offset:
        raise LayoutError(
            "re-embedding needs the initial network, which a ManifoldModule does not keep; leave "
            "out growable, or train the manifold first and the module from as_module(manifold)"
        )
    layout = manifold.layout
    points: State = dict(net.module.named_parameters())
    manifold.points = ControlPoints(
        layout, {e.name: Dense(points[e.name].data) for e in layout.entries}, offset, "float32"
    )
    return manifold
