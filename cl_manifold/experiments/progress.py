"""What a trial has found so far: scores and one record per finished task."""

from dataclasses import dataclass
from typing import final

import numpy as np

from cl_manifold import metrics
from cl_manifold.contexts import TaskRecord
from cl_manifold.strategies import Stored


@final
@dataclass(frozen=True, eq=False)
class Progress:
    """The state of the measurements between two experiences; a step makes a new one.

    Attributes:
        matrix: R[i, j] up to 1, NaN where it was not measured.
        unseen: U[i, j], the same for the contexts that no task has.
        initial: score of the untrained network on each experience.
        at_once: whether everything is trained at once, so that there is no earlier and later.
        records: one per finished task.
        stored: what the strategy keeps now; None where it does not say.
        train_seconds: wall time of training so far, commits included, evaluation excluded.
    """

    matrix: np.ndarray
    unseen: np.ndarray
    initial: np.ndarray
    at_once: bool = False
    records: tuple[TaskRecord, ...] = ()
    stored: Stored | None = None
    train_seconds: float = 0.0

    @property
    def done(self) -> int:
        """How many tasks are finished."""
        return len(self.records)

    @property
    def last_row(self) -> int:
        """The last row of the matrix that was measured; of joint training the only one."""
        return int(np.flatnonzero(np.isfinite(self.matrix).any(1))[-1])

    @property
    def final(self) -> np.ndarray:
        """The last measured score on each finished task."""
        return self.matrix[self.last_row, : self.done]

    @property
    def decision_f1(self) -> float | None:
        """How well first visits and returns were told apart; None without truth or decisions."""
        kinds = [r.kind for r in self.records if r.kind is not None]
        if not kinds or any(r.decision == "train" for r in self.records):
            return None
        return metrics.decision_f1([r.decision for r in self.records], kinds)

    def summary(self) -> dict[str, float | None]:
        """Metrics over the finished tasks; None where undefined.

        Training on everything at once has no earlier and later, and only a score.
        """
        step = self.done - 1
        seen = self.matrix[: step + 1, : step + 1]
        initial, unseen = self.initial[: step + 1], self.unseen[step]
        ordered = not self.at_once
        return {
            "score": metrics.accuracy_so_far(self.matrix, step),
            "bwt": metrics.backward_transfer(seen) if ordered else None,
            "forgetting": metrics.forgetting(seen) if ordered else None,
            "fwt": metrics.forward_transfer(seen, initial) if ordered else None,
            "learning_score": metrics.learning_accuracy(seen) if ordered else None,
            "unseen_score": float(np.mean(unseen)) if unseen.size else None,
        }


def nothing_yet(tasks: int, unseen: int, at_once: bool) -> Progress:
    """Before anything was measured."""
    return Progress(
        matrix=np.full((tasks, tasks), np.nan),
        unseen=np.full((tasks, unseen), np.nan),
        initial=np.full(tasks, np.nan),
        at_once=at_once,
    )
