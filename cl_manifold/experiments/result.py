"""The result of a trial: one typed record, from training to table, JSON and report, and back."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, final

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from cl_manifold.errors import DataError
from cl_manifold.metrics import measure_of

Share = Annotated[float, Field(ge=0, le=1)]
Score = Annotated[float, Field(le=1)]


class Decision(TypedDict):
    """What happened to one task: `TaskRecord.as_dict`, and the score on it at the end."""

    __pydantic_config__ = ConfigDict(extra="allow")  # pyright: ignore[reportGeneralTypeIssues]

    experience: int
    name: str
    context: list[float]
    context_source: str
    decision: str
    plasticity: float | None
    overshoot: float | None
    drift: float | None
    zero_shot_score: float | None
    score: float | None
    final_score: float | None
    seconds: float
    truth: str | None
    kind: str | None
    evidence: dict[str, Any] | None


class Setting(TypedDict):
    """One setting of `configuration.json`."""

    value: Any
    source: str


@final
@dataclass(frozen=True)
class Result:
    """What a run found; fields as in `run --json`.

    Of a run that was cut short it is the result over its finished tasks.

    Attributes:
        metric: what a score is: "accuracy", in [0, 1], or "R²", up to 1.
        score: mean over all experiences at the end.
        acc: the same where it is an accuracy; None of R².
        rmse: √ of the mean squared error that belongs to R², in units of the target; None of
            classes and of several targets.
        bwt: backward transfer; this and the next three are None for joint training, which has no
            earlier and later.
        learning_score: mean score on each experience right after training on it.
        score_matrix: R[i][j], None where it was not measured; joint training has only a last
            row.
        unseen_score: mean score at contexts that were never trained; None without such contexts.
        stored_floats: everything kept between tasks, in units of 32 bits; None, like
            replay_samples, where the strategy does not say.
        model_floats: parameters of the network.
        replay_samples: training samples kept at the end; they count in `stored_floats`.
        context_at_test: "given", "inferred", "not used" or "not stated".
        decision_f1: how well first visits and returns were told apart; None without a truth.
        decisions: one per task.
    """

    run_id: str
    stream: str
    strategy: str
    seed: int
    metric: Literal["accuracy", "R²"]
    score: Score
    acc: Share | None
    rmse: float | None
    bwt: float | None
    forgetting: float | None
    fwt: float | None
    learning_score: float | None
    unseen_score: float | None
    score_matrix: list[list[Score | None]]
    control_points: int | None
    stored_floats: int | None
    model_floats: Annotated[int, Field(gt=0)]
    replay_samples: int | None
    train_seconds: float
    context_at_test: str
    decision_f1: float | None
    decisions: list[Decision]

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
            f"{self.stream}, {part}{shape}: {measure_of(self.metric)} {self.score:.3f}{lost}"
            + ("" if self.unseen_score is None else f", unseen contexts {self.unseen_score:.3f}")
            + (f", decisions F1 {self.decision_f1:.3f}" if self.decision_f1 is not None else "")
            + f"; context at test {self.context_at_test}, "
            f"stored {_times(self.stored_floats, self.model_floats)}"
        )


def _times(floats: int | None, model: int) -> str:
    return "not stated" if floats is None else f"{floats / model:.2f} × the model"


def parsed(kind: Any, text: str, what: str) -> Any:
    """The record that a JSON text holds.

    >>> parsed(dict[str, int], '{"a": 1}', "the file")
    {'a': 1}

    Args:
        kind: of the record: a dataclass, a typed dictionary or a container of them.
        text: as it was read from a file.
        what: names the file in errors.

    Raises:
        DataError: the text is no such record.
    """
    try:
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        said = f"{place}: {first['msg']}" if place else first["msg"]
        raise DataError(f"{what} is damaged ({said[:200]}); run it again") from None
