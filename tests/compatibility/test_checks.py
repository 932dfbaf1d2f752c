"""The matrix itself: it calls brute force right, and notices every way of breaking it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from cl_manifold.errors import ContextError
from cl_manifold.tracking.logger import MlflowLogger

from . import interface
from .__main__ import all_cells
from .cells import RAW, REFUSED, RIGHT, WITHOUT, WRONG, Cell, judge
from .copies import Copies

CELLS = {cell.name: cell for cell in all_cells()}
NAIVE = CELLS["strategies | Naive | one head"]
SOME = [
    "strategies | Naive | one head",
    "strategies | Naive | multi-head",
    "strategies | Naive | growing head",
    "strategies | Naive | online",
    "strategies | Naive | task-free",
    "strategies | JointTraining | one head",
    "strategies | GDumb | one head",
    "strategies | CWRStar | one head",
    "networks | CNN, BatchNorm2d | Naive",
    "networks | MultiheadAttention, causal mask of −∞ | Naive",
    "losses | MSELoss, one output | Naive",
]


def use(monkeypatch: pytest.MonkeyPatch, kind: Callable[[Any], Any]) -> None:
    monkeypatch.setattr(interface, "plugin", lambda basis, number, information: kind(number))
    monkeypatch.setattr(interface, "state_at", lambda plugin, number: plugin.states[number])


@pytest.mark.parametrize("name", SOME)
def test_brute_force_is_right(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Copies)
    outcome = judge(CELLS[name])
    assert outcome.kind == RIGHT, "\n".join(outcome.notes)


def broken(monkeypatch: pytest.MonkeyPatch, hook: str, breaks: Callable[..., None]) -> Any:
    """The outcome of Naive with brute force whose hook is replaced."""
    use(monkeypatch, Copies)
    monkeypatch.setattr(Copies, hook, breaks)
    return judge(NAIVE)


def nothing(plugin: Any, strategy: Any, **kwargs: Any) -> None:
    """Leaves out what the hook should do."""


def test_testing_with_other_weights_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = broken(monkeypatch, "before_eval_exp", nothing)
    assert outcome.kind == WRONG
    assert any("falls" in note for note in outcome.notes)
    assert any("changed the answers" in note for note in outcome.notes)


def test_weights_that_move_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    keep = Copies.after_training

    def creep(plugin: Any, strategy: Any, **kwargs: Any) -> None:
        for state in plugin.states.values():
            state["classifier.bias"] += 1e-3
        keep(plugin, strategy)

    outcome = broken(monkeypatch, "after_training", creep)
    assert any("moved 0: classifier.bias" in note for note in outcome.notes)


def test_an_early_commit_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(plugin: Any, strategy: Any, **kwargs: Any) -> None:
        Copies.before_training_exp(plugin, strategy)
        plugin.states |= {number: interface.tensors(strategy.model) for number in plugin._open}
        plugin.states = {n: {k: t.clone() for k, t in s.items()} for n, s in plugin.states.items()}

    use(monkeypatch, Copies)
    monkeypatch.setattr(Copies, "after_training", nothing)
    monkeypatch.setattr(Copies, "before_training_epoch", late, raising=False)
    outcome = judge(NAIVE)
    assert any("does not hold what was trained" in note for note in outcome.notes)


def test_frozen_training_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def freeze(plugin: Any, strategy: Any, **kwargs: Any) -> None:
        for parameter in strategy.model.parameters():
            parameter.grad = torch.zeros_like(parameter)

    use(monkeypatch, Copies)
    monkeypatch.setattr(Copies, "before_update", freeze, raising=False)
    outcome = judge(NAIVE)
    assert any("right after training" in note for note in outcome.notes)


@pytest.mark.parametrize(
    ("hook", "error", "kind"),
    [
        ("before_training_exp", ContextError("no"), REFUSED),
        ("before_training_exp", RuntimeError("no"), RAW),
        ("before_update", ContextError("no"), RAW),
        ("after_eval", ContextError("no"), RAW),
    ],
)
def test_errors(hook: str, error: Exception, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(plugin: Any, strategy: Any, **kwargs: Any) -> None:
        raise error

    use(monkeypatch, Copies)
    monkeypatch.setattr(Copies, hook, fail, raising=False)
    outcome = judge(NAIVE)
    assert outcome.kind == kind
    assert "no" in outcome.notes[0]


def test_a_logger_that_draws_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Copies)
    monkeypatch.setattr(MlflowLogger, "before_training_exp", lambda *args: torch.rand(1))
    outcome = judge(NAIVE)
    assert any("the logger changes" in note for note in outcome.notes)


def test_values_that_are_lost_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Copies)
    send = MlflowLogger.flush

    def lossy(logger: Any) -> None:
        logger._buffer = logger._buffer[:-1]
        send(logger)

    monkeypatch.setattr(MlflowLogger, "flush", lossy)
    outcome = judge(NAIVE)
    assert any("were sent" in note for note in outcome.notes)


def test_what_fails_anyway_is_not_ours() -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("on its own")

    cell = Cell("strategies", "a", "b", NAIVE.scenario, fail)
    assert judge(cell).kind == WITHOUT
