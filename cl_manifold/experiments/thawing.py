"""From the table of `freezing` back to living objects, into ones that were built the same way.

The objects of a run are built anew from its configuration and then filled: an object that stands
where a frozen one stood, and is of its class, takes its attributes; whatever was made since is made
from class and attributes, without calling anything. Names lead only to code of trusted packages.
"""

import random
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from cl_manifold.errors import DataError
from cl_manifold.experiments.freezing import (
    PLAIN,
    LeftOut,
    Row,
    Value,
    World,
    slots_of,
)
from cl_manifold.experiments.matching import Matcher
from cl_manifold.experiments.trust import Trust

_CONTAINERS: Mapping[str, Any] = {
    "dict": dict,
    "OrderedDict": OrderedDict,
    "defaultdict": defaultdict,
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": deque,
}


@final
class Thawer:
    """One table that becomes objects again."""

    def __init__(self, rows: Sequence[Row], world: World, trust: Trust, left_out: LeftOut) -> None:
        """Thaw nothing yet.

        Args:
            rows: of a `Freezer`.
            world: the same names as when it was frozen.
            trust: classes and functions that may be named.
            left_out: as then; living objects keep these attributes, in new ones they are None.
        """
        self._rows, self._world, self._trust, self._left_out = rows, world, trust, left_out
        self._made: dict[int, Any] = {}
        self._filled: set[int] = set()

    def into(self, living: Any) -> Any:
        """Row 0, with the living root and what it holds taken where they fit.

        Raises:
            DataError: the table was not frozen from objects that were built like these.
        """
        try:
            matcher = Matcher(self._rows, self._class)
            matcher.match((0,), living)
            self._made = matcher.found
            return self.value((0,))
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"the snapshot does not fit this program ({type(error).__name__}: {error}); "
                "start again"
            ) from error

    # -- making and filling --------------------------------------------------------------------

    def value(self, value: Value) -> Any:
        """The living thing of a value."""
        if type(value) in PLAIN:
            return value
        (number,) = value
        if number not in self._made or number not in self._filled:
            row = self._rows[number]
            make = self._MAKE[row["kind"]]
            self._made[number] = make(self, row, number)
            self._filled.add(number)
        return self._made[number]

    def _values(self, values: Sequence[Value]) -> list[Any]:
        return [self.value(value) for value in values]

    def _world_object(self, row: Row, number: int) -> Any:
        return self._world.objects[row["name"]]

    def _tensor(self, row: Row, number: int) -> Tensor:
        self._filled.add(number)
        if row["of"] is not None:
            storage = self._world.objects[row["of"]].untyped_storage()
        else:
            storage = self.value(row["storage"])
        dtype = getattr(torch, row["dtype"])
        new = torch.empty(0, dtype=dtype, device=storage.device)
        new.set_(storage, row["offset"], row["size"], row["stride"])
        if not row["parameter"]:
            self._made[number] = new.requires_grad_(row["requires_grad"])
        elif number in self._made:
            self._made[number].data = new
            self._made[number].requires_grad_(row["requires_grad"])
        else:
            self._made[number] = nn.Parameter(new, row["requires_grad"])
        vars(self._made[number]).update(self._state(row))
        return self._made[number]

    def _storage(self, row: Row, number: int) -> torch.UntypedStorage:
        return row["bytes"].to(row["device"], copy=True).untyped_storage()

    def _array(self, row: Row, number: int) -> np.ndarray:
        raw = row["bytes"].numpy().tobytes()
        return np.frombuffer(raw, np.dtype(row["dtype"])).reshape(row["size"]).copy()

    def _scalar(self, row: Row, number: int) -> Any:
        return self.value(row["array"])[()]

    def _torch_generator(self, row: Row, number: int) -> torch.Generator:
        generator = torch.Generator(row["device"])
        generator.set_state(row["numbers"])
        return generator

    def _python_generator(self, row: Row, number: int) -> random.Random:
        generator = random.Random()
        generator.setstate(self.value(row["numbers"]))
        return generator

    def _numpy_generator(self, row: Row, number: int) -> Any:
        state = self.value(row["numbers"])
        kind = getattr(np.random, state["bit_generator"])
        bits = kind()
        if row["old"]:
            old = np.random.RandomState(bits)
            old.set_state(state)
            return old
        bits.state = state
        return np.random.Generator(bits)

    def _dtype(self, row: Row, number: int) -> torch.dtype:
        return getattr(torch, row["text"])

    def _device(self, row: Row, number: int) -> torch.device:
        return torch.device(row["text"])

    def _bytes(self, row: Row, number: int) -> bytes:
        return bytes.fromhex(row["text"])

    def _path(self, row: Row, number: int) -> Path:
        return Path(row["text"])

    def _slice(self, row: Row, number: int) -> slice:
        return slice(*self._values(row["items"]))

    def _range(self, row: Row, number: int) -> range:
        return range(*self._values(row["items"]))

    def _size(self, row: Row, number: int) -> torch.Size:
        return torch.Size(row["items"])

    def _enum(self, row: Row, number: int) -> Any:
        return self.value(row["class"])[row["name"]]

    def _weak(self, row: Row, number: int) -> Any:
        return weakref.ref(self.value(row["to"]))

    def _method(self, row: Row, number: int) -> Any:
        return getattr(self.value(row["owner"]), row["name"])

    def _partial(self, row: Row, number: int) -> Any:
        return partial(
            self.value(row["call"]), *self.value(row["words"]), **self.value(row["named"])
        )

    def _code(self, row: Row, number: int) -> Any:
        """A class or function of a package that may be named."""
        module, name = row["module"], row["name"]
        found = self._trust.find(module, name)
        if found is None:
            raise DataError(
                f"the snapshot names {module}.{name}, which is not of this run's own packages; "
                "start again"
            )
        return found

    def _function_here(self, row: Row, number: int) -> Any:
        """The function that was made again at the same place, with what it enclosed."""
        if number not in self._made:
            raise DataError(
                f"the snapshot holds the function {row['name']} at {row['where']}, which this "
                "program did not make again; start again"
            )
        found = self._made[number]
        self._filled.add(number)
        for cell, item in zip(found.__closure__ or (), row["items"], strict=True):
            cell.cell_contents = self.value(item)
        return found

    def _class(self, row: Row) -> type:
        return self.value(row["class"])

    def _object(self, row: Row, number: int) -> Any:
        kind = self._class(row)
        self._filled.add(number)
        made = self._made.setdefault(number, object.__new__(kind))
        self._set(made, kind, row)
        # hooks from now on must not get the number of one that came back
        numbers = [-1, *_hooks(made)]
        RemovableHandle.next_id = max(RemovableHandle.next_id, 1 + max(numbers))
        return made

    def _container(self, row: Row, number: int) -> Any:
        base = _CONTAINERS[row["kind"]]
        kind = self._class(row) if "class" in row else base
        if base in (tuple, frozenset):
            made = base.__new__(kind, self._values(row["items"]))
            self._made[number] = made
        else:
            made = self._made[number] = base.__new__(kind)
            self._filled.add(number)
            self._fill(base, made, row)
        self._set(made, kind, row)
        return made

    def _set(self, made: Any, kind: type, row: Row) -> None:
        """Give an object its attributes, and none that it had not."""
        state, slots = self._state(row), set(slots_of(kind))
        inside = getattr(made, "__dict__", {})
        for name in slots & state.keys():
            object.__setattr__(made, name, state.pop(name))
        kept = {name: inside.get(name) for name in self._left_out(kind)}
        inside.clear()
        inside.update(kept | state)

    def _fill(self, base: type, made: Any, row: Row) -> None:
        if base is deque:
            deque.__init__(made, (), row["maxlen"])
        if base is defaultdict:
            made.default_factory = self.value(row["default"])
        if issubclass(base, dict):
            for key, item in row["items"]:
                base.__setitem__(made, self.value(key), self.value(item))
        else:
            add: Callable[[Any], None] = partial(set.add if base is set else base.append, made)
            for item in row["items"]:
                add(self.value(item))

    def _state(self, row: Row) -> dict[str, Any]:
        return {name: self.value(item) for name, item in row["state"].items()}

    _MAKE: Mapping[str, Callable[..., Any]] = {
        "world": _world_object,
        "tensor": _tensor,
        "storage": _storage,
        "array": _array,
        "scalar": _scalar,
        "torch generator": _torch_generator,
        "python generator": _python_generator,
        "numpy generator": _numpy_generator,
        "dtype": _dtype,
        "device": _device,
        "bytes": _bytes,
        "path": _path,
        "slice": _slice,
        "range": _range,
        "size": _size,
        "enum": _enum,
        "weak": _weak,
        "method": _method,
        "partial": _partial,
        "code": _code,
        "function here": _function_here,
        "object": _object,
        **dict.fromkeys(_CONTAINERS, _container),
    }


def _hooks(made: Any) -> list[int]:
    """The numbers of the hooks of a module or an optimizer, or of one hook's handle."""
    if isinstance(made, RemovableHandle):
        return [made.id]
    if not isinstance(made, nn.Module | torch.optim.Optimizer):
        return []
    held = [item for name, item in vars(made).items() if name.endswith("hooks")]
    return [number for hooks in held if isinstance(hooks, dict) for number in hooks]
