"""Evidence before training, recomputed with the network checked out at every place."""

import copy

import pytest
import torch
from torch import Tensor, nn

from cl_manifold.contexts import InferredContext
from cl_manifold.contexts.statistics import doubt, return_test
from cl_manifold.contexts.sweep import refine
from cl_manifold.geometry import Basis, Fourier, Vertices
from cl_manifold.manifold.atlas import Reference
from cl_manifold.manifold.weight_manifold import WeightManifold
from cl_manifold.strategies.manifold.support import Support
from cl_manifold.strategies.manifold.zero_shot import zero_shot
from tests.networks import small_mlp

PLACES = torch.tensor([[0.1], [0.45], [0.8]], dtype=torch.float64)
X = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
SEARCH = InferredContext(grid=9, search=40, refinements=3)


def visited(basis: Basis, places: Tensor) -> WeightManifold:
    """A task at each place, with four held-out losses around its number."""
    torch.manual_seed(1)
    manifold = WeightManifold(small_mlp(), basis)
    for i, place in enumerate(places):
        manifold.check_out(place)
        with torch.no_grad():
            for p in manifold.module.parameters():
                p.copy_(torch.randn_like(p))
        manifold.commit(1.0)
        losses = 0.1 * (i + 1) + torch.tensor([0.0, 0.02, 0.04, 0.5])
        manifold.atlas.remember(Reference(place, losses, 100))
    return manifold


def outputs(manifold: WeightManifold, place: Tensor, x: Tensor = X) -> Tensor:
    other = copy.deepcopy(manifold)
    other.check_out(place)
    return other.module.eval()(x).detach()


def labelled_by(manifold: WeightManifold, place: Tensor) -> Support:
    """Labels that the network itself gives at a place, a tenth of them wrong."""
    y = outputs(manifold, place).argmax(1)
    y[::10] = (y[::10] + 1) % 3
    return Support((X,), y, 240, 3)


def mean_loss(manifold: WeightManifold, place: Tensor, support: Support, most: int = 60) -> Tensor:
    logits = outputs(manifold, place)[:most]
    return -logits.log_softmax(1)[torch.arange(most), support.y[:most]].mean()


def gen() -> torch.Generator:
    return torch.Generator().manual_seed(4)


@pytest.mark.parametrize("place", [0.45, 0.6])
@pytest.mark.parametrize("can_grow", [True, False])
def test_evidence_at_a_given_context(place: float, can_grow: bool) -> None:
    manifold = visited(Fourier(1), PLACES)
    context = torch.tensor([place], dtype=torch.float64)
    support = labelled_by(manifold, torch.tensor([0.7]).double())
    found = zero_shot(manifold, support, SEARCH, context, can_grow, gen())
    logits = outputs(manifold, context)
    losses = nn.functional.cross_entropy(logits, support.y, reduction="none")
    # where no task was finished, it is compared with the one whose coordinate fits best
    best = min(range(3), key=lambda i: float(mean_loss(manifold, PLACES[i], support)))
    assert best == 2
    reference = manifold.atlas.references[1 if place == 0.45 else best].losses
    assert found.context == (place,)
    assert found.visited == (place == 0.45)
    assert found.samples == 60
    assert found.zero_shot_loss == pytest.approx(float(losses.mean()), rel=1e-5)
    right = int((logits.argmax(1) == support.y).sum())
    assert found.zero_shot_score == pytest.approx(right / 60)
    assert 0.2 < found.zero_shot_score < 1
    assert found.reference_loss == pytest.approx(float(reference.mean()))
    assert found.p_value == return_test(doubt(losses), doubt(reference), gen())
    assert found.plasticity == manifold.plasticity(context)
    assert found.overshoot == manifold.overshoot(context)
    assert (found.can_grow, found.drift, found.gain) == (can_grow, None, None)


def test_the_context_of_lowest_loss_is_searched_on_a_part_of_the_support() -> None:
    manifold = visited(Fourier(1), PLACES)
    support = labelled_by(manifold, torch.tensor([0.625]).double())
    seen: list[int] = []
    hook = manifold.module.register_forward_hook(lambda m, i, o: seen.append(len(i[0])))
    found = zero_shot(manifold, support, SEARCH, None, True, gen())
    hook.remove()
    candidates = torch.cat([PLACES, torch.arange(9).double()[:, None] / 9])
    start = min(candidates, key=lambda c: float(mean_loss(manifold, c, support, 40)))

    def loss(logits: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, support.y[:40])

    expected = refine(manifold, loss, start, (X[:40],), steps=3, rate=0.5 / 9)
    assert not bool((candidates == expected).any())
    assert found.context == tuple(expected.tolist())
    assert not found.visited
    # three visited, twelve candidates, three steps after the first, and the place that was found
    assert (seen.count(60), seen.count(40)) == (3 + 1 + 1, 12 + 1 + 3)
    assert len(seen) == 21


def test_a_visited_context_is_left_only_for_one_that_is_surely_better() -> None:
    manifold = visited(Fourier(1), PLACES)
    support = labelled_by(manifold, PLACES[1])
    found = zero_shot(manifold, support, SEARCH, None, True, gen())
    assert found.context == (0.45,)
    assert found.visited
    assert found.reference_loss == pytest.approx(0.34)


def test_on_a_simplex_a_mixture_is_found_and_stays_a_midpoint() -> None:
    manifold = visited(Vertices(3), torch.eye(3, dtype=torch.float64))
    middle = torch.tensor([0.5, 0.0, 0.5], dtype=torch.float64)
    support = labelled_by(manifold, middle)
    found = zero_shot(manifold, support, SEARCH, None, True, gen())
    losses = [float(mean_loss(manifold, c, support)) for c in (middle, *torch.eye(3).double())]
    assert min(losses) == losses[0]
    assert found.context == (0.5, 0.0, 0.5)
    assert not found.visited
