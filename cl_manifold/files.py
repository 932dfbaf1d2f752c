"""Files of tensors that cannot be half written or changed unnoticed; knows no format."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor


def publish(part: Path, path: Path) -> None:
    """Put a finished file in its place; a reader sees the old file or the new one.

    So does one after a crash.

    Args:
        part: the finished file, in the same folder.
        path: its place.

    Raises:
        OSError: the folder cannot be written.
    """
    _to_disk(part)
    part.replace(path)
    if os.name == "posix":  # elsewhere folders cannot be opened
        _to_disk(path.parent)


def fingerprint(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over a text, and over every tensor on the CPU with its name, dtype and shape."""
    state = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        t = tensors[name]
        state.update(f"{name} {t.dtype} {tuple(t.shape)}".encode())
        state.update(t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
