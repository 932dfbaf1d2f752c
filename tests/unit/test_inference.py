"""Regions, and contexts inferred from unlabelled inputs."""

from collections.abc import Callable
from math import pi
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cl_manifold.contexts import inference as inference_module
from cl_manifold.contexts.encoder import RandomFeatureEncoder
from cl_manifold.contexts.inference import (
    ContextInference,
    InferenceSettings,
    Score,
    energy,
    entropy,
)
from cl_manifold.contexts.region import Region, region_of
from cl_manifold.contexts.sweep import logits_at, refine
from cl_manifold.errors import ContextError
from cl_manifold.geometry import Circle, Fourier, Product, TensorProduct, Vertices
from cl_manifold.manifold.belief import PRECISION
from cl_manifold.manifold.weight_manifold import WeightManifold
from tests.networks import fit, random_information, shake, small_mlp


def visited(turns: Tensor, information: float, harmonics: int = 3) -> WeightManifold:
    """After tasks of that information f each."""
    exact = information == torch.inf
    strength = None if exact else information / PRECISION
    manifold = WeightManifold(small_mlp(), Fourier(harmonics), strength=strength)
    for turn in turns:
        shake(manifold, turn.reshape(1).double(), information if exact else 1.0)
    return manifold


@pytest.mark.parametrize("information", [3e-4, 0.03])
def test_the_region_of_a_half_circle_excludes_the_other_half(information: float) -> None:
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        turns = torch.rand(20, generator=generator) / 2
        region = region_of(visited(turns, information))
        inside = torch.linspace(float(turns.min()), float(turns.max()), 40)[:, None].double()
        assert bool(region.contains(inside).all())
        outside = torch.linspace(0.65, 0.85, 20)[:, None].double()
        assert not bool(region.contains(outside).any())


@pytest.mark.parametrize("information", [1e-6, 3e-4, 0.03])
def test_the_region_of_a_full_circle_is_all_of_it(information: float) -> None:
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    region = region_of(visited(order / 20, information))
    assert bool(region.contains(Circle().grid(200)).all())


def test_exact_protection_has_a_region_too() -> None:
    region = region_of(visited(torch.arange(10) / 20, torch.inf, harmonics=20))
    between = (torch.arange(9) + 0.5)[:, None].double() / 20
    assert bool(region.contains(between).all())
    assert not bool(region.contains(torch.linspace(0.6, 0.9, 20)[:, None].double()).any())


@pytest.mark.parametrize("information", [1e-6, 0.03, torch.inf])
def test_the_region_ends_at_twice_the_variance_of_visited_contexts_or_a_fifth_of_the_priors(
    information: float,
) -> None:
    manifold = visited(torch.tensor([0.1, 0.3, 0.35]), information)
    region, basis = region_of(manifold), manifold.basis
    phi, fine = basis(manifold.atlas.contexts()), basis(Circle().grid(1000))
    q = torch.einsum("nk,bkl,nl->bn", phi, manifold.belief.covariance().double(), phi)
    largest = float((manifold.layout.sizes() @ q / manifold.layout.size).max())
    around = fine - fine.mean(0)
    varies = float(torch.einsum("nk,kl,nl->n", around, manifold.belief.prior, around).mean())
    assert region.bound == pytest.approx(max(2 * largest, 0.2 * varies), rel=1e-3)
    assert (2 * largest > 0.2 * varies) == (information == 1e-6)


def test_no_candidate_is_likely_where_none_is_inside() -> None:
    region = region_of(visited(torch.rand(20) / 10, 0.03))
    outside = torch.tensor([[0.5], [0.6]]).double()
    assert region.log_prior(outside).tolist() == [-torch.inf, -torch.inf]


@pytest.mark.parametrize("information", [1e-9, 1.0])
def test_the_region_of_a_simplex_is_spanned_by_visited_tasks(information: float) -> None:
    manifold = WeightManifold(small_mlp(), Vertices(3), strength=information / PRECISION)
    with pytest.raises(ContextError, match="before the first task"):
        region_of(manifold)
    eye = torch.eye(3, dtype=torch.float64)
    shake(manifold, eye[0], 1.0)
    shake(manifold, eye[2], 1.0)
    contexts = torch.stack([*eye, eye[[0, 2]].mean(0), eye[[0, 1]].mean(0)])
    assert region_of(manifold).contains(contexts).tolist() == [True, False, True, True, False]
    prior = region_of(manifold).log_prior(contexts).exp()
    torch.testing.assert_close(prior, torch.tensor([1, 0, 1, 1, 0]).double() / 3)


def test_the_region_averages_blocks_by_their_weights() -> None:
    manifold = WeightManifold(small_mlp(), Fourier(2), blocks="row")
    for turn in (0.1, 0.4, 0.6):
        information = random_information(manifold).double()
        shake(manifold, torch.tensor([turn]).double(), information)
    region, sizes = region_of(manifold), manifold.layout.sizes()
    for turn in (0.2, 0.9):
        phi = manifold.phi(torch.tensor([turn]).double())
        q = sum(
            s * (phi @ c @ phi) for s, c in zip(sizes, manifold.belief.covariance(), strict=True)
        )
        mean = phi @ region.covariance @ phi
        torch.testing.assert_close(mean, torch.as_tensor(q) / manifold.layout.size)


def test_a_product_with_a_simplex_excludes_tasks_never_visited() -> None:
    manifold = WeightManifold(small_mlp(), TensorProduct(Fourier(1), Vertices(2)))
    for turn in (0.0, 0.3, 0.6):
        shake(manifold, torch.tensor([turn, 1.0, 0.0]).double(), 1.0)
    contexts = torch.tensor([[0.45, 1.0, 0.0], [0.45, 0.0, 1.0], [0.3, 0.5, 0.5]]).double()
    assert isinstance(manifold.basis.topology, Product)
    assert region_of(manifold).contains(contexts).tolist() == [True, False, False]


# -- a small problem: two classes on opposite sides, turned by the context ------------------------


def turned(turn: float, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Class y lies at the angle 2π·turn + πy/2, so that all angles look alike but one."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (count,), generator=generator)
    angle = 2 * pi * turn + pi / 2 * y
    x = torch.stack([angle.cos(), angle.sin()], 1)
    x = torch.nn.functional.pad(x, (0, 4)) + 0.25 * torch.randn(count, 6, generator=generator)
    return x, y


@pytest.fixture(scope="module")
def circle() -> WeightManifold:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 3))
    manifold = WeightManifold(net, Fourier(3), strength=500.0)
    for k in torch.randperm(8, generator=torch.Generator().manual_seed(0)).tolist():
        context = torch.tensor([k / 8], dtype=torch.float64)
        manifold.check_out(context)
        fit(net, *turned(k / 8, 400, k), steps=60, rate=0.02)
        manifold.commit(1.0)
    return manifold


@pytest.fixture(scope="module")
def encoder() -> RandomFeatureEncoder:
    found = RandomFeatureEncoder(Circle(), features=200)
    for k in range(8):
        found.learn(*turned(k / 8, 400, k), torch.tensor([k / 8], dtype=torch.float64))
    return found


def away(contexts: Tensor, turn: float) -> Tensor:
    there = torch.full_like(contexts, turn)
    return Circle().distance(contexts, there)


def test_a_batch_finds_its_context(circle: WeightManifold) -> None:
    inference = ContextInference(settings=InferenceSettings(grid=36))
    inference.prepare(circle)
    for turn in (0.125, 0.5, 0.81):
        x, y = turned(turn, 128, 50)
        found = inference.predict((x,), batch=64)
        assert float(away(found.contexts, turn).max()) < 0.08
        assert found.contexts[:64].unique(dim=0).shape == (1, 1)
        given = logits_at(circle, torch.tensor([[turn]]).double(), (x,))[0].argmax(-1) == y
        right = found.logits.argmax(-1) == y
        assert float(right.float().mean()) > float(given.float().mean()) - 0.05


def test_the_encoder_finds_the_context_of_single_inputs(
    circle: WeightManifold, encoder: RandomFeatureEncoder
) -> None:
    x = torch.cat([turned(k / 8 + 1 / 16, 100, 70 + k)[0] for k in range(8)])
    y = torch.cat([turned(k / 8 + 1 / 16, 100, 70 + k)[1] for k in range(8)])
    accuracies: list[float] = []
    for helper in (None, encoder):
        inference = ContextInference(helper, InferenceSettings(grid=36))
        inference.prepare(circle)
        found = inference.predict((x,), batch=1)
        assert torch.equal(found.contexts, inference.samples((x,)))
        accuracies.append(float((found.logits.argmax(-1) == y).float().mean()))
    assert accuracies[1] >= accuracies[0]


def test_logits_are_those_of_the_inferred_contexts(
    circle: WeightManifold, encoder: RandomFeatureEncoder
) -> None:
    inference = ContextInference(encoder, InferenceSettings(grid=12))
    inference.prepare(circle)
    x, _ = turned(0.3, 20, 9)
    for batch in (1, 7):
        found = inference.predict((x,), batch)
        for context, logits, row in zip(found.contexts, found.logits, x, strict=True):
            expected = logits_at(circle, context[None], (row[None],))[0, 0]
            torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "score"), [("entropy", entropy), ("energy", energy)])
def test_single_inputs_take_the_best_of_all_candidates(
    circle: WeightManifold, name: Score, score: Callable[[Tensor], Tensor]
) -> None:
    inference = ContextInference(settings=InferenceSettings(score=name, grid=12))
    inference.prepare(circle)
    x, _ = turned(0.3, 20, 9)
    answers = logits_at(circle, inference.candidates, (x,))
    best = score(answers).argmin(0)
    assert torch.equal(inference.samples((x,)), inference.candidates[best])


def test_a_batch_weighs_prior_encoder_and_entropy(
    circle: WeightManifold, encoder: RandomFeatureEncoder
) -> None:
    settings = InferenceSettings(grid=12, weight=0.7, shortlist=100, steps=0)
    inference = ContextInference(encoder, settings)
    inference.prepare(circle)
    x, _ = turned(0.3, 20, 9)
    seen = encoder.log_likelihood(encoder.read(x), inference.candidates).sum(0)
    total = seen - 0.7 * entropy(logits_at(circle, inference.candidates, (x,))).sum(1)
    assert torch.equal(inference.batch((x,)), inference.candidates[total.argmax()])


def test_single_inputs_meet_only_the_candidates_on_their_shortlist(
    circle: WeightManifold, encoder: RandomFeatureEncoder
) -> None:
    inference = ContextInference(encoder, InferenceSettings(grid=12, shortlist=1, weight=100.0))
    inference.prepare(circle)
    x, _ = turned(0.3, 20, 9)
    likely = encoder.log_likelihood(encoder.read(x), inference.candidates).argmax(1)
    assert torch.equal(inference.samples((x,)), inference.candidates[likely])


def test_a_batch_is_refined_off_the_grid_and_not_on_a_simplex(circle: WeightManifold) -> None:
    x, _ = turned(0.3, 64, 9)
    found: list[Tensor] = []
    for steps in (0, 4):
        inference = ContextInference(settings=InferenceSettings(grid=12, steps=steps))
        inference.prepare(circle)
        found.append(inference.batch((x,)))
        at_candidate = (inference.candidates == found[-1]).all(1).any()
        assert bool(at_candidate) == (steps == 0)
    doubts = [float(entropy(logits_at(circle, c[None], (x,))).mean()) for c in found]
    assert doubts[1] < doubts[0]
    simplex = WeightManifold(small_mlp(), Vertices(2))
    for vertex in torch.eye(2, dtype=torch.float64):
        shake(simplex, vertex, 1.0)
    inference = ContextInference(settings=InferenceSettings(grid=12, steps=4))
    inference.prepare(simplex)
    assert torch.equal(inference.candidates, torch.eye(2, dtype=torch.float64))
    assert float(inference.batch((torch.randn(5, 6),)).max()) == 1.0


@pytest.mark.parametrize("helped", [False, True])
def test_the_descent_minds_region_and_encoder(
    circle: WeightManifold,
    encoder: RandomFeatureEncoder,
    helped: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: dict[str, Any] = {}

    def remember(
        manifold: WeightManifold, objective: Any, start: Tensor, *_: Any, **how: Any
    ) -> Any:
        seen.update(how)
        return start

    monkeypatch.setattr(inference_module, "refine", remember)
    inference = ContextInference(encoder if helped else None, InferenceSettings(grid=12, steps=3))
    inference.prepare(circle)
    x, _ = turned(0.3, 20, 9)
    inference.batch((x,))
    assert (seen["rate"], seen["steps"]) == (pytest.approx(pi / 12), 3)
    place = torch.tensor([0.3], dtype=torch.float64)
    likelihood = encoder.log_likelihood(encoder.read(x), place[None]).mean()
    expected = -float(likelihood) if helped else 0.0
    assert float(seen["penalty"](place)) == pytest.approx(expected, rel=1e-5)


def test_without_a_grid_the_descent_starts_with_half_the_circle(
    circle: WeightManifold, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []

    def remember(
        manifold: WeightManifold, objective: Any, start: Tensor, *_: Any, **how: Any
    ) -> Any:
        rates.append(how["rate"] * circle.basis.topology.scale[0])
        return start

    monkeypatch.setattr(inference_module, "refine", remember)
    inference = ContextInference(settings=InferenceSettings(grid=0))
    inference.prepare(circle)
    inference.batch((turned(0.3, 20, 9)[0],))
    assert rates == pytest.approx([0.5])


def test_candidates_inside_share_the_prior_equally() -> None:
    region = Region(lambda c: c, torch.eye(1).double(), 1.0, torch.tensor([False]))
    found = region.log_prior(torch.tensor([[0.5], [0.9], [2.0]]).double())
    assert found.exp().tolist() == pytest.approx([0.5, 0.5, 0.0])


def test_the_descent_stays_inside_the_region() -> None:
    manifold = visited(torch.tensor([0.5]), 0.03)
    inference = ContextInference(settings=InferenceSettings(grid=6, steps=10))
    inference.prepare(manifold)
    region, left = region_of(manifold), 0

    def disorder(logits: Tensor) -> Tensor:
        return entropy(logits).mean()

    for seed in range(12):
        x = torch.randn(16, 6, generator=torch.Generator().manual_seed(seed))
        assert bool(region.contains(inference.batch((x,))[None]))
        best = inference.candidates[
            entropy(logits_at(manifold, inference.candidates, (x,))).mean(1).argmin()
        ]
        free = refine(manifold, disorder, best, (x,), steps=10, rate=pi / 6)
        left += not bool(region.contains(free[None]))
    assert left > 0


def test_weights_too_large_to_keep_are_formed_each_time(
    circle: WeightManifold, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, _ = turned(0.3, 20, 9)
    inference = ContextInference(settings=InferenceSettings(grid=12))
    inference.prepare(circle)
    kept = inference.batch((x,))
    monkeypatch.setattr("cl_manifold.contexts.inference.CACHED_FLOATS", 0)
    inference.prepare(circle)
    torch.testing.assert_close(inference.batch((x,)), kept, rtol=0, atol=1e-6)


def test_tasks_of_a_simplex_are_told_apart_by_their_classes() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 6))
    manifold = WeightManifold(net, Vertices(3))
    encoder = RandomFeatureEncoder(manifold.basis.topology, features=100)
    centres = 2 * torch.randn(6, 6)
    inputs: list[Tensor] = []
    for k, context in enumerate(torch.eye(3, dtype=torch.float64)):
        y = 2 * k + torch.arange(200) % 2
        x = centres[y] + 0.5 * torch.randn(200, 6)
        manifold.check_out(context)
        fit(net, x, y)
        manifold.commit(1.0)
        encoder.learn(x, y, context)
        inputs.append(centres[y] + 0.5 * torch.randn(200, 6))
    inference = ContextInference(encoder)
    inference.prepare(manifold)
    assert inference.candidates.tolist() == torch.eye(3).tolist()
    found = torch.cat([inference.samples((x,)) for x in inputs]).argmax(1)
    assert float((found == torch.arange(3).repeat_interleave(200)).float().mean()) > 0.95


def test_scores() -> None:
    logits = torch.tensor([[2.0, 1.0, -1.0], [0.0, 0.0, 0.0]])
    expected = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(entropy(logits), expected)
    torch.testing.assert_close(energy(logits), -logits.exp().sum(1).log())


def test_bad_settings_and_calls_say_what_to_do(circle: WeightManifold) -> None:
    with pytest.raises(ContextError, match=r"call prepare"):
        ContextInference().batch((torch.randn(2, 6),))
    inference = ContextInference()
    inference.prepare(circle)
    with pytest.raises(ValueError, match="batch"):
        inference.predict((torch.randn(2, 6),), 0)
    with pytest.raises(ValueError, match="shortlist"):
        InferenceSettings(shortlist=0)
