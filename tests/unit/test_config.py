"""Where values of the configuration come from, and what is refused."""

from pathlib import Path

import pytest

from cl_manifold.catalog import STRATEGIES, STREAMS, TOPOLOGIES, load
from cl_manifold.config import (
    LOWEST,
    POSITIVE,
    flat,
    from_assignments,
    from_environment,
    from_toml,
    key_types,
    resolve,
    value_text,
)
from cl_manifold.errors import ConfigError


def test_later_layers_win_over_the_defaults_of_the_stream() -> None:
    found = resolve(
        [
            ("file", {"stream.name": "rotated-mnist", "stream.contexts": 7, "seed": 5}),
            ("command line", {"seed": "6"}),
        ]
    )
    assert (found.config.stream.contexts, found.sources["stream.contexts"]) == (7, "file")
    assert (found.config.seed, found.sources["seed"]) == (6, "command line")
    assert found.config.stream.samples == 10_000
    assert found.sources["stream.samples"] == "default of rotated-mnist"
    assert found.sources["strategy.price"] == "default"
    assert dict.fromkeys(key for key, _, _ in found.rows()) == dict.fromkeys(flat(found.config))


def test_every_named_thing_loads_and_its_defaults_are_legal() -> None:
    for catalogue in (STREAMS, STRATEGIES, TOPOLOGIES):
        for item in catalogue.values():
            assert callable(load(item.target))
    for name in STREAMS:
        assert resolve([("test", {"stream.name": name})]).config.stream.name == name


def test_ranges_name_existing_keys() -> None:
    assert {*LOWEST, *POSITIVE} <= set(key_types())


def test_files_have_sections(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('seed = 3\n[training]\nhidden = [8, 4]\n[stream]\nname = "split-digits"\n')
    found = resolve([("a.toml", from_toml(file))]).config
    assert (found.seed, found.training.hidden, found.stream.name) == (3, (8, 4), "split-digits")
    file.write_text("[training]\nepoch = 3\n")
    with pytest.raises(ConfigError, match=r"unknown key 'training.epoch'.*epochs.*from a.toml"):
        resolve([("a.toml", from_toml(file))])
    file.write_text("[training\n")
    with pytest.raises(ConfigError, match=r"cannot read .*a\.toml"):
        from_toml(file)


def test_variables_have_short_and_long_names() -> None:
    found = from_environment(
        {
            "CL_MANIFOLD_STRATEGY": "naive",
            "CL_MANIFOLD_STRATEGY_PENALTY": "3",
            "CL_MANIFOLD_DATA_DIR": "data",
            "HOME": "elsewhere",
        }
    )
    assert found == {
        "strategy.name": "naive",
        "strategy.penalty": "3",
        "data_dir": "data",
    }


@pytest.mark.parametrize(
    ("key", "value", "needs"),
    [
        ("training.epochs", "two", "a whole number"),
        ("training.epochs", "2.5", "a whole number"),
        ("training.epochs", True, "a whole number"),
        ("training.learning_rate", "fast", "a number"),
        ("training.learning_rate", "nan", "must be positive"),
        ("training.decay", "maybe", "true or false"),
        ("training.hidden", "a,b", "whole numbers separated by commas"),
        ("training.hidden", "0", "a width below 1"),
        ("stream.samples", "some", "a whole number or 'all'"),
        ("stream.order", "backwards", "one of random, sorted"),
        ("contexts.test", "guessed", "one of given"),
    ],
)
def test_values_of_the_wrong_kind_are_refused(key: str, value: object, needs: str) -> None:
    with pytest.raises(ConfigError, match=needs):
        resolve([("test", {key: value})])


def test_text_and_value_are_inverse() -> None:
    values = flat(resolve([]).config)
    texts = {k: value_text(v) for k, v in values.items() if k not in ("data_dir", "tracking_uri")}
    assert flat(resolve([("text", texts)]).config) == values


def test_assignments() -> None:
    assert from_assignments(("a.b=c=d", " e.f = 1")) == {"a.b": "c=d", "e.f": "1"}


def test_a_users_own_object_can_be_named() -> None:
    found = resolve([("test", {"stream.name": "cl_manifold.streams:rotated_digits"})])
    assert found.config.stream.name.endswith("rotated_digits")
    with pytest.raises(ConfigError, match="cannot load 'nowhere:thing'"):
        load("nowhere:thing")
