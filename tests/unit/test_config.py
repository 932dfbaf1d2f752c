"""Where values of the configuration come from, and what is refused."""

import sys
from pathlib import Path

import pytest

from cl_manifold.errors import ConfigError
from cl_manifold.experiments.config import (
    flat,
    from_assignments,
    from_environment,
    from_toml,
    resolve,
)
from cl_manifold.experiments.names import (
    NETWORKS,
    STRATEGIES,
    STREAMS,
    TOPOLOGIES,
    load,
    unknown,
)
from cl_manifold.experiments.settings import StreamSettings
from cl_manifold.networks import Cnn, Mlp
from cl_manifold.options import value_text
from cl_manifold.strategies.methods.weight_manifold import WeightManifoldMethod


def test_later_layers_win_over_the_defaults_of_the_stream() -> None:
    found = resolve(
        [
            ("file", {"stream.name": "rotated-mnist", "stream.contexts": 7, "seed": 5}),
            ("command line", {"seed": "6"}),
        ]
    )
    assert isinstance(found.config.stream, StreamSettings)
    assert (found.config.stream.contexts, found.sources["stream.contexts"]) == (7, "file")
    assert (found.config.seed, found.sources["seed"]) == (6, "command line")
    assert found.config.stream.samples == 10_000
    assert found.sources["stream.samples"] == "default of rotated-mnist"
    assert found.sources["strategy.price"] == "default"
    assert dict.fromkeys(key for key, _, _ in found.rows()) == dict.fromkeys(flat(found.config))


def test_every_named_thing_loads_and_its_defaults_are_legal() -> None:
    for catalogue in (STREAMS, NETWORKS, STRATEGIES, TOPOLOGIES):
        for item in catalogue.values():
            assert callable(load(item.target))
    for name in STREAMS:
        assert resolve([("test", {"stream.name": name})]).config.stream.name == name


def test_files_have_sections(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('seed = 3\n[network]\nhidden = [8, 4]\n[stream]\nname = "split-digits"\n')
    found = resolve([("a.toml", from_toml(file))]).config
    assert isinstance(found.network, Mlp)
    assert (found.seed, found.network.hidden, found.stream.name) == (3, (8, 4), "split-digits")
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
        ("training.learning_rate", "nan", "a number, more than 0"),
        ("training.learning_rate", "1e31", r"more than 0 and at most 1e\+30"),
        ("training.threads", "100000", "1 or more and at most 256"),
        ("stream.contexts", "inf", "a whole number"),
        ("seed", "-1", "0 or more"),
        ("contexts.level", "1", "between 0 and 1"),
        ("training.decay", "maybe", "true or false"),
        ("network.hidden", "a,b", "whole numbers, 1 or more and at most 100000, separated"),
        ("network.hidden", "0", "whole numbers, 1 or more"),
        ("stream.samples", "some", "a whole number, 1 or more, or 'all'"),
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


def test_modules_of_the_current_folder_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_module_of_this_folder.py").write_text("THING = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for _ in range(2):
        assert load("a_module_of_this_folder:THING") == 3
        assert sys.path.count(str(tmp_path)) == 1


def test_two_names_at_most_are_suggested() -> None:
    sentence = unknown("key", "penalt", ["penalty", "penalti", "penalts", "other"])
    assert sentence.count("penalt") == 3
    assert sentence.startswith("unknown key 'penalt'; did you mean penalt")
    assert unknown("key", "xyz", ["b", "a"]) == "unknown key 'xyz'; known: a, b"


# -- settings of the three names -----------------------------------------------------------------


def test_only_the_settings_of_what_was_chosen_are_there() -> None:
    rows = {key for key, _, _ in resolve([("test", {"strategy.name": "si"})]).rows()}
    assert {"strategy.penalty", "network.hidden", "stream.order"} <= rows
    assert not any(key.startswith(("topology.", "contexts.")) for key in rows)
    assert "strategy.price" not in rows
    rows = {key for key, _, _ in resolve([("test", {"strategy.name": "concat"})]).rows()}
    assert "topology.harmonics" in rows
    assert not any(key.startswith("contexts.") for key in rows)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"strategy.name": "naive", "strategy.price": 3},
            "naive has no such setting; it is one of",
        ),
        ({"strategy.name": "naive", "contexts.test": "inferred"}, "naive reads no contexts; leave"),
        ({"strategy.name": "ewc", "topology.kind": "circle"}, "ewc reads no topology"),
        ({"strategy.name": "ewc", "strategy.penaltie": 3}, "did you mean strategy.penalty"),
        ({"network.name": "cnn", "network.hidden": "8"}, "unknown key 'network.hidden'"),
        ({"training.hidden": "8"}, "did you mean network.hidden"),
        ({"strategy.name": "naiv"}, "did you mean naive.*`cl-manifold strategies` lists all"),
        ({"topology.kind": "sphere", "stream.name": "nowhere"}, "`cl-manifold streams` lists all"),
        ({"strategy.name": "math:pi"}, "strategy 'math:pi' is 3.14.*a subclass of"),
        ({"strategy.name": "cl_manifold.strategies:Method"}, "that defines build"),
        (
            {"network.name": "cl_manifold.networks:mlp"},
            "a subclass of cl_manifold.networks.Network",
        ),
    ],
)
def test_what_does_not_fit_the_names_is_refused(values: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        resolve([("test", values)])


def test_values_chosen_for_a_stream_are_defaults_of_the_strategy() -> None:
    found = resolve([("test", {"stream.name": "mammoth-rotated-mnist"})])
    assert isinstance(found.config.strategy, WeightManifoldMethod)
    assert found.config.strategy.price == 1.0
    source = "default of weight-manifold on mammoth-rotated-mnist"
    assert found.sources["strategy.price"] == source
    layers = [("test", {"stream.name": "mammoth-rotated-mnist", "strategy.price": 2})]
    assert isinstance(ours := resolve(layers).config.strategy, WeightManifoldMethod)
    assert ours.price == 2.0
    for stream, values in WeightManifoldMethod.chosen.items():
        assert stream in STREAMS
        resolve([("test", {"stream.name": stream, **values})])


def test_no_stream_sets_what_belongs_to_a_strategy() -> None:
    for item in STREAMS.values():
        assert not any(key.startswith("strategy.") for key in item.defaults)


def test_another_network_takes_no_settings_of_the_usual_one() -> None:
    layers = [("test", {"stream.name": "gpm-permuted-mnist", "network.name": "cnn"})]
    network = resolve(layers).config.network
    assert network == Cnn(name="cnn")


def test_an_unknown_section_of_a_file_is_refused_even_if_it_is_empty(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("[trainning]\n")
    with pytest.raises(ConfigError, match=r"unknown section \[trainning\]; leave it out"):
        from_toml(file)


def test_a_variable_of_no_section_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown variable 'CL_MANIFOLD_TRAINNING_EPOCHS'"):
        from_environment({"CL_MANIFOLD_TRAINNING_EPOCHS": "3"})
