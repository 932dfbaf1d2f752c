"""A file for a tree of plain values and tensors: written at once or not at all, read with checks.

A tree is made of dicts (keys are texts or whole numbers), lists, tuples, None, truth values,
numbers, texts and tensors. The tensors are those of a safetensors file; the rest is JSON in its
header, so that both can never disagree. Nothing that a file says is executed.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cl_manifold.errors import DataError
from cl_manifold.files import fingerprint, publish

FORMAT = "cl-manifold-snapshot"
FILE = "snapshot.safetensors"
"""In the folder of a run."""
SCHEMA = "1"
"""Of the structure; a reader of another schema refuses the file."""

Tree = Any
Tensors = dict[str, Tensor]

_DTYPES = frozenset(
    {
        torch.bool,
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
    }
)
_FOREIGN = "it was written by another program or version"


class _Malformed(Exception):
    """The structure is not one that `save` writes."""


def save(path: Path, tree: Tree) -> None:
    """Write a tree; a file that is there already stays whole until the new one is.

    Args:
        path: the file; its folder is made where it is missing.
        tree: see the module. Tensors may lie on any device; one that occurs twice is written twice.

    Raises:
        DataError: the tree holds something else, or the file cannot be written.
    """
    tensors: Tensors = {}
    try:
        structure = json.dumps(_packed(tree, tensors, "tree"), allow_nan=False)
    except (RecursionError, ValueError) as error:
        raise DataError(f"the tree cannot be saved ({error}); save plain values") from error
    known = {"format": FORMAT, "schema": SCHEMA, "structure": structure}
    known["checksum"] = _checksum(known, tensors)
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, part, metadata=known)
        publish(part, path)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise DataError(
            f"snapshot {path} cannot be written ({error}); "
            "make room, or give a folder that can be written"
        ) from error


def load(path: Path) -> Tree:
    """The tree that was saved, its tensors on the CPU.

    Raises:
        DataError: the file is missing, damaged, foreign or of another schema.
    """
    known, tensors = _read(path)
    if known.get("format") != FORMAT:
        raise DataError(f"{path} is not a snapshot; {_FOREIGN}, so give another file")
    if known.get("schema") != SCHEMA:
        raise DataError(
            f"snapshot {path} has schema {known.get('schema')!r}, but {SCHEMA!r} is needed; "
            f"{_FOREIGN}, so start again"
        )
    if known.get("checksum") != _checksum(known, tensors):
        raise DataError(f"snapshot {path} is damaged: its checksum does not match; use another")
    try:
        return _unpacked(json.loads(known["structure"], parse_constant=_refuse), tensors)
    except (_Malformed, KeyError, ValueError, RecursionError) as error:
        raise DataError(f"snapshot {path} has no tree; {_FOREIGN}, so start again") from error


def _read(path: Path) -> tuple[dict[str, str], Tensors]:
    """Header and tensors, copied, so that what happens to the file later changes nothing."""
    try:
        with safe_open(path, framework="pt") as file:
            known = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, RuntimeError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"snapshot {path} cannot be read ({reason}); use another, or start again"
        ) from error
    return known, tensors


def _checksum(known: dict[str, str], tensors: Tensors) -> str:
    """Over everything but the checksum itself."""
    told = {key: value for key, value in known.items() if key != "checksum"}
    return fingerprint(json.dumps(told, sort_keys=True), tensors)


# -- from trees to JSON and back -----------------------------------------------------------------


def _packed(tree: Tree, tensors: Tensors, where: str) -> Any:
    """JSON in which every list starts with the name of what it is; tensors are put aside."""
    if tree is None or type(tree) in (bool, int, str):
        return tree
    if type(tree) is float:
        return tree if math.isfinite(tree) else ["float", repr(tree)]
    if isinstance(tree, Tensor):
        return ["tensor", _put_aside(tree, tensors, where)]
    if type(tree) in (list, tuple):
        parts = [_packed(part, tensors, f"{where}[{i}]") for i, part in enumerate(tree)]
        return [type(tree).__name__, parts]
    if type(tree) is dict:
        return ["dict", [_item(key, value, tensors, where) for key, value in tree.items()]]
    raise DataError(
        f"{where} is a {type(tree).__name__}, which a snapshot cannot hold; "
        "give dicts, lists, tuples, numbers, texts and tensors"
    )


def _item(key: Any, value: Tree, tensors: Tensors, where: str) -> list[Any]:
    if type(key) not in (int, str):
        raise DataError(
            f"{where} has a key of type {type(key).__name__}, which a snapshot cannot hold; "
            "use texts or whole numbers as keys"
        )
    return [key, _packed(value, tensors, f"{where}[{key!r}]")]


def _put_aside(tensor: Tensor, tensors: Tensors, where: str) -> str:
    if tensor.layout != torch.strided or tensor.dtype not in _DTYPES:
        raise DataError(
            f"{where} is a tensor of {tensor.dtype} with layout {tensor.layout}, which a snapshot "
            "cannot hold; give a dense tensor of usual numbers"
        )
    name, whole = f"t{len(tensors)}", torch.contiguous_format
    tensors[name] = tensor.detach().to("cpu", copy=True, memory_format=whole)
    return name


def _unpacked(packed: Any, tensors: Tensors) -> Tree:
    """The inverse of `_packed`."""
    match packed:
        case None | bool() | int() | float() | str():
            return packed
        case ["float", ("nan" | "inf" | "-inf") as text]:
            return float(text)
        case ["tensor", str(name)]:
            return tensors[name]
        case ["list", list(parts)]:
            return [_unpacked(part, tensors) for part in parts]
        case ["tuple", list(parts)]:
            return tuple(_unpacked(part, tensors) for part in parts)
        case ["dict", list(parts)]:
            return dict(_unpacked_item(part, tensors) for part in parts)
        case _:
            raise _Malformed


def _unpacked_item(part: Any, tensors: Tensors) -> tuple[int | str, Tree]:
    match part:
        case [bool(), _]:
            raise _Malformed
        case [(int() | str()) as key, value]:
            return key, _unpacked(value, tensors)
        case _:
            raise _Malformed


def _refuse(constant: str) -> Any:
    """JSON has no NaN."""
    raise _Malformed
