"""From any number type to coordinates. Knows nothing about topologies."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def real_numbers(value: Any) -> Tensor | None:
    """A value as a float64 tensor on the CPU, of any shape; None if it is not made of real numbers.

    Truth values, complex numbers, text and ragged lists are not.

    >>> real_numbers([1, 2.5]).tolist(), real_numbers("1")
    ([1.0, 2.5], None)
    """
    if isinstance(value, Tensor):
        return value.detach().cpu().double() if _kind(value) in "if" else None
    if isinstance(value, list | tuple):
        parts = [real_numbers(part) for part in parts_of(value)]
        known = [part for part in parts if part is not None]
        alike = len(known) == len(parts) and len({part.shape for part in known}) == 1
        return torch.stack(known) if alike else None
    return torch.tensor(np.asarray(value, np.float64)) if _kind(value) in "if" else None


def whole_number(value: Any) -> int | None:
    """The number that a single value of an integer type is, None for anything else.

    >>> whole_number(np.int64(3)), whole_number(3.0), whole_number([3])
    (3, None, None)
    """
    if isinstance(value, list | tuple) or np.ndim(value) != 0 or _kind(value) != "i":
        return None
    return int(value)


def parts_of(value: Any) -> list[Any]:
    """What a list or tuple consists of; nothing, if it is something else."""
    return [*value] if isinstance(value, list | tuple) else []


def _kind(value: Any) -> str:
    """`i` for integers, `f` for other real numbers, `x` for anything else."""
    if isinstance(value, Tensor):
        real = not (value.is_complex() or value.dtype is torch.bool)
        return ("f" if value.is_floating_point() else "i") if real else "x"
    return {"i": "i", "u": "i", "f": "f"}.get(np.asarray(value).dtype.kind, "x")
