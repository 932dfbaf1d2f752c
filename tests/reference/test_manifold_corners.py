"""Known methods are corners of the weight manifold: each is computed here on its own terms."""

import pytest
import torch
from torch import Tensor, nn

from cl_manifold.geometry import Fourier, Vertices
from cl_manifold.manifold.information import fisher_information
from cl_manifold.manifold.layout import Granularity
from cl_manifold.manifold.weight_manifold import WeightManifold
from tests.networks import fit, random_information, shake, small_cnn, small_mlp

INF = float("inf")


@pytest.mark.parametrize("kind", ["mlp", "cnn with BatchNorm"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_protection_keeps_earlier_weights(kind: str, dtype: torch.dtype) -> None:
    """F = ∞: training later tasks moves earlier contexts' weights by < 1e-6 relative."""
    make, shape = (small_mlp, (6,)) if kind == "mlp" else (small_cnn, (1, 6, 6))
    net = make().to(dtype)
    manifold = WeightManifold(net, Fourier(3))
    contexts = torch.arange(7)[:, None] / 7 + 0.01
    kept: list[Tensor] = []
    for c in contexts:
        manifold.check_out(c)
        fit(net, torch.randn(32, *shape, dtype=dtype), torch.randint(3, (32,)))
        kept.append(manifold.layout.read(net))
        manifold.commit(c, INF)
    for c, weights in zip(contexts, kept, strict=True):
        moved = manifold.weights(c) - weights
        assert moved.norm() / weights.norm() < 1e-6
    statistics = [e for e in manifold.layout.entries if not e.trained]
    assert bool(statistics) == (kind != "mlp")


def test_point_model_with_weight_blocks_is_online_ewc() -> None:
    """K = 1: price κ = Λ and state Λ += F, the recursion of online EWC written out here."""
    net = small_mlp().double()
    strength = 1e-2
    manifold = WeightManifold(net, Fourier(0), blocks="weight", strength=strength)
    importance = torch.full((manifold.layout.size,), strength * Fourier(0).prior().item())
    anchor = manifold.layout.read(net)
    for _ in range(3):
        c = torch.rand(1)
        penalty = [
            torch.zeros(e.shape) + k
            for e, k in zip(manifold.layout.trained, manifold.price(c), strict=True)
        ]
        torch.testing.assert_close(torch.cat([p.reshape(-1) for p in penalty]), importance)
        manifold.check_out(c)
        torch.testing.assert_close(manifold.layout.read(net), anchor)
        x = torch.randn(16, 6)
        fit(net, x, torch.randint(3, (16,)))
        anchor = manifold.layout.read(net)
        found = fisher_information(net, net, x, manifold.layout)
        manifold.commit(c, found)
        importance = importance + found
        torch.testing.assert_close(1 / manifold.covariance[:, 0, 0], importance)
        torch.testing.assert_close(manifold.weights(torch.rand(1)), anchor)


def test_vertices_held_exactly_are_separate_networks() -> None:
    """One control point per task: what was learned stays, to rounding."""
    net = small_mlp().double()
    manifold = WeightManifold(net, Vertices(3))
    kept = [shake(manifold, torch.eye(3)[i], INF) for i in (2, 0, 1)]
    for i, weights in zip((2, 0, 1), kept, strict=True):
        torch.testing.assert_close(manifold.weights(torch.eye(3)[i]), weights)
        torch.testing.assert_close(manifold.control_points[i], weights)


def test_soft_protection_is_the_gaussian_posterior_mean() -> None:
    """With λ = 1 and a quadratic loss the commits add up to ridge regression onto the basis.

    Task j pulls w(c_j) to y_j with curvature f_j. Minimising f/2 (w − y)² + κ/2 (w − w(c))² and
    committing gives the posterior mean of Σ_j f_j (φ_jᵀP − y_j)² + εPᵀG₀P, solved densely here.
    """
    net = nn.Linear(1, 1, bias=False).double()
    basis, strength = Fourier(2), 1e-2
    manifold = WeightManifold(net, basis, strength=strength, growable=True)
    start = net.weight.item()
    contexts, targets = torch.rand(6, 1), torch.randn(6)
    f = torch.rand(6) + 0.1
    for c, y, curvature in zip(contexts, targets, f, strict=True):
        (kappa,) = manifold.price(c)
        manifold.check_out(c)
        w = net.weight.item()
        with torch.no_grad():
            net.weight.fill_((curvature * y + kappa * w) / (curvature + kappa))
        manifold.commit(c, curvature.item())
    phi = basis(contexts)
    total = strength * basis.prior() + phi.mT @ (f[:, None] * phi)
    ridge = torch.linalg.solve(total, phi.mT @ (f * (targets - start)))
    torch.testing.assert_close(manifold.control_points[:, 0], ridge)
    torch.testing.assert_close(manifold.covariance[0], torch.linalg.inv(total))


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
    for c in contexts:
        shake(small, c, random_information(small))
    observed = [small.weights(c) for c in contexts]
    growth = Fourier(1).grown()
    small.layout.write(net, start)
    large = WeightManifold(net, growth.basis, blocks=blocks, growable=True)
    for visit, y in zip(small.visits, observed, strict=True):
        assert visit.information is not None
        large.check_out(visit.context)
        before = large.layout.read(net)
        spread = [e.size // e.blocks for e in large.layout.entries for _ in range(e.blocks)]
        f = visit.information.repeat_interleave(torch.tensor(spread))
        kappa = torch.cat(
            [
                (torch.zeros(e.shape) + k).reshape(-1)
                for e, k in zip(large.layout.trained, large.price(visit.context), strict=True)
            ]
        )
        large.layout.write(net, (f * y + kappa * before) / (f + kappa))
        large.commit(visit.context, visit.information)
    small.grow_and_reembed(growth)
    torch.testing.assert_close(small.control_points, large.control_points, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(small.covariance, large.covariance, atol=1e-8, rtol=1e-6)
