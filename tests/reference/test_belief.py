"""Belief against dense linear algebra: explicit inverses, never the same recursion again."""

import pytest
import torch
from torch import Tensor

from cl_manifold.geometry import Bernstein, Fourier
from cl_manifold.manifold import belief as beliefs
from cl_manifold.manifold.belief import PRECISION, Belief, posterior, unvisited

INF = float("inf")


def random_problem(tasks: int = 4, size: int = 5, blocks: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """G₀, φ of some tasks and their information, in units of ε."""
    root = torch.randn(size, size)
    prior = root @ root.mT + 0.3 * torch.eye(size)
    return prior, torch.randn(tasks, size), PRECISION * torch.rand(tasks, blocks) * 10


def believed(prior: Tensor, phis: Tensor, information: Tensor) -> Belief:
    return posterior(unvisited(prior, information.shape[1]), phis, information)


def precision(prior: Tensor, phis: Tensor, information: Tensor) -> Tensor:
    """Λ = ε G₀ + Σ_j f_j φ_jφ_jᵀ of every block."""
    sums = [phis.mT @ (f[:, None] * phis) for f in information.mT]
    return torch.stack([PRECISION * prior + s for s in sums])


def close(found: Tensor, expected: Tensor, near: float = 1e-10) -> None:
    torch.testing.assert_close(found, expected, rtol=near, atol=near * float(expected.abs().max()))


def test_before_any_task_it_is_the_inverse_of_the_prior() -> None:
    prior = random_problem()[0]
    belief = unvisited(prior, 3)
    close(belief.covariance(), torch.linalg.inv(1e-4 * prior).expand(3, -1, -1))
    close(belief.prior, torch.linalg.inv(1e-4 * prior))
    assert belief.blocks == 3


def test_observing_is_the_inverse_of_the_summed_precision() -> None:
    prior, phis, information = random_problem()
    found = believed(prior, phis, information).covariance()
    close(found, torch.linalg.inv(precision(prior, phis, information)))


def test_observing_leaves_the_belief_before_alone() -> None:
    prior, phis, information = random_problem()
    belief = unvisited(prior, 3)
    before = belief.triangle.clone()
    after = belief.observe(phis[0], information[0])
    assert torch.equal(belief.triangle, before)
    assert not torch.equal(after.triangle, before)


def test_infinite_information_is_kernel_interpolation() -> None:
    """Σ = Σ₀ − Σ₀Φ(ΦᵀΣ₀Φ)⁻¹ΦᵀΣ₀: nothing is left at visited contexts."""
    prior, phis, _ = random_problem()
    start = torch.linalg.inv(PRECISION * prior)
    exact = believed(prior, phis, torch.full((4, 1), INF)).covariance()[0]
    kernel = phis @ start @ phis.mT
    close(exact, start - start @ phis.mT @ torch.linalg.solve(kernel, phis @ start), 1e-9)
    assert (phis @ exact @ phis.mT).abs().max() < 1e-12 * kernel.abs().max()


def test_large_finite_information_tends_to_infinite() -> None:
    prior, phis, _ = random_problem(tasks=2)
    near = believed(prior, phis, torch.full((2, 1), 1e10 * PRECISION)).covariance()
    close(near, believed(prior, phis, torch.full((2, 1), INF)).covariance(), 1e-6)


def test_no_information_changes_nothing() -> None:
    prior, phis, _ = random_problem()
    same = believed(prior, phis, torch.zeros(4, 2)).triangle
    assert torch.equal(same, unvisited(prior, 2).triangle)


def test_a_repeated_exact_task_changes_nothing_once_nothing_is_free() -> None:
    """One control point held exactly has no covariance left, and stays so without becoming NaN."""
    belief = unvisited(torch.eye(1), 1)
    for _ in range(2):
        belief = belief.observe(torch.ones(1), torch.tensor([INF]))
        assert belief.triangle.tolist() == [[0.0]]


@pytest.mark.parametrize("free", [0.0, -1e-12])
def test_blocks_without_freedom_are_left_alone(free: float) -> None:
    """Rounding may leave φᵀΣφ at zero or a little below; f/(1 + f q) must not act on it."""
    belief = Belief(torch.eye(1), torch.tensor([[free], [2.0]]))
    after = belief.observe(torch.ones(1), torch.tensor([0.5, 0.5]))
    assert after.triangle.tolist() == [[free], [1.0]]


def test_a_step_is_a_dense_solve() -> None:
    """v = Λ⁻¹φ, q = φᵀΛ⁻¹φ, κ = 1/q, κ_rel = q / (φᵀ(εG₀)⁻¹φ), V κ = v/q."""
    prior, phis, information = random_problem()
    belief, phi = believed(prior, phis, information), torch.randn(5)
    step = belief.step(phi)
    v = torch.linalg.solve(precision(prior, phis, information), phi.expand(3, -1))
    q = v @ phi
    close(step.v, v)
    close(step.q, q)
    close(step.kappa, 1 / q)
    close(step.freedom, q / (phi @ torch.linalg.solve(PRECISION * prior, phi)))
    close(step.coefficient(), v / q[:, None])
    close(step.coefficient(slice(1, 3)), (v / q[:, None])[1:])
    assert torch.equal(step.phi, phi)
    assert not step.fixed


def test_freedom_is_one_before_and_falls_with_every_visit() -> None:
    basis = Fourier(3)
    belief = unvisited(basis.prior(), 1)
    contexts = torch.tensor([[0.1], [0.15], [0.6]])
    previous = 1.0
    assert belief.step(basis(contexts[0])).freedom.item() == pytest.approx(1)
    for c in contexts:
        free = belief.step(basis(torch.tensor([0.12]))).freedom.item()
        assert 0 <= free <= previous
        previous = free
        belief = belief.observe(basis(c), torch.tensor([10 * PRECISION]))
    assert previous < 0.5


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_a_block_is_fixed_where_only_rounding_is_left(dtype: torch.dtype, limit: float) -> None:
    prior, phis, _ = random_problem(size=3)
    belief = unvisited(prior, 2, dtype)
    assert belief.step(phis[0]).saturated == limit
    for phi in phis[:2]:
        belief = belief.observe(phi, torch.tensor([INF, PRECISION]))
        assert belief.step(phi).fixed
    assert not belief.step(phis[2]).fixed
    belief = belief.observe(phis[2], torch.tensor([INF, PRECISION]))
    step = belief.step(phis[3])
    assert step.fixed
    assert (step.freedom <= limit).tolist() == [True, False]
    assert step.freedom.min() >= 0
    assert step.freedom.max() <= 1


def test_one_fixed_block_among_free_ones_is_enough() -> None:
    belief = Belief(torch.eye(1), torch.tensor([[1.0], [1e-12], [1.0]]))
    assert belief.step(torch.ones(1)).fixed
    assert not Belief(torch.eye(1), torch.tensor([[1.0], [1e-11]])).step(torch.ones(1)).fixed


def test_influence_is_the_response_of_the_manifold_to_a_commit() -> None:
    """A displacement of one at φ moves w(c_j) by φ_jᵀ Σ φ / (φᵀ Σ φ), solved densely."""
    prior, phis, information = random_problem()
    phi = torch.randn(5)
    found = believed(prior, phis, information).step(phi).influence(phis)
    for b, matrix in enumerate(precision(prior, phis, information)):
        v = torch.linalg.solve(matrix, phi)
        close(found[:, b], phis @ v / (phi @ v))


def test_overshoot_is_one_on_an_untouched_point_model_and_grows_near_protected_contexts() -> None:
    flat = Bernstein(0)
    grid = flat(torch.rand(9, 1))
    one = unvisited(torch.eye(1), 1).step(flat(torch.tensor([0.4])))
    assert one.overshoot(grid) == pytest.approx(1)
    basis = Fourier(2)
    belief = unvisited(basis.gram(), 1)
    for c in (0.0, 0.025):
        belief = belief.observe(basis(torch.tensor([c])), torch.tensor([INF]))
    step = belief.step(basis(torch.tensor([0.05])))
    assert step.overshoot(basis(basis.topology.grid(100))) > 5


def test_overshoot_counts_swings_to_either_side() -> None:
    prior, phis, information = random_problem()
    phi = torch.randn(5)
    step = believed(prior, phis, information).step(phi)
    assert step.overshoot(torch.stack([phi, -3 * phi, 2 * phi])) == pytest.approx(3)


def test_overshoot_is_the_largest_influence_of_any_block() -> None:
    prior, phis, information = random_problem()
    step = believed(prior, phis, information).step(torch.randn(5))
    grid = torch.randn(7, 5)
    influence = grid @ (step.v / step.q[:, None]).mT
    assert step.overshoot(grid) == pytest.approx(float(influence.abs().max()))


@pytest.mark.parametrize("infinite", [False, True])
def test_reembedding_is_the_batch_posterior(infinite: bool) -> None:
    """M = Λ'⁻¹ Σ_j f_j φ'_jφ_jᵀ and Σ' = Λ'⁻¹ by dense solves; large f stands for infinite f."""
    smaller, larger = Fourier(1), Fourier(3)
    contexts = torch.rand(4, 1)
    f = PRECISION * (torch.rand(4, 2) + 0.1)
    dense_f = torch.full_like(f, 1e9 * PRECISION) if infinite else f
    given = torch.full_like(f, INF) if infinite else f
    phi1, phi = larger(contexts), smaller(contexts)
    mapping, after = beliefs.reembedding(unvisited(larger.prior(), 2), phi1, phi, given)
    near = 1e-4 if infinite else 1e-9
    for b, total in enumerate(precision(larger.prior(), phi1, dense_f)):
        expected = torch.linalg.solve(total, phi1.mT @ (dense_f[:, b, None] * phi))
        torch.testing.assert_close(mapping[b], expected, atol=near, rtol=near)
        close(after.covariance()[b], torch.linalg.inv(total), near)


def test_reembedding_passes_over_a_task_that_comes_back_to_where_nothing_is_free() -> None:
    """The same exact task twice is that task once."""
    smaller, larger = Fourier(1), Fourier(3)
    contexts = torch.tensor([[0.1], [0.6], [0.1]])
    start, exact = unvisited(larger.prior(), 2), torch.full((3, 2), INF)
    twice, after = beliefs.reembedding(start, larger(contexts), smaller(contexts), exact)
    first = contexts[:2]
    once, expected = beliefs.reembedding(start, larger(first), smaller(first), exact[:2])
    torch.testing.assert_close(twice, once, rtol=0, atol=1e-12)
    assert torch.equal(after.triangle, expected.triangle)


def test_triangles_are_upper_triangles_row_by_row() -> None:
    root = torch.randn(6, 4, 4)
    matrices = root + root.mT
    triangles = beliefs.packed(matrices)
    assert torch.equal(triangles, matrices[torch.ones(6, 4, 4).triu().bool()].reshape(6, 10))
    assert torch.equal(beliefs.unpacked(triangles, 4), matrices)


def test_the_covariance_of_some_blocks_is_that_part_in_float64() -> None:
    prior, phis, information = random_problem()
    belief = believed(prior, phis, information)
    assert torch.equal(belief.covariance(slice(1, 3)), belief.covariance()[1:3])
    small = unvisited(prior, 2, torch.float32)
    assert small.triangle.dtype == torch.float32
    assert small.covariance().dtype == torch.float64


def test_float32_is_float64_rounded_once_per_task() -> None:
    prior, phis, information = random_problem()
    coarse = posterior(unvisited(prior, 3, torch.float32), phis, information)
    fine = believed(prior, phis, information)
    assert coarse.triangle.dtype == torch.float32
    close(coarse.covariance(), fine.covariance(), 1e-5)
    step = coarse.step(phis[0])
    assert step.v.dtype == torch.float32
    assert step.q.dtype == torch.float64
    close(step.q, fine.step(phis[0]).q, 1e-5)


def test_more_blocks_than_are_unpacked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    prior, phis, information = random_problem(blocks=7)
    belief, phi, grid = believed(prior, phis, information), torch.randn(5), torch.randn(3, 5)
    step = belief.step(phi)
    monkeypatch.setattr(beliefs, "CHUNK", 3)
    again = believed(prior, phis, information)
    torch.testing.assert_close(again.triangle, belief.triangle)
    torch.testing.assert_close(again.step(phi).v, step.v)
    torch.testing.assert_close(again.step(phi).q, step.q)
    assert again.step(phi).overshoot(grid) == pytest.approx(step.overshoot(grid))


def test_inherited_blocks_continue_old_ones_or_begin_anew() -> None:
    prior, phis, information = random_problem()
    belief = believed(prior, phis, information)
    found = belief.inherited(torch.tensor([2, -1, 0, 0]))
    dense = torch.linalg.inv(precision(prior, phis, information))
    fresh = torch.linalg.inv(PRECISION * prior)
    close(found.covariance(), torch.stack([dense[2], fresh, dense[0], dense[0]]))
    assert torch.equal(found.prior, belief.prior)
    coarse = unvisited(prior, 1, torch.float32).inherited(torch.tensor([-1, 0]))
    assert coarse.triangle.dtype == torch.float32
    assert torch.equal(coarse.triangle[0], coarse.triangle[1])


def test_what_is_kept_is_the_triangles_and_the_prior() -> None:
    assert unvisited(torch.eye(5), 3).nbytes == 8 * (3 * 15 + 25)
    assert unvisited(torch.eye(5), 3, torch.float32).nbytes == 4 * 3 * 15 + 8 * 25
