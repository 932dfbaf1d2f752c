"""Which tensors lie on a manifold, how they fall into blocks, and how a layout grows."""

from collections.abc import Callable
from dataclasses import replace
from inspect import unwrap
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cl_manifold.errors import IncompatibleError, LayoutError
from cl_manifold.manifold.layout import (
    Entry,
    Granularity,
    Layout,
    State,
    extension,
    layout_from_spec,
    layout_of,
    with_buffers,
)
from tests.networks import small_cnn, small_mlp

BUFFERS = ("1.running_mean", "1.running_var", "1.num_batches_tracked")


def with_statistics(net: Any) -> Layout:
    """The layout of a network whose BatchNorm statistics ride along."""
    state = dict(net.named_buffers())
    return with_buffers(layout_of(net), {n: (state[n], n != BUFFERS[0]) for n in BUFFERS}).layout


def copies(state: State) -> State:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def test_read_copies_and_write_is_its_inverse() -> None:
    net = small_cnn()
    layout = with_statistics(net)
    before = layout.read(net)
    new = {n: torch.rand(t.shape) if t.is_floating_point() else t + 3 for n, t in before.items()}
    layout.write(net, new)
    assert all(torch.equal(t, new[n]) for n, t in layout.read(net).items())
    assert not torch.equal(before["0.weight"], new["0.weight"])
    live = layout.tensors(net)
    assert live["0.weight"] is net[0].weight
    assert live["1.running_mean"] is net[1].running_mean
    assert list(live) == [e.name for e in layout.entries]


def test_writing_rounds_counts_and_takes_the_module_s_dtypes() -> None:
    net = small_cnn()
    layout = with_statistics(net.half())
    state: State = {n: torch.full(t.shape, 2.7) for n, t in layout.read(net).items()}
    layout.write(net, state)
    assert int(net[1].num_batches_tracked) == 3
    assert net[0].weight.dtype == torch.float16
    assert net[1].num_batches_tracked.dtype == torch.int64
    assert net[0].bias.tolist() == pytest.approx(4 * [2.7], abs=1e-3)


def test_at_first_only_floating_point_parameters_are_on_it() -> None:
    layout = layout_of(small_cnn())
    assert [e.name for e in layout.entries] == [n for n, _ in small_cnn().named_parameters()]
    assert layout.trained == layout.entries
    assert layout.names == {e.name for e in layout.entries}
    net = small_mlp()
    net[0].register_parameter("count", nn.Parameter(torch.tensor([1, 2]), requires_grad=False))
    net[0].register_parameter("empty", nn.Parameter(torch.empty(0, 3)))
    assert layout_of(net).size == 83


def test_buffers_ride_along_in_one_block_each() -> None:
    net = small_cnn()
    layout = with_statistics(net)
    riding = [e for e in layout.entries if not e.trained]
    assert [e.name for e in riding] == list(BUFFERS)
    before = layout_of(net)
    assert [(e.block_start, e.blocks) for e in riding] == [(before.blocks + i, 1) for i in range(3)]
    assert [e.non_negative for e in riding] == [False, True, True]
    found = with_buffers(before, {BUFFERS[0]: (net[1].running_mean, False)})
    assert found.origin.tolist() == [*range(before.blocks), -1]
    assert found.wider.tolist() == before.blocks * [False] + [True]


def test_settled_clips_what_must_not_be_negative_and_cuts_gradients_through_buffers() -> None:
    layout = with_statistics(small_cnn())
    state = {e.name: torch.full(e.shape, -1.0, requires_grad=True) for e in layout.entries}
    found = layout.settled(dict(state))
    assert torch.equal(found["1.running_var"], torch.zeros(4))
    assert torch.equal(found["1.running_mean"], -torch.ones(4))
    assert found["0.weight"] is state["0.weight"]
    assert not any(found[n].requires_grad for n in BUFFERS)


def test_a_buffer_that_was_negative_once_may_be_negative() -> None:
    net = small_cnn()
    layout = with_statistics(net)
    assert layout.signed(net) is layout
    net[1].running_mean[1] = -2.0
    assert layout.signed(net) is layout, "it was never said of means"
    net[1].running_var[3] = -1e-6
    found = layout.signed(net)
    free = {"1.running_mean", "1.running_var"}
    assert {e.name for e in found.entries if not e.trained and not e.non_negative} == free
    assert [replace(e, non_negative=False) for e in found.entries] == [
        replace(e, non_negative=False) for e in layout.entries
    ]


@pytest.mark.parametrize(("granularity", "blocks"), [("tensor", 4), ("row", 13), ("weight", 83)])
def test_blocks(granularity: Granularity, blocks: int) -> None:
    """6-8-3: rows are 8 + 3 of the matrices, and each bias is one block."""
    layout = layout_of(small_mlp(), granularity)
    assert layout.blocks == blocks
    assert sum(e.size for e in layout.entries) == layout.size == 83
    assert layout_from_spec(layout.spec()) == layout
    assert layout_from_spec(layout.spec()) is not layout
    assert hash(layout_from_spec(layout.spec())) == hash(layout)
    assert layout != layout_of(small_cnn(), granularity)
    parts = [i for e in layout.entries for i in range(e.part.start, e.part.stop)]
    assert parts == list(range(blocks))
    assert layout.sizes().dtype == torch.float64
    expected = [e.size // e.blocks for e in layout.entries for _ in range(e.blocks)]
    assert layout.sizes().tolist() == expected


def test_rows_are_the_default_and_a_scalar_is_one_block() -> None:
    net = nn.Module()
    net.register_parameter("scale", nn.Parameter(torch.tensor(2.0)))
    net.register_parameter("kernel", nn.Parameter(torch.randn(5, 2, 3)))
    assert [(e.blocks, e.size) for e in layout_of(net).entries] == [(1, 1), (5, 30)]


@pytest.mark.parametrize("blocks", [1, 3, 24])
def test_one_number_per_block_broadcasts_against_the_tensor(blocks: int) -> None:
    entry = Entry("w", (3, 2, 4), 7, blocks)
    values = torch.randn(blocks)
    found = torch.zeros(3, 2, 4) + entry.broadcast(values)
    assert torch.equal(found.reshape(blocks, -1), values[:, None].expand(-1, 24 // blocks))
    tensor = torch.randn(2, 5, 3, 2, 4)
    assert torch.equal(entry.by_block(tensor), tensor.reshape(2, 5, blocks, -1))
    assert entry.part == slice(7, 7 + blocks)


def test_tied_parameters_count_once() -> None:
    net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    net[1].weight = net[0].weight
    assert layout_of(net).size == 16


def test_a_selection_takes_names_off() -> None:
    layout = layout_of(small_mlp(), select=lambda name: name.startswith("2."))
    assert [(e.name, e.block_start) for e in layout.entries] == [("2.weight", 0), ("2.bias", 3)]


def complex_one() -> nn.Module:
    net = nn.Linear(2, 2)
    net.weight = nn.Parameter(torch.randn(2, 2, dtype=torch.complex64))
    return net


def sparse_one() -> nn.Module:
    net = nn.Module()
    net.register_parameter("weight", nn.Parameter(torch.eye(2).to_sparse()))
    return net


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.LazyLinear(3), "weight has no shape yet; run the lazy module once before"),
        (complex_one, "weight is complex.*real and imaginary"),
        (sparse_one, "weight is sparse.*densify"),
    ],
)
def test_what_cannot_be_interpolated_is_named(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(IncompatibleError, match=message):
        layout_of(make())


def test_a_network_without_parameters_is_refused() -> None:
    with pytest.raises(LayoutError, match=r"no floating-point parameter is left.*select"):
        layout_of(nn.ReLU())


def test_errors_say_what_came_and_what_to_do() -> None:
    net = small_mlp()
    layout = layout_of(net)
    net[2] = nn.Linear(8, 4)
    with pytest.raises(LayoutError, match=r"2\.weight has shape \(4, 8\).*\(3, 8\).*fixed"):
        layout.read(net)
    with pytest.raises(LayoutError, match=r"2\.weight is missing"):
        layout.read(net[:1])
    with pytest.raises(LayoutError, match="unknown blocks 'rows'; choose one of tensor, row"):
        # as without the run-time type check of the tests
        unwrap(layout_of)(net, "rows")


# -- extensions ----------------------------------------------------------------------------------


def test_nothing_new_is_no_extension() -> None:
    assert extension(layout_of(small_mlp()), layout_of(small_mlp())) is None
    net = small_cnn()
    assert extension(with_statistics(net), layout_of(net)) is None, "buffers are carried over"


def oracle(entry: Entry, old: Entry | None) -> Tensor:
    """The old block of every single weight of an entry, −1 where there was none."""
    ids = torch.full(entry.shape, -1)
    if old is not None:
        for place in product(*(range(n) for n in old.shape)):
            where = int(torch.arange(old.size).reshape(old.shape)[place])
            ids[place] = old.block_start + where // (old.size // old.blocks)
    return ids


@pytest.mark.parametrize("granularity", ["tensor", "row", "weight"])
@pytest.mark.parametrize(
    "shapes",
    [
        {"head": ((2, 5), (4, 5)), "bias": ((2,), (4,))},
        {"head": ((3, 2), (3, 4))},
        {"kernel": ((2, 2, 3), (3, 3, 3)), "scale": ((), ())},
        {"same": ((2, 3), (2, 3)), "new": (None, (2, 2)), "newest": (None, (4,))},
        {"first": (None, (3, 2)), "wide": ((2, 3), (4, 3)), "last": ((2,), (2,))},
    ],
)
def test_every_weight_keeps_its_block_and_new_ones_have_none(
    granularity: Granularity, shapes: dict[str, tuple[tuple[int, ...] | None, tuple[int, ...]]]
) -> None:
    before, after = nn.Module(), nn.Module()
    for name, (old, new) in shapes.items():
        if old is not None:
            before.register_parameter(name, nn.Parameter(torch.randn(old)))
        after.register_parameter(name, nn.Parameter(torch.randn(new)))
    was, now = layout_of(before, granularity), layout_of(after, granularity)
    found = extension(was, now)
    assert found is not None
    known = {e.name: e for e in was.entries}
    start = 0
    for e in found.layout.entries:
        expected = oracle(e, known.get(e.name))
        origin = found.origin[e.part]
        per_weight = torch.zeros(e.shape, dtype=torch.int64) + e.broadcast(origin.double()).long()
        assert torch.equal(per_weight, expected), e.name
        wider = (origin < 0) & (e.name in known)
        assert torch.equal(found.wider[e.part], wider)
        assert e.block_start == start
        start += e.blocks
    assert found.layout.blocks == len(found.origin) == start
    assert [e.name for e in found.layout.entries] == [e.name for e in now.entries]


def test_wider_tensors_are_cut_into_as_few_blocks_as_keep_old_and_new_apart() -> None:
    """Rows may be added as rows; more columns or mixed rows need a block per weight."""

    def blocks(granularity: Granularity, old: tuple[int, ...], new: tuple[int, ...]) -> int:
        nets = nn.Module(), nn.Module()
        for net, shape in zip(nets, (old, new), strict=True):
            net.register_parameter("w", nn.Parameter(torch.randn(shape)))
        before, after = (layout_of(net, granularity) for net in nets)
        found = extension(before, after)
        assert found is not None
        return found.layout.entries[0].blocks

    assert blocks("row", (2, 5), (4, 5)) == 4
    assert blocks("tensor", (2, 5), (4, 5)) == 4
    assert blocks("weight", (2, 5), (4, 5)) == 20
    assert blocks("row", (2, 5), (2, 6)) == 12
    assert blocks("row", (2,), (5,)) == 5


def test_buffers_follow_the_parameters_of_a_wider_layout() -> None:
    net: Any = small_cnn()
    was = with_statistics(net)
    net.append(nn.Linear(3, 2))
    found = extension(was, layout_of(net))
    assert found is not None
    names = [e.name for e in found.layout.entries]
    assert names == [n for n, _ in net.named_parameters()] + list(BUFFERS)
    for e in found.layout.entries:
        if e.name in BUFFERS:
            (old,) = (o for o in was.entries if o.name == e.name)
            assert (e.trained, e.non_negative) == (False, old.non_negative)
            assert found.origin[e.part].tolist() == [old.block_start]


def test_riding_buffers_widen_and_those_that_shrink_or_vanish_are_given_up() -> None:
    net = small_cnn()
    was = with_statistics(net)
    old = {e.name: e for e in was.entries}
    buffers = {"1.running_mean": torch.zeros(6), "1.running_var": torch.ones(2)}
    found = extension(was, layout_of(net), buffers)
    assert found is not None
    riding = [e for e in found.layout.entries if not e.trained]
    assert [(e.name, e.shape) for e in riding] == [("1.running_mean", (6,))]
    origin = found.origin[riding[0].part].tolist()
    assert origin == 4 * [old["1.running_mean"].block_start] + 2 * [-1]
    assert found.wider[riding[0].part].tolist() == 4 * [False] + 2 * [True]


def test_narrower_or_missing_tensors_are_refused() -> None:
    net = small_mlp()
    was = layout_of(net)
    net[2] = nn.Linear(8, 2)
    with pytest.raises(LayoutError, match=r"2\.weight has shape \(2, 8\).*\(3, 8\).*never narrow"):
        extension(was, layout_of(net))
    with pytest.raises(LayoutError, match=r"2\.weight is missing"):
        extension(was, layout_of(net[:2]))
    net[2] = nn.Conv1d(8, 3, 1)
    with pytest.raises(LayoutError, match=r"2\.weight has shape \(3, 8, 1\)"):
        extension(was, layout_of(net))
