"""A plan says what the manifold itself would report, and finds the contexts without images."""

from collections.abc import Callable
from math import pi
from pathlib import Path

import pytest
import torch

from cl_manifold.contexts.plan import PlannedTask, TopologyPlan, plan, recommend, relation
from cl_manifold.errors import ContextError
from cl_manifold.geometry import (
    Basis,
    Bernstein,
    Circle,
    Codes,
    Fourier,
    Interval,
    Product,
    Simplex,
    Vertices,
    random_codes,
)
from cl_manifold.manifold.belief import PRECISION
from cl_manifold.manifold.weight_manifold import WeightManifold
from cl_manifold.streams import StreamOptions, TaskStream, named, protocols
from cl_manifold.streams.contexts import STAND_INS, planned_stream
from cl_manifold.tracking.plan_figure import plan_figure
from tests.networks import random_information, shake, small_mlp

CIRCLE = torch.tensor([[0.1], [0.5], [0.12], [0.8], [0.3]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("basis", "contexts"),
    [
        (Fourier(2), CIRCLE),
        (Bernstein(3), CIRCLE),
        (Vertices(4), torch.eye(4, dtype=torch.float64)),
        (random_codes(3, 4, seed=0), torch.eye(4, dtype=torch.float64)),
    ],
)
def test_a_plan_is_what_the_manifold_reports_with_that_information(
    basis: Basis, contexts: torch.Tensor
) -> None:
    manifold, other = (WeightManifold(small_mlp(), basis, strength=70.0) for _ in range(2))
    model = (manifold.layout.size, manifold.layout.blocks)
    found = plan(contexts, basis, name="it", strength=70.0, model=model)
    for c, task in zip(contexts, found.tasks, strict=True):
        # information is kept in float32
        assert task.plasticity == pytest.approx(manifold.plasticity(c), rel=1e-6)
        assert task.overshoot == pytest.approx(max(1, manifold.overshoot(c)), rel=1e-5)
        shake(manifold, c, 1.0)
        shake(other, c, random_information(other))
        assert task.stored_floats == other.stored_floats
    assert found.control_points == basis.size
    assert found.stored_ratio == other.stored_floats / manifold.layout.size


def test_unrelated_tasks_with_control_points_of_their_own_are_refused_nothing() -> None:
    codes = Codes(torch.eye(4, dtype=torch.float64))
    free = plan(torch.eye(4, dtype=torch.float64), codes, name="codes")
    assert [t.refused for t in free.tasks] == pytest.approx([0] * 4)
    assert free.verdict == "roomy"


def test_a_point_gives_each_task_the_share_of_a_running_mean() -> None:
    """g = 1, ½, ⅓ …: w is the mean of all wishes, and task j misses (1 − 1/j)² (1 + 1/(j − 1))."""
    point = random_codes(1, 5, seed=0)
    found = plan(torch.eye(5, dtype=torch.float64), point, name="point", strength=1e-9)
    expected = [0.0] + [(1 - 1 / j) ** 2 * (1 + 1 / (j - 1)) for j in (2, 3, 4, 5)]
    assert [t.refused for t in found.tasks] == pytest.approx(expected, rel=1e-5)
    assert found.verdict == "crowded"


def test_a_return_to_the_same_place_is_refused_only_what_it_did_not_get_before() -> None:
    codes = Codes(torch.eye(3, dtype=torch.float64))
    visits = torch.eye(3, dtype=torch.float64)[[0, 1, 0, 0]]
    found = plan(visits, codes, name="codes")
    assert [t.refused for t in found.tasks] == pytest.approx([0] * 4, abs=1e-6)


def test_the_strength_of_the_basis_is_the_default() -> None:
    for basis, contexts in ((Fourier(1), CIRCLE), (Vertices(2), torch.eye(2).double())):
        given = plan(contexts, basis, name="", strength=basis.strength)
        assert plan(contexts, basis, name="") == given
        assert plan(contexts, basis, name="", strength=2 * basis.strength) != given


def test_the_plan_simulates_a_manifold_that_commits_part_of_what_is_wanted() -> None:
    """Random wishes with the covariance of `relation`, committed one by one in a real manifold."""
    basis, strength = Fourier(1), 50.0
    f = PRECISION * strength
    net = torch.nn.Linear(1, 20_000, bias=False).double()
    torch.nn.init.zeros_(net.weight)
    manifold = WeightManifold(net, basis, strength=strength, blocks="tensor")
    wishes = torch.linalg.cholesky(relation(Circle(), CIRCLE)) @ torch.randn(
        5, 20_000, dtype=torch.float64
    )
    found = plan(CIRCLE, basis, name="", strength=strength)
    unvisited = manifold.belief
    for c, wish, task in zip(CIRCLE, wishes, found.tasks, strict=True):
        visit = manifold.check_out(c)
        now = net.weight.detach()[:, 0].clone()
        held = visit.step.kappa - unvisited.step(visit.step.phi).kappa
        gain = 1 / (1 + float(held) / f)
        new = now + gain * (wish - now)
        assert task.refused == pytest.approx(float((wish - new).square().mean()), rel=0.1, abs=1e-3)
        manifold.write({"weight": new[:, None]})
        manifold.commit(1.0)


def test_relations_are_correlations_of_the_space() -> None:
    torus = Product(Circle(), Interval())
    pair = torch.tensor([[0.1, 0.2], [0.3, 0.9], [0.1, 0.2]], dtype=torch.float64)
    k = relation(torus, pair)
    torch.testing.assert_close(k.diagonal(), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(k[0, 2], torch.tensor(1.0, dtype=torch.float64))
    separate = relation(Circle(), pair[:, :1]) * relation(Interval(), pair[:, 1:])
    torch.testing.assert_close(k, separate)
    near = relation(Circle(), torch.tensor([[0.0], [0.05], [0.4]], dtype=torch.float64))
    assert 1 > near[0, 1] > near[0, 2]
    eye = torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(relation(Simplex(2), eye), eye)


def test_tasks_on_a_circle_are_related_by_eight_harmonics_with_falling_weights() -> None:
    """k(δ) ∝ 1 + Σ_h 2 cos(2πhδ) / (1 + h²)."""
    apart = CIRCLE - CIRCLE.mT
    k = torch.ones_like(apart)
    for h in range(1, 9):
        k = k + 2 * torch.cos(2 * pi * h * apart) / (1 + h**2)
    torch.testing.assert_close(relation(Circle(), CIRCLE), k / k[0, 0])


def test_without_a_model_one_weight_is_counted() -> None:
    """K points; Σ, Σ₀ and per task a context and φ in float64; one information per task."""
    found = plan(CIRCLE, Fourier(1), name="")
    assert found.stored_ratio == 3 + 2 * (6 + 9 + 5 * (1 + 3)) + 5


def test_more_harmonics_refuse_less() -> None:
    contexts = torch.arange(12, dtype=torch.float64)[:, None] / 12
    refused = [plan(contexts, Fourier(h), name="").refused for h in range(6)]
    assert refused == sorted(refused, reverse=True)
    assert refused[-1] < 0.01


def made(name: str, points: int, refused: float, overshoot: float = 1.0) -> TopologyPlan:
    first = PlannedTask((0.0,), 1.0, 0.0, 1.0, 10 * points)
    last = PlannedTask((0.5,), 0.2, 2 * refused, overshoot, 10 * points)
    return TopologyPlan(name, points, 10, (first, last))


def test_the_smallest_roomy_plan_is_recommended_or_else_what_refuses_least() -> None:
    small, right, large = made("a", 3, 0.2), made("b", 5, 0.07), made("c", 9, 0.01)
    wild = made("d", 4, 0.05, overshoot=20.0)
    assert [p.verdict for p in (small, right, wild)] == ["tight", "roomy", "swings"]
    name, reason = recommend([small, large, wild, right])
    assert name == "b"
    assert "K = 5" in reason
    assert "refuses 7%" in reason
    name, reason = recommend([made("x", 1, 0.9), small])
    assert name == "a"
    assert "none leaves tasks free" in reason


def test_a_plan_sums_up_its_tasks() -> None:
    found = made("a", 3, refused=0.2, overshoot=4.0)
    assert (found.plasticity, found.lowest_plasticity) == (0.6, 0.2)
    assert (found.refused, found.overshoot, found.stored_ratio) == (0.2, 4.0, 3.0)


def test_a_first_task_gets_everything() -> None:
    assert plan(CIRCLE[:1], Fourier(1), name="one").refused == 0


@pytest.mark.parametrize("strength", [0.0, float("inf")])
def test_a_plan_needs_contexts_and_a_finite_strength(strength: float) -> None:
    with pytest.raises(ValueError, match="needs contexts and a positive"):
        plan(CIRCLE, Fourier(1), name="", strength=strength)
    with pytest.raises(ValueError, match="needs contexts"):
        plan(CIRCLE[:0], Fourier(1), name="")
    with pytest.raises(ContextError, match="outside"):
        plan(CIRCLE + 3, Bernstein(2), name="")


# -- contexts without images -----------------------------------------------------------------------


@pytest.mark.parametrize("make", [named.rotated_digits, named.noisy_digits, named.split_digits])
def test_planned_contexts_are_those_of_the_stream(make: Callable[..., TaskStream]) -> None:
    options = StreamOptions(contexts=5, seed=3)
    stream = make(StreamOptions(contexts=5, seed=3, samples=20, test_samples=5))
    found = planned_stream(make, options)
    torch.testing.assert_close(found.contexts, stream.contexts(), rtol=0, atol=0)
    assert found.names == tuple(e.context_name for e in stream.train_stream)
    assert found.topology.spec() == stream.topology.spec()
    assert (found.outputs, found.input_shape) == (stream.outputs, stream.input_shape)


def test_mnist_is_planned_without_its_files() -> None:
    found = planned_stream(named.rotated_mnist, StreamOptions(contexts=20, seed=1))
    twin = planned_stream(named.rotated_digits, StreamOptions(contexts=20, seed=1))
    torch.testing.assert_close(found.contexts, twin.contexts)
    assert found.input_shape == (1, 28, 28)
    listed = {*dir(named), *dir(protocols)}
    made = {n for n in listed if n.endswith("_mnist") or n.startswith("split_mnist")}
    assert {f.__name__ for f in STAND_INS} == made - {"load_mnist"}


def test_hidden_tasks_cannot_be_planned() -> None:
    with pytest.raises(ContextError, match="carry no contexts"):
        planned_stream(named.recurring_mnist, StreamOptions(contexts=12))


def test_the_figure_has_a_line_per_topology(tmp_path: Path) -> None:
    plans = [plan(CIRCLE, Fourier(h), name=f"circle:{h}") for h in (0, 2)]
    figure = plan_figure(plans, "circle:2")
    labels = [line.get_label() for line in figure.axes[0].lines]
    assert labels == ["circle:0 (K = 1)", "circle:2 (K = 5)"]
    figure.savefig(tmp_path / "plan.png")
