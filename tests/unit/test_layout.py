"""The bijection between state and weights, and its errors."""

import pytest
import torch
from torch import nn

from cl_manifold.errors import LayoutError
from cl_manifold.manifold.layout import Granularity, layout_from_spec, layout_of
from tests.networks import small_cnn, small_mlp


def test_read_and_write_are_inverse() -> None:
    net = small_cnn()
    layout = layout_of(net)
    flat = torch.rand(layout.size)
    layout.write(net, flat)
    assert torch.equal(layout.read(net), flat)
    state = layout.split(flat)
    assert all(torch.equal(state[n], t) for n, t in net.named_parameters())
    assert torch.equal(state["1.running_mean"], net[1].running_mean)


def test_integer_buffers_stay_off_and_float_buffers_ride_along() -> None:
    layout = layout_of(small_cnn(), "weight")
    buffers = {e.name: e for e in layout.entries if not e.trained}
    assert set(buffers) == {"1.running_mean", "1.running_var"}
    assert all(e.blocks == 1 for e in buffers.values())


def test_interpolated_variances_are_clipped_at_zero() -> None:
    net = small_cnn()
    layout = layout_of(net)
    layout.write(net, torch.full((layout.size,), -1.0))
    assert torch.equal(net[1].running_var, torch.zeros(4))
    assert torch.equal(net[1].running_mean, -torch.ones(4))


@pytest.mark.parametrize(("granularity", "blocks"), [("tensor", 4), ("row", 22), ("weight", 83)])
def test_blocks(granularity: Granularity, blocks: int) -> None:
    layout = layout_of(small_mlp(), granularity)
    assert layout.blocks == blocks
    assert sum(e.size for e in layout.entries) == layout.size == 83
    assert layout_from_spec(layout.spec()) == layout


def test_tied_parameters_count_once() -> None:
    net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    net[1].weight = net[0].weight
    assert layout_of(net).size == 16


def test_a_filter_takes_names_off() -> None:
    layout = layout_of(small_mlp(), select=lambda name: name.startswith("2."))
    assert [e.name for e in layout.entries] == ["2.weight", "2.bias"]


def test_errors_say_what_came_and_what_to_do() -> None:
    net = small_mlp()
    layout = layout_of(net)
    net[2] = nn.Linear(8, 4)
    with pytest.raises(LayoutError, match=r"2\.weight has shape \(4, 8\).*\(3, 8\).*fixed"):
        layout.read(net)
    with pytest.raises(LayoutError, match="no parameter is left"):
        layout_of(net, select=lambda name: False)
