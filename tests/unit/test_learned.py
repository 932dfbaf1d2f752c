"""Learned contexts: on their topology, differentiable, and able to find what they were not told."""

from math import pi

import pytest
import torch
from torch import Tensor, nn

from cl_manifold.contexts.learned import LearnedContexts
from cl_manifold.errors import ContextError
from cl_manifold.geometry import Circle, Fourier, Interval, Product, Simplex, Topology, torus
from cl_manifold.manifold.module import ManifoldModule
from cl_manifold.networks import mlp
from cl_manifold.streams import load_digits, rotate

TOPOLOGIES: list[Topology] = [
    Interval(-1.0, 2.0),
    Circle(360.0),
    torus(2),
    Simplex(4),
    Product(Circle(), Interval(0.0, 5.0), Simplex(3)),
]


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_nearest_point_is_on_the_topology_and_leaves_it_where_it_is(topology: Topology) -> None:
    inside = topology.sample(50, torch.Generator().manual_seed(0))
    torch.testing.assert_close(topology.project(inside), inside, atol=1e-12, rtol=0)
    far = inside + 3 * torch.randn(inside.shape, dtype=torch.float64)
    found = topology.project(far)
    torch.testing.assert_close(topology.wrap(found), found)
    torch.testing.assert_close(topology.project(found), found, atol=1e-12, rtol=0)


@pytest.mark.parametrize("topology", [Interval(-1.0, 2.0), Simplex(4)])
def test_no_other_point_is_nearer(topology: Topology) -> None:
    """Projection onto a convex set: (x − p)ᵀ(z − p) ≤ 0 for every z in it (Kolmogorov)."""
    others = topology.sample(300, torch.Generator().manual_seed(1))
    for x in 2 * torch.randn(20, topology.dim, dtype=torch.float64):
        p = topology.project(x)
        assert ((others - p) @ (x - p)).max() <= 1e-12


def test_contexts_are_parameters() -> None:
    contexts = LearnedContexts(Circle(), 5, seed=3)
    same = Circle().sample(5, torch.Generator().manual_seed(3))
    index = torch.tensor([4, 0, 4])
    assert torch.equal(contexts(index), same[index])
    (contexts(index) * torch.tensor([[1.0], [2.0], [4.0]])).sum().backward()
    assert contexts.contexts.grad is not None
    assert contexts.contexts.grad.flatten().tolist() == [2.0, 0.0, 0.0, 0.0, 5.0]


def test_a_step_is_wrapped() -> None:
    contexts = LearnedContexts(Circle(), 1, initial=torch.tensor([[0.1]]))
    optimizer = torch.optim.SGD(contexts.parameters(), lr=1.0)
    contexts.wrap_after(optimizer)
    (0.3 * contexts(torch.tensor([0]))).sum().backward()
    optimizer.step()
    assert float(contexts.contexts.detach()) == pytest.approx(0.8)


def test_a_group_of_parameters_has_its_own_rate() -> None:
    net = ManifoldModule(nn.Linear(2, 1), Fourier(1))
    contexts = LearnedContexts(Circle(), 2)
    optimizer = torch.optim.SGD(
        [{"params": net.parameters()}, {"params": contexts.parameters(), "lr": 0.0}], lr=0.1
    )
    before, points = contexts.contexts.detach().clone(), net.control_points()[0].detach().clone()
    net(torch.ones(2, 2), contexts(torch.arange(2))).square().sum().backward()
    assert contexts.contexts.grad is not None
    optimizer.step()
    assert torch.equal(contexts.contexts.detach(), before)
    assert not torch.equal(net.control_points()[0].detach(), points)


def test_state_dict() -> None:
    one, other = LearnedContexts(Circle(), 3, seed=1), LearnedContexts(Circle(), 3, seed=2)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.contexts, other.contexts)


@pytest.mark.parametrize(
    ("initial", "says"),
    [
        (torch.rand(2, 1), r"\(2, 1\); 3 contexts need \(3, 1\)"),
        (torch.rand(3, 2), r"\(3, 2\); 3 contexts need \(3, 1\)"),
        (torch.full((3, 1), torch.nan), "not a finite number"),
    ],
)
def test_bad_beginnings(initial: Tensor, says: str) -> None:
    with pytest.raises(ContextError, match=says):
        LearnedContexts(Circle(), 3, initial=initial)


def circular_correlation(a: Tensor, b: Tensor) -> float:
    """|R(a − b) − R(a + b)| with R(θ) = |mean exp(iθ)|: one for equal up to shift and reflection.

    The coefficient of Jammalamadaka and SenGupta (2001, 8.2.3) for uniform angles.
    """

    def length(angle: Tensor) -> Tensor:
        return torch.polar(torch.ones_like(angle), 2 * pi * angle).mean().abs()

    return float((length(a - b) - length(a + b)).abs())


def test_circular_correlation() -> None:
    angle = torch.arange(24, dtype=torch.float64) / 24
    assert circular_correlation(angle, 0.3 - angle) == pytest.approx(1)
    assert circular_correlation(angle, angle[torch.randperm(24)]) < 0.7


@pytest.mark.slow
def test_unlabelled_angles_are_recovered() -> None:
    """Digits turned by 24 angles; a sample knows its group, not the angle.

    A start can end folded, with two angles at each context. Of six starts the one with the lowest
    training loss counts, which needs no angles.
    """
    groups, steps, images = 24, 800, load_digits()
    truth = torch.randperm(groups) / groups
    mean, std = images.moments
    x = torch.stack([rotate(images.train_x, 360 * float(t)).float() / 255 for t in truth])
    x, y = (x - mean) / std, images.train_y
    found: list[tuple[float, float]] = []
    for seed in range(6):
        torch.manual_seed(seed)
        net = ManifoldModule(mlp((1, 16, 16), (), 10), Fourier(1))
        contexts = LearnedContexts(Circle(), groups, seed=seed)
        optimizer = torch.optim.Adam(
            [{"params": net.parameters()}, {"params": contexts.parameters(), "lr": 0.2}], lr=3e-3
        )
        contexts.wrap_after(optimizer)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
        loss = 0.0
        for _ in range(steps):
            group, sample = torch.randint(groups, (128,)), torch.randint(len(y), (128,))
            optimizer.zero_grad()
            current = nn.functional.cross_entropy(net(x[group, sample], contexts(group)), y[sample])
            current.backward()
            optimizer.step()
            schedule.step()
            loss = 0.99 * loss + 0.01 * current.item()
        found.append((loss, circular_correlation(contexts.contexts.detach().flatten(), truth)))
    assert min(found)[1] >= 0.95
