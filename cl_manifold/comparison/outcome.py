"""What one child of a comparison came to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """One strategy with one seed.

    Attributes:
        label: the strategy as the comparison names it, e.g. "ewc" or "weight-manifold:spline".
        seed: of the run.
        result: `RunResult.as_dict()`; None where there is none.
        problem: one sentence that says why there is no result; None where there is one.
    """

    label: str
    seed: int
    result: Mapping[str, Any] | None = None
    problem: str | None = None
