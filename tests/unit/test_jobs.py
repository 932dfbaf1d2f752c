"""Jobs of a comparison: their keys, their tags, and what they tell of their progress."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from cl_manifold.comparison.jobs import (
    Filing,
    Job,
    Look,
    Narrator,
    Progress,
    common_settings,
    digest_of,
    key_of,
    tags_of,
)
from cl_manifold.comparison.outcome import Outcome
from cl_manifold.errors import ClManifoldError, StoreError
from cl_manifold.experiments.config import resolve

FILING = Filing("http://127.0.0.1:9", "digits", "1", "f" * 32)


def job(values: Mapping[str, Any] | None = None, label: str = "naive", seed: int = 0) -> Job:
    names = {"strategy.name": label, "seed": seed, **(values or {})}
    return Job(label, seed, resolve([("test", names)]), FILING, {"tuning": "true"})


def test_a_key_is_of_label_and_settings_and_not_of_places() -> None:
    found = key_of("naive", job().resolved)
    assert found == key_of("naive", job({"experiment": "other", "data_dir": "/data"}).resolved)
    assert found != key_of("other", job().resolved)
    assert found != key_of("naive", job(seed=1).resolved)
    assert found != key_of("naive", job({"training.epochs": 9}).resolved)


def test_digests_do_not_depend_on_the_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": "ä"}) == digest_of({"b": "ä", "a": 1})
    # sha256sum of {"b": "ä"}
    assert digest_of({"b": "ä"}) == (
        "43f7356cf54549e1ed57ef1d1e3e3531f20b29a07d88dee3391e9acb15b67a74"
    )


def test_tags_find_a_run_again() -> None:
    found = job(seed=3)
    assert tags_of(found) == {
        "tuning": "true",
        "mlflow.parentRunId": "f" * 32,
        "comparison.job": key_of("naive", found.resolved),
        "label": "naive",
        "seed": "3",
    }
    assert "tuning" not in tags_of(Job("naive", 3, found.resolved, FILING))


def test_common_settings_are_the_same_in_all_runs() -> None:
    found = common_settings([job(), job(seed=1), job({"training.epochs": 9}, "ewc")])
    assert found["stream.name"] == "rotated-digits"
    assert not {"seed", "strategy.name", "training.epochs", "strategy.penalty"} & found.keys()
    alone = common_settings([job(label="ewc")])
    assert "strategy.penalty" in alone
    assert "seed" not in alone


def test_a_look_says_what_the_stream_is_or_what_is_wrong() -> None:
    facts = Look(job({"stream.contexts": 2}).resolved)(print)
    assert not isinstance(facts, ClManifoldError)
    assert facts.name == "rotated-digits"
    assert facts.description.startswith("2 rotations of digits")
    assert facts.digest
    wrong = Look(job({"stream.name": "rotated-mnist", "data_dir": "/nowhere"}).resolved)(print)
    assert isinstance(wrong, ClManifoldError)


# -- running ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stopped", [True, False])
def test_a_job_goes_on_where_it_was_stopped_here_and_else_begins(
    stopped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = job(), job(seed=1)
    begun, gone_on = {"score": 0.5}, {"score": 0.7}
    left = {tags_of(mine if stopped else other)["comparison.job"]: "what is left"}
    asked: list[Any] = []

    def left_here(store: Any, parent_run_id: str) -> Any:
        return left if parent_run_id == FILING.parent_run_id else {}

    def run(resolved: Any, watcher: Any, place: Any) -> Any:
        asked.append((resolved, place.title, place.tags))
        return SimpleNamespace(as_dict=lambda: begun)

    def continued(store: Any, left: Any, watcher: Any) -> Any:
        asked.append(left)
        return SimpleNamespace(as_dict=lambda: gone_on)

    monkeypatch.setattr("cl_manifold.comparison.journal.left_here", left_here)
    monkeypatch.setattr("cl_manifold.experiments.running.run", run)
    monkeypatch.setattr("cl_manifold.experiments.leaving.continued", continued)
    assert mine(print) == Outcome("naive", 0, gone_on if stopped else begun)
    assert asked == (["what is left"] if stopped else [(mine.resolved, "naive", tags_of(mine))])


def test_what_a_user_can_correct_is_the_problem_of_the_outcome(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*words: Any) -> Any:
        raise StoreError("the store is away; wait for it")

    monkeypatch.setattr("cl_manifold.comparison.journal.left_here", refused)
    assert job(seed=2)(print) == Outcome("naive", 2, None, "the store is away; wait for it")


# -- progress ------------------------------------------------------------------------------------


@pytest.fixture
def told() -> list[Any]:
    return []


def begun(told: list[Any], *pause: float) -> Narrator:
    """Two experiences of four epochs."""
    watcher = Narrator(told.append, *pause)
    stream = SimpleNamespace(train_stream=[1, 2])
    watcher.begin(stream, SimpleNamespace(training=SimpleNamespace(epochs=4)))
    return watcher


def test_progress_is_the_share_of_the_epochs(told: list[Any]) -> None:
    watcher = begun(told, 0.0)
    watcher.epoch(0, 0, 0.5)
    watcher.learned(None, 0.9)
    watcher.epoch(1, 0, 0.5)
    watcher.epoch(1, 3, 0.5)
    watcher.epoch(2, 0, 0.5)  # more than was announced
    watcher.say("a sentence")
    assert told == [
        Progress(1 / 8, None), Progress(5 / 8, 0.9), Progress(1.0, 0.9), Progress(1.0, 0.9),
        "a sentence",
    ]  # fmt: skip


def test_without_a_beginning_it_is_one_epoch_of_one(told: list[Any]) -> None:
    Narrator(told.append, 0.0).epoch(0, 0, 0.5)
    assert told == [Progress(1.0, None)]


def test_progress_is_told_a_few_times_a_second(
    told: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("cl_manifold.comparison.jobs.time.monotonic", lambda: clock[0])
    watcher = begun(told)
    for epoch, now in enumerate((5.0, 5.2, 5.25, 5.4)):
        clock[0] = now
        watcher.epoch(0, epoch, 0.5)
    assert [progress.share for progress in told] == [1 / 8, 3 / 8]
