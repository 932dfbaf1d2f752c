"""What happened to one task: the row of `contexts.json`, of the report and of `--json`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cl_manifold.contexts.evidence import Evidence


@dataclass(frozen=True)
class TaskRecord:
    """The context assignment of one experience and the evidence around it.

    Attributes:
        experience: position in the stream, from 0.
        name: the context as people write it, for example "120°" or "permutation 3".
        context: its coordinates; empty where the strategy uses none.
        context_source: "given", "inferred" or "not used".
        decision: "reuse", "place", "grow" or "train" (strategies without a manifold).
        plasticity: freedom left at the context before training, in [0, 1].
        overshoot: largest swing elsewhere caused by the commit; 1 means the trained change itself.
        drift: largest share of predictions, at earlier contexts, that the commit would change;
            measured before it.
        gate: what came of the drift: "passed", "warned", "grown" or
            "unmeasured"; None without a manifold.
        zero_shot_score: score on the experience's held-out data before training on it.
        score: the same right after training on it.
        control_points: K after the task.
        stored_floats: everything kept between tasks, in units of 32 bits; None where the strategy
            does not say.
        seconds: wall time of training, decision and commit included, evaluation excluded.
        truth: "first" or "return" where the stream knows it; for scoring only.
        kind: "first", "return" or "related" (a variant of an earlier task), likewise.
        evidence: why it was decided so, where a rule decided; None for a first experience.
        topologies: evidence of each topology after the task in nats per weight, where watched.
    """

    experience: int
    name: str
    context: tuple[float, ...]
    context_source: str
    decision: str
    plasticity: float | None
    overshoot: float | None
    drift: float | None
    zero_shot_score: float | None
    score: float | None
    control_points: int | None
    stored_floats: int | None
    seconds: float
    truth: str | None = None
    kind: str | None = None
    gate: str | None = None
    evidence: Evidence | None = None
    topologies: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        evidence = self.evidence.as_dict() if self.evidence else None
        return asdict(self) | {"context": list(self.context), "evidence": evidence}
