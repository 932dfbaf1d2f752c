"""From living objects to a tree that a snapshot can hold; `thawing` is the way back.

Everything that is reached from a root becomes a row of a table: containers, tensors with the
storage they look into, random generators, and objects of classes that Python code defines, as
their class's name and attributes. A value is a plain one or `(row,)`, so that what was shared is
shared again. What belongs to the world outside, such as the stream's data, is named, not copied.
What no table can hold, such as an iterator or an open file, is refused.
"""

import copyreg
import random
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from cl_manifold.errors import IncompatibleError
from cl_manifold.experiments.trust import Trust

Value = Any
"""None, a truth value, a number or a text as it is; anything else as `(row,)`."""
Row = dict[str, Any]
LeftOut = Callable[[type], Iterable[str]]

PLAIN = (type(None), bool, int, float, str)
MADE_AT_RUN_TIME, ONLY_OF_C = 1 << 9, 1 << 8 | 1 << 7
"""Flags of a class: Py_TPFLAGS_HEAPTYPE; _IMMUTABLETYPE or _DISALLOW_INSTANTIATION."""
BUILT_IN = (dict, OrderedDict, defaultdict, list, tuple, set, frozenset, deque)
"""Containers; classes of one's own may derive from them."""


@final
@dataclass
class World:
    """What is not of the frozen objects but referred to by them, by name.

    Attributes:
        objects: by name; a tensor's name is also that of its storage.
    """

    objects: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._names = {id(thing): name for name, thing in self.objects.items()}
        tensors = {n: t for n, t in self.objects.items() if isinstance(t, Tensor)}
        self._storages = {t.untyped_storage()._cdata: name for name, t in tensors.items()}

    def name_of(self, thing: object) -> str | None:
        """The name of an object of the world."""
        return self._names.get(id(thing))

    def storage_name_of(self, tensor: Tensor) -> str | None:
        """The name of a tensor of the world that looks into the same memory."""
        return self._storages.get(tensor.untyped_storage()._cdata)


@final
class Freezer:
    """One table of frozen objects.

    Attributes:
        rows: row 0 is the root.
    """

    def __init__(self, world: World, trust: Trust, left_out: LeftOut) -> None:
        """Freeze nothing yet.

        Args:
            world: what is named instead of frozen.
            trust: classes and functions that may be named.
            left_out: attributes of a class's objects that are made anew before they are used.
        """
        self.rows: list[Row] = []
        self._world, self._trust, self._left_out = world, trust, left_out
        self._numbers: dict[Any, int] = {}
        self._alive: list[object] = []

    def value(self, thing: Any, where: str) -> Value:
        """The thing as a value of the table.

        Raises:
            IncompatibleError: no table can hold it.
        """
        if type(thing) in PLAIN:
            return thing
        return self._entered(id(thing), thing, lambda: self._row(thing, where))

    def _entered(self, key: Any, thing: object, make: Callable[[], Row]) -> Value:
        """A thing that is met again is the same row; things live on, so that ids stay theirs."""
        if key not in self._numbers:
            number = self._numbers[key] = len(self.rows)
            self._alive.append(thing)
            self.rows.append({})
            self.rows[number] = make()
        return (self._numbers[key],)

    def _row(self, thing: Any, where: str) -> Row:
        name = self._world.name_of(thing)
        if name is not None:
            return {"kind": "world", "name": name}
        for kinds, make in self._SPECIAL:
            if isinstance(thing, kinds):
                return make(self, thing, where)
        return self._object(thing, where)

    # -- values that know how to be made again -------------------------------------------------

    def _tensor(self, tensor: Tensor, where: str) -> Row:
        if tensor.layout != torch.strided or type(tensor) not in (Tensor, nn.Parameter):
            raise _refusal(tensor, where)
        name = self._world.storage_name_of(tensor)
        storage = tensor.untyped_storage()
        return {
            "kind": "tensor",
            "parameter": isinstance(tensor, nn.Parameter),
            "requires_grad": tensor.requires_grad and tensor.is_leaf,
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "device": str(tensor.device),
            "size": list(tensor.shape),
            "stride": list(tensor.stride()),
            "offset": tensor.storage_offset(),
            "of": name,
            "storage": None if name else self._storage(storage, where),
            "state": self._attributes(vars(tensor).items(), where),
        }

    def _storage(self, storage: torch.UntypedStorage, where: str) -> Value:
        def make() -> Row:
            view = torch.empty(0, dtype=torch.uint8, device=storage.device)
            raw = view.set_(storage)
            return {"kind": "storage", "device": str(storage.device), "bytes": raw}

        return self._entered(("storage", storage._cdata), storage, make)

    def _array(self, array: np.ndarray, where: str) -> Row:
        if array.dtype.hasobject or array.dtype.fields:
            raise _refusal(array, where)
        raw = np.frombuffer(array.tobytes(), np.uint8).copy()
        return {
            "kind": "array",
            "dtype": array.dtype.str,
            "size": list(array.shape),
            "bytes": torch.from_numpy(raw),
        }

    def _scalar(self, number: np.generic, where: str) -> Row:
        return {"kind": "scalar", "array": self.value(np.asarray(number), where)}

    def _torch_generator(self, generator: torch.Generator, where: str) -> Row:
        return {
            "kind": "torch generator",
            "device": str(generator.device),
            "numbers": generator.get_state(),
        }

    def _python_generator(self, generator: random.Random, where: str) -> Row:
        if type(generator) is not random.Random:
            raise _refusal(generator, where)
        return {"kind": "python generator", "numbers": self.value(generator.getstate(), where)}

    def _numpy_generator(self, generator: Any, where: str) -> Row:
        old = isinstance(generator, np.random.RandomState)
        state = generator.get_state(legacy=False) if old else generator.bit_generator.state
        return {"kind": "numpy generator", "old": old, "numbers": self.value(state, where)}

    def _text(self, thing: Any, where: str) -> Row:
        """Values with a text that makes them again."""
        return {"kind": type(thing).__name__, "text": str(thing).removeprefix("torch.")}

    def _bytes(self, thing: bytes, where: str) -> Row:
        return {"kind": "bytes", "text": thing.hex()}

    def _path(self, thing: PurePath, where: str) -> Row:
        return {"kind": "path", "text": str(thing)}

    def _slice(self, thing: Any, where: str) -> Row:
        parts = (thing.start, thing.stop, thing.step)
        return {"kind": type(thing).__name__, "items": [self.value(part, where) for part in parts]}

    def _size(self, thing: torch.Size, where: str) -> Row:
        return {"kind": "size", "items": list(thing)}

    def _enum(self, member: Enum, where: str) -> Row:
        return {"kind": "enum", "class": self.value(type(member), where), "name": member.name}

    def _weak(self, reference: Any, where: str) -> Row:
        return {"kind": "weak", "to": self.value(reference(), where)}

    # -- code ----------------------------------------------------------------------------------

    def _method(self, method: MethodType, where: str) -> Row:
        owner, name = method.__self__, method.__name__
        if getattr(owner, name, None) != method:
            raise _refusal(method, where)
        return {"kind": "method", "owner": self.value(owner, f"{where}.__self__"), "name": name}

    def _partial(self, call: Any, where: str) -> Row:
        return {
            "kind": "partial",
            "call": self.value(call.func, f"{where}.func"),
            "words": self.value(call.args, f"{where}.args"),
            "named": self.value(call.keywords, f"{where}.keywords"),
        }

    def _code(self, thing: Any, where: str) -> Row:
        """A class or function by name; one without, as the same one that is made again there."""
        module, name = thing.__module__ or _origin(thing), thing.__qualname__
        name = thing.__name__ if module == "torch" else name
        if self._trust.find(module, name) is thing:
            return {"kind": "code", "module": module, "name": name}
        cells = getattr(thing, "__closure__", None) or ()
        if not isinstance(thing, FunctionType) or not all(map(_filled, cells)):
            raise _refusal(thing, where)
        inside = [self.value(cell.cell_contents, f"{where}.closure") for cell in cells]
        return {"kind": "function here", "name": name, "items": inside, "where": where}

    # -- containers and objects ----------------------------------------------------------------

    def _object(self, thing: Any, where: str) -> Row:
        """An object as its class, its items where it is a container, and its attributes."""
        kind = type(thing)
        base = _base(kind)
        if kind is object or (base is not object and base not in BUILT_IN):
            raise _refusal(thing, where)
        row: Row = {"kind": "object" if base is object else base.__name__}
        if kind is not base:
            row["class"] = self.value(kind, where)
        if base is not object:
            row["items"] = self._items(base, thing, where)
        if base is deque:
            row["maxlen"] = thing.maxlen
        if base is defaultdict:
            row["default"] = self.value(thing.default_factory, where)
        row["state"] = self._attributes(self._named(thing), where)
        return row

    def _items(self, base: Any, thing: Any, where: str) -> list[Any]:
        """The items of a container, as its built-in base sees them."""
        if issubclass(base, dict):
            return [self._pair(key, item, where) for key, item in list(base.items(thing))]
        parts = enumerate(base.__iter__(thing))
        return [self.value(part, f"{where}[{i}]") for i, part in parts]

    def _pair(self, key: Any, item: Any, where: str) -> list[Value]:
        shown = repr(key) if type(key) in PLAIN else "…"
        return [self.value(key, f"a key of {where}"), self.value(item, f"{where}[{shown}]")]

    def _named(self, thing: Any) -> Iterator[tuple[str, Any]]:
        """Attributes of an object, of its dictionary and its slots."""
        out = set(self._left_out(type(thing)))
        for name, item in list(getattr(thing, "__dict__", {}).items()):
            if name not in out:
                yield name, item
        for name in slots_of(type(thing)):
            if name not in out and hasattr(thing, name):
                yield name, getattr(thing, name)

    def _attributes(self, named: Iterable[tuple[str, Any]], where: str) -> dict[str, Value]:
        return {str(name): self.value(item, f"{where}.{name}") for name, item in named}

    _SPECIAL: tuple[tuple[Any, Callable[..., Row]], ...] = (
        (Tensor, _tensor),
        (np.ndarray, _array),
        (np.generic, _scalar),
        (torch.Generator, _torch_generator),
        (random.Random, _python_generator),
        ((np.random.Generator, np.random.RandomState), _numpy_generator),
        ((torch.dtype, torch.device), _text),
        (bytes, _bytes),
        (PurePath, _path),
        ((slice, range), _slice),
        (torch.Size, _size),
        (Enum, _enum),
        (weakref.ReferenceType, _weak),
        (MethodType, _method),
        (partial, _partial),
        ((type, FunctionType, BuiltinFunctionType), _code),
    )


def _base(kind: type) -> Any:
    """The class that C code defines below those that Python code does."""
    return next(base for base in kind.__mro__ if _defined_by_c(base))


def _defined_by_c(kind: Any) -> bool:
    """Whether C code knows what an object of this very class holds.

    Extension modules make classes at run time too, defaultdict from Python 3.12 on; those have a
    `__new__` of C code, or a flag that no class of Python code has.
    """
    flags, new = kind.__flags__, kind.__new__
    own = isinstance(new, BuiltinFunctionType) and new.__self__ is kind
    return own or not flags & MADE_AT_RUN_TIME or bool(flags & ONLY_OF_C)


def slots_of(kind: type) -> list[str]:
    """The slots of a class and its bases, private ones under their full names."""
    return copyreg._slotnames(kind)  # pyright: ignore[reportAttributeAccessIssue]


def _origin(function: Any) -> str:
    """Where a built-in function is found that does not say so."""
    return "torch" if getattr(torch, function.__name__, None) is function else "builtins"


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _refusal(thing: Any, where: str) -> IncompatibleError:
    return IncompatibleError(
        f"{where} is a {type(thing).__name__}, which a snapshot cannot hold; keep numbers, texts, "
        "tensors and objects of them, or list the attribute in `transient` of its class if the "
        "next experience makes it anew"
    )
