"""The errors of this package; every message says what came, what is needed and what to do."""

import re
from collections.abc import Iterable
from typing import SupportsFloat


class ClManifoldError(Exception):
    """Base of all errors that a user can cause and correct."""

    def __str__(self) -> str:
        """One sentence; of words longer than anybody writes only the beginning is quoted."""
        return re.sub(r"(\S{200})\S{100,}", r"\1…", super().__str__())


class ContextError(ClManifoldError, ValueError):
    """A context is missing, outside its topology or of the wrong dimension."""


class LayoutError(ClManifoldError, ValueError):
    """A module's parameters do not match the layout of its weight manifold."""


class InformationError(ClManifoldError, ValueError):
    """The information of a task says nothing, or nothing that can be used."""


class IncompatibleError(ClManifoldError, ValueError):
    """A network, loss or strategy that the weight manifold cannot work with."""


class DriftError(ClManifoldError, RuntimeError):
    """A commit would change too much at earlier contexts."""


class ConfigError(ClManifoldError, ValueError):
    """A stream, strategy, key or value of the configuration is unknown or out of range."""


class DataError(ClManifoldError, RuntimeError):
    """Data files are missing or unreadable."""


class StoreError(ClManifoldError, RuntimeError):
    """The tracking store cannot be opened, or a saved state cannot be read."""


class TrainingError(ClManifoldError, RuntimeError):
    """Training cannot continue, for example because the loss is not finite."""


def context_text(context: Iterable[SupportsFloat]) -> str:
    """A context as people write it: `0.25`, or `(0.1, 0.9)` where it has several numbers.

    >>> context_text([0.25]), context_text([0.1, 0.9])
    ('0.25', '(0.1, 0.9)')
    """
    numbers = [f"{float(value):.4g}" for value in context]
    return numbers[0] if len(numbers) == 1 else f"({', '.join(numbers)})"


def public(text: str) -> str:
    """A text that may leave the process: its addresses hold neither user nor password.

    >>> public("cannot reach http://user:sesame@host:5000/api or postgresql://me@db/x")
    'cannot reach http://host:5000/api or postgresql://db/x'
    """
    return re.sub(r"(?<=://)[^/\s]*@", "", text)
