"""Known methods are corners of the weight manifold: each is computed here on its own terms."""

import pytest
import torch
from torch import nn

from cl_manifold.geometry import Fourier, Vertices
from cl_manifold.manifold.belief import PRECISION
from cl_manifold.manifold.information import SHARED, FisherInformation
from cl_manifold.manifold.layout import Granularity, State
from cl_manifold.manifold.likelihood import Categorical
from cl_manifold.manifold.weight_manifold import WeightManifold
from tests.networks import (
    fit,
    flat,
    points_of,
    random_information,
    shake,
    small_cnn,
    small_mlp,
    weights_at,
)

INF = float("inf")


@pytest.mark.parametrize("kind", ["mlp", "cnn with BatchNorm"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_protection_keeps_earlier_weights(kind: str, dtype: torch.dtype) -> None:
    """F = ∞: training later tasks moves earlier contexts' weights by < 1e-6 relative."""
    make, shape = (small_mlp, (6,)) if kind == "mlp" else (small_cnn, (1, 6, 6))
    net = make().to(dtype)
    manifold = WeightManifold(net, Fourier(3))
    contexts = torch.arange(7)[:, None] / 7 + 0.01
    kept: list[State] = []
    for c in contexts:
        manifold.check_out(c)
        fit(net, torch.randn(32, *shape, dtype=dtype), torch.randint(3, (32,)))
        manifold.commit(INF)
        kept.append(manifold.layout.read(net))
    for c, state in zip(contexts, kept, strict=True):
        before = flat(manifold, state)
        assert (weights_at(manifold, c) - before).norm() / before.norm() < 1e-6
    riding = {e.name for e in manifold.layout.entries if not e.trained}
    names = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert riding == (set() if kind == "mlp" else names)
    with torch.no_grad():
        moved = weights_at(manifold, contexts[0]) - weights_at(manifold, contexts[1])
    assert moved.norm() > 0.1


def test_point_model_with_weight_blocks_is_online_ewc() -> None:
    """K = 1: price κ = Λ and state Λ += f, the recursion of online EWC written out here.

    f of a weight is its own Fisher information with a share of its tensor's mean, over their mean.
    """
    net, ratio = small_mlp().double(), 40.0
    manifold = WeightManifold(net, Fourier(0), blocks="weight", strength=ratio)
    sizes = [p.numel() for p in net.parameters()]
    importance = torch.full((sum(sizes),), PRECISION * float(Fourier(0).prior()))
    anchor = nn.utils.parameters_to_vector(net.parameters()).detach().clone()
    for _ in range(3):
        visit = manifold.check_out(torch.rand(1))
        torch.testing.assert_close(visit.step.kappa, importance, rtol=1e-6, atol=0)
        torch.testing.assert_close(flat(manifold, visit.anchor), anchor)
        x = torch.randn(16, 6)
        fit(net, x, torch.randint(3, (16,)))
        anchor = nn.utils.parameters_to_vector(net.parameters()).detach().clone()
        generator = torch.Generator().manual_seed(0)
        found = FisherInformation()(net, (x,), manifold.layout, Categorical(), generator)
        manifold.commit(found)
        leaning = torch.cat([g + SHARED * (g.mean() - g) for g in found.split(sizes)])
        importance = importance + PRECISION * ratio * leaning / leaning.mean()
        torch.testing.assert_close(
            1 / manifold.belief.covariance()[:, 0, 0], importance, rtol=1e-6, atol=0
        )
        torch.testing.assert_close(weights_at(manifold, torch.rand(1)), anchor)


def test_vertices_held_exactly_are_separate_networks() -> None:
    """One control point per task: what was learned stays, to rounding."""
    net = small_mlp().double()
    manifold = WeightManifold(net, Vertices(3))
    kept = [flat(manifold, shake(manifold, torch.eye(3)[i], INF)) for i in (2, 0, 1)]
    for i, weights in zip((2, 0, 1), kept, strict=True):
        torch.testing.assert_close(weights_at(manifold, torch.eye(3)[i]), weights)
        torch.testing.assert_close(points_of(manifold)[i], weights)


def test_soft_protection_is_the_gaussian_posterior_mean() -> None:
    """With λ = 1 and a quadratic loss the commits add up to ridge regression onto the basis.

    Task j pulls w(c_j) to y_j with curvature f_j. Minimising f/2 (w − y)² + κ/2 (w − w(c))² and
    committing gives the posterior mean of Σ_j f_j (φ_jᵀP − y_j)² + εPᵀG₀P, solved densely here.
    """
    net = nn.Linear(1, 1, bias=False).double()
    basis, ratio = Fourier(2), 7.0
    manifold = WeightManifold(net, basis, strength=ratio, growable=True)
    start = net.weight.item()
    contexts, targets = torch.rand(6, 1), torch.randn(6)
    sharpness = 1 + 5 * torch.rand(6)
    f = sharpness * ratio * PRECISION
    for c, y, curvature, sharp in zip(contexts, targets, f, sharpness, strict=True):
        kappa = float(manifold.check_out(c).step.kappa)
        w = net.weight.item()
        with torch.no_grad():
            net.weight.fill_(float(curvature * y + kappa * w) / float(curvature + kappa))
        manifold.commit(torch.rand(1) + 0.1, float(sharp))
    phi = basis(contexts)
    total = PRECISION * basis.prior() + phi.mT @ (f[:, None] * phi)
    ridge = torch.linalg.solve(total, phi.mT @ (f * (targets - start)))
    torch.testing.assert_close(points_of(manifold)[:, 0], ridge, rtol=1e-5, atol=1e-6)
    covariance = manifold.belief.covariance()[0]
    torch.testing.assert_close(covariance, torch.linalg.inv(total), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("blocks", ["tensor", "row", "weight"])
def test_reembedding_equals_the_larger_basis_fed_the_same_tasks(blocks: Granularity) -> None:
    """Growing after T tasks = having had the larger basis from the first task on.

    "The same tasks" are (context, information, weights of the small manifold there); the larger
    manifold sees each as the Gaussian observation y_j of w(c_j) with precision f_j.
    """
    net = small_mlp().double()
    small = WeightManifold(net, Fourier(1), blocks=blocks, growable=True)
    start = small.layout.read(net)
    contexts = torch.rand(4, 1)
    given = [random_information(small) for _ in contexts]
    for c, information in zip(contexts, given, strict=True):
        shake(small, c, information)
    observed = [small.state(c) for c in contexts]
    growth = Fourier(1).grown()
    small.layout.write(net, start)
    large = WeightManifold(net, growth.basis, blocks=blocks, growable=True)
    for c, task, y, information in zip(contexts, small.atlas.tasks, observed, given, strict=True):
        assert task.information is not None
        visit = large.check_out(c)
        for e in large.layout.entries:
            f = e.broadcast(task.information.double()[e.part])
            kappa = e.broadcast(visit.step.kappa[e.part])
            w = dict(net.named_parameters())[e.name]
            w.data = (f * y[e.name] + kappa * w.data) / (f + kappa)
        large.commit(information)
    small.grow_and_reembed(growth)
    torch.testing.assert_close(points_of(small), points_of(large), atol=1e-6, rtol=1e-6)
    # single weights are kept in float32
    near = 1e-4 if blocks == "weight" else 1e-7
    found, expected = small.belief.covariance(), large.belief.covariance()
    torch.testing.assert_close(found, expected, atol=near * float(expected.abs().max()), rtol=near)
