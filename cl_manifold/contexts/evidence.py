"""Evidence: what is measured before a task is reused, placed or grown for, and nothing else.

A decision is a function of its evidence, so a log of evidence replays under other rules.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Decision = Literal["reuse", "place", "grow"]


@dataclass(frozen=True)
class Evidence:
    """What is known about a new experience before it is trained. Losses are means in nats.

    Everything is measured on `samples` labelled samples that no training ever sees.

    Attributes:
        samples: size of the held-out support.
        context: where the zero-shot figures hold: the given context, or the one of lowest loss.
        visited: whether a finished task lies there.
        zero_shot_loss: of the weights w(context) as they are.
        zero_shot_score: their accuracy in [0, 1].
        reference_loss: what the best finished task reached on its own held-out samples.
        p_value: of the hypothesis that this is that task again (see `return_test`).
        plasticity: κ_rel at the context, in [0, 1].
        overshoot: of a commit there.
        constrained_loss: after a short training under the price.
        unconstrained_loss: after the same training without it.
        unconstrained_acc: accuracy after the training without the price.
        gain: zero-shot minus unconstrained loss, sample by sample, less 1.64 standard errors.
        shortfall: constrained minus unconstrained loss, likewise.
        drift: share of predictions at earlier contexts that committing the unconstrained probe
            would change.
        commit_drift: the same for the trained weights; None before training.
        can_grow: whether the basis may still grow.
        seconds: wall time spent on this evidence.
    """

    samples: int
    context: tuple[float, ...]
    visited: bool
    zero_shot_loss: float
    zero_shot_score: float
    reference_loss: float
    p_value: float
    plasticity: float
    overshoot: float
    constrained_loss: float | None = None
    unconstrained_loss: float | None = None
    unconstrained_acc: float | None = None
    gain: float | None = None
    shortfall: float | None = None
    drift: float | None = None
    commit_drift: float | None = None
    can_grow: bool = True
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self) | {"context": list(self.context)}


def evidence_from(values: Mapping[str, Any]) -> Evidence:
    """The inverse of `Evidence.as_dict`; other keys are left out."""
    known: dict[str, Any] = {f.name: values[f.name] for f in fields(Evidence) if f.name in values}
    known["context"] = tuple(known["context"])
    return Evidence(**known)
