"""Counting what a strategy keeps."""

from math import prod
from typing import Any, TypeVar

from .method import Stored

P = TypeVar("P")


def network_and(
    strategy: Any,
    input_shape: tuple[int, ...],
    *,
    networks: int = 0,
    samples: int = 0,
    floats_each: int = 0,
) -> Stored:
    """The strategy's network and what lies beside it.

    Args:
        strategy: whose network counts once.
        input_shape: of one sample.
        networks: further values, in units of the network's size.
        samples: training samples, each with its class.
        floats_each: further values kept with each sample.
    """
    size = sum(parameter.numel() for parameter in strategy.model.parameters())
    each = prod(input_shape) + 1 + floats_each
    return Stored(size * (1 + networks) + samples * each, samples)


def plugin_of(strategy: Any, kind: type[P]) -> P:
    """The strategy's plugin of that type; there must be one."""
    return next(plugin for plugin in strategy.plugins if isinstance(plugin, kind))
