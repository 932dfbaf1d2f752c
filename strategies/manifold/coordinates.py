"""Where experiences lie on the topology: given, or assigned while they were trained."""

from typing import Any, final
from warnings import warn

import torch
from torch import Tensor

from cl_manifold.contexts import ContextPolicy, position
from cl_manifold.errors import ContextError
from cl_manifold.manifold.weight_manifold import WeightManifold

from .shaping import TopologyWatch


@final
class Coordinates:
    """From an experience to its coordinate.

    Attributes:
        policy: gives contexts, or None where they are to be inferred.
        told: the context of the last trained experience as it was given.
    """

    def __init__(self, policy: ContextPolicy, shaping: TopologyWatch | None) -> None:
        self.policy, self.shaping = policy, shaping
        self.told: Tensor | None = None
        self._raw: dict[int, Tensor] = {}
        self._warned = False

    def trained(self, manifold: WeightManifold, experience: Any) -> Tensor | None:
        """The canonical context of a training experience; None where it is to be inferred."""
        given = self._given(manifold, experience)
        if given is not None and self.shaping is not None:
            self.told = given
            given, growth = self.shaping.place(manifold, given)
            if growth is not None:
                manifold.grow(growth)
        wrapped = _wrapped(manifold, experience, given)
        if wrapped is not None and manifold.basis.topology.dim == 1:
            raw = torch.as_tensor(self.policy(experience), dtype=torch.float64).reshape(-1)
            self._warn_of_units(manifold, raw, position(experience))
        return wrapped

    def tested(self, manifold: WeightManifold, experience: Any) -> Tensor:
        """The given context, or the one that the experience was assigned while training."""
        given = self._given(manifold, experience)
        if given is not None and self.shaping is not None:
            given = self.shaping.somewhere(manifold, given)
        wrapped = _wrapped(manifold, experience, given)
        if wrapped is not None:
            return wrapped
        assigned = manifold.atlas.assigned
        index = position(experience)
        return assigned[index if index in assigned else max(assigned)]

    def _given(self, manifold: WeightManifold, experience: Any) -> Tensor | None:
        value = self.policy(experience)
        if value is None and self.shaping is not None:
            raise ContextError(
                f"experience {position(experience)} has no given context, which topologies are "
                "compared by; give contexts, or leave shaping out"
            )
        if value is None:
            return None
        if self.shaping is not None:
            return torch.as_tensor(value, dtype=torch.float64).reshape(-1)
        try:
            return manifold.basis.topology.embed(value)
        except ContextError as error:
            raise ContextError(f"experience {position(experience)}: {error}") from error

    def _warn_of_units(self, manifold: WeightManifold, raw: Tensor, index: int) -> None:
        """Contexts more than two periods apart that wrap to one: a wrong period. Said once."""
        topology = manifold.basis.topology
        periods = 4 * torch.pi * topology.scale[0]
        for other in () if self._warned else [r for i, r in self._raw.items() if i != index]:
            far = float((raw - other).abs()) > periods
            if far and bool(topology.same(topology.wrap(other), topology.wrap(raw))):
                self._warned = True
                warn(
                    f"contexts {other.tolist()} and {raw.tolist()} of different experiences "
                    f"coincide on {topology.spec()}: both are one coordinate; check the period and "
                    "the unit",
                    stacklevel=2,
                )
                break
        self._raw[index] = raw


def _wrapped(manifold: WeightManifold, experience: Any, context: Tensor | None) -> Tensor | None:
    """The context in canonical coordinates, or an error that names the experience."""
    if context is None:
        return None
    try:
        return manifold.basis.topology.wrap(context)
    except ContextError as error:
        raise ContextError(f"experience {position(experience)}: {error}") from error
