"""Atlas: the one ledger of finished tasks. A coordinate stands here and nowhere else."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from cl_manifold.errors import LayoutError
from cl_manifold.geometry import Growth, Topology


@dataclass(frozen=True)
class Task:
    """A finished task.

    Attributes:
        context: shape (dim,), canonical coordinates, float64, on the CPU.
        phi: φ(context), shape (K,), float64, on the CPU.
        information: f per block, shape (B,), float32; None where it is not kept.
    """

    context: Tensor
    phi: Tensor
    information: Tensor | None

    @property
    def exact(self) -> bool:
        """Whether it is protected exactly, f = ∞."""
        return self.information is not None and bool(self.information.isinf().all())


@dataclass(frozen=True)
class Reference:
    """How the task at a coordinate did on held-out samples right after its training.

    Attributes:
        context: its coordinate.
        losses: one per held-out sample, float32.
        trained: how many samples it was trained on.
    """

    context: Tensor
    losses: Tensor
    trained: int


@final
class Atlas:
    """The finished tasks of a manifold, in order.

    Attributes:
        topology: the space of their contexts.
        tasks: one per visit.
        references: one per coordinate, where decisions are made.
        assigned: the coordinate of every experience of a stream that was trained.
    """

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.tasks: tuple[Task, ...] = ()
        self.references: tuple[Reference, ...] = ()
        self.assigned: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.tasks)

    def visited(self, context: Float[Tensor, " dim"]) -> bool:
        """Whether a finished task lies at the context."""
        return any(self.same(t.context, context) for t in self.tasks)

    def same(self, a: Float[Tensor, " dim"], b: Float[Tensor, " dim"]) -> bool:
        """Whether two contexts are one coordinate."""
        return bool(self.topology.same(a, b))

    def contexts(self) -> Float[Tensor, "T dim"]:
        """Of the tasks, in order."""
        empty = torch.empty(0, self.topology.dim, dtype=torch.float64)
        return torch.stack([t.context for t in self.tasks]) if self.tasks else empty

    def phis(self, size: int) -> Float[Tensor, "T K"]:
        """φ of the tasks, in order; `size` is K."""
        empty = torch.empty(0, size, dtype=torch.float64)
        return torch.stack([t.phi for t in self.tasks]) if self.tasks else empty

    def information(self, blocks: int) -> Float[Tensor, "T B"]:
        """F of the tasks, in order; `blocks` is B.

        Raises:
            LayoutError: it was not kept.
        """
        kept = [t.information for t in self.tasks if t.information is not None]
        if len(kept) < len(self.tasks):
            raise LayoutError(
                "this needs the information of finished tasks, which blocks='weight' does not "
                "keep by default; build the manifold with growable=True"
            )
        return torch.stack(kept) if kept else torch.empty(0, blocks)

    def reference(self, context: Float[Tensor, " dim"]) -> Reference | None:
        """The reference at that coordinate."""
        return next((r for r in self.references if self.same(r.context, context)), None)

    def remember(self, reference: Reference) -> None:
        """Add a reference, or replace the one at its coordinate."""
        old = self.reference(reference.context)
        self.references = (*(r for r in self.references if r is not old), reference)

    def without(self, context: Float[Tensor, " dim"]) -> tuple[Task, ...]:
        """The tasks at other coordinates."""
        return tuple(t for t in self.tasks if not self.same(t.context, context))

    def move(self, growth: Growth) -> None:
        """Carry everything over to a grown basis."""
        self.topology = growth.basis.topology
        self.tasks = tuple(
            Task(c, growth.basis(c), t.information)
            for t, c in ((t, growth.embed(t.context)) for t in self.tasks)
        )
        self.references = tuple(
            replace(r, context=growth.embed(r.context)) for r in self.references
        )
        self.assigned = {i: growth.embed(c) for i, c in self.assigned.items()}

    def reblock(self, information: Sequence[Tensor | None]) -> None:
        """Give every task its information on other blocks."""
        pairs = zip(self.tasks, information, strict=True)
        self.tasks = tuple(replace(t, information=f) for t, f in pairs)

    @property
    def nbytes(self) -> int:
        """Bytes kept; information that is one number for all blocks counts once."""
        kept = [t.context for t in self.tasks] + [t.phi for t in self.tasks]
        kept += [r.context for r in self.references] + [r.losses for r in self.references]
        kept += list(self.assigned.values())
        bytes_of = sum(t.nbytes for t in kept)
        return bytes_of + sum(
            t.information.untyped_storage().nbytes()
            for t in self.tasks
            if t.information is not None
        )
