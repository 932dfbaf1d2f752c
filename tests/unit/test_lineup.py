"""The runs of a comparison: who runs with which seed and values, and what identifies it."""

from pathlib import Path
from typing import Any

import pytest

from cl_manifold.comparison.entries import crossed, parse_entries
from cl_manifold.comparison.jobs import Filing
from cl_manifold.comparison.lineup import (
    candidate_text,
    digest,
    main_jobs,
    methods_of,
    tuned_candidates,
    tuning_jobs,
    user_settings,
)
from cl_manifold.comparison.order import ComparisonOrder
from cl_manifold.strategies.methods.penalties import Ewc

FILING = Filing("sqlite:///x.db", "digits", "1", "f" * 32)


def order(*entries: str, **more: Any) -> ComparisonOrder:
    more = {"seeds": (3, 1)} | more
    return ComparisonOrder(parse_entries(entries or ("ewc", "naive")), **more)


def test_every_entry_runs_with_every_seed_and_whole_rows_come_first() -> None:
    tuned = {"ewc": {"strategy.penalty": 7.0}}
    jobs = main_jobs(order(), FILING, tuned)
    assert [(job.label, job.seed) for job in jobs] == [
        ("ewc", 3), ("naive", 3), ("ewc", 1), ("naive", 1),
    ]  # fmt: skip
    assert [job.resolved.config.seed for job in jobs] == [3, 3, 1, 1]
    assert {job.filing for job in jobs} == {FILING}
    assert not any(job.tags for job in jobs)
    strategy = jobs[0].resolved.config.strategy
    assert isinstance(strategy, Ewc)
    assert strategy.penalty == 7.0
    assert jobs[0].resolved.sources["strategy.penalty"] == "tuned"
    assert jobs[1].resolved.config.stream.holdout == "test"
    chosen = methods_of(order(), tuned)
    assert chosen == {"ewc": strategy, "naive": jobs[1].resolved.config.strategy}


def test_candidates_run_on_validation_data_with_the_first_seed() -> None:
    found = tuning_jobs(order(), FILING)
    assert list(found) == ["ewc"]
    for values, job in found["ewc"]:
        config = job.resolved.config
        assert (job.label, job.seed, config.seed, job.filing) == ("ewc", 3, 3, FILING)
        assert config.stream.holdout == "validation"
        assert isinstance(config.strategy, Ewc)
        assert values == {"strategy.penalty": config.strategy.penalty}
        assert job.tags == {"tuning": "true", "candidate": candidate_text(values)}
    assert len(found["ewc"]) > 1


def test_one_seed_is_enough() -> None:
    single = order(seeds=(3,))
    assert [job.seed for job in main_jobs(single, FILING, {})] == [3, 3]
    assert list(tuning_jobs(single, FILING)) == ["ewc"]
    assert list(methods_of(single, {})) == ["ewc", "naive"]


def test_what_the_user_or_the_entry_set_is_not_tuned() -> None:
    [entry] = parse_entries(["ewc"])
    assert len(tuned_candidates(order("ewc"), entry)) > 1
    layers = [("command line", {"strategy.penalty": 5})]
    assert tuned_candidates(order("ewc", layers=layers), entry) == [{}]
    assert tuning_jobs(order("ewc", layers=layers), FILING) == {}


def test_a_grid_of_two_settings_loses_the_one_that_is_set() -> None:
    text = "tests.unit.test_tuning:Own"
    [entry] = parse_entries([text])
    assert len(tuned_candidates(order(text), entry)) == 4
    layers = [("command line", {"strategy.penalty": 5})]
    rest = tuned_candidates(order(text, layers=layers), entry)
    assert rest == [{"strategy.decay": 1.0}, {"strategy.decay": 0.5}]
    assert [values for values, _ in tuning_jobs(order(text, layers=layers), FILING)[text]] == rest
    assert candidate_text({"strategy.penalty": 5.0, **rest[1]}) == (
        "strategy.penalty = 5.0, strategy.decay = 0.5"
    )


@pytest.mark.parametrize(
    "other",
    [
        order("ewc", "joint"),
        order(seeds=(3, 2)),
        order(tune=True),
        order(layers=[("command line", {"training.epochs": 9})]),
    ],
)
def test_other_runs_are_another_comparison(other: ComparisonOrder) -> None:
    assert digest(other, FILING, "1.0") != digest(order(), FILING, "1.0")


def test_the_same_runs_are_the_same_comparison() -> None:
    mine = digest(order(), FILING, "1.0")
    assert mine == digest(order("naive", "ewc", seeds=(1, 3)), FILING, "1.0")
    assert mine == digest(order(jobs=7, command="x"), FILING, "1.0")
    assert mine != digest(order(), FILING, "1.1")
    tuned = digest(order(tune=True), FILING, "1.0")
    layers = [("command line", {"strategy.penalty": Ewc(name="ewc").penalty})]
    assert tuned != digest(order(tune=True, layers=layers), FILING, "1.0")


def test_the_users_settings_are_told_apart_from_places_names_and_seeds() -> None:
    layers = [
        ("file", {"training.epochs": 2, "stream.name": "x", "seed": 1, "data_dir": "y"}),
        ("command line", {"training.epochs": 3, "network.hidden": (8, 4), "experiment": "z"}),
    ]
    assert user_settings(order(layers=layers)) == {"training.epochs": "3", "network.hidden": "8,4"}


def test_what_is_particular_about_the_data_of_a_row_is_said() -> None:
    grid = {"stream.samples": ("100", "300"), "stream.order": ("sorted",), "strategy.price": ("1",)}
    entries = crossed(parse_entries(["naive", "weight-manifold"]), grid, [])
    found = ComparisonOrder(entries).data()
    assert (
        list(found.values())
        == [
            "stream.samples = 100, stream.order = sorted",
            "stream.samples = 300, stream.order = sorted",
        ]
        * 2
    )
    assert set(order().data().values()) == {""}


def test_how_a_file_is_read_is_of_the_data(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("hour,x,y\n" + "".join(f"{i % 6},{i},{i % 5}.5\n" for i in range(60)))
    layers = [("test", {"stream.name": str(path), "data.context": "hour"})]
    entries = crossed(parse_entries(["naive"]), {"data.test_share": ("0.2", "0.4")}, layers)
    found = ComparisonOrder(entries, layers=layers).data()
    assert list(found.values()) == ["data.test_share = 0.2", "data.test_share = 0.4"]


def test_tuning_draws_as_many_candidates_for_everybody_its_defaults_first() -> None:
    wide = order(
        "weight-manifold", "naive",
        tuned={"strategy.price": ("3", "30"), "training.epochs": ("1", "2", "3")}, trials=4,
    )  # fmt: skip
    ours, theirs = (tuned_candidates(wide, entry) for entry in wide.entries)
    assert len(ours) == 4
    assert ours[0] == {"strategy.price": "3", "training.epochs": "1"}
    assert ours == tuned_candidates(wide, wide.entries[0])
    assert theirs == [{"training.epochs": str(epochs)} for epochs in (1, 2, 3)]
