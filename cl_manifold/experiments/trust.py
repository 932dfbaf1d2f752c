"""The code that a snapshot may name: classes and functions of known packages, and of one's own."""

import importlib
import sys
from collections.abc import Collection
from types import BuiltinFunctionType
from typing import Any, final

import torch
from torch import nn

PACKAGES = ("cl_manifold", "avalanche", "torch.nn", "torch.optim", "torch.utils.data", "math")
_BUILT_IN = (
    *(bool, int, float, complex, str, bytes, object),
    *(dict, list, tuple, set, frozenset),
    *(abs, len, max, min, sorted, sum),
)


@final
class Trust:
    """What may be named."""

    def __init__(self, packages: Collection[str] = ()) -> None:
        """Trust the packages that everybody does, and these."""
        self._packages = (*PACKAGES, *packages)

    def find(self, module: str, name: str) -> Any:
        """The class or function of that qualified name; None where there is none or it may not be.

        Of torch itself only operators are trusted, which make tensors from tensors: torch.load is
        none. Of torchvision only modules are: its functions fetch weights.
        """
        if module == "builtins":
            return next((kind for kind in _BUILT_IN if kind.__name__ == name), None)
        if module == "torch":
            found = getattr(torch, name, None)
            return found if isinstance(found, BuiltinFunctionType) else None
        if module.partition(".")[0] == "torchvision":
            found = _named(module, name)
            return found if isinstance(found, type) and issubclass(found, nn.Module) else None
        if any(module == p or module.startswith(f"{p}.") for p in self._packages):
            return _named(module, name)
        found = _named(module, name) if module == "collections" else None
        return found if isinstance(found, type) else None


def _named(module: str, name: str) -> Any:
    if module not in sys.modules:
        try:
            importlib.import_module(module)
        except ImportError:
            return None
    found: Any = sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part, None)
    return found
