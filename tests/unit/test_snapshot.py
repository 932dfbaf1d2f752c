"""A snapshot comes back bit for bit, or not at all and with a sentence."""

import json
import math
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cl_manifold.errors import DataError
from cl_manifold.experiments import snapshot
from cl_manifold.experiments.snapshot import load, save
from cl_manifold.files import fingerprint
from tests.fuzz.mutations import damaged

DTYPES = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
          torch.float16, torch.bfloat16, torch.float32, torch.float64)  # fmt: skip


def a_tree() -> dict[Any, Any]:
    """Everything that a tree may hold."""
    numbers = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    return {
        "none": None,
        "truth": [True, False, (), {}],
        "whole": (0, -1, 2**200),
        "numbers": [0.1, -0.0, 1e308, 5e-324, math.nan, math.inf, -math.inf, 1.0],
        "text": 'ä "quoted"\n\0 \ud800',
        "1": 1,
        1: "one",
        -7: {"deep": [({"er": (None,)},)]},
        "tensors": {str(d): (3 * numbers).to(d) for d in DTYPES},
        "empty": torch.empty(0, 3),
        "single": torch.tensor(2.5, dtype=torch.float64),
        "special": torch.tensor([math.nan, math.inf, -0.0]),
        "turned": numbers.mT,
        "spread": numbers[0, 0].expand(5),
        "twice": [numbers, numbers, numbers[1:]],
        "trained": torch.nn.Parameter(numbers),
    }


def same(a: Any, b: Any) -> bool:
    """The same type and value, bit for bit, everywhere."""
    if isinstance(a, Tensor):
        kind = isinstance(b, Tensor) and a.dtype == b.dtype and a.shape == b.shape
        return kind and fingerprint("", {"": a.detach()}) == fingerprint("", {"": b})
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        keys = [(type(k), k) for k in a] == [(type(k), k) for k in b]
        return keys and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b and repr(a) == repr(b) if a == a else repr(a) == repr(b)


def test_every_kind_of_value_comes_back(tmp_path: Path) -> None:
    tree = a_tree()
    save(tmp_path / "new folder" / "s", tree)
    found = load(tmp_path / "new folder" / "s")
    assert same(tree, found)
    assert not same(tree | {"1": 1.0}, found)
    assert not same(tree | {"special": torch.tensor([math.nan, math.inf, 0.0])}, found)
    for plain in (None, 3, "", [], {}):
        save(tmp_path / "s", plain)
        assert same(load(tmp_path / "s"), plain)


def test_a_snapshot_is_of_the_moment_and_free_of_its_file(tmp_path: Path) -> None:
    path, weights = tmp_path / "s", torch.arange(1000.0)
    save(path, weights)
    weights += 1
    found = load(path)
    path.write_bytes(b"\0" * path.stat().st_size)  # in place, as nobody should
    assert torch.equal(found, torch.arange(1000.0))


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        ({"a": [0, {1, 2}]}, r"tree\['a'\]\[1\] is a set, which a snapshot cannot hold; give"),
        ({1.5: 0}, "tree has a key of type float, .*; use texts or whole numbers"),
        ({True: 0}, "tree has a key of type bool"),
        ([Path("x")], r"tree\[0\] is a PosixPath"),
        ([torch.eye(2).to_sparse()], r"tree\[0\] is a tensor of torch.float32 with layout"),
        (torch.ones(1, dtype=torch.complex64), "tree is a tensor of torch.complex64"),
    ],
)
def test_what_cannot_be_held_is_named_and_nothing_is_written(
    tmp_path: Path, tree: Any, sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        save(tmp_path / "s", tree)
    assert list(tmp_path.iterdir()) == []


def test_what_is_too_deep_or_too_long_is_refused(tmp_path: Path) -> None:
    endless: list[Any] = []
    endless.append(endless)
    for tree in (endless, 10**5000):
        with pytest.raises(DataError, match="the tree cannot be saved"):
            save(tmp_path / "s", tree)


# -- files ---------------------------------------------------------------------------------------


def test_the_old_file_stays_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    save(path, "old")

    def full(*args: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(snapshot, "publish", full)
    with pytest.raises(DataError, match=r"no space left .*; make room"):
        save(path, "new")
    assert load(path) == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_file_then_place_then_folder_reach_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this order: otherwise a crash may leave an empty file, or the old one for good."""
    done: list[str] = []
    names: dict[int, str] = {}
    opened, replaced = os.open, Path.replace

    def spy_open(path: Any, *args: Any) -> int:
        found = opened(path, *args)
        names[found] = Path(path).name
        return found

    def spy_replace(self: Path, target: Path) -> Path:
        done.append("replace")
        return replaced(self, target)

    monkeypatch.setattr(os, "open", spy_open)
    monkeypatch.setattr(os, "fsync", lambda f: done.append(f"fsync {names[f]}"))
    monkeypatch.setattr(Path, "replace", spy_replace)
    save(tmp_path / "s", 1)
    assert done == ["fsync s.part", "replace", f"fsync {tmp_path.name}"]


def test_a_file_that_is_missing_or_foreign(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"snapshot .* cannot be read"):
        load(tmp_path / "nothing")
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path)
    save_file({"weights": torch.ones(2)}, tmp_path / "other")
    with pytest.raises(DataError, match="is not a snapshot; it was written by another program"):
        load(tmp_path / "other")


def forged(path: Path, structure: str, schema: str = snapshot.SCHEMA) -> None:
    """A file whose checksum is right, as another program could write it."""
    told = {"format": snapshot.FORMAT, "schema": schema, "structure": structure}
    tensors = {"t0": torch.ones(1)}
    sums = fingerprint(json.dumps(told, sort_keys=True), tensors)
    save_file(tensors, path, metadata=told | {"checksum": sums})


def test_another_schema_is_said_to_be_one(tmp_path: Path) -> None:
    forged(tmp_path / "s", "0")
    assert load(tmp_path / "s") == 0
    forged(tmp_path / "s", "0", schema="2")
    with pytest.raises(DataError, match=r"has schema '2', but '1' is needed; .*, so start again"):
        load(tmp_path / "s")


@pytest.mark.parametrize(
    "structure",
    ["", "{", "{}", "[]", "NaN", '["tensor", "t1"]', '["tensor", 0]', '["float", "1"]',
     '["list", 1]', '["set", []]', '["dict", [[1.5, 0]]]', '["dict", [[true, 0]]]',
     '["dict", [["a"]]]', '["list", [{}]]', "1" * 5000, '["list", [' * 5000],
    ids=range(16),
)  # fmt: skip
def test_a_structure_that_nobody_saves(tmp_path: Path, structure: str) -> None:
    forged(tmp_path / "s", structure)
    with pytest.raises(DataError, match="has no tree"):
        load(tmp_path / "s")


# -- damage --------------------------------------------------------------------------------------


def withstands(folder: Path, count: int, seed: int) -> int:
    """How many of so many damaged files were refused; the others must hold the very tree."""
    path, tree, rng, refused = folder / "s", a_tree(), random.Random(seed), 0
    save(path, tree)
    data = path.read_bytes()
    for _ in range(count):
        path.write_bytes(damaged(data, rng))
        try:
            found = load(path)
        except DataError:
            refused += 1
        else:
            assert same(tree, found)
    return refused


def test_damage_is_noticed(tmp_path: Path) -> None:
    assert withstands(tmp_path, 400, seed=0) > 380


@pytest.mark.slow
def test_much_damage_is_noticed(tmp_path: Path) -> None:
    assert withstands(tmp_path, 5000, seed=1) > 4800


def test_every_single_byte_counts(tmp_path: Path) -> None:
    """Of a small file: no byte can change without being noticed or meaning the same."""
    path, tree = tmp_path / "s", {"a": torch.arange(5), "b": 1.5}
    save(path, tree)
    data = path.read_bytes()
    accepted = 0
    for place, length in [(p, 1) for p in range(len(data))] + [(p, None) for p in range(len(data))]:
        tail = b"" if length is None else data[place + length :]
        path.write_bytes(data[:place] + (b"" if length is None else b"!") + tail)
        try:
            assert same(load(path), tree)
            accepted += 1
        except DataError:
            pass
    assert accepted < 10


def test_a_fingerprint_tells_text_names_kinds_shapes_and_values_apart() -> None:
    zeros = torch.zeros(4)
    others = [
        fingerprint("", {"a": zeros}),
        fingerprint("text", {"a": zeros}),
        fingerprint("", {"b": zeros}),
        fingerprint("", {"a": zeros.int()}),
        fingerprint("", {"a": zeros.reshape(2, 2)}),
        fingerprint("", {"a": -zeros}),
    ]
    assert len(set(others)) == len(others)
