"""Control points in every number format: read, moved, extended, transformed."""

from inspect import unwrap
from math import ceil
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cl_manifold.errors import LayoutError
from cl_manifold.geometry import Fourier, Vertices, random_codes
from cl_manifold.manifold import belief as beliefs
from cl_manifold.manifold.layout import Granularity, State, extension, layout_of, with_buffers
from cl_manifold.manifold.points import (
    GROUP,
    STORAGES,
    ControlPoints,
    Dense,
    Int8,
    Storage,
    points_through,
    stored_as,
)
from tests.networks import small_mlp

BASIS = Fourier(1)
ERROR = {"float32": 1e-6, "bfloat16": 2**-8, "int8": 1 / 254 + 2**-8}
"""Per weight, of the largest |P| that shares its scale."""


def through(net: nn.Module, storage: Storage, with_offset: bool = False) -> ControlPoints:
    layout = layout_of(net)
    weights = layout.read(net)
    return points_through(layout, 3, BASIS.constant(), weights, storage, with_offset)


def read(points: ControlPoints, name: str) -> Tensor:
    return points.of(name).read().detach().clone()


# -- int8 ----------------------------------------------------------------------------------------


def scales_by_hand(values: Tensor) -> Tensor:
    """Max |P| / 127 of every 64 consecutive weights of each control point, in a loop."""
    rows: list[list[float]] = []
    for row in values.reshape(len(values), -1):
        rows.append([float(row[i : i + 64].abs().max()) / 127 for i in range(0, len(row), 64)])
    return torch.tensor(rows)


@pytest.mark.parametrize("shape", [(3, 64), (2, 5, 13), (4, 7), (2, 3, 100), (1,)])
def test_int8_is_wrong_by_half_a_scale_at_most(shape: tuple[int, ...]) -> None:
    """|P − s i| ≤ s/2, and at the ends of the range 127 times the rounding of s to bfloat16 too."""
    values = torch.randn(shape) * torch.logspace(-3, 3, shape[-1])
    stored = Int8(values)
    expected = scales_by_hand(values)
    assert stored.scales.dtype == torch.bfloat16
    assert stored.levels.dtype == torch.int8
    assert stored.levels.shape == shape
    assert stored.scales.shape == expected.shape
    assert torch.equal(stored.scales, expected.bfloat16())
    assert stored.levels.abs().max() == 127
    flat, found = values.reshape(len(values), -1), stored.read().reshape(len(values), -1)
    for k, row in enumerate(flat):
        for i, value in enumerate(row):
            s = float(stored.scales[k, i // 64])
            clipped = max(0.0, abs(float(value)) - 127 * s)
            assert abs(float(found[k, i]) - float(value)) <= s / 2 * (1 + 1e-6) + clipped
            assert clipped <= 127 * s * 2**-8


def test_int8_keeps_zeros_and_what_it_has_read() -> None:
    values = torch.zeros(2, 70)
    values[1, 65] = -3.0
    stored = Int8(values)
    found = stored.read()
    assert torch.equal(found[0], torch.zeros(70))
    assert torch.equal(found[1, :64], torch.zeros(64))
    assert float(found[1, 65]) == pytest.approx(-3.0, rel=2**-8)
    again = Int8(found)
    assert torch.equal(again.read(), found), "quantising what was quantised changes nothing"
    taken = Int8(stored.levels, stored.scales)
    assert stored.tensors() == {"levels": stored.levels, "scales": stored.scales}
    assert torch.equal(taken.read(), found)
    assert taken.levels is stored.levels


def test_int8_keeps_signs_where_the_scale_is_rounded_to_almost_nothing() -> None:
    """1.7e-38/127 is 1.5 times the least bfloat16: its level would be 185, beyond eight bits."""
    values = torch.tensor([[1.7e-38, -1.7e-38]])
    assert Int8(values).levels.tolist() == [[127, -127]]


def test_int8_computes_in_the_dtype_it_is_told() -> None:
    assert Int8(torch.randn(2, 3)).read().dtype == torch.float32
    double = stored_as(torch.randn(2, 3, dtype=torch.float64), "int8")
    assert double.read().dtype == torch.float64


# -- every format --------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("blocks", [1, 5, 130])
def test_adding_moves_each_block_by_its_own_coefficients(storage: Storage, blocks: int) -> None:
    """P_k += a_kb d_bn, in a loop, up to the rounding of the format."""
    values = torch.randn(3, 5, 26)
    stored = stored_as(values.clone(), storage)
    coefficient = torch.randn(3, blocks, dtype=torch.float64)
    part = torch.randn(blocks, 130 // blocks)
    expected = stored.read().detach().clone().reshape(3, blocks, -1)
    for k in range(3):
        for b in range(blocks):
            expected[k, b] += coefficient[k, b].float() * part[b]
    stored.add(coefficient, part)
    limit = ERROR[storage] * float(expected.abs().max()) + 1e-6
    assert (stored.read().reshape(3, blocks, -1) - expected).abs().max() <= limit
    assert stored.read().shape == (3, 5, 26)


def test_dense_points_are_moved_in_place_without_a_copy() -> None:
    """A module that shares them sees the commit."""
    values = torch.randn(3, 4)
    stored = Dense(values)
    stored.add(torch.ones(3, 1, dtype=torch.float64), torch.ones(1, 4))
    assert stored.read() is stored.tensors()["values"] is values


@pytest.mark.parametrize("storage", STORAGES)
def test_a_new_manifold_is_the_initial_network_everywhere(storage: Storage) -> None:
    net = small_mlp()
    for with_offset in (False, True):
        points = through(net, storage, with_offset)
        state = points.at(BASIS(torch.rand(2, 5, 1)))
        for name, p in net.named_parameters():
            assert state[name].shape == (2, 5, *p.shape)
            exact = with_offset or storage == "float32"
            near = 1e-6 if exact else ERROR[storage] * float(p.detach().abs().max())
            assert (state[name] - p).abs().max() <= near
        assert (points.offset is not None) == with_offset
        assert points.size == 3


def test_where_constants_are_not_in_the_span_an_offset_holds_the_network() -> None:
    net, basis = small_mlp(), random_codes(2, 5, seed=0)
    layout = layout_of(net)
    points = points_through(layout, 2, basis.constant(), layout.read(net), "float32", False)
    assert points.offset is not None
    assert not read(points, "0.weight").any()
    assert torch.equal(points.offset["0.weight"], net[0].weight)
    # the offset does not follow the network
    with torch.no_grad():
        net[0].weight += 1
    assert not torch.equal(points.offset["0.weight"], net[0].weight)


@pytest.mark.parametrize("with_offset", [False, True])
def test_points_begin_on_the_device_of_the_weights(with_offset: bool) -> None:
    net = small_mlp().to("meta")
    points = points_through(
        layout_of(net), 3, BASIS.constant(), dict(net.named_parameters()), "float32", with_offset
    )
    assert read(points, "0.weight").device.type == "meta"


def test_unknown_storage_is_refused() -> None:
    with pytest.raises(LayoutError, match="unknown storage 'int4'; choose one of float32, bfloat"):
        unwrap(points_through)(layout_of(small_mlp()), 1, None, {}, "int4", False)


@pytest.mark.parametrize(
    ("net_dtype", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
@pytest.mark.parametrize("storage", STORAGES)
def test_halves_are_computed_in_float32_and_doubles_in_float64(
    net_dtype: torch.dtype, expected: torch.dtype, storage: Storage
) -> None:
    points = through(small_mlp().to(net_dtype), storage, with_offset=True)
    computed = torch.float32 if storage == "bfloat16" else expected
    assert read(points, "0.weight").dtype == computed
    assert points.offset is not None
    assert points.offset["0.weight"].dtype == expected
    assert points.at(BASIS(torch.rand(1)))["0.weight"].dtype == expected


@pytest.mark.parametrize("storage", STORAGES)
def test_buffers_are_kept_in_float32_whatever_the_storage(storage: Storage) -> None:
    net: Any = nn.BatchNorm1d(3)
    buffers = {
        "running_mean": (net.running_mean, False),
        "num_batches_tracked": (torch.tensor(7), True),
    }
    layout = with_buffers(layout_of(net), buffers).layout
    state: State = dict(net.named_parameters()) | {n: t for n, (t, _) in buffers.items()}
    points = points_through(layout, 3, BASIS.constant(), state, storage, False)
    for name in buffers:
        (tensor,) = points.of(name).tensors().values()
        assert tensor.dtype == torch.float32
    assert float(points.at(BASIS(torch.tensor([0.3])))["num_batches_tracked"]) == 7
    larger = points.transformed(lambda e, p: torch.cat([p, 0 * p[:1]]))
    assert larger.of("running_mean").tensors()["values"].dtype == torch.float32


@pytest.mark.parametrize("storage", STORAGES)
def test_points_are_differentiable_in_phi(storage: Storage) -> None:
    points = through(small_mlp(), storage)
    for e in layout_of(small_mlp()).entries:
        part = torch.rand(e.blocks, e.size // e.blocks)
        points.of(e.name).add(torch.randn(3, e.blocks).double(), part)
    phi = torch.rand(3, requires_grad=True)
    points.at(phi)["0.weight"].sum().backward()
    assert phi.grad is not None
    torch.testing.assert_close(phi.grad, read(points, "0.weight").sum((1, 2)))


@pytest.mark.parametrize("blocks", ["tensor", "row", "weight"])
def test_a_move_makes_w_at_its_context_what_is_wanted(blocks: Granularity) -> None:
    net = small_mlp().double()
    layout = layout_of(net, blocks)
    points = points_through(layout, 3, BASIS.constant(), layout.read(net), "float32", True)
    belief = beliefs.unvisited(BASIS.prior(), layout.blocks)
    visited = BASIS(torch.tensor([0.1], dtype=torch.float64))
    belief = belief.observe(visited, torch.rand(layout.blocks))
    step = belief.step(BASIS(torch.tensor([0.4], dtype=torch.float64)))
    wanted = {n: torch.randn_like(p) for n, p in net.named_parameters()}
    here, there = points.at(step.phi), points.at(visited)
    points.move(step, {n: wanted[n] - here[n] for n in wanted})
    found, elsewhere = points.at(step.phi), points.at(visited)
    share = step.influence(visited[None])[0]
    for e in layout.entries:
        torch.testing.assert_close(found[e.name], wanted[e.name])
        moved = e.broadcast(share[e.part]) * (wanted[e.name] - here[e.name])
        torch.testing.assert_close(elsewhere[e.name], there[e.name] + moved)


@pytest.mark.parametrize("storage", STORAGES)
def test_transforming_is_linear_block_by_block(storage: Storage) -> None:
    points = through(small_mlp(), storage)
    matrix = torch.randn(5, 3)
    found = points.transformed(lambda e, p: torch.einsum("kl,lbn->kbn", matrix, p))
    assert found.size == 5
    assert found.storage == storage
    for e in layout_of(small_mlp()).entries:
        expected = torch.tensordot(matrix, read(points, e.name), dims=1)
        limit = ERROR[storage] * float(expected.abs().max()) + 1e-6
        assert (read(found, e.name) - expected).abs().max() <= limit
        assert type(found.of(e.name)) is type(points.of(e.name))


@pytest.mark.parametrize("with_offset", [False, True])
@pytest.mark.parametrize("storage", STORAGES)
def test_an_extension_keeps_what_was_and_starts_what_is_new_where_it_is(
    storage: Storage, with_offset: bool
) -> None:
    before, after = nn.Module(), nn.Module()
    shapes = {"same": ((3, 4), (3, 4)), "wide": ((2, 4), (5, 4)), "new": (None, (2, 3))}
    for name, (old, new) in shapes.items():
        if old is not None:
            before.register_parameter(name, nn.Parameter(torch.randn(old)))
        after.register_parameter(name, nn.Parameter(torch.randn(new)))
    points = through(before, storage, with_offset)
    for e in layout_of(before).entries:
        part = torch.rand(e.blocks, e.size // e.blocks)
        points.of(e.name).add(torch.randn(3, e.blocks).double(), part)
    phi = BASIS(torch.rand(4, 1))
    was = points.at(phi)
    found = extension(layout_of(before), layout_of(after))
    assert found is not None
    current = found.layout.read(after)
    larger = points.extended(found.layout, BASIS.constant(), current)
    now = larger.at(phi)
    assert larger.of("same") is points.of("same")
    assert larger.storage == storage
    assert (larger.offset is None) == (not with_offset)
    torch.testing.assert_close(now["same"], was["same"])
    near = ERROR[storage] * 4
    assert (now["wide"][:, :2] - was["wide"]).abs().max() <= near
    assert (now["wide"][:, 2:] - current["wide"][2:]).abs().max() <= near
    assert (now["new"] - current["new"]).abs().max() <= near
    if larger.offset is not None and points.offset is not None:
        assert torch.equal(larger.offset["wide"][:2], points.offset["wide"])
        assert torch.equal(larger.offset["wide"][2:], current["wide"][2:])
        assert torch.equal(larger.offset["new"], current["new"])


@pytest.mark.parametrize("storage", STORAGES)
def test_the_gram_matrix_sums_over_all_weights(storage: Storage) -> None:
    points = through(small_mlp(), storage)
    for e in layout_of(small_mlp()).entries:
        part = torch.rand(e.blocks, e.size // e.blocks)
        points.of(e.name).add(torch.randn(3, e.blocks).double(), part)
    names = [e.name for e in layout_of(small_mlp()).entries]
    flat = torch.cat([read(points, n).reshape(3, -1) for n in names], 1).double()
    torch.testing.assert_close(points.gram(), flat @ flat.mT)
    assert points.gram().dtype == torch.float64


@pytest.mark.parametrize(
    ("storage", "each"), [("float32", 4.0), ("bfloat16", 2.0), ("int8", 1 + 2 / 64)]
)
def test_bytes_kept(storage: Storage, each: float) -> None:
    net = nn.Linear(128, 64, bias=False)
    assert through(net, storage).nbytes == int(3 * 128 * 64 * each)
    assert through(net, storage, with_offset=True).nbytes == int(128 * 64 * (3 * each + 4))


def test_a_group_is_64_weights() -> None:
    assert GROUP == 64
    small = through(nn.Linear(10, 13), "int8").of("weight")
    assert isinstance(small, Int8)
    assert small.scales.shape == (3, ceil(130 / 64))


def test_vertices_start_at_the_network_each() -> None:
    net = small_mlp()
    layout = layout_of(net)
    basis = Vertices(3)
    points = points_through(layout, 3, basis.constant(), layout.read(net), "float32", False)
    for row in read(points, "2.weight"):
        assert torch.equal(row, net[2].weight)
