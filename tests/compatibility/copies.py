"""What the matrix asks for, by brute force: a copy of the network's state for every context.

It knows neither control points nor information. The tests of the matrix itself use it: cells must
call it right, and call it wrong as soon as it is broken.
"""

from collections.abc import Callable
from typing import Any, final

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from . import interface

State = dict[str, Tensor]


@final
class Copies(SupervisedPlugin, supports_distributed=True):
    """Keeps the state that each context's training ended with, and tests with it."""

    def __init__(self, number: Callable[[Any], interface.Number]) -> None:
        super().__init__()
        self.number = number
        self.states: dict[interface.Number, State] = {}
        self._open: list[interface.Number] = []
        self._live: State | None = None

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        together = getattr(strategy, "_experiences", [strategy.experience])
        self._open = [self.number(e.logging()) for e in together]

    def after_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        for number in self._open:
            self.states[number] = _copy(strategy.model)

    def before_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self._live = _copy(strategy.model)

    def before_eval_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        number = self.number(strategy.experience.logging())
        if number in self.states:
            _write(strategy.model, self.states[number])

    def after_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        assert self._live is not None
        _write(strategy.model, self._live)


def _copy(model: Any) -> State:
    return {n: t.detach().clone() for n, t in interface.tensors(model).items()}


@torch.no_grad()
def _write(model: Any, state: State) -> None:
    """In place, on the part that both have: heads grow."""
    held = interface.tensors(model)
    for name, value in state.items():
        if name in held and held[name].ndim == value.ndim:
            pairs = zip(held[name].shape, value.shape, strict=True)
            common = tuple(slice(min(m, n)) for m, n in pairs)
            held[name][common] = value[common]
