"""What people see in the terminal shows names as they are, whatever stands in them."""

import io
from collections.abc import Iterator
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from cl_manifold.cli import display, tables
from cl_manifold.cli.compare_display import CompareDisplay, table
from cl_manifold.cli.display import Display
from cl_manifold.comparison.order import ComparisonResult
from cl_manifold.comparison.rows import Row
from cl_manifold.contexts.record import TaskRecord
from cl_manifold.contexts.replay import Replayed
from cl_manifold.experiments.result import Decision, Result

NAMES = ["[red]x[/]", "[/]", "[bold", "a[0]", ":warning:", "back\\", "[/red]", "[link=x]y[/link]"]


@pytest.fixture(params=[False, True], ids=["elsewhere", "terminal"])
def written(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[io.StringIO]:
    """What is written to the console, without colours."""
    file = io.StringIO()
    look = {"file": file, "width": 200, "force_terminal": request.param, "color_system": None}

    def console(**settings: Any) -> Console:
        return Console(**settings | look)

    for module in (display, tables):
        monkeypatch.setattr(module, "Console", console)
    display.console.cache_clear()
    yield file
    display.console.cache_clear()


def addresses(name: str) -> Any:
    found = SimpleNamespace(command=f"cl-manifold ui {name}", run=f"http://{name}")
    return SimpleNamespace(run_id="0123456789", addresses=lambda: found)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_shows_names_as_they_are(written: io.StringIO, name: str) -> None:
    record = TaskRecord(0, name, (), "given", "train", None, None, None, 0.1, 0.9, 1, 1, 0.5)
    with Display() as shown:
        shown.recording(addresses(name))
        stream = SimpleNamespace(
            name=name, at_once=False, train_stream=[1], test_stream=[1], metric="accuracy"
        )
        strategy, training = SimpleNamespace(name=name), SimpleNamespace(epochs=1)
        shown.begin(stream, SimpleNamespace(strategy=strategy, training=training, seed=0))
        shown.task(0, name)
        shown.epoch(0, 0, 0.5)
        shown.learned(record, 0.5)
        shown.say(f"about {name} ")
    shown.summary(
        SimpleNamespace(
            score=0.5, unseen_score=None, bwt=None, forgetting=None, fwt=None, context_at_test=name,
            control_points=None, stored_floats=None, model_floats=1, train_seconds=1.0,
            score_matrix=[[0.5]], metric="accuracy", rmse=None,
        )
    )  # fmt: skip
    text = written.getvalue()
    assert f"{name} on {name}: 1 experiences" in text
    assert f"about {name} " in text
    assert f"experience 1/1 · {name}" in text or f"1/1 {name}" in text
    assert f"ui {name}   then open   http://{name}" in text


@pytest.mark.parametrize("name", NAMES)
def test_a_comparison_shows_names_as_they_are(written: io.StringIO, name: str) -> None:
    outlook = SimpleNamespace(
        labels=(name,), seeds=(0, 1), stream=name, total=2, jobs=1, resumed=False, present=0
    )
    good = {"score": 0.5, "train_seconds": 1.0}
    row = dict.fromkeys(
        ["score_sd", "bwt", "forgetting", "fwt", "unseen_score", "learning_score", "replay_samples",
         "memory_ratio", "time_ratio", "p_value"]
    ) | {"label": name, "score": 0.5, "context": name, "best": True, "measure": "ACC"}  # fmt: skip
    problems = [{"label": name, "seed": 1, "problem": name}]
    with CompareDisplay() as shown:
        shown.recording(addresses(name))
        shown.begin(outlook)
        shown.progress(name, 0, None)
        shown.finished(SimpleNamespace(label=name, seed=0, result=good, problem=None), False)
        shown.tried(SimpleNamespace(label=name, seed=1, result=None, problem=name), name, False)
        shown.lost(name, 1)
        shown.tuned(name, {"strategy.x": name}, 3)
        shown.say(name)
    rows = [SimpleNamespace(**row)]
    shown.summary(SimpleNamespace(rows=rows, tuned={name: {"x": name}}, problems=problems))
    text = written.getvalue()
    for said in (
        f"comparing 1 strategies on {name}, seeds 0, 1",
        f"{name} with {name} on validation: {name}",
        f"the process of {name}, seed 1 died",
        f'{name}: strategy.x = "{name}" (of 3 candidates)',
        f'tuned {name}: x = "{name}"',
        f"{name} could not run (seed 1): {name}",
    ):
        assert said in text
    [line] = [part for part in text.splitlines() if part.startswith(name) and "0.500" in part][-1:]
    assert line.split()[0] == name


@pytest.mark.parametrize("name", NAMES)
def test_what_is_shown_later_has_names_as_they_are(written: io.StringIO, name: str) -> None:
    record = TaskRecord(0, name, (), "given", name, *[None] * 7, seconds=1.0)
    found: dict[str, Any] = dict.fromkeys(field.name for field in fields(Result))
    found |= {
        "strategy": name, "stream": name, "seed": 0, "context_at_test": name, "score": 0.5,
        "run_id": "0", "metric": "accuracy", "train_seconds": 1.0, "model_floats": 1,
        "score_matrix": [[0.5]],
        "decisions": [Decision(**record.as_dict(), final_score=None)],
    }  # fmt: skip
    tables.print_result(Result(**found))
    tables.print_comparison(ComparisonResult("0", name, (0,), [], [], {}))
    tables.print_replay([Replayed(0, name, "grow", "reuse")], f"rule {name}")
    text = written.getvalue()
    assert f"{name} on {name}, seed 0, context at test: {name}\n" in text
    assert f"\n{name}, seeds 0\n" in text
    assert f"under rule {name}" in text
    assert sum(name in line.split() for line in text.splitlines()) >= 2


@pytest.mark.parametrize(("width", "columns"), [(60, 3), (80, 6), (120, 11), (200, 11)])
def test_a_table_of_a_comparison_fits_and_cuts_no_label(width: int, columns: int) -> None:
    label = "weight-manifold strategy.price=10 training.epochs=2"
    row = Row(
        label, "weight-manifold", "", 3, "accuracy", 0.97, 0.001, -0.01, 0.02, 0.1, 0.9, 0.95,
        "given", 0, 9.1, 1.2, 0.04, best=True,
    )  # fmt: skip
    file = io.StringIO()
    drawn = table([row], width)
    Console(file=file, width=width).print(drawn)
    assert len(drawn.columns) == 1 + columns
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "".join(line[:28].strip() for line in lines[2:]).startswith("weight-manifold")
    assert "".join("".join(line.split("  ")[0] for line in lines[2:]).split()) == label.replace(
        " ", ""
    )
