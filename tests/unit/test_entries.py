"""Entries of a comparison: how they are written, and what they set."""

import pytest

from cl_manifold.comparison.entries import (
    check_seeds,
    check_settings,
    parse_entries,
    parse_entry,
    resolve_entry,
)
from cl_manifold.errors import ConfigError
from cl_manifold.strategies.methods.weight_manifold import WeightManifoldMethod


def test_variants_set_topology_and_contexts() -> None:
    plain, spline, both = parse_entries(
        ["naive", " weight-manifold:spline ", "weight-manifold:inferred:circle", ""]
    )
    assert plain.values == {"strategy.name": "naive"}
    assert (spline.label, spline.strategy) == ("weight-manifold:spline", "weight-manifold")
    assert spline.values["topology.kind"] == "spline"
    assert both.values["contexts.test"] == "inferred"
    assert both.values["topology.kind"] == "circle"


def test_a_strategy_of_ones_own_may_have_variants() -> None:
    own = "cl_manifold.strategies.methods.weight_manifold:WeightManifoldMethod"
    entry = parse_entry(f"{own}:inferred")
    assert entry.strategy == own
    assert entry.values["contexts.test"] == "inferred"


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["weight-manfold"], "did you mean weight-manifold"),
        (["weight-manifold:splin"], "unknown variant 'splin'; did you mean spline"),
        (["naive:weight-manifold"], "unknown variant"),
        (["weight-manifold:circle:spline"], "sets topology.kind twice"),
        (["naive", "joint", "naive"], "strategy naive is named twice"),
        (["", " "], "got no strategies"),
    ],
)
def test_what_cannot_be_meant_is_refused(texts: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse_entries(texts)


@pytest.mark.parametrize(
    ("seeds", "sentence"),
    [((), "got no seeds"), ((0, 0), "different seeds"), ((-1, 0), "different seeds from 0 on")],
)
def test_seeds_are_checked(seeds: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        check_seeds(seeds)


def test_the_entry_wins_over_the_users_layers_and_says_so() -> None:
    layers = [("command line", {"strategy.name": "joint", "training.epochs": 3, "seed": 9})]
    more = ("tuned", {"strategy.price": 7.0})
    resolved = resolve_entry(parse_entry("weight-manifold:spline"), 4, layers, more)
    config = resolved.config
    assert (config.strategy.name, config.topology.kind, config.seed) == (
        "weight-manifold",
        "spline",
        4,
    )
    assert isinstance(config.strategy, WeightManifoldMethod)
    assert (config.training.epochs, config.strategy.price) == (3, 7.0)
    assert resolved.sources["topology.kind"] == "entry weight-manifold:spline"
    assert resolved.sources["strategy.price"] == "tuned"


def test_a_setting_goes_to_the_strategies_that_have_it() -> None:
    layers = [("command line", {"strategy.penalty": "5", "topology.harmonics": 2})]
    entries = parse_entries(["ewc", "naive", "weight-manifold"])
    check_settings(entries, layers)
    ewc, naive, ours = (resolve_entry(entry, 0, layers) for entry in entries)
    values = [{key: value for key, value, _ in r.rows()} for r in (ewc, naive, ours)]
    assert [v.get("strategy.penalty") for v in values] == ["5.0", None, None]
    assert [v.get("topology.harmonics") for v in values] == [None, None, "2"]


def test_a_setting_that_no_strategy_has_is_refused() -> None:
    layers = [("command line", {"strategy.penalti": "5"})]
    with pytest.raises(ConfigError, match=r"did you mean strategy.penalty .*; no strategy of this"):
        check_settings(parse_entries(["ewc", "naive"]), layers)
    with pytest.raises(ConfigError, match=r"unknown key 'training.epoch'; did you mean"):
        resolve_entry(parse_entry("naive"), 0, [("command line", {"training.epoch": 1})])
