"""The belief against dense linear algebra: explicit inverses, never the same recursion again."""

import pytest
import torch
from torch import Tensor

from cl_manifold.geometry import Bernstein, Fourier
from cl_manifold.manifold import belief as beliefs
from cl_manifold.manifold.belief import PRECISION, Belief

INF = float("inf")


def random_problem(
    tasks: int = 4, size: int = 5, blocks: int = 3
) -> tuple[Belief, Tensor, Tensor, Tensor]:
    """An unvisited belief, its Λ₀ = ε G₀, φ of some tasks, and their information."""
    root = torch.randn(size, size)
    precision = root @ root.mT + 0.3 * torch.eye(size)
    start = beliefs.unvisited(precision / PRECISION, blocks)
    return start, precision, torch.randn(tasks, size), torch.rand(tasks, blocks) * 10


def dense(precision: Tensor, phis: Tensor, information: Tensor) -> Tensor:
    """Σ = (Λ₀ + Σ_j f_j φ_j φ_jᵀ)⁻¹ of every block."""
    sums = [precision + phis.mT @ (f[:, None] * phis) for f in information.mT]
    return torch.stack([torch.linalg.inv(total) for total in sums])


def test_the_prior_covariance_is_the_inverse_of_epsilon_times_the_prior() -> None:
    prior = torch.diag(torch.tensor([0.5, 4.0]))
    found = beliefs.prior_covariance(prior.float())
    torch.testing.assert_close(
        found, torch.diag(torch.tensor([2.0, 0.25])) / 1e-4, rtol=1e-6, atol=0
    )
    belief = beliefs.unvisited(prior, blocks=3)
    torch.testing.assert_close(belief.covariance(), found.expand(3, -1, -1), rtol=1e-6, atol=0)
    assert belief.prior.dtype == belief.triangle.dtype == torch.float64
    assert beliefs.unvisited(prior, 3, torch.float32).triangle.dtype == torch.float32


def test_observing_adds_up_to_the_inverse_of_the_summed_precision() -> None:
    start, precision, phis, information = random_problem()
    before = start.triangle.clone()
    found = beliefs.posterior(start, phis, information)
    torch.testing.assert_close(
        found.covariance(), dense(precision, phis, information), atol=1e-10, rtol=1e-10
    )
    assert torch.equal(start.triangle, before), "a belief is frozen"
    assert torch.equal(found.prior, start.prior)


def test_many_blocks_are_like_one_after_the_other() -> None:
    """More blocks than are unpacked at once, with a remainder."""
    blocks = 2 * beliefs.CHUNK + 3
    start, precision, phis, _ = random_problem(tasks=2, size=3, blocks=blocks)
    information = torch.rand(2, blocks)
    found = beliefs.posterior(start, phis, information)
    some = torch.tensor([0, beliefs.CHUNK - 1, beliefs.CHUNK, 2 * beliefs.CHUNK, blocks - 1])
    expected = dense(precision, phis, information[:, some])
    torch.testing.assert_close(found.covariance()[some], expected, atol=1e-9, rtol=1e-9)
    step, phi = found.step(phis[0]), phis[0]
    torch.testing.assert_close(step.v[some], expected @ phi, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(step.q[some], (expected @ phi) @ phi, atol=1e-9, rtol=1e-9)
    swing = step.v @ phis[1] / step.q
    assert step.overshoot(phis[1:]) == pytest.approx(float(swing.abs().max()))
    loud = int(swing.abs().argmax())
    # the loudest block counts wherever it is
    assert step.overshoot(phis[1:]) == pytest.approx(abs(float(swing[loud])))


def test_a_step_is_the_response_of_the_control_points_to_a_displacement() -> None:
    """The most probable control points with φᵀP = 1: v κ of the constrained least squares problem

    min PᵀΛP  with  φᵀP = 1,   solved by its Lagrangian.
    """
    start, precision, phis, information = random_problem()
    belief = beliefs.posterior(start, phis, information)
    phi, others = torch.randn(5), torch.randn(6, 5)
    step = belief.step(phi)
    for b, f in enumerate(information.mT):
        total = precision + phis.mT @ (f[:, None] * phis)
        system = torch.zeros(6, 6)
        system[:5, :5], system[:5, 5], system[5, :5] = total, phi, phi
        solution = torch.linalg.solve(system, torch.eye(6)[5])[:5]
        torch.testing.assert_close(step.coefficient()[b], solution, atol=1e-9, rtol=1e-9)
        found = step.coefficient(slice(b, b + 1))
        torch.testing.assert_close(found[0], solution, atol=1e-9, rtol=1e-9)
        influence = step.influence(others)[:, b]
        torch.testing.assert_close(influence, others @ solution, atol=1e-9, rtol=1e-9)
        free = phi @ torch.linalg.inv(total) @ phi
        assert float(step.q[b]) == pytest.approx(float(free))
        assert float(step.kappa[b]) == pytest.approx(1 / float(free))
        prior = phi @ torch.linalg.inv(precision) @ phi
        assert float(step.freedom[b]) == pytest.approx(float(free / prior))


def test_infinite_information_is_kernel_interpolation() -> None:
    """Σ = Σ₀ − Σ₀Φ(ΦᵀΣ₀Φ)⁻¹ΦᵀΣ₀: nothing is left at visited contexts."""
    start, precision, phis, _ = random_problem(blocks=1)
    exact = beliefs.posterior(start, phis, torch.full((4, 1), INF)).covariance()[0]
    prior = torch.linalg.inv(precision)
    kernel = phis @ prior @ phis.mT
    closed = prior - prior @ phis.mT @ torch.linalg.solve(kernel, phis @ prior)
    torch.testing.assert_close(exact, closed, atol=1e-9, rtol=1e-9)
    assert (phis @ exact @ phis.mT).abs().max() < 1e-12 * kernel.abs().max()


def test_large_finite_information_tends_to_infinite() -> None:
    start, _, phis, _ = random_problem(tasks=2, blocks=1)
    near = beliefs.posterior(start, phis, torch.full((2, 1), 1e10))
    limit = beliefs.posterior(start, phis, torch.full((2, 1), INF))
    torch.testing.assert_close(near.triangle, limit.triangle, atol=1e-6, rtol=1e-6)


def test_no_information_changes_nothing() -> None:
    start, _, phis, _ = random_problem()
    same = beliefs.posterior(start, phis, torch.zeros(4, 3))
    assert torch.equal(same.triangle, start.triangle)


def test_a_context_that_is_held_exactly_takes_in_nothing_more() -> None:
    """q = 0 up to rounding, of either sign: what is observed again leaves Σ as it is."""
    start = beliefs.unvisited(torch.eye(2), 1)
    phi = torch.tensor([1.0, 0.0])
    once = start.observe(phi, torch.tensor([INF]))
    assert torch.equal(once.covariance()[0], torch.diag(torch.tensor([0.0, 1 / PRECISION])))
    for f in (INF, 3.0):
        assert torch.equal(once.observe(phi, torch.tensor([f])).triangle, once.triangle)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_context_is_fixed_once_as_many_tasks_as_functions_are_exact(dtype: torch.dtype) -> None:
    basis = Fourier(1)
    belief = beliefs.unvisited(basis.prior(), 2, dtype)
    here = basis(torch.tensor([0.77]))
    for c in (0.0, 0.3, 0.6):
        assert not belief.step(here).fixed
        belief = belief.observe(basis(torch.tensor([c])), torch.tensor([INF, INF]))
    assert belief.step(here).fixed
    assert not beliefs.unvisited(basis.prior(), 2, dtype).step(here).fixed


def test_one_block_without_freedom_is_enough_to_be_fixed() -> None:
    belief = beliefs.unvisited(torch.eye(1), 2)
    half = belief.observe(torch.ones(1), torch.tensor([0.0, INF]))
    step = half.step(torch.ones(1))
    assert step.fixed
    torch.testing.assert_close(step.freedom, torch.tensor([1.0, 0.0]))


def test_freedom_is_one_before_and_falls_with_every_visit() -> None:
    basis = Fourier(3)
    belief = beliefs.unvisited(basis.prior(), 1)
    here = basis(torch.tensor([0.12]))
    previous = 1.0
    for c in (0.1, 0.15, 0.6):
        free = float(belief.step(here).freedom)
        assert 0 <= free <= previous
        previous = free
        belief = belief.observe(basis(torch.tensor([c])), torch.tensor([1e-3]))
    assert previous < 0.5
    fresh = beliefs.unvisited(basis.prior(), 1).step(here)
    assert float(fresh.freedom) == pytest.approx(1.0)


def test_overshoot_is_one_on_an_untouched_point_model_and_grows_near_protected_contexts() -> None:
    flat = Bernstein(0)
    grid = flat(torch.rand(9, 1))
    untouched = beliefs.unvisited(torch.eye(1), 1).step(flat(torch.tensor([0.4])))
    assert untouched.overshoot(grid) == pytest.approx(1)
    basis = Fourier(2)
    belief = beliefs.unvisited(basis.gram(), 1)
    for c in (0.0, 0.025):
        belief = belief.observe(basis(torch.tensor([c])), torch.tensor([INF]))
    step = belief.step(basis(torch.tensor([0.05])))
    assert step.overshoot(basis(basis.topology.grid(100))) > 5


def test_overshoot_counts_swings_to_either_side() -> None:
    start, _, phis, information = random_problem()
    step = beliefs.posterior(start, phis, information).step(phis[0])
    grid = torch.stack([phis[0], -3 * phis[0], 2 * phis[0]])
    assert step.overshoot(grid) == pytest.approx(3.0)


@pytest.mark.parametrize("infinite", [False, True])
def test_reembedding_is_the_batch_posterior(infinite: bool) -> None:
    """M = Λ'⁻¹ Σ_j f_j φ'_jφ_jᵀ and Σ' = Λ'⁻¹ by dense solves; large f stands for infinite f."""
    smaller, larger = Fourier(1), Fourier(3)
    contexts = torch.rand(4, 1)
    f = torch.rand(4, 2) + 0.1
    dense_f = torch.full_like(f, 1e9) if infinite else f
    prior = 1e-2 * larger.prior()
    start = beliefs.unvisited(prior / PRECISION, 2)
    given = torch.full_like(f, INF) if infinite else f
    mapping, found = beliefs.reembedding(start, larger(contexts), smaller(contexts), given)
    near = 1e-4 if infinite else 1e-9
    for b in range(2):
        weighted = dense_f[:, b, None]
        total = prior + larger(contexts).mT @ (weighted * larger(contexts))
        expected = torch.linalg.solve(total, larger(contexts).mT @ (weighted * smaller(contexts)))
        torch.testing.assert_close(mapping[b], expected, atol=near, rtol=near)
        inverse = torch.linalg.inv(total)
        torch.testing.assert_close(found.covariance()[b], inverse, atol=near, rtol=near)


def test_exact_tasks_beyond_the_larger_basis_are_passed_over_in_reembedding() -> None:
    """A third exact task on two functions has no say: the map is that of the first two."""
    larger, smaller = torch.randn(3, 2), torch.randn(3, 2)
    start = beliefs.unvisited(torch.eye(2), 1)
    exact = torch.full((3, 1), INF)
    mapping, found = beliefs.reembedding(start, larger, smaller, exact)
    torch.testing.assert_close(mapping[0], torch.linalg.solve(larger[:2], smaller[:2]))
    assert found.covariance().abs().max() < 1e-6 / PRECISION
    # in float32 too, where what is left of v is rounding that must not be added
    single = beliefs.unvisited(torch.eye(2), 1, torch.float32)
    mapping, _ = beliefs.reembedding(single, larger, smaller, exact)
    torch.testing.assert_close(
        mapping[0], torch.linalg.solve(larger[:2], smaller[:2]), atol=1e-5, rtol=0
    )


def test_single_precision_passes_over_exact_tasks_that_only_rounding_would_let_in() -> None:
    """In float32 what is left of a fixed context is rounding, far above 1e-12 of the prior."""
    torch.set_default_dtype(torch.float32)
    larger = torch.randn(8, 3).double()
    start = beliefs.unvisited(torch.eye(3), 1, torch.float32)
    exact = torch.full((8, 1), INF)
    mapping, found = beliefs.reembedding(start, larger, larger, exact)
    torch.testing.assert_close(mapping[0], torch.eye(3).double(), atol=1e-4, rtol=0)
    assert (start.step(larger[0]).saturated, mapping.dtype) == (1e-5, torch.float64)
    assert beliefs.unvisited(torch.eye(3), 1).step(larger[0]).saturated == 1e-12
    assert start.step(larger[0]).q.dtype == torch.float64
    assert found.covariance().abs().max() < 1e-4 / PRECISION
    # finite information counts however little freedom is left
    firm = torch.full((8, 1), 30.0)
    finite, _ = beliefs.reembedding(start, larger, torch.ones(8, 1).double(), firm)
    expected = torch.linalg.solve(larger.mT @ larger, larger.mT @ torch.ones(8, 1).double())
    torch.testing.assert_close(finite[0], expected, atol=0.05, rtol=0.05)


def test_packing_keeps_the_upper_triangle_row_by_row() -> None:
    matrices = torch.randn(4, 3, 3)
    matrices = matrices + matrices.mT
    rows = [[m[0, 0], m[0, 1], m[0, 2], m[1, 1], m[1, 2], m[2, 2]] for m in matrices]
    triangles = torch.tensor(rows)
    assert torch.equal(beliefs.packed(matrices), triangles)
    assert torch.equal(beliefs.unpacked(triangles, 3), matrices)


def test_blocks_inherit_from_where_they_come_and_new_ones_are_unvisited() -> None:
    start, _, phis, information = random_problem()
    belief = beliefs.posterior(start, phis, information)
    found = belief.inherited(torch.tensor([2, -1, 0, 0, -1]))
    old, prior = belief.covariance(), start.covariance()[0]
    expected = torch.stack([old[2], prior, old[0], old[0], prior])
    torch.testing.assert_close(found.covariance(), expected)
    assert found.blocks == 5
    assert belief.blocks == 3


@pytest.mark.parametrize(("dtype", "size"), [(torch.float64, 8), (torch.float32, 4)])
def test_bytes_are_those_of_triangles_and_prior(dtype: torch.dtype, size: int) -> None:
    belief = beliefs.unvisited(torch.eye(4), 7, dtype)
    assert belief.nbytes == 7 * 10 * size + 16 * 8


def test_float32_triangles_are_computed_in_float64() -> None:
    """The result is the float64 one, rounded once."""
    _, precision, phis, information = random_problem(tasks=1)
    single = beliefs.unvisited(precision / PRECISION, 3, torch.float32)
    found = single.observe(phis[0].float(), information[0].float())
    assert found.triangle.dtype == torch.float32
    wide = beliefs.unvisited(precision / PRECISION, 3)
    wide = Belief(wide.prior, single.triangle.double())
    expected = wide.observe(phis[0].float().double(), information[0].float().double())
    assert torch.equal(found.triangle, expected.triangle.float())


def test_rounding_never_makes_a_price_negative() -> None:
    """Twelve orders of magnitude of information, stored in float32: Σφ is rounding in places."""
    torch.manual_seed(0)
    belief = beliefs.unvisited(torch.eye(3), 4096, torch.float32)
    phis = torch.nn.functional.normalize(torch.randn(5, 3, dtype=torch.float64), dim=-1)
    for phi in phis:
        belief = belief.observe(phi, 10 ** (12 * torch.rand(4096) - 4))
    stored = [(belief.covariance() @ phi).float().double() @ phi for phi in phis]
    assert all(bool((q < 0).any()) for q in stored), "else this test shows nothing"
    steps = [belief.step(phi) for phi in phis]
    assert all(bool((step.kappa > 0).all() and step.kappa.isfinite().all()) for step in steps)
    assert all(bool((step.freedom < step.saturated).any()) for step in steps)
