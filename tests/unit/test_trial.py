"""A trial: what is measured after which experience, and what its result says."""

from typing import Any

import numpy as np
import pytest

from cl_manifold.experiments.config import resolve
from cl_manifold.experiments.trial import Trial

TINY = {
    "stream.name": "rotated-digits",
    "strategy.name": "naive",
    "stream.contexts": 5,
    "stream.samples": 40,
    "stream.test_samples": 30,
    "training.epochs": 1,
    "network.hidden": (6,),
}


def done(**more: Any) -> Trial:
    trial = Trial(resolve([("test", TINY | more)]))
    for _ in trial.steps():
        pass
    return trial


def measured(trial: Trial) -> list[str]:
    """One text per row of the matrix: x where there is an accuracy."""
    return [
        "".join("x" if known else "." for known in row)
        for row in np.isfinite(trial.progress.matrix)
    ]


def test_every_row_is_measured_in_a_short_stream() -> None:
    trial = done()
    assert measured(trial) == ["xxxxx"] * 5
    assert np.isfinite(trial.progress.unseen).all()
    assert np.isfinite(trial.progress.initial).all()


def test_between_whole_rows_only_this_experience_and_the_next_are_measured() -> None:
    trial = done(**{"training.evaluate_every": 3})
    assert measured(trial) == ["xxxxx", ".xx..", "..xx.", "xxxxx", "xxxxx"]
    rows = np.isfinite(trial.progress.unseen).all(1)
    assert rows.tolist() == [True, False, False, True, True]


def test_records_say_what_was_measured() -> None:
    trial = done()
    progress, records = trial.progress, trial.progress.records
    assert [record.experience for record in records] == [0, 1, 2, 3, 4]
    assert [record.score for record in records] == progress.matrix.diagonal().tolist()
    before = [progress.initial[0], *(progress.matrix[i - 1, i] for i in range(1, 5))]
    assert [record.zero_shot_score for record in records] == before
    assert all(0 < record.seconds < 60 for record in records)
    assert progress.train_seconds == pytest.approx(sum(record.seconds for record in records))
    floats = sum(p.numel() for p in trial.network.parameters())
    assert [record.stored_floats for record in records] == [floats] * 5
    assert {(r.decision, r.context_source, r.context) for r in records} == {
        ("train", "not used", ())
    }


@pytest.mark.parametrize(
    "more", [{"strategy.name": "joint"}, {"stream.name": "rotation", "strategy.name": "concat"}]
)
def test_all_at_once_has_one_row_and_shares_its_time(more: dict[str, Any]) -> None:
    values = TINY | more
    if more.get("stream.name") == "rotation":
        values = {
            key: values[key] for key in ("stream.name", "strategy.name", "stream.test_samples")
        }
        values["training.steps"] = 5
    trial = Trial(resolve([("test", values)]))
    last = len(trial.stream.test_stream) - 1
    assert trial.progress.at_once
    assert list(trial.steps()) == [last]
    progress = trial.progress
    assert measured(trial) == ["." * (last + 1)] * last + ["x" * (last + 1)]
    assert np.isfinite(progress.unseen).all(1).tolist() == [False] * last + [True]
    assert [record.score for record in progress.records] == progress.matrix[-1].tolist()
    assert {record.zero_shot_score for record in progress.records} == {None}
    assert sum(record.seconds for record in progress.records) == pytest.approx(
        progress.train_seconds
    )
    assert list(trial.steps()) == []


def test_the_result_is_over_the_last_row() -> None:
    trial = done(**{"training.evaluate_every": 3, "strategy.name": "weight-manifold", "seed": 3})
    result = trial.result("a run")
    last = trial.progress.matrix[-1]
    assert (result.run_id, result.seed, result.strategy) == ("a run", 3, "weight-manifold")
    assert result.score == pytest.approx(last.mean())
    assert [decision["final_score"] for decision in result.decisions] == last.tolist()
    assert result.score_matrix[1] == [None, *trial.progress.matrix[1, 1:3].tolist(), None, None]
    assert result.unseen_score == pytest.approx(trial.progress.unseen[-1].mean())
    assert result.stored_floats == trial.progress.records[-1].stored_floats
    assert result.replay_samples == 0
    assert result.control_points == 9
    assert result.context_at_test == "given"
    assert result.train_seconds == trial.progress.train_seconds
    assert result.model_floats == sum(p.numel() for p in trial.network.parameters())


def test_steps_go_on_after_those_that_are_finished() -> None:
    trial = Trial(resolve([("test", TINY)]))
    steps = trial.steps()
    assert [next(steps), next(steps)] == [0, 1]
    del steps
    initial = trial.progress.initial
    assert list(trial.steps()) == [2, 3, 4]
    assert trial.progress.initial is initial
