"""Entries of a comparison: how they are written, and what they set."""

import pytest

from cl_manifold.comparison.entries import (
    check_seeds,
    check_settings,
    crossed,
    parse_entries,
    parse_entry,
    parse_grid,
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


@pytest.mark.parametrize("seeds", [(0,), (2, 0, 1)])
def test_seeds_from_0_on_are_taken(seeds: tuple[int, ...]) -> None:
    check_seeds(seeds)


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


# -- values of a setting -------------------------------------------------------------------------


def test_a_grid_crosses_entries_with_values_and_leaves_out_what_a_strategy_lacks() -> None:
    entries = parse_entries(["weight-manifold:spline", "naive"])
    grid = {"strategy.price": ("1", "10"), "training.epochs": ("2", "3")}
    found = crossed(entries, grid, [])
    assert [entry.label for entry in found] == [
        "weight-manifold:spline strategy.price=1 training.epochs=2",
        "weight-manifold:spline strategy.price=1 training.epochs=3",
        "weight-manifold:spline strategy.price=10 training.epochs=2",
        "weight-manifold:spline strategy.price=10 training.epochs=3",
        "naive training.epochs=2",
        "naive training.epochs=3",
    ]
    config = resolve_entry(found[3], 0, [("command line", {"training.epochs": 9})]).config
    assert isinstance(config.strategy, WeightManifoldMethod)
    assert (config.topology.kind, config.strategy.price, config.training.epochs) == (
        "spline",
        10,
        3,
    )
    assert crossed(entries, {}, []) == entries


def test_what_an_entry_sets_itself_is_not_varied() -> None:
    entries = parse_entries(["weight-manifold:spline", "weight-manifold"])
    found = crossed(entries, {"topology.kind": ("circle", "torus")}, [])
    assert [entry.values["topology.kind"] for entry in found] == ["spline", "circle", "torus"]


@pytest.mark.parametrize(
    ("grid", "sentence"),
    [
        ({"seed": ("0",)}, "--grid got seed; give strategies by --strategies and seeds by --seeds"),
        ({"strategy.name": ("ewc",)}, "--grid got strategy.name"),
        ({"stream.name": ("x",)}, "--grid got stream.name"),
        ({"strategy.prise": ("1",)}, r"did you mean strategy.price.*from --grid"),
    ],
)
def test_what_cannot_be_varied_is_refused(grid: dict[str, tuple[str]], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        crossed(parse_entries(["weight-manifold"]), grid, [])


@pytest.mark.parametrize("text", ["strategy.price=", "strategy.price=1,1", "strategy.price= , "])
def test_a_grid_needs_different_values(text: str) -> None:
    with pytest.raises(ConfigError, match=r"give different values, such as strategy.price=1,2"):
        parse_grid([text])


def test_a_grid_needs_an_assignment() -> None:
    with pytest.raises(ConfigError, match=r"got 'strategy.price', but needs section.key=A,B"):
        parse_grid(["strategy.price"])


def test_a_grid_is_of_the_stream_that_is_compared_on() -> None:
    entries = parse_entries(["film", "concat"])
    layers = [("command line", {"stream.name": "rotation"})]
    assert crossed(entries, {}, layers) == entries
    found = crossed(entries, {"training.steps": ("5", "6")}, layers)
    assert [entry.values["training.steps"] for entry in found] == ["5", "6", "5", "6"]
