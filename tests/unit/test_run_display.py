"""What a run shows while it goes on: lines that stay, and a line of progress that fits."""

import io
import re

import pytest
from rich.console import Console

from cl_manifold.cli import display
from cl_manifold.contexts.record import TaskRecord

RECORD = TaskRecord(
    experience=0,
    name="90°",
    context=(90.0,),
    context_source="given",
    decision="train",
    plasticity=None,
    overshoot=None,
    drift=None,
    zero_shot_score=None,
    score=0.5,
    control_points=3,
    stored_floats=7,
    seconds=1.25,
)


class Stream:
    name = "rotated-digits"
    at_once = False
    metric = "accuracy"
    train_stream = test_stream = (1, 2)


class Config:
    class strategy:
        name = "naive"

    class training:
        epochs = 30

    seed = 0


def shown(monkeypatch: pytest.MonkeyPatch, width: int, *, terminal: bool) -> list[str]:
    """Every line that a run of two experiences draws, without colours."""
    file = io.StringIO()
    console = Console(
        file=file, width=width, force_terminal=terminal, color_system=None, highlight=False
    )
    monkeypatch.setattr(display, "console", lambda: console)
    with display.Display() as shows:
        shows.begin(Stream(), Config())
        for experience in (0, 1):
            shows.task(experience, "90°")
            shows.epoch(experience, 11, 0.25)
            shows.learned(RECORD, 0.75)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())
    return [line for line in re.split(r"[\r\n]+", plain) if line.strip()]


@pytest.mark.parametrize("width", [60, 79, 120])
@pytest.mark.parametrize("terminal", [True, False])
def test_every_finished_experience_stays(
    monkeypatch: pytest.MonkeyPatch, width: int, terminal: bool
) -> None:
    lines = shown(monkeypatch, width, terminal=terminal)
    assert sum("1/2 90°              acc 0.500  so far 0.750  1.2 s" in line for line in lines) >= 2
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize(("width", "barred"), [(60, False), (120, True)])
def test_the_line_of_progress_has_a_bar_where_there_is_room(
    monkeypatch: pytest.MonkeyPatch, width: int, barred: bool
) -> None:
    lines = shown(monkeypatch, width, terminal=True)
    assert any("━" in line for line in lines) is barred
    assert any("42/60 epochs" in line for line in lines) is barred
    assert any("experience 2/2 · 90°" in line and "loss 0.250" in line for line in lines)


def test_without_a_terminal_there_is_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, 80, terminal=False)
    assert len(lines) == 3
