"""Which living objects stand where the rows of a frozen table stood.

Two walks go side by side from the root: over the rows, and over objects that were built the same
way. An object of the same class at the same place is the row's; each is given away once. What is
never changed, such as a frozen dataclass, may be shared with others and is not taken.
"""

import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import FunctionType, MethodType
from typing import Any, final

from torch import nn

from cl_manifold.experiments.freezing import PLAIN, Row, Value

Pairs = Iterator[tuple[Value, Any]]


@final
class Matcher:
    """The living objects of one table.

    Attributes:
        found: by number of the row.
    """

    def __init__(self, rows: Sequence[Row], class_of: Callable[[Row], type]) -> None:
        """Match nothing yet.

        Args:
            rows: the table.
            class_of: the class of a row of an object.
        """
        self.found: dict[int, Any] = {}
        self._rows, self._class_of = rows, class_of
        self._seen: set[int] = set()
        self._taken: set[int] = set()

    def match(self, value: Value, living: Any) -> None:
        """Let the row of a value stand for the living object, and those below for those below."""
        if type(value) in PLAIN or value[0] in self._seen:
            return
        (number,) = value
        self._seen.add(number)
        row = self._rows[number]
        if row["kind"] in ("object", "tensor", "function here"):
            if not self._fits(row, living):
                return
            if id(living) not in self._taken and not _frozen(living):
                self._taken.add(id(living))
                self.found[number] = living
        for below, there in _below(row, living):
            self.match(below, there)

    def _fits(self, row: Row, living: Any) -> bool:
        """Whether the living object is of the row's class; of tensors only parameters are taken."""
        if row["kind"] == "tensor":
            return row["parameter"] and isinstance(living, nn.Parameter)
        if row["kind"] == "function here":
            return isinstance(living, FunctionType) and living.__qualname__ == row["name"]
        return type(living) is self._class_of(row)


def _below(row: Row, living: Any) -> Pairs:  # noqa: C901
    """What is inside a row, beside what is at the same place inside the living object."""
    match row["kind"], living:
        case "dict" | "OrderedDict" | "defaultdict", dict():
            for key, item in row["items"]:
                if type(key) in PLAIN and key in living:
                    yield item, living[key]
        case "list" | "tuple" | "deque", list() | tuple() | deque():
            yield from zip(row["items"], living, strict=False)
        case "method", MethodType():
            yield row["owner"], living.__self__
        case "partial", partial():
            yield row["call"], living.func
        case "weak", weakref.ReferenceType():
            yield row["to"], living()
        case "function here", _:
            cells = living.__closure__ or ()
            yield from zip(row["items"], [c.cell_contents for c in cells], strict=True)
        case _:
            pass
    for name, item in row.get("state", {}).items():
        yield item, _attribute(living, name)


def _attribute(living: Any, name: str) -> Any:
    """An attribute that is stored, not computed."""
    inside = getattr(living, "__dict__", {})
    return inside[name] if name in inside else getattr(living, name, None)


def _frozen(living: Any) -> bool:
    """Whether an object is never changed, so that several may share it: it is made anew."""
    return getattr(getattr(type(living), "__dataclass_params__", None), "frozen", False)
