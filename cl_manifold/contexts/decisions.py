"""Rules: from evidence to reuse, place or grow. A rule is any object with `decide`."""

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

from cl_manifold.contexts.evidence import Decision, Evidence


@runtime_checkable
class Rule(Protocol):
    """Decides about one experience; must depend on the evidence alone, so that logs replay."""

    def decide(self, evidence: Evidence) -> Decision | None:
        """The decision; None asks for the probes, where `evidence.drift` is still None."""
        ...


@final
@dataclass(frozen=True)
class ByEvidence:
    """Reuse what fits, place what can be learned without harm, grow for the rest.

    * A task that is no worse off at a coordinate than the finished task there has come back: a
      test with error rate `level` on returns. Reuse a visited coordinate then. Reuse one between
      visited coordinates if besides its loss is not the higher one and a short training does not
      surely gain anything; else place there, because a test that finds no difference is no proof.
    * Grow for any other task if the price keeps a short training from what it reaches without it
      by more than `tolerance`, or if committing what was trained would change more than a share
      `drift` of the predictions at an earlier context.
    * Place it otherwise: train at the coordinate.

    Attributes:
        level: α of the return test, in (0, 1).
        tolerance: of the shortfall, in nats.
        drift: largest tolerated share of changed predictions.
    """

    level: float = 0.05
    tolerance: float = 0.1
    drift: float = 0.15

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ValueError(f"level must lie between 0 and 1, got {self.level}")
        if not (self.tolerance >= 0 and self.drift >= 0):
            raise ValueError(
                f"tolerance and drift must be 0 or more, got {self.tolerance} and {self.drift}"
            )

    def decide(self, evidence: Evidence) -> Decision | None:
        """See the class."""
        returned = evidence.p_value > self.level
        if returned and evidence.visited:
            return "reuse"
        if evidence.drift is None:
            return None
        if returned:
            as_good = evidence.zero_shot_loss <= evidence.reference_loss
            return "reuse" if as_good and _at_most(evidence.gain, 0.0) else "place"
        harmless = max(evidence.drift, evidence.commit_drift or 0.0) <= self.drift
        if evidence.can_grow and not (harmless and _at_most(evidence.shortfall, self.tolerance)):
            return "grow"
        return "place"


@final
@dataclass(frozen=True)
class AlwaysGrow:
    """A new control point for every experience: one network per task. For comparison."""

    def decide(self, evidence: Evidence) -> Decision:
        """Grow, as long as the basis may."""
        return "grow" if evidence.can_grow else "place"


@final
@dataclass(frozen=True)
class NeverGrow:
    """Train at the coordinate of lowest loss, whatever it costs there. For comparison."""

    def decide(self, evidence: Evidence) -> Decision:
        """Place."""
        return "place"


@final
@dataclass(frozen=True)
class GainRule:
    """Grow if a control point of its own is better by more than a tenth, else reuse as it is.

    Source: Continual Subspace of Policies (Gaya et al. 2023), which trains with a tentative new
    anchor and keeps it if its score exceeds 1.1 times the best in the old subspace. The score is
    the accuracy here, and the tentative training the unconstrained probe.

    Attributes:
        gain: the tenth.
    """

    gain: float = 0.1

    def decide(self, evidence: Evidence) -> Decision | None:
        """Grow or reuse."""
        if evidence.unconstrained_acc is None:
            return None
        better = evidence.unconstrained_acc > (1 + self.gain) * evidence.zero_shot_score
        return "grow" if better and evidence.can_grow else "reuse"


def _at_most(value: float | None, limit: float) -> bool:
    return value is not None and value <= limit
