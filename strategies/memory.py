"""What is remembered of finished tasks to decide about new ones: losses, no samples."""

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from cl_manifold.geometry import Growth, Topology, Vertices
from cl_manifold.manifold.weight_manifold import WeightManifold


@dataclass(frozen=True)
class Reference:
    """How a finished task did on held-out samples right after its training.

    Attributes:
        context: its coordinate.
        losses: one per held-out sample, float32.
        trained: how many samples it was trained on.
    """

    context: Tensor
    losses: Tensor
    trained: int


@final
class TaskMemory:
    """References by coordinate, and the coordinate that every experience was assigned.

    Attributes:
        references: one per visited coordinate.
        assigned: coordinate by experience, in today's coordinates.
    """

    def __init__(self) -> None:
        self.references: list[Reference] = []
        self.assigned: dict[int, Tensor] = {}

    def nearest(self, topology: Topology, context: Tensor) -> Reference:
        """The reference whose coordinate is closest; there must be one."""
        places = torch.stack([r.context for r in self.references])
        distance = topology.distance(places, context.expand_as(places))
        return self.references[int(distance.argmin())]

    def at(self, topology: Topology, context: Tensor) -> Reference | None:
        """The reference at that very coordinate."""
        if not self.references:
            return None
        found = self.nearest(topology, context)
        return found if float(topology.distance(found.context, context)) <= 1e-9 else None

    def keep(self, topology: Topology, reference: Reference) -> None:
        """Add a reference, or replace the one at its coordinate."""
        old = self.at(topology, reference.context)
        self.references = [r for r in self.references if r is not old] + [reference]

    def embed(self, growth: Growth) -> None:
        """Carry all coordinates over to a grown basis."""
        self.references = [replace(r, context=growth.embed(r.context)) for r in self.references]
        self.assigned = {i: growth.embed(c) for i, c in self.assigned.items()}

    def grow(self, manifold: WeightManifold, growth: Growth) -> None:
        """Grow the manifold and carry everything over.

        A further vertex leaves all others alone; any other growth is re-embedded.
        """
        if isinstance(growth.basis, Vertices) and isinstance(manifold.basis, Vertices):
            manifold.grow(growth)
        else:
            manifold.grow_and_reembed(growth)
        self.embed(growth)

    @property
    def stored_floats(self) -> int:
        """Losses and coordinates, in units of 32 bits."""
        return sum(len(r.losses) + 2 * len(r.context) + 1 for r in self.references)
