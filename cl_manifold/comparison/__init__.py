"""Comparisons: several strategies and seeds on one stream, one table.

Names are loaded when they are first used: processes that run the work start while the rest loads.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cl_manifold.comparison.comparing import compare
    from cl_manifold.comparison.entries import Entry, parse_entries
    from cl_manifold.comparison.order import (
        ComparisonOrder,
        ComparisonResult,
        Nobody,
        Watcher,
    )
    from cl_manifold.comparison.outcome import Outcome
    from cl_manifold.comparison.rows import Row

_HOMES = {
    "comparing": ("compare",),
    "entries": ("Entry", "parse_entries"),
    "order": ("ComparisonOrder", "ComparisonResult", "Nobody", "Watcher"),
    "outcome": ("Outcome",),
    "rows": ("Row",),
}

__all__ = [
    "ComparisonOrder",
    "ComparisonResult",
    "Entry",
    "Nobody",
    "Outcome",
    "Row",
    "Watcher",
    "compare",
    "parse_entries",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"cl_manifold.comparison.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
