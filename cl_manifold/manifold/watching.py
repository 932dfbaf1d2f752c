"""Watching changes nothing: modes and random streams are afterwards what they were."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def watching(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every submodule's own flag and all random streams."""
    flags = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        with undrawn():
            yield
    finally:
        for m, training in flags:
            m.training = training


@contextmanager
def undrawn() -> Iterator[None]:
    """The global random streams of torch, numpy and Python go on afterwards as if nothing was."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    numbers, plain = np.random.get_state(), random.getstate()  # noqa: NPY002
    with torch.random.fork_rng(devices=list(devices)):
        try:
            yield
        finally:
            np.random.set_state(numbers)  # noqa: NPY002
            random.setstate(plain)
