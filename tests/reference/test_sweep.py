"""Many contexts at once, against checking them out one by one; descent against a fine grid."""

from math import pi

import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from cl_manifold.contexts.sweep import distinct, logits_at, logits_with, refine, spread
from cl_manifold.geometry import (
    Bernstein,
    Circle,
    Fourier,
    Interval,
    Product,
    Simplex,
    TensorProduct,
    Vertices,
)
from cl_manifold.manifold.weight_manifold import WeightManifold
from tests.networks import fit, move, shake, small_cnn, small_mlp

SHAPES = {"Linear": (6,), "Conv2d": (1, 6, 6)}


def curved(net: nn.Module) -> WeightManifold:
    """With three tasks; the statistics of BatchNorm ride."""
    manifold = WeightManifold(net.double(), Fourier(2))
    shape = SHAPES[type(next(net.children())).__name__]
    for turn in (0.1, 0.45, 0.8):
        manifold.check_out(torch.tensor([turn]))
        fit(net, turn + torch.randn(8, *shape), torch.randint(3, (8,)), steps=2)
        move(manifold)
        manifold.commit(1.0)
    return manifold


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_the_sweep_equals_checking_out_every_context(chunk: int) -> None:
    for net, x in ((small_mlp(), torch.rand(5, 6)), (small_cnn(), torch.rand(5, 1, 6, 6))):
        manifold = curved(net)
        contexts = manifold.basis.topology.grid(7)
        found = logits_at(manifold, contexts, (x,), chunk=chunk)
        manifold.module.eval()
        for context, logits in zip(contexts, found, strict=True):
            manifold.check_out(context)
            torch.testing.assert_close(logits, manifold.module(x), rtol=1e-10, atol=1e-12)
        again = logits_with(manifold, manifold.state(contexts), (x,))
        torch.testing.assert_close(found, again, rtol=1e-10, atol=1e-12)


def test_the_live_module_is_only_read() -> None:
    manifold = curved(small_cnn())
    module, x = manifold.module, torch.rand(4, 1, 6, 6)
    module.zero_grad()
    module.train()
    next(module.children()).eval()
    flags = [m.training for m in module.modules()]
    before = {k: v.clone() for k, v in module.state_dict().items()}
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    logits_at(manifold, torch.tensor([[0.3]]), (x,))
    refine(manifold, entropy, torch.tensor([0.3]), (x,), steps=3)
    assert torch.equal(torch.rand(3), expected)
    assert [m.training for m in module.modules()] == flags
    for k, v in module.state_dict().items():
        assert torch.equal(before[k], v), (k, before[k], v)
    assert all(p.grad is None for p in module.parameters())


def test_negative_variances_are_zero_as_after_checking_out() -> None:
    manifold, x = curved(small_cnn()), torch.rand(5, 1, 6, 6)
    variances = manifold.points.of("1.running_var").read()
    variances[:, :2] = -1.0
    context = torch.tensor([0.0])
    found = logits_at(manifold, context[None], (x,))[0]
    manifold.check_out(context)
    assert manifold.module.get_buffer("1.running_var")[:2].tolist() == [0, 0]
    manifold.module.eval()
    torch.testing.assert_close(found, manifold.module(x), rtol=1e-10, atol=1e-12)
    assert bool(found.isfinite().all())


def entropy(logits: Tensor) -> Tensor:
    return -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean()


def test_descent_finds_the_lowest_context_nearby() -> None:
    manifold, x = curved(small_mlp()), torch.rand(20, 6)
    labels = logits_at(manifold, torch.tensor([[0.62]]), (x,))[0].softmax(-1)

    def loss(logits: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, labels)

    fine = torch.linspace(0.5, 0.75, 2001)[:, None]
    lowest = fine[torch.stack([loss(f) for f in logits_at(manifold, fine, (x,))]).argmin()]
    found = refine(manifold, loss, torch.tensor([0.58]), (x,), steps=40, rate=0.05)
    torch.testing.assert_close(found, lowest, atol=1e-3, rtol=0)


def test_descent_is_never_worse_than_its_start() -> None:
    manifold, x = curved(small_mlp()), torch.rand(8, 6)
    for start in torch.linspace(0, 0.95, 8)[:, None]:
        end = refine(manifold, entropy, start, (x,), steps=3, rate=2.0)
        before, after = logits_at(manifold, torch.stack([start, end]), (x,))
        assert float(entropy(after)) <= float(entropy(before))


def test_the_penalty_counts() -> None:
    manifold, x = curved(small_mlp()), torch.rand(8, 6)

    def nothing(logits: Tensor) -> Tensor:
        return 0 * logits.sum()

    def far(context: Tensor) -> Tensor:
        return (context - 0.4).square().sum()

    end = refine(manifold, nothing, torch.tensor([0.3]), (x,), steps=40, penalty=far)
    torch.testing.assert_close(end, torch.tensor([0.4]), atol=1e-4, rtol=0)


def test_a_step_has_its_length_in_units_of_the_topology_and_halves_after_a_failure() -> None:
    """Of a linear J on an interval of 4 times a circle of 6, whose lengths ℓ are 4/π and 6/2π."""
    basis = TensorProduct(Bernstein(1, 0.0, 4.0), Fourier(0, 6.0))
    manifold, x = WeightManifold(small_mlp().double(), basis), torch.rand(2, 6)
    lengths = torch.tensor([4 / pi, 3 / pi])
    slope, start = torch.tensor([3.0, -2.0]), torch.tensor([2.0, 3.0])
    along = lengths**2 * slope / (lengths * slope).norm()
    asked: list[Tensor] = []

    def linear(context: Tensor) -> Tensor:
        return slope @ context

    def nothing(logits: Tensor) -> Tensor:
        return 0 * logits.sum()

    end = refine(manifold, nothing, start, (x,), steps=2, rate=0.1, penalty=linear)
    torch.testing.assert_close(end, start - 0.2 * along)

    def kinked(context: Tensor) -> Tensor:
        asked.append(context.detach() - start)
        return (slope @ (context - start + 0.04 * along)).abs()

    # J is least 0.04 along the slope, so that steps of 0.2 and 0.1 are taken back
    end = refine(manifold, nothing, start, (x,), steps=3, rate=0.2, penalty=kinked)
    expected = torch.stack([-r * along for r in (0.0, 0.2, 0.1, 0.05)])
    torch.testing.assert_close(torch.stack(asked), expected)
    torch.testing.assert_close(end, start - 0.05 * along)


def test_descent_stays_on_a_simplex() -> None:
    manifold = WeightManifold(small_mlp().double(), Vertices(3))
    for task in torch.eye(3):
        shake(manifold, task, 1.0)
    x = torch.rand(8, 6)
    end = refine(manifold, entropy, torch.tensor([0.2, 0.3, 0.5]), (x,))
    assert bool((end >= 0).all())
    torch.testing.assert_close(end.sum(), torch.tensor(1.0))


def test_the_projection_onto_a_simplex_is_the_nearest_mixture() -> None:
    for _ in range(5):
        point = 2 * torch.randn(4)

        def distance(c: Tensor, point: Tensor = point) -> float:
            return float((torch.as_tensor(c) - point).square().sum())

        found = minimize(
            distance,
            torch.full((4,), 0.25).numpy(),
            bounds=[(0, 1)] * 4,
            constraints={"type": "eq", "fun": lambda c: c.sum() - 1},
            options={"ftol": 1e-14},
        )
        nearest = Simplex(4).project(point)
        torch.testing.assert_close(nearest, torch.as_tensor(found.x), atol=1e-5, rtol=0)


def test_projections_onto_other_topologies() -> None:
    space = Product(Interval(0.0, 2.0), Circle(1.0))
    got = space.project(torch.tensor([[3.0, 1.25], [-1.0, -0.25], [1.0, 0.5]]))
    torch.testing.assert_close(got, torch.tensor([[2.0, 0.25], [0.0, 0.75], [1.0, 0.5]]))


def test_candidates_are_the_visited_contexts_and_a_grid() -> None:
    manifold = curved(small_mlp())
    shake(manifold, torch.tensor([0.1]), 1.0)
    found = spread(manifold, 10)
    # 0.1 and 0.8 are on the grid of ten already
    assert [round(float(c), 6) for c in found[:3]] == [0.1, 0.45, 0.8]
    assert len(found) == 3 + 8
    assert len(spread(manifold, 0)) == 3
    assert len(distinct(Circle(), [torch.tensor([0.0]), torch.tensor([1.0])])) == 1


def test_candidates_on_a_simplex_are_visited_ones_and_their_midpoints() -> None:
    manifold = WeightManifold(small_mlp().double(), Vertices(4))
    assert spread(manifold).shape == (0, 4)
    shake(manifold, torch.eye(4)[2], 1.0)
    assert spread(manifold).tolist() == [[0, 0, 1, 0]]
    shake(manifold, torch.eye(4)[0], 1.0)
    assert spread(manifold).tolist() == [[0, 0, 1, 0], [1, 0, 0, 0], [0.5, 0, 0.5, 0]]
    assert len(spread(manifold, 0)) == 2
