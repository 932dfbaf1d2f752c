"""The result of a trial: one typed record, from training to table, JSON and report."""

from dataclasses import asdict, dataclass
from math import isnan
from typing import Any, final

from cl_manifold.experiments.trial import Trial


@final
@dataclass(frozen=True)
class Result:
    """What a run found; accuracies in [0, 1], fields as in `run --json`.

    Of a run that was cut short it is the result over its finished tasks.

    Attributes:
        bwt: backward transfer; this and the next three are None for joint training, which has no
            earlier and later.
        learning_acc: mean accuracy on each experience right after training on it.
        accuracy_matrix: R[i][j], None where it was not measured; joint training has only a last
            row.
        unseen_acc: mean accuracy at contexts that were never trained; None without such contexts.
        stored_floats: everything kept between tasks, in units of 32 bits; None, like
            replay_samples, where the strategy does not say.
        model_floats: parameters of the network.
        replay_samples: training samples kept at the end; they count in `stored_floats`.
        context_at_test: "given", "inferred", "not used" or "not stated".
        decision_f1: how well first visits and returns were told apart; None without a truth.
        decisions: one dict per task, `TaskRecord` plus the final accuracy.
    """

    run_id: str
    stream: str
    strategy: str
    seed: int
    acc: float
    bwt: float | None
    forgetting: float | None
    fwt: float | None
    learning_acc: float | None
    unseen_acc: float | None
    accuracy_matrix: list[list[float | None]]
    control_points: int | None
    stored_floats: int | None
    model_floats: int
    replay_samples: int | None
    train_seconds: float
    context_at_test: str
    decision_f1: float | None
    decisions: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def sentence(self, topology: str, total: int) -> str:
        """The result in one sentence, for the description and the report.

        Args:
            topology: kind of the topology.
            total: how many contexts the stream has.
        """
        done = len(self.decisions)
        part = f"{total} contexts" if done == total else f"stopped after {done} of {total} contexts"
        shape = "" if self.control_points is None else f", {topology} K = {self.control_points}"
        lost = (
            f", BWT {self.bwt:+.3f}, forgetting {self.forgetting:.3f}"
            if self.bwt is not None
            else ""
        )
        return (
            f"{self.stream}, {part}{shape}: ACC {self.acc:.3f}{lost}"
            + ("" if self.unseen_acc is None else f", unseen contexts {self.unseen_acc:.3f}")
            + (f", decisions F1 {self.decision_f1:.3f}" if self.decision_f1 else "")
            + f"; context at test {self.context_at_test}, "
            f"stored {_times(self.stored_floats, self.model_floats)}"
        )


def result_of(trial: Trial, run_id: str) -> Result:
    """The result over the finished tasks of a trial."""
    progress, config = trial.progress, trial.config
    last, stored = progress.records[-1], progress.stored
    found: dict[str, Any] = progress.summary()
    return Result(
        run_id=run_id,
        stream=trial.stream.name,
        strategy=config.strategy.name,
        seed=config.seed,
        accuracy_matrix=[[None if isnan(a) else float(a) for a in r] for r in progress.matrix],
        control_points=last.control_points,
        stored_floats=last.stored_floats,
        model_floats=sum(p.numel() for p in trial.network.parameters()),
        replay_samples=stored.samples if stored else None,
        train_seconds=progress.train_seconds,
        context_at_test=config.strategy.context_at_test(config.contexts),
        decision_f1=progress.decision_f1,
        decisions=[
            record.as_dict() | {"final_acc": None if isnan(acc) else float(acc)}
            for record, acc in zip(progress.records, progress.final, strict=True)
        ],
        **found,
    )


def _times(floats: int | None, model: int) -> str:
    return "not stated" if floats is None else f"{floats / model:.2f} × the model"
