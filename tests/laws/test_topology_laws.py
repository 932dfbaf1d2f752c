"""Laws that every topology obeys: its coordinates, its measure and its lengths."""

import json
from itertools import product
from math import factorial, pi, prod

import pytest
import torch
from torch import Tensor

from cl_manifold.errors import ContextError
from cl_manifold.geometry import (
    Circle,
    Interval,
    Product,
    Simplex,
    Topology,
    topology_from_spec,
    torus,
)
from cl_manifold.geometry.space import check_dim
from tests.laws.topologies import TOPOLOGIES, draw


@pytest.fixture(params=TOPOLOGIES)
def topology(request: pytest.FixtureRequest) -> Topology:
    return TOPOLOGIES[request.param]()


def test_wrap_is_idempotent_and_keeps_contexts_inside(topology: Topology) -> None:
    c = draw(topology, 100)
    assert torch.equal(topology.wrap(c), c)
    assert topology.wrap(c.reshape(4, 25, -1)).shape == (4, 25, topology.dim)
    assert topology.wrap(c.float()).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("period", [1.0, 0.7, 360.0])
def test_wrap_on_the_circle_ends_before_the_period(period: float, dtype: torch.dtype) -> None:
    circle = Circle(period)
    c = torch.tensor([[-1e-30], [-1e-9], [0.0], [period], [-3 * period], [1e6]], dtype=dtype)
    wrapped = circle.wrap(c)
    assert bool(((wrapped >= 0) & (wrapped < period)).all())
    assert torch.equal(circle.wrap(wrapped), wrapped)


def test_distance_is_a_metric(topology: Topology) -> None:
    a, b, c = (draw(topology, 200, seed) for seed in range(3))
    ab, bc, ac = topology.distance(a, b), topology.distance(b, c), topology.distance(a, c)
    assert ab.shape == (200,)
    torch.testing.assert_close(ab, topology.distance(b, a), rtol=0, atol=1e-12)
    torch.testing.assert_close(topology.distance(a, a), torch.zeros(200), rtol=0, atol=0)
    assert bool((ac <= ab + bc + 1e-12).all())
    if not (isinstance(topology, Simplex) and topology.vertices == 1):
        assert bool((ab > 0).all())


def test_distance_broadcasts(topology: Topology) -> None:
    a, b = draw(topology, 3), draw(topology, 4, seed=1)
    table = topology.distance(a[:, None].expand(3, 4, -1), b.expand(3, 4, -1))
    torch.testing.assert_close(table[2, 3], topology.distance(a[2], b[3]), rtol=0, atol=1e-14)


def test_samples_are_inside_and_seeded(topology: Topology) -> None:
    first, again, other = draw(topology, 64), draw(topology, 64), draw(topology, 64, seed=1)
    assert first.shape == (64, topology.dim)
    assert first.dtype == torch.float64
    assert torch.equal(first, again)
    assert topology.dim == 1 or not torch.equal(first, other)
    assert torch.equal(topology.wrap(first), first)


def test_samples_follow_the_measure(topology: Topology) -> None:
    nodes, weights = topology.quadrature(5)
    if not has_circle(topology):
        mean = draw(topology, 20_000).mean(0)
        torch.testing.assert_close(mean, weights @ nodes, rtol=0.02, atol=0.02)


def has_circle(topology: Topology) -> bool:
    return any(isinstance(part, Circle) for part in topology.factors)


def test_grid_is_inside(topology: Topology) -> None:
    for count in (2, 9, 30):
        grid = topology.grid(count)
        assert grid.shape[-1] == topology.dim
        assert grid.dtype == torch.float64
        assert torch.equal(topology.wrap(grid), grid)
        assert len(grid.unique(dim=0)) == (len(grid) if topology.spec() != SINGLE else 1)


SINGLE = {"kind": "simplex", "vertices": 1}


def test_quadrature_weights_sum_to_one_inside(topology: Topology) -> None:
    for order in (0, 1, 4, 7):
        nodes, weights = topology.quadrature(order)
        assert nodes.shape == (len(weights), topology.dim)
        assert abs(float(weights.sum()) - 1) < 1e-12
        torch.testing.assert_close(topology.wrap(nodes), nodes, rtol=0, atol=1e-15)


@pytest.mark.parametrize("order", range(9))
def test_quadrature_on_the_interval_integrates_polynomials(order: int) -> None:
    low, high = -2.0, 5.0
    nodes, weights = Interval(low, high).quadrature(order)
    for k in range(order + 1):
        exact = (high ** (k + 1) - low ** (k + 1)) / ((k + 1) * (high - low))
        assert float(weights @ nodes[:, 0] ** k) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("order", range(6))
def test_quadrature_on_the_circle_integrates_harmonics(order: int) -> None:
    nodes, weights = Circle(360.0).quadrature(order)
    for h in range(1, order + 1):
        angle = 2 * pi * h / 360.0 * nodes[:, 0] + 0.3
        assert float(weights @ angle.cos()) == pytest.approx(0, abs=1e-13)
        assert float(weights @ angle.sin()) == pytest.approx(0, abs=1e-13)


@pytest.mark.parametrize("vertices", [1, 2, 3, 4])
@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_quadrature_on_the_simplex_integrates_monomials(vertices: int, order: int) -> None:
    """Moments of Dirichlet(1, …, 1): ∫ Π c_i^{a_i} dμ = n! Π a_i! / (n + Σ a_i)!."""
    nodes, weights = Simplex(vertices).quadrature(order)
    n = vertices - 1
    for powers in product(range(order + 1), repeat=vertices):
        if sum(powers) <= order:
            exact = factorial(n) * prod(map(factorial, powers)) / factorial(n + sum(powers))
            got = weights @ (nodes ** torch.tensor(powers)).prod(-1)
            assert float(got) == pytest.approx(exact, rel=1e-11)


def test_quadrature_on_a_product_is_the_product_rule() -> None:
    nodes, weights = Product(Interval(), Circle()).quadrature(4)
    values = nodes[:, 0] ** 3 * (1 + (2 * pi * 2 * nodes[:, 1]).cos()) ** 2
    assert float(weights @ values) == pytest.approx(1 / 4 * (1 + 1 / 2), rel=1e-12)


def test_lengths_have_unit_frequency() -> None:
    """The slowest wave on a circle and the slowest half wave on an interval: ∫ ℓ²|f'|² = ∫ f²."""
    circle, interval = Circle(7.0), Interval(-1.0, 4.0)
    x = interval.quadrature(60)
    phase = pi / 5.0 * (x[0][:, 0] + 1)
    slope = interval.scale[0] * pi / 5.0 * -phase.sin()
    assert float(x[1] @ slope.square()) == pytest.approx(float(x[1] @ phase.cos().square()))
    assert circle.scale[0] * 2 * pi / 7.0 == pytest.approx(1)
    assert Product(circle, interval).scale == (*circle.scale, *interval.scale)


def test_circle_distance_takes_the_shorter_arc() -> None:
    circle = Circle(360.0)
    a, b = torch.tensor([[350.0], [10.0], [90.0]]), torch.tensor([[20.0], [200.0], [-270.0]])
    torch.testing.assert_close(circle.distance(a, b), torch.tensor([30.0, 170.0, 0.0]))


def test_product_distance_is_euclidean() -> None:
    space = Product(Interval(0.0, 10.0), Circle(10.0))
    a, b = torch.tensor([1.0, 9.0]), torch.tensor([4.0, 3.0])
    assert float(space.distance(a, b)) == pytest.approx(5.0)


def test_product_grid_varies_every_coordinate() -> None:
    assert Product(Interval(), Circle()).grid(1).tolist() == [[0, 0], [0, 0.5], [1, 0], [1, 0.5]]
    assert len(torus(2).grid(50)) == 49


def test_spec_round_trip_through_json(topology: Topology) -> None:
    again = topology_from_spec(json.loads(json.dumps(topology.spec())))
    assert type(again) is type(topology)
    assert again.spec() == topology.spec()
    assert again.scale == topology.scale
    assert torch.equal(draw(again, 5), draw(topology, 5))


def test_a_number_without_an_axis_is_no_context() -> None:
    with pytest.raises(ContextError, match="0 numbers, but circle needs 1"):
        check_dim(Circle(), torch.tensor(0.5))
    with pytest.raises(ContextError, match="1 number, but product needs 2"):
        check_dim(torus(2), torch.zeros(3, 1))


def test_wrong_dimension(topology: Topology) -> None:
    with pytest.raises(ContextError, match=f"needs {topology.dim}"):
        topology.wrap(torch.zeros(2, topology.dim + 1))


@pytest.mark.parametrize("context", [5.5, -2.5, float("nan")])
def test_interval_names_the_context_and_its_ends(context: float) -> None:
    with pytest.raises(ContextError, match=rf"context {context:g} lies outside \[-2, 5\]"):
        Interval(-2.0, 5.0).wrap(torch.tensor([[0.0], [context], [6.0], [7.0]]))


def test_interval_forgives_rounding() -> None:
    c = torch.tensor([[-1e-7], [1 + 1e-7]])
    torch.testing.assert_close(Interval().wrap(c), torch.tensor([[0.0], [1.0]]), rtol=0, atol=0)


@pytest.mark.parametrize("mixture", [[0.5, 0.6], [1.2, -0.2], [float("nan"), 1.0]])
def test_simplex_refuses_what_is_no_mixture(mixture: list[float]) -> None:
    with pytest.raises(ContextError, match="not a mixture"):
        Simplex(2).wrap(torch.tensor(mixture))


def test_circle_measure_has_no_preferred_angle() -> None:
    angle = 2 * pi * draw(Circle(), 20_000)[:, 0]
    assert abs(float(angle.cos().mean())) < 0.02


def test_factors(topology: Topology) -> None:
    """A product consists of what are no products, in the order of the coordinates."""
    c = draw(topology, 6).reshape(2, 3, -1)
    parts = topology.split(c)
    torch.testing.assert_close(torch.cat(parts, dim=-1), c, rtol=0, atol=0)
    assert [part.shape[-1] for part in parts] == [f.dim for f in topology.factors]
    assert all(f.factors == (f,) for f in topology.factors)
    assert topology.tolerance == max(f.tolerance for f in topology.factors)


def test_products_of_products_are_flat() -> None:
    inner, line = torus(2), Interval()
    assert Product(inner, line).factors == (*inner.factors, line)
    assert line.factors == (line,)


def test_mixtures() -> None:
    space = Product(Circle(), Simplex(3), Interval())
    assert [f.mixes for f in space.factors] == [False, True, False]


def test_metric_is_what_lengths_and_simplices_say(topology: Topology) -> None:
    metric, start = topology.metric(), 0
    torch.testing.assert_close(metric, metric.mT)
    for factor in topology.factors:
        block = slice(start, start + factor.dim)
        if factor.mixes:
            inward = torch.eye(factor.dim) - torch.full((factor.dim,) * 2, 1 / factor.dim)
            torch.testing.assert_close(metric[block, block], inward)
        else:
            assert metric[block, block].item() == pytest.approx(factor.scale[0] ** 2)
        metric[block, block] = 0
        start += factor.dim
    assert not metric.any()


def test_order_is_the_highest_that_so_many_nodes_reach(topology: Topology) -> None:
    shares = len(topology.factors)
    for nodes in (8, 64, 216):
        order = topology.order(nodes)
        affordable = len(topology.quadrature(order)[0]) <= nodes
        assert affordable or order <= 3
        each = [f.order(int(round(nodes ** (1 / shares), 9))) for f in topology.factors]
        assert order == min(each)


@pytest.mark.parametrize(
    ("space", "nodes", "order"),
    [
        (Interval(), 0, 2),
        (Interval(), 1, 2),
        (Interval(), 5, 9),
        (Interval(), 512, 1023),
        (Interval(), 4096, 1023),
        (Circle(), 1, 2),
        (Circle(), 5, 4),
        (Circle(), 4096, 4095),
        (Simplex(3), 4, 3),
        (Simplex(3), 9, 3),
        (Simplex(3), 10, 5),
        (Simplex(3), 4096, 15),
        (Simplex(100), 4096, 3),
        (Simplex(90), 4186, 5),
        (torus(3), 64, 3),
        (torus(2), 63, 6),
        (Product(Simplex(100), Circle()), 4096, 3),
    ],
)
def test_orders(space: Topology, nodes: int, order: int) -> None:
    assert space.order(nodes) == order


def test_numbers_are_double_whatever_torchs_default_is(topology: Topology) -> None:
    def all_of_them() -> list[Tensor]:
        rules = [draw(topology, 5), topology.grid(5), *topology.quadrature(3), topology.metric()]
        return [*rules, topology.embed(draw(topology, 1)[0].tolist())]

    expected = all_of_them()
    torch.set_default_dtype(torch.float32)
    for found, before in zip(all_of_them(), expected, strict=True):
        assert found.dtype == torch.float64
        assert torch.equal(found, before)
