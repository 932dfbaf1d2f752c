"""What a run did, written down by a plugin that knows nothing of the weight manifold."""

import io
import random
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch
from avalanche.core import SupervisedPlugin
from avalanche.models import avalanche_forward
from torch import Tensor, nn

from . import interface

State = dict[str, Tensor]
Score = Callable[[Any, Tensor], float]
"""Of outputs and targets; higher is better."""


def accuracy(outputs: Any, y: Tensor) -> float:
    """Share of right answers; the first tensor of a tuple or dictionary is the answer."""
    return float((first(outputs).argmax(1) == y).float().mean())


def first(outputs: Any) -> Tensor:
    """The first tensor of whatever a network returns."""
    if isinstance(outputs, dict):
        outputs = next(iter(outputs.values()))
    while isinstance(outputs, tuple | list):
        outputs = outputs[0]
    return outputs


@dataclass(frozen=True)
class Snapshot:
    """A network at one moment: what it holds and what it answers on a context's test data."""

    state: State
    weights: tuple[str, ...]
    outputs: Tensor
    score: float


@contextmanager
def quietly(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and a fixed random stream, both put back afterwards."""
    modes = [(m, m.training) for m in model.modules()]
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        model.eval()
        yield
    for module, mode in modes:
        module.training = mode


def answer(model: nn.Module, probe: Any) -> Any:
    """Outputs on a probe in evaluation mode."""
    with quietly(model):
        return avalanche_forward(model, probe.x, _labels(probe))


def _labels(probe: Any) -> Any:
    return None if probe.label is None else torch.full((len(probe.y),), probe.label)


def snapshot(model: nn.Module, probe: Any, score: Score) -> Snapshot:
    """What the network holds and answers now."""
    held = held_by(model)
    outputs = answer(model, probe)
    _restore(model, held)
    weights = tuple(n for n, p in model.named_parameters() if p.numel() and p.is_floating_point())
    answers = first(outputs).detach().clone()
    return Snapshot(held, weights, answers, score(outputs, probe.y))


@torch.no_grad()
def _restore(model: nn.Module, held: State) -> None:
    """A forward pass may write into weights even in evaluation: Embedding(max_norm) does."""
    for name, tensor in interface.tensors(model).items():
        if name in held and not same(tensor, held[name]):
            tensor.copy_(held[name])


def held_by(model: nn.Module) -> State:
    """Copies of all parameters and buffers."""
    return {n: t.detach().clone() for n, t in interface.tensors(model).items()}


def same(a: Tensor, b: Tensor) -> bool:
    """Equal to the bit."""
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


@final
class Recorder(SupervisedPlugin, supports_distributed=True):
    """Stands after all other plugins.

    Attributes:
        steps: mini-batches that training began.
        trained: per training experience its context and the network at its end.
        late: names of what still changed after the last plugin's `after_training_exp`.
        evaluated: the network that evaluation used, by (trainings so far, context).
    """

    def __init__(self, scenario: Any, score: Score) -> None:
        super().__init__()
        self.scenario, self.score = scenario, score
        self.steps = 0
        self.trained: list[tuple[interface.Number, Snapshot]] = []
        self.late: set[str] = set()
        self._left: tuple[interface.Number, State] | None = None
        self.evaluated: dict[tuple[int, interface.Number], Snapshot] = {}
        self._training = False

    def _now(self, strategy: Any) -> tuple[interface.Number, Snapshot]:
        number = self.scenario.number(strategy.experience.logging())
        probe = self.scenario.probes[number]
        return number, snapshot(strategy.model, probe, self.score)

    def before_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self._training = True

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.steps += 1

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        number = self.scenario.number(strategy.experience.logging())
        self._left = number, held_by(strategy.model)

    def after_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self._training = False
        if self._left is not None:
            number, left = self._left
            end = snapshot(strategy.model, self.scenario.probes[number], self.score)
            self.late |= {n for n, t in end.state.items() if n not in left or not same(t, left[n])}
            self.trained.append((number, end))

    def before_eval_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if not self._training:
            number, now = self._now(strategy)
            self.evaluated[len(self.trained), number] = now


@dataclass
class Run:
    """One run of a strategy on a scenario, finished or broken.

    Attributes:
        held: by training, the manifold's weights at every context trained so far.
        warned: what the package warned of.
        whole: whether answers follow from parameters and buffers alone.
    """

    scenario: Any
    recorder: Recorder
    whole: bool = True
    plugin: Any = None
    held: list[dict[interface.Number, State]] = field(default_factory=list)
    model: Any = None
    error: Exception | None = None
    warned: list[str] = field(default_factory=list)
    printed: str = ""


LIMIT = 15
"""Seconds that a run may take: some strategies wait for ever on a memory that stays empty."""


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raises TimeoutError when the time is over."""

    def over(*_: Any) -> None:
        raise TimeoutError(f"no end within {seconds} seconds")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _finite(run: Run) -> None:
    for name, tensor in run.model.named_parameters():
        if not bool(tensor.isfinite().all()):
            raise FloatingPointError(f"{name} is not finite after training")


def seed_everything() -> None:
    """The same random streams for every run."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002


def perform(cell: Any, information: str | None, loggers: list[Any] | None = None) -> Run:
    """Run a cell: without the plugin (None), or with it.

    Errors of any kind end the run and are kept: telling them apart is the matrix's work.
    """
    seed_everything()
    run = Run(cell.scenario(), Recorder(None, cell.score), cell.whole)
    run.recorder.scenario = run.scenario
    with warnings.catch_warnings(record=True) as caught, redirect_stdout(io.StringIO()):
        warnings.simplefilter("always")
        try:
            with at_most(LIMIT):
                _walk(cell, run, information, loggers or [])
            _finite(run)
        except Exception as error:  # noqa: BLE001
            run.error = error
    run.warned = sorted({str(w.message) for w in caught if "cl_manifold" in w.filename})
    return run


def _walk(cell: Any, run: Run, information: str | None, loggers: list[Any]) -> None:
    scenario, plugins = run.scenario, []
    if information is not None:
        run.plugin = interface.plugin(scenario.basis, scenario.number, information)
        plugins = [run.plugin]
    strategy = cell.build(scenario, plugins, loggers)
    strategy.plugins.append(run.recorder)
    run.model = strategy.model
    courses = [scenario.train] if cell.jointly else scenario.train
    for course in courses:
        strategy.train(course, **cell.options)
        run.model = strategy.model
        if run.plugin is not None:
            seen = {number for number, _ in run.recorder.trained}
            run.held.append({n: interface.state_at(run.plugin, n) for n in seen})
        strategy.eval(scenario.test, **cell.options)
        run.model = strategy.model
