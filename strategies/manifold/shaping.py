"""Watching which topology the finished tasks speak for, and turning into it."""

from typing import Any, final

import torch
from torch import Tensor

from cl_manifold.contexts.sketch import TaskGram, drive
from cl_manifold.contexts.topology_choice import candidates, into, topology_evidence, winner
from cl_manifold.geometry import Growth, Vertices
from cl_manifold.geometry.basis import same_context
from cl_manifold.manifold.layout import State
from cl_manifold.manifold.watching import watching
from cl_manifold.manifold.weight_manifold import WeightManifold

from .samples import drawn

FEWEST = 8
"""Tasks that must be finished before a topology is chosen: fewer lie on almost anything."""

DRIVEN = 1024
"""Samples of a task whose drive is measured."""


@final
class TopologyWatch:
    """Compares topologies after each task; with `follows` the manifold turns into the best one.

    A manifold that follows starts with a vertex per context, which forgets nothing, and once the
    evidence says so it is re-embedded into a line, a circle or a point: the same tasks with fewer
    control points, and weights between them. Where codes win it stays as it is.

    Needs given contexts, and the initial network, at which the drives of all tasks are compared
    (`growable=True`). Stores a sketch of each task's drive, no samples.

    Attributes:
        evidence: by topology, in nats per weight, after the last task; empty before the second.
        topology: name of the winner; empty while there are too few tasks.
        follows: whether the manifold follows the winner; its basis must then be `Vertices(1)`.
    """

    def __init__(self, period: float = 1.0, follows: bool = False, seed: int = 0) -> None:
        """Before the first task.

        Args:
            period: length of the circle, range of the interval.
            follows: start with vertices and turn into the winner.
            seed: of the sketches.
        """
        self.period, self.follows = period, follows
        self.gram = TaskGram(seed=seed)
        self._generator = torch.Generator().manual_seed(seed)
        self.contexts: list[Tensor] = []
        self.evidence: dict[str, float] = {}
        self.topology = ""
        self._vertices: list[Tensor] | None = [] if follows else None

    def place(self, manifold: WeightManifold, context: Tensor) -> tuple[Tensor, Growth | None]:
        """The context on today's basis; where tasks are vertices a new one needs a growth first."""
        if self._vertices is None:
            return context, None
        index = self._index(context)
        if index is not None:
            return torch.eye(manifold.basis.size, dtype=torch.float64)[index], None
        self._vertices.append(context)
        if len(self._vertices) == 1:
            return torch.ones(1, dtype=torch.float64), None
        growth = manifold.basis.grown()
        return torch.eye(growth.basis.size, dtype=torch.float64)[-1], growth

    def somewhere(self, manifold: WeightManifold, context: Tensor) -> Tensor:
        """The context on today's basis for evaluation; the centre where it has no vertex."""
        if self._vertices is None:
            return context
        index, size = self._index(context), manifold.basis.size
        eye = torch.eye(size, dtype=torch.float64)
        return eye.mean(0) if index is None else eye[index]

    def watch(self, strategy: Any, manifold: WeightManifold, context: Tensor) -> Growth | None:
        """Take in the finished experience; the change into the winner, where there is one to make.

        Args:
            strategy: in after_training_exp.
            manifold: with the experience committed; its module's weights are kept.
            context: as it was given.
        """
        self.contexts.append(context)
        self.gram.add(_drive(strategy, manifold, self._generator))
        if len(self.contexts) < 2:
            return None
        known = candidates(torch.stack(self.contexts), self.period)
        self.evidence = topology_evidence(self.gram.gram, self.gram.sizes, known)
        if len(self.contexts) < FEWEST:
            return None
        self.topology = winner(self.evidence, known)
        chosen = known[self.topology].basis
        if not self.follows or isinstance(chosen, Vertices):
            return None
        if self._vertices is not None:
            vertices, self._vertices = torch.stack(self._vertices), None
            visited = torch.eye(len(vertices), dtype=torch.float64)
            # pure tasks only: a mixture of vertices has no place on a line or circle
            return into(manifold.basis, chosen, visited, lambda c: vertices[int(c.argmax())])
        if chosen.size <= manifold.basis.size:
            return None  # what was learned is not thrown away
        return into(manifold.basis, chosen, torch.stack(self.contexts), same_context)

    def _index(self, context: Tensor) -> int | None:
        same = (torch.allclose(context, c, rtol=0, atol=1e-6) for c in self._vertices or ())
        return next((i for i, found in enumerate(same) if found), None)

    @property
    def stored_floats(self) -> int:
        """Sketches and contexts, in units of 32 bits."""
        return self.gram.stored_floats + sum(2 * len(c) for c in self.contexts)


def _drive(strategy: Any, manifold: WeightManifold, generator: torch.Generator) -> State:
    """−∇ℓ of the experience at the initial network."""
    assert manifold.points.offset is not None
    module, layout = manifold.module, manifold.layout
    live = layout.read(module)
    manifold.write(manifold.usable(dict(manifold.points.offset)))
    samples = drawn(strategy, DRIVEN, generator)
    with watching(module), torch.enable_grad():
        loss = strategy._criterion(module(*samples.inputs), samples.targets)
        found = drive(module, loss, layout)
    manifold.write(live)
    return found
