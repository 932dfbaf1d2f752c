"""`cl-manifold plan` as people call it."""

import json
import os
import sys
from pathlib import Path

import pytest

from cl_manifold.cli import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("CL_MANIFOLD_"):
            monkeypatch.delenv(name)
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["cl-manifold", "plan", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_a_plan_prints_a_table_and_a_recommendation_and_draws_a_figure(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "rotated-mnist", "--set", "stream.contexts=8") == 0
    said = capsys.readouterr()
    assert "rotated-mnist: 8 tasks, planned without data" in said.out
    assert "circle:4" in said.out
    assert "Take circle:" in said.out
    assert (folder / "plan.png").read_bytes().startswith(b"\x89PNG")
    assert "plan.png" in said.err
    assert not (folder / "mlruns").exists()


def test_a_plan_as_json_has_every_task_of_every_topology(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("permuted-digits", "--topologies", "codes:2, simplex", "--set", "stream.contexts=4")
    assert call(monkeypatch, *words, "--figure", "here.png", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert [t["topology"] for t in result["topologies"]] == ["codes:2", "simplex"]
    assert [t["control_points"] for t in result["topologies"]] == [2, 4]
    assert result["recommended"] == "simplex"
    tasks = result["topologies"][1]["tasks"]
    assert len(tasks) == 4
    assert set(tasks[0]) == {"context", "plasticity", "refused", "overshoot", "stored_floats"}
    assert tasks[-1]["stored_floats"] > 4 * result["topologies"][1]["model_floats"]
    assert (folder / "here.png").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("rotated-digits", "--topologies", "circle:x"), "needs circle:N with harmonics N ≥ 0"),
        (("permuted-digits", "--topologies", "codes:0"), "needs codes:N with size N ≥ 1"),
        (("permuted-digits", "--topologies", "simplex:3"), "simplex without a number"),
        (("rotated-digits", "--topologies", "circel"), "did you mean circle"),
        (("rotated-digits", "--topologies", "simplex"), "simplex is for unrelated tasks"),
        (("rotated-digits", "--figure", "no/such.png"), "its folder does not exist"),
    ],
)
def test_mistakes_end_in_a_sentence(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    sentence: str,
) -> None:
    assert call(monkeypatch, *words) == 2
    assert sentence in capsys.readouterr().err


def test_a_stream_that_hides_its_tasks_cannot_be_planned(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "recurring-digits") == 1
    assert "carry no contexts" in capsys.readouterr().err
