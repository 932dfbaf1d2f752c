"""What the plugin saw around one training experience."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from cl_manifold.contexts.evidence import Evidence

Gate = Literal["passed", "warned", "grown", "unmeasured"]


@dataclass(frozen=True)
class TaskTrace:
    """What the plugin saw around one training experience.

    Attributes:
        experience: position in the stream.
        context: shape (dim,), canonical coordinates when it was trained; `plugin.coordinates` has
            today's.
        source: where the context came from.
        decision: "place", or "reuse" at a coordinate that was visited before, or "grow".
        plasticity: κ_rel at the context before training.
        overshoot: of the commit.
        drift: largest change of outputs at the earlier contexts that the commit moved most, on the
            current task's inputs, measured before the commit: share of changed predictions, or
            relative change for regression.
        gate: what came of the drift: passed, warned or grown; unmeasured (drift is 0) where every
            task has a head of its own.
        evidence: why it was decided so, where a rule decided.
        topologies: evidence of each topology after the task, where it is watched.
    """

    experience: int
    context: Tensor
    source: str
    decision: str
    plasticity: float
    overshoot: float
    drift: float
    gate: Gate = "passed"
    evidence: Evidence | None = None
    topologies: Mapping[str, float] = field(default_factory=dict)
