"""Laws of coordinates: when two are the same, which is nearest, and what may be given as one."""

from itertools import combinations
from math import dist, prod
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cl_manifold.errors import ContextError
from cl_manifold.geometry import Circle, Interval, Product, Simplex, Topology, torus
from tests.laws.topologies import TOPOLOGIES, draw


@pytest.fixture(params=TOPOLOGIES)
def topology(request: pytest.FixtureRequest) -> Topology:
    return TOPOLOGIES[request.param]()


# -- same ------------------------------------------------------------------------------------------


def test_same_survives_float32(topology: Topology) -> None:
    c = draw(topology, 50)
    for other in (c, c.float(), c.float().double(), topology.wrap(c.float())):
        found = topology.same(c, other)
        assert found.dtype == torch.bool
        assert found.shape == (50,)
        assert found.all()
        assert topology.same(other, c).all()


def test_different_contexts_are_not_the_same(topology: Topology) -> None:
    if isinstance(topology, Simplex) and topology.vertices == 1:
        pytest.skip("a simplex with one vertex is one context")
    a, b = draw(topology, 50), draw(topology, 50, seed=1)
    assert not topology.same(a, b).any()


def test_same_broadcasts(topology: Topology) -> None:
    a = draw(topology, 4)
    b = a[:3]
    table = topology.same(a[:, None], b)
    assert table.shape == (4, 3)
    assert topology.same(a, a[0]).shape == (4,)
    assert topology.same(a[0], a).tolist() == topology.same(a, a[0]).tolist()
    assert topology.same(a[:0], a[0]).shape == (0,)
    assert topology.same(a[2], b[2]).shape == ()
    alone = isinstance(topology, Simplex) and topology.vertices == 1
    assert bool(table.equal(torch.eye(4, 3).bool())) is not alone


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_return_is_a_return(dtype: torch.dtype) -> None:
    """350 degrees and −10 degrees, also as turns, where float32 puts them 1.3e-8 apart."""
    there, back = torch.tensor([[350.0]], dtype=dtype), torch.tensor([[-10.0]], dtype=dtype)
    assert Circle(360.0).same(there, back).all()
    assert Circle(1.0).same(there / 360, back / 360).all()
    assert Circle(1.0).same(there / 360, (back / 360).double()).all()
    assert not Circle(360.0).same(there, back + 0.001).any()


@pytest.mark.parametrize(
    ("space", "length"),
    [
        (Interval(-2.0, 5.0), 7.0),
        (Interval(0.0, 1e-3), 1e-3),
        (Interval(1000.0, 1000.5), 1000.5),
        (Interval(-1000.0, -999.5), 1000.0),
        (Circle(0.7), 0.7),
        (Circle(360.0), 360.0),
    ],
)
def test_the_tolerance_is_a_millionth_of_the_length(space: Topology, length: float) -> None:
    middle = space.grid(3)[1]
    for step in (-1.0, 1.0):
        assert space.same(middle, middle + 0.9e-6 * length * step)
        assert not space.same(middle, middle + 1.1e-6 * length * step)


def test_mixtures_are_the_same_up_to_a_millionth() -> None:
    pure, step = torch.eye(3)[0], torch.tensor([-1.0, 1.0, 0.0]) / 2**0.5
    assert Simplex(3).same(pure, pure + 0.9e-6 * step)
    assert not Simplex(3).same(pure, pure + 1.1e-6 * step)


def test_every_factor_of_a_product_must_agree() -> None:
    space = Product(Interval(0.0, 1000.0), Circle())
    a = torch.tensor([[3.0, 0.25]])
    assert space.same(a, torch.tensor([3.0005, 1.2500005])).all()
    assert not space.same(a, torch.tensor([3.0, 0.2501])).any()
    assert not space.same(a, torch.tensor([3.01, 0.25])).any()


def test_same_wants_contexts_of_the_space() -> None:
    with pytest.raises(ContextError, match="outside"):
        Interval().same(torch.tensor([0.5]), torch.tensor([1.5]))
    with pytest.raises(ContextError, match="needs 1"):
        Circle().same(torch.zeros(2), torch.zeros(2))


# -- project ---------------------------------------------------------------------------------------


def lattice(space: Topology, steps: int) -> Tensor:
    """A fine grid: all mixtures in steps of 1 / steps, or equidistant points, in any order."""
    if not isinstance(space, Simplex):
        return space.grid(steps + 1)
    bars = combinations(range(steps + space.dim - 1), space.dim - 1)
    cuts = torch.tensor([[-1, *bar, steps + space.dim - 1] for bar in bars])
    return (cuts.diff(dim=-1) - 1) / steps


def apart(space: Topology, x: Tensor, contexts: Tensor) -> Tensor:
    """How far any numbers are from each context: straight, around a circle along it."""
    return (
        space.distance(x.expand_as(contexts), contexts)
        if isinstance(space, Circle)
        else ((contexts - x).norm(dim=-1))
    )


def test_project_is_idempotent_and_leaves_contexts_alone(topology: Topology) -> None:
    inside = draw(topology, 50)
    torch.testing.assert_close(topology.project(inside), inside, rtol=0, atol=1e-15)
    corners = topology.grid(4)
    torch.testing.assert_close(topology.project(corners), corners, rtol=0, atol=1e-15)
    far = 4 * torch.randn(5, 10, topology.dim)
    found = topology.project(far)
    assert found.shape == far.shape
    torch.testing.assert_close(topology.project(found), found, rtol=0, atol=1e-15)


def test_project_lies_on_the_space(topology: Topology) -> None:
    for scale in (0.1, 3.0, 1e6):
        far = scale * torch.randn(40, topology.dim)
        for x in (far, far.float()):
            found = topology.project(x)
            assert found.dtype == x.dtype
            assert torch.equal(topology.wrap(found), found)


def test_project_is_nearest(topology: Topology) -> None:
    """Of all points of a fine grid none is nearer, and the nearest one is about as near."""
    parts = [lattice(f, 1000 if f.dim <= 2 else 24) for f in topology.factors]
    wide = max(f.dim for f in topology.factors)
    for x in 2 * torch.randn(30, topology.dim) * topology.grid(3).abs().max():
        found = topology.project(x)
        own, best = [], []
        for f, grid, number, c in zip(
            topology.factors, parts, topology.split(x), topology.split(found), strict=True
        ):
            own.append(float(apart(f, number, c[None])))
            best.append(float(apart(f, number, grid).min()))
        gap = 0.1 * wide if wide > 2 else 1e-3 * float(topology.grid(3).abs().max()) + 1e-3
        assert dist(own, [0.0] * len(own)) <= dist(best, [0.0] * len(own)) + 1e-12
        assert own == pytest.approx(best, abs=gap)


def test_project_keeps_the_direction_of_huge_numbers() -> None:
    found = Simplex(3).project(torch.tensor([[1e300, -1e300, 0.0], [1e30, 1e30, -1e30]]))
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]))
    ends = Interval(-1.0, 2.0).project(torch.tensor([[torch.inf], [-torch.inf]]))
    assert ends.tolist() == [[2.0], [-1.0]]


def test_project_refuses_what_is_no_number(topology: Topology) -> None:
    with pytest.raises(ContextError):
        topology.project(torch.full((2, topology.dim), torch.nan))
    with pytest.raises(ContextError, match=f"needs {topology.dim}"):
        topology.project(torch.zeros(2, topology.dim + 1))


# -- embed -----------------------------------------------------------------------------------------


def test_embed_takes_any_number_type(topology: Topology) -> None:
    for c in draw(topology, 4):
        given: list[Any] = [c, c.float(), c.clone().requires_grad_(), c.numpy(), c.tolist()]
        given += [tuple(c.tolist()), c.float().numpy(), list(c), list(c.numpy())]
        given += [c[0], float(c), c.numpy()[0], np.float32(c)] if topology.dim == 1 else []
        for value in given:
            found = topology.embed(value)
            assert found.dtype == torch.float64
            assert found.shape == (topology.dim,)
            assert not found.requires_grad
            assert topology.same(found, c)


@pytest.mark.parametrize(
    "value",
    [
        *(3, np.int64(3), np.uint8(3), torch.tensor(3), torch.tensor([3], dtype=torch.int16)),
        *([3], (3.0,), np.array(3), np.array([3]), torch.tensor(3.0, dtype=torch.bfloat16)),
        *(np.float16(3), torch.tensor(3, dtype=torch.uint8), range(3, 4)),
    ],
)
def test_embed_takes_numbers_of_any_type(value: Any) -> None:
    assert Interval(0.0, 5.0).embed(value).tolist() == [3.0]


def test_embed_gives_canonical_coordinates() -> None:
    assert Circle(360.0).embed(-10).tolist() == [350.0]
    assert Circle(360.0).embed(720).tolist() == [0.0]
    assert Interval().embed(np.float32(1) + 1e-7).tolist() == [1.0]
    assert Interval().embed(np.float32(0.1)).tolist() == [float(np.float32(0.1))]


@pytest.mark.parametrize(
    "two",
    [
        *(2, np.int32(2), np.uint64(2), torch.tensor(2), torch.tensor(2, dtype=torch.uint8)),
        *(np.array(2), [0, 0, 1, 0], torch.eye(4)[2], np.eye(4, dtype=int)[2]),
    ],
)
def test_a_whole_number_is_a_vertex(two: Any) -> None:
    found = Simplex(4).embed(two)
    assert found.tolist() == [0, 0, 1, 0]
    assert found.dtype == torch.float64


def test_the_first_and_the_last_vertex() -> None:
    assert [Simplex(3).embed(i).argmax().item() for i in range(3)] == [0, 1, 2]
    assert Simplex(1).embed(0).tolist() == [1.0]
    assert Simplex(1).embed(1.0).tolist() == [1.0]


def test_a_product_takes_one_value_per_factor() -> None:
    space = Product(Simplex(3), Circle())
    assert space.embed((1, -0.25)).tolist() == [0, 1, 0, 0.75]
    assert space.embed([torch.tensor([0.5, 0.5, 0]), 0.5]).tolist() == [0.5, 0.5, 0, 0.5]
    assert space.embed([0, 1, 0, 0.75]).tolist() == [0, 1, 0, 0.75]
    assert torus(2).embed((1.25, 0.5)).tolist() == [0.25, 0.5]
    assert Product(Simplex(1), Circle()).embed((1, 0.5)).tolist() == [1, 0.5]
    assert prod(space.embed((1, 0.5)).shape) == 4


@pytest.mark.parametrize("value", ["0.5", None, True, np.True_, torch.tensor(True), {}, object()])
@pytest.mark.parametrize("space", [Interval(), Circle(), Simplex(1)])
def test_what_is_no_number_is_refused(space: Topology, value: Any) -> None:
    with pytest.raises(
        ContextError, match=r"not made of real numbers, but .* needs 1 number; give"
    ):
        space.embed(value)


@pytest.mark.parametrize(
    "value",
    [
        *([0.5, "a"], [True, 1], [1j, 0], np.array([1j, 0]), torch.tensor([1j, 0])),
        *([[1], [2, 3]], [[0.5], 0.5], [], 10**400, 0.5j, np.array(["a", "b"]), [0.5, None]),
    ],
)
def test_what_is_not_made_of_numbers_is_refused(value: Any) -> None:
    for space in (torus(2), Simplex(2)):
        with pytest.raises(ContextError, match=r"not made of real numbers.*needs 2 numbers; give"):
            space.embed(value)


@pytest.mark.parametrize("value", [[0.1, 0.2, 0.7], [[0.5, 0.5]], torch.zeros(0), 0.5, [1]])
def test_the_wrong_shape_is_refused(value: Any) -> None:
    for space in (torus(2), Simplex(2)):
        with pytest.raises(ContextError, match=r"has the shape \(.*needs 2 numbers; give them"):
            space.embed(value)


@pytest.mark.parametrize("value", [float("nan"), np.inf, torch.tensor(-torch.inf), [np.nan]])
def test_what_is_not_finite_is_refused(value: Any) -> None:
    for space in (Interval(), Circle(), Simplex(1)):
        with pytest.raises(ContextError, match=r"is not finite, but .* needs 1 number; give it"):
            space.embed(value)


@pytest.mark.parametrize("index", [3, -1, np.int64(7), torch.tensor(3)])
def test_indices_without_a_vertex_are_refused(index: Any) -> None:
    with pytest.raises(ContextError, match=r"is no vertex, but simplex.*a vertex from 0 to 2"):
        Simplex(3).embed(index)


def test_contexts_outside_are_refused() -> None:
    with pytest.raises(ContextError, match=r"1.5 lies outside \[0, 1\]"):
        Interval().embed(1.5)
    with pytest.raises(ContextError, match="not a mixture"):
        Simplex(2).embed([0.7, 0.7])


def test_a_long_value_is_cut_short() -> None:
    with pytest.raises(ContextError) as caught:
        Circle().embed(torch.rand(40, 40))
    message = str(caught.value)
    assert len(message) < 200
    assert "\n" not in message
    assert "... has the shape (40, 40)" in message
    with pytest.raises(ContextError, match=r"^context 'x{58}' is not made"):
        Circle().embed("x" * 58)
    with pytest.raises(ContextError, match=r"^context 'x{56}\.\.\. is not made"):
        Circle().embed("x" * 59)
