"""Problems: where contexts are drawn, tested and embedded, and what they do to images."""

from collections import Counter

import pytest
import torch

from cl_manifold.conditioning.problems import (
    PROBLEMS,
    Problem,
    bin_centres,
    draw,
    embed,
    evaluation_contexts,
    in_range,
)
from cl_manifold.errors import ContextError
from cl_manifold.geometry import Circle, Interval, Product, Simplex

each_problem = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)


@each_problem
def test_training_draws_from_the_whole_trained_part_and_nowhere_else(problem: Problem) -> None:
    contexts = draw(problem, 2000, torch.Generator().manual_seed(0))
    assert bool(in_range(problem, contexts).all())
    for values, (low, high) in zip(contexts.T, problem.trained, strict=True):
        counts = torch.histc(values, 4, low, high)
        assert counts.sum() == 2000
        assert bool(((counts - 500).abs() < 100).all())


@each_problem
def test_some_evaluation_contexts_are_trained_and_some_are_held_out(problem: Problem) -> None:
    contexts = evaluation_contexts(problem)
    assert len(contexts.unique(dim=0)) == len(contexts)
    problem.topology.wrap(contexts)
    share = float(in_range(problem, contexts).double().mean())
    expected = 1.0
    for (low, high), (first, last) in zip(problem.ranges, problem.trained, strict=True):
        expected *= (last - first) / (high - low)
    assert share == pytest.approx(expected)


@each_problem
def test_every_manifold_lives_on_the_contexts(problem: Problem) -> None:
    contexts = evaluation_contexts(problem)
    for basis in problem.bases.values():
        assert basis(contexts).shape == (len(contexts), basis.size)
    named = {name: basis.size for name, basis in problem.bases.items() if "-K" in name}
    assert all(name == f"manifold-K{size}" for name, size in named.items())


@each_problem
def test_bins_cover_the_trained_part_evenly(problem: Problem) -> None:
    contexts = draw(problem, 3000, torch.Generator().manual_seed(1))
    distance = torch.cdist(
        embed(problem.topology, contexts), embed(problem.topology, bin_centres(problem))
    )
    counts = Counter(distance.argmin(-1).tolist())
    assert len(counts) == len(bin_centres(problem))
    assert max(counts.values()) < 1.5 * min(counts.values())


def test_embeddings() -> None:
    turned = embed(Circle(360.0), torch.tensor([[0.0], [90.0], [450.0]]))
    torch.testing.assert_close(turned, torch.tensor([[1.0, 0], [0, 1], [0, 1]]), atol=1e-6, rtol=0)
    level = embed(Interval(0.0, 2.0), torch.tensor([[0.0], [0.5], [2.0]]))
    assert level.tolist() == [[-1], [-0.5], [1]]
    both = embed(Product(Circle(360.0), Interval()), torch.tensor([180.0, 1.0]))
    torch.testing.assert_close(both, torch.tensor([-1.0, 0, 1]), atol=1e-6, rtol=0)
    with pytest.raises(TypeError, match="no embedding of a simplex"):
        embed(Simplex(2), torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize("name", ["rotation", "rotation-noise"])
def test_undoing_a_turn_gives_the_image_back(name: str) -> None:
    problem = PROBLEMS[name]
    away = torch.arange(33) - torch.tensor([[13.0], [18.0]])
    images = (-(away[0] ** 2 + away[1, :, None] ** 2) / 40).exp().expand(3, 1, 33, 33)
    contexts = torch.zeros(3, problem.topology.dim, dtype=torch.float64)
    contexts[:, 0] = torch.tensor([30.0, 120.0, 300.0])
    turned = problem.apply(images, contexts, torch.Generator())
    assert float((turned - images).abs().max()) > 0.5
    back = problem.undo(turned, contexts)
    assert float((back - images).abs().mean()) < 0.01


def test_noise_cannot_be_undone() -> None:
    with pytest.raises(ContextError, match="noise cannot be undone"):
        PROBLEMS["noise"].undo(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, dtype=torch.float64))
