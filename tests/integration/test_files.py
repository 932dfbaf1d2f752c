"""A file from the command line: run, described once, compared, inferred, refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

Call = Callable[..., tuple[int, str, str]]
DROPPED = {"count": "day,busy", "busy": "day,count"}
SMALL = ("--epochs", "2", "--set", "network.hidden=8")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Six hours whose target follows the hour and one input."""
    rng = np.random.default_rng(0)
    hour, warm = np.arange(360) % 6 * 4, rng.normal(size=360)
    frame = pd.DataFrame({"hour": hour, "warm": warm, "damp": rng.normal(size=360)})
    frame["day"] = np.arange(360) // 6
    frame["count"] = np.exp(1 + np.cos(hour / 24 * 2 * np.pi) + 0.3 * warm)
    frame["busy"] = np.where(frame["count"] > frame["count"].median(), "yes", "no")
    frame.to_csv(tmp_path / "hours.csv", index=False)
    return tmp_path / "hours.csv"


def words(path: Path, target: str = "count", *more: str) -> tuple[str, ...]:
    data = (
        "context=hour",
        f"target={target}",
        "drop=day,busy" if target == "count" else "drop=day",
    )
    return (
        str(path),
        *(part for text in data for part in ("--set", f"data.{text}")),
        *SMALL,
        *more,
    )


def test_a_table_is_run_and_scored_by_r_squared(call: Call, table: Path) -> None:
    code, out, err = call("run", *words(table), "--json")
    assert code == 0, err
    result = json.loads(out)
    assert (result["metric"], result["acc"]) == ("R²", None)
    assert result["score"] == pytest.approx(np.mean(result["score_matrix"][-1]))
    assert result["rmse"] > 0
    assert result["control_points"] == 7
    assert "guessed: contexts are hour on circle:24 (data.space=circle:24)" in err
    assert "1/6 hour " in err
    assert "  R² " in err
    said = call("show", "last")[1]
    assert f"R² {result['score']:.3f}" in said
    assert "R² on each experience" in said


def test_what_was_guessed_is_recorded_with_its_source(call: Call, table: Path) -> None:
    call("run", *words(table))
    [path] = Path.cwd().glob("mlruns/**/configuration.json")
    settings = json.loads(path.read_text())
    guessed = f"guessed from {table}"
    assert settings["data.kind"] == {"value": "regression", "source": guessed}
    assert settings["data.features"] == {"value": "warm,damp", "source": guessed}
    assert settings["topology.kind"] == {"value": "circle", "source": guessed}
    assert settings["data.context"] == {"value": "hour", "source": "command line"}


def test_a_description_says_it_once(call: Call, table: Path) -> None:
    told = table.with_name("hours.toml")
    told.write_text(
        '[stream]\nname = "hours.csv"\n\n[data]\ncontext = "hour"\ntarget = "busy"\n'
        'drop = ["day", "count"]\nunseen = "every:3"\n\n[training]\nepochs = 2\n'
    )
    code, out, err = call("run", str(told), "--set", "network.hidden=8", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["metric"] == "accuracy"
    assert result["acc"] == result["score"]
    assert len(result["score_matrix"]) == 4
    assert result["unseen_score"] is not None
    told.write_text("[data]\ncontext = 'hour'\n")
    code, _, err = call("run", str(told))
    assert code == 2
    assert "describes no file: give it a section [stream] with name" in err


def test_strategies_are_compared_and_tuned_on_a_table(call: Call, table: Path) -> None:
    code, out, err = call(
        *("compare", *words(table), "--strategies", "weight-manifold,separate", "--seeds", "0"),
        *("--tune", "--tune-grid", "training.epochs=1,2", "--tune-grid", "strategy.price=3,30"),
        *("--tune-grid", "topology.harmonics=1,2", "--tune-trials", "3", "--json"),
    )
    assert code == 0, err
    result = json.loads(out)
    assert {row["metric"] for row in result["rows"]} == {"R²"}
    chosen = result["tuned"]["weight-manifold"]
    assert set(chosen) == {"strategy.price", "topology.harmonics"}  # the user set the epochs
    assert "separate" not in result["tuned"]
    assert err.count("on validation") == 3


@pytest.mark.parametrize(
    "strategy", ["naive", "joint", "joint-concat", "concat", "separate", "replay", "ewc", "agem"]
)
def test_strategies_learn_numbers(call: Call, table: Path, strategy: str) -> None:
    code, out, err = call("run", *words(table), "--strategy", strategy, "--json")
    assert code == 0, err
    assert json.loads(out)["score"] > -5


def test_contexts_of_a_table_are_inferred(call: Call, table: Path) -> None:
    code, out, err = call("run", *words(table), "--set", "contexts.test=inferred", "--json")
    assert code == 0, err
    assert json.loads(out)["context_at_test"] == "inferred"


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--strategy", "lwf"), "strategy lwf learns classes, but hours.csv gives count"),
        (("--set", "data.contxt=hour"), "unknown key 'data.contxt'; did you mean"),
        (("--set", "data.kind=both"), "data.kind is 'both', but needs one of"),
        (("--set", "stream.contexts=3"), "unknown key 'stream.contexts'"),
        (("--topology", "torus"), "topology torus has 2 coordinates"),
    ],
)
def test_what_cannot_be_is_refused_before_training(
    call: Call, table: Path, more: tuple[str, ...], sentence: str
) -> None:
    code, _, err = call("run", *words(table), *more)
    assert code == 2
    assert sentence in err
    assert "1/6" not in err


def test_nothing_else_reads_the_section_data(call: Call) -> None:
    found: Any = call("run", "rotated-digits", "--set", "data.bins=3")
    assert found[0] == 2
    assert "unknown key 'data.bins'" in found[2]
