"""Saved manifolds go on as if nothing had happened; damaged files are one kind of error."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cl_manifold.errors import LayoutError, StoreError
from cl_manifold.geometry import Basis, Bernstein, Fourier, TensorProduct, Vertices, random_codes
from cl_manifold.manifold.layout import GRANULARITIES, Granularity
from cl_manifold.manifold.points import STORAGES, Storage
from cl_manifold.manifold.saving import checksum, load_manifold, save_manifold
from cl_manifold.manifold.weight_manifold import WeightManifold
from tests.networks import fit, points_of, random_information, shake, small_cnn, small_mlp

INF = float("inf")


def trained(manifold: WeightManifold, contexts: list[Tensor]) -> None:
    """So that statistics ride."""
    for c in contexts:
        manifold.check_out(c)
        dtype = manifold.module[0].weight.dtype  # type: ignore[index]
        fit(manifold.module, torch.randn(8, 1, 6, 6, dtype=dtype), torch.randint(3, (8,)), 2)
        manifold.commit(random_information(manifold))


def alike(a: WeightManifold, b: WeightManifold) -> None:
    """Every fact that is kept is the same to the bit."""
    assert a.layout == b.layout
    assert a.basis.spec() == b.basis.spec()
    assert (a.blocks, a.strength, a.growable) == (b.blocks, b.strength, b.growable)
    assert a.points.storage == b.points.storage
    assert torch.equal(points_of(a), points_of(b))
    for e in a.layout.entries:
        kept, again = a.points.of(e.name), b.points.of(e.name)
        assert type(kept) is type(again)
        for name, tensor in kept.tensors().items():
            assert torch.equal(tensor, again.tensors()[name])
            assert tensor.dtype == again.tensors()[name].dtype
        assert kept.read().dtype == again.read().dtype
    assert (a.points.offset is None) == (b.points.offset is None)
    for name, w in (a.points.offset or {}).items():
        assert torch.equal(w, (b.points.offset or {})[name])
    assert torch.equal(a.belief.triangle, b.belief.triangle)
    assert torch.equal(a.belief.prior, b.belief.prior)
    assert a.belief.triangle.dtype == b.belief.triangle.dtype
    assert len(a.atlas) == len(b.atlas)
    for t, u in zip(a.atlas.tasks, b.atlas.tasks, strict=True):
        assert torch.equal(t.context, u.context)
        assert torch.equal(t.phi, u.phi)
        assert (t.information is None) == (u.information is None)
        if t.information is not None and u.information is not None:
            assert torch.equal(t.information, u.information)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("blocks", GRANULARITIES)
@pytest.mark.parametrize("growable", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saved_and_loaded_manifolds_go_on_alike(
    storage: Storage, blocks: Granularity, growable: bool, dtype: torch.dtype, tmp_path: Path
) -> None:
    manifold = WeightManifold(
        small_cnn().to(dtype),
        Fourier(2),
        blocks=blocks,
        strength=3.0,
        storage=storage,
        growable=growable,
    )
    trained(manifold, [torch.tensor([0.1]), torch.tensor([0.4])])
    path = tmp_path / "very" / "deep" / "manifold.safetensors"
    save_manifold(manifold, path)
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "manifold.json",
        "manifold.safetensors",
    ]
    other = load_manifold(path, small_cnn().to(dtype))
    assert any(not e.trained for e in other.layout.entries)
    assert other.visit is None
    alike(manifold, other)
    for m in (manifold, other):
        torch.manual_seed(5)
        trained(m, [torch.tensor([0.8])])
        if growable:
            m.grow_and_reembed(m.basis.grown())
        elif blocks != "weight":
            m.grow(m.basis.grown())
        torch.manual_seed(6)
        shake(m, torch.tensor([0.6]), random_information(m))
    alike(manifold, other)
    c = torch.tensor([0.3])
    assert manifold.plasticity(c) == pytest.approx(other.plasticity(c))
    assert manifold.overshoot(c) == pytest.approx(other.overshoot(c))
    if growable:  # information of all blocks in one number takes less in memory than in the file
        assert manifold.stored_floats == other.stored_floats


@pytest.mark.parametrize(
    "basis",
    [
        Vertices(3),
        random_codes(3, 4, seed=2),
        Bernstein(2, -1.0, 4.0),
        TensorProduct(Fourier(1, 360.0), Bernstein(1)),
    ],
)
def test_every_basis_and_exact_tasks_come_back(basis: Basis, tmp_path: Path) -> None:
    manifold = WeightManifold(small_mlp(), basis)
    for c in basis.topology.sample(2, torch.Generator().manual_seed(0)):
        shake(manifold, c, INF)
    save_manifold(manifold, tmp_path / "m.safetensors")
    other = load_manifold(tmp_path / "m.safetensors", small_mlp())
    alike(manifold, other)
    assert all(t.exact for t in other.atlas.tasks)


def test_loading_leaves_the_module_and_takes_its_selection(tmp_path: Path) -> None:
    manifold = WeightManifold(small_mlp(), Fourier(1), select=lambda name: name != "0.weight")
    shake(manifold, torch.tensor([0.1]), 1.0)
    save_manifold(manifold, tmp_path / "m.safetensors")
    net: Any = small_mlp()
    before = [p.detach().clone() for p in net.parameters()]
    other = load_manifold(tmp_path / "m.safetensors", net)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
    assert other.layout.names == {"0.bias", "2.weight", "2.bias"}
    assert other.extend() == [], "what was left off stays off"
    other.check_out(torch.tensor([0.1]))
    torch.testing.assert_close(net[0].bias, manifold.state(torch.tensor([0.1]))["0.bias"])
    assert torch.equal(net[0].weight, before[0])
    net.append(nn.Linear(3, 2))
    assert other.extend() == ["3.weight", "3.bias"], "what is new joins"


def test_a_readable_copy_lies_beside_it(tmp_path: Path) -> None:
    manifold = WeightManifold(small_mlp(), Fourier(1, 360.0), storage="int8", growable=True)
    for c in (30.0, 200.0):
        shake(manifold, torch.tensor([c]), 1.0)
    path = tmp_path / "manifold.safetensors"
    save_manifold(manifold, path)
    header = json.loads(path.with_suffix(".json").read_text())
    assert header["visits"] == [[30.0], [200.0]]
    assert header["basis"] == Fourier(1, 360.0).spec()
    assert (header["storage"], header["blocks"], header["growable"]) == ("int8", "row", True)
    assert header["strength"] == 10.0
    assert len(header["layout"]) == 4
    assert not list(tmp_path.glob("*.part"))
    # saved again, the file is replaced
    shake(manifold, torch.tensor([100.0]), 1.0)
    save_manifold(manifold, path)
    assert len(load_manifold(path, small_mlp()).atlas) == 3


# -- damage --------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    manifold = WeightManifold(small_mlp(), Fourier(1), growable=True)
    shake(manifold, torch.tensor([0.1]), random_information(manifold))
    save_manifold(manifold, tmp_path / "manifold.safetensors")
    return tmp_path / "manifold.safetensors"


def test_loading_says_what_is_wrong(saved: Path) -> None:
    with pytest.raises(StoreError, match=r"is not a readable weight manifold.*of a finished run"):
        load_manifold(saved.with_name("missing.safetensors"), small_mlp())
    with pytest.raises(LayoutError, match=r"0\.weight has shape \(4, 1, 3, 3\)"):
        load_manifold(saved, small_cnn())
    with pytest.raises(StoreError, match="is not a readable"):
        load_manifold(saved.parent, small_mlp())


def test_every_flipped_bit_is_noticed(saved: Path) -> None:
    """At many places, in the header and in the numbers alike: one kind of error, one sentence."""
    whole = saved.read_bytes()
    draw = random.Random(0)
    places = {*range(0, 12), *(draw.randrange(len(whole)) for _ in range(400))}
    for place in sorted(places):
        broken = bytearray(whole)
        broken[place] ^= 1 << draw.randrange(8)
        saved.write_bytes(broken)
        with pytest.raises(StoreError) as caught:
            load_manifold(saved, small_mlp())
        assert str(saved) in str(caught.value), place


def test_every_cut_and_every_insertion_is_noticed(saved: Path) -> None:
    whole = saved.read_bytes()
    for length in [*range(0, 40), *range(40, len(whole), 97), len(whole) - 1]:
        saved.write_bytes(whole[:length])
        with pytest.raises(StoreError):
            load_manifold(saved, small_mlp())
    for more in (b"x", b"\0" * 8):
        saved.write_bytes(whole + more)
        with pytest.raises(StoreError):
            load_manifold(saved, small_mlp())


def header_and_tensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return json.loads(path.with_suffix(".json").read_text()), load_file(path)


def write(path: Path, header: Any, tensors: dict[str, Tensor], signed: bool) -> None:
    """A file as another program would write it, with or without the checksum it should have."""
    if signed:
        header = header | {"checksum": checksum(header, tensors)}
    save_file(tensors, path, metadata={"cl_manifold": json.dumps(header)})


def test_whole_files_that_say_something_else_are_noticed(saved: Path) -> None:
    header, tensors = header_and_tensors(saved)
    other = {
        "format": "cl-manifold/3",
        "basis": Fourier(2).spec(),
        "blocks": "tensor",
        "strength": 11.0,
        "storage": "bfloat16",
        "growable": False,
        "visits": [],
        "layout": header["layout"][:-1],
        "checksum": 64 * "0",
    }
    assert other.keys() == header.keys()
    for key, value in other.items():
        changed = header | {key: value}
        write(saved, changed, tensors, signed=False)
        with pytest.raises(StoreError):
            load_manifold(saved, small_mlp())
    for name in tensors:
        less = {n: t for n, t in tensors.items() if n != name}
        more = tensors | {name: tensors[name] + 1}
        renamed = less | {name + "x": tensors[name]}
        for changed in (less, more, renamed):
            write(saved, header, changed, signed=False)
            with pytest.raises(StoreError):
                load_manifold(saved, small_mlp())


def test_files_of_other_formats_are_named(saved: Path) -> None:
    header, tensors = header_and_tensors(saved)
    write(saved, header | {"format": "cl-manifold/1"}, tensors, signed=True)
    with pytest.raises(StoreError, match=r"format 'cl-manifold/1', but 'cl-manifold/2' is needed"):
        load_manifold(saved, small_mlp())
    for wrong in (["list"], "text", 3, None):
        save_file(tensors, saved, metadata={"cl_manifold": json.dumps(wrong)})
        with pytest.raises(StoreError, match="has format None"):
            load_manifold(saved, small_mlp())
    save_file(tensors, saved)
    with pytest.raises(StoreError, match="has format None"):
        load_manifold(saved, small_mlp())
    save_file(tensors, saved, metadata={"cl_manifold": "{not json"})
    with pytest.raises(StoreError, match="is not a readable weight manifold"):
        load_manifold(saved, small_mlp())


def test_signed_files_that_cannot_be_are_an_error_too(saved: Path) -> None:
    """A checksum proves that a file is whole, not that it was written by this version."""
    header, tensors = header_and_tensors(saved)
    for key in ("basis", "layout", "blocks", "visits", "storage", "strength", "growable"):
        write(saved, {k: v for k, v in header.items() if k != key}, tensors, signed=True)
        with pytest.raises(StoreError, match=f"lacks {key}; it was written by another"):
            load_manifold(saved, small_mlp())
    for name in tensors:
        write(saved, header, {n: t for n, t in tensors.items() if n != name}, signed=True)
        if name.startswith(("offset", "information")):
            continue  # may be left out
        with pytest.raises(StoreError, match=f"lacks {name};"):
            load_manifold(saved, small_mlp())


def test_a_module_in_another_order_is_refused(saved: Path) -> None:
    class Swapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = small_mlp()
            self.add_module("2", layers[2])
            self.add_module("0", layers[0])

    with pytest.raises(LayoutError, match=r"differ from those in manifold\.safetensors in order"):
        load_manifold(saved, Swapped())


def test_the_checksum_knows_names_shapes_dtypes_and_values() -> None:
    one = {"a": torch.arange(4.0), "b": torch.ones(2)}
    found = checksum({"x": 1, "checksum": "not of itself"}, one)
    assert found == checksum({"x": 1}, dict(reversed(one.items())))
    assert checksum({"x": 1, "y": 2}, one) == checksum({"y": 2, "x": 1}, one)
    others = [
        ({"x": 2}, one),
        ({"x": 1}, one | {"a": torch.arange(4.0).reshape(2, 2)}),
        ({"x": 1}, one | {"a": torch.arange(4.0).double()}),
        ({"x": 1}, one | {"a": torch.arange(4.0).flip(0)}),
        ({"x": 1}, {"c": one["a"], "b": one["b"]}),
        ({"x": 1}, {"a": one["a"]}),
    ]
    assert found not in [checksum(header, tensors) for header, tensors in others]
