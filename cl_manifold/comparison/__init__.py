"""Comparisons: several strategies and seeds on one stream, one table.

Names are loaded when they are first used: processes that run the work start while the rest loads.
"""

from typing import TYPE_CHECKING

from cl_manifold.lazy import names_of

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

__getattr__ = names_of(__name__, _HOMES)

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
