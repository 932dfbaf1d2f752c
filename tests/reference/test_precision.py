"""Precision against dense linear algebra: explicit inverses, never the same recursion again."""

import pytest
import torch
from torch import Tensor

from cl_manifold.geometry import Bernstein, Fourier
from cl_manifold.manifold import belief as precision

INF = float("inf")


def random_problem(tasks: int = 4, size: int = 5, blocks: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    root = torch.randn(size, size)
    prior = torch.linalg.inv(root @ root.mT + 0.3 * torch.eye(size))
    return prior, torch.randn(tasks, size), torch.rand(tasks, blocks) * 10


def conditioned(prior: Tensor, phis: Tensor, information: Tensor) -> Tensor:
    covariance = prior.expand(information.shape[1], -1, -1)
    for phi, f in zip(phis, information, strict=True):
        covariance = precision.condition(covariance, phi, f)
    return covariance


def test_conditioning_is_the_inverse_of_the_summed_precision() -> None:
    prior, phis, information = random_problem()
    dense = torch.stack(
        [
            torch.linalg.inv(torch.linalg.inv(prior) + phis.mT @ (f[:, None] * phis))
            for f in information.mT
        ]
    )
    torch.testing.assert_close(conditioned(prior, phis, information), dense, atol=1e-10, rtol=1e-10)


def test_infinite_information_is_kernel_interpolation() -> None:
    """Σ = Σ₀ − Σ₀Φ(ΦᵀΣ₀Φ)⁻¹ΦᵀΣ₀: nothing is left at visited contexts."""
    prior, phis, _ = random_problem()
    exact = conditioned(prior, phis, torch.full((4, 1), INF))[0]
    kernel = phis @ prior @ phis.mT
    closed = prior - prior @ phis.mT @ torch.linalg.solve(kernel, phis @ prior)
    torch.testing.assert_close(exact, closed, atol=1e-9, rtol=1e-9)
    assert (phis @ exact @ phis.mT).abs().max() < 1e-12 * kernel.abs().max()


def test_large_finite_information_tends_to_infinite() -> None:
    prior, phis, _ = random_problem(tasks=2)
    near = conditioned(prior, phis, torch.full((2, 1), 1e10))
    limit = conditioned(prior, phis, torch.full((2, 1), INF))
    torch.testing.assert_close(near, limit, atol=1e-6, rtol=1e-6)


def test_no_information_changes_nothing() -> None:
    prior, phis, _ = random_problem()
    same = conditioned(prior, phis, torch.zeros(4, 2))
    torch.testing.assert_close(same, prior.expand(2, -1, -1))


def test_plasticity_is_one_before_and_falls_with_every_visit() -> None:
    basis = Fourier(3)
    prior = precision.prior_covariance(basis.prior(), 1e-4)
    covariance = prior.expand(1, -1, -1)
    contexts = torch.tensor([[0.1], [0.15], [0.6]])
    previous = 1.0
    for c in contexts:
        free = precision.plasticity(covariance, prior, basis(torch.tensor([0.12])))
        assert 0 <= free.item() <= previous
        previous = free.item()
        covariance = precision.condition(covariance, basis(c), torch.tensor([1e-3]))
    assert previous < 0.5
    fresh = precision.plasticity(prior.expand(1, -1, -1), prior, basis(contexts[0]))
    assert fresh.item() == pytest.approx(1.0)


def test_influence_is_the_response_of_the_manifold_to_a_commit() -> None:
    """A displacement of one at φ moves w(c_j) by φ_jᵀ Σ φ / (φᵀ Σ φ), solved densely."""
    prior, phis, information = random_problem()
    covariance = conditioned(prior, phis, information)
    phi = torch.randn(5)
    for b in range(3):
        moved = phis @ torch.linalg.solve(torch.linalg.inv(covariance[b]), phi)
        free = phi @ covariance[b] @ phi
        found = precision.influence(covariance, phi, phis)[:, b]
        torch.testing.assert_close(found, moved / free, atol=1e-8, rtol=1e-8)


def test_overshoot_is_one_on_an_untouched_point_model_and_grows_near_protected_contexts() -> None:
    flat = Bernstein(0)
    one = torch.eye(1).expand(1, -1, -1)
    grid = flat(torch.rand(9, 1))
    assert precision.overshoot(one, flat(torch.tensor([0.4])), grid).item() == pytest.approx(1)
    basis = Fourier(2)
    prior = torch.linalg.inv(basis.gram())
    covariance = prior.expand(1, -1, -1)
    for c in (0.0, 0.025):
        phi = basis(torch.tensor([c]))
        covariance = precision.condition(covariance, phi, torch.tensor([INF]))
    swing = precision.overshoot(
        covariance, basis(torch.tensor([0.05])), basis(basis.topology.grid(100))
    )
    assert swing.item() > 5


def test_overshoot_counts_swings_to_either_side() -> None:
    prior, phis, information = random_problem()
    covariance = conditioned(prior, phis, information)
    phi = torch.randn(5)
    grid = torch.stack([phi, -3 * phi, 2 * phi])
    torch.testing.assert_close(precision.overshoot(covariance, phi, grid), torch.full((3,), 3.0))


@pytest.mark.parametrize("infinite", [False, True])
def test_reembedding_is_the_batch_posterior(infinite: bool) -> None:
    """M = Λ'⁻¹ Σ_j f_j φ'_jφ_jᵀ and Σ' = Λ'⁻¹ by dense solves; large f stands for infinite f."""
    smaller, larger = Fourier(1), Fourier(3)
    contexts = torch.rand(4, 1)
    f = torch.rand(4, 2) + 0.1
    dense_f = torch.full_like(f, 1e9) if infinite else f
    prior = precision.prior_covariance(larger.prior(), 1e-2)
    given = torch.full_like(f, INF) if infinite else f
    mapping, covariance = precision.reembedding(prior, larger(contexts), smaller(contexts), given)
    near = 1e-4 if infinite else 1e-9
    for b in range(2):
        weighted = dense_f[:, b, None]
        total = torch.linalg.inv(prior) + larger(contexts).mT @ (weighted * larger(contexts))
        expected = torch.linalg.solve(total, larger(contexts).mT @ (weighted * smaller(contexts)))
        torch.testing.assert_close(mapping[b], expected, atol=near, rtol=near)
        torch.testing.assert_close(covariance[b], torch.linalg.inv(total), atol=near, rtol=near)
