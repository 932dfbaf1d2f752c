"""The return test against scipy, its level and its power; the paired difference by hand."""

import numpy as np
import pytest
import torch
from scipy import stats

from cl_manifold.contexts.statistics import assured_difference, doubt, return_test


def draw(seed: int, count: int, shift: float = 0.0) -> torch.Tensor:
    """Skewed losses, as those of a good network are: many near zero, few large."""
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.gamma(0.2, 0.6, count) + shift)


@pytest.mark.parametrize(("seed", "shift"), [(0, 0.0), (1, 0.05), (2, 0.2), (3, -0.1)])
def test_p_value_is_that_of_scipy(seed: int, shift: float) -> None:
    new, reference = draw(seed, 60, shift), draw(seed + 100, 40)
    ours = return_test(new, reference, torch.Generator().manual_seed(seed), permutations=20_000)
    theirs = stats.permutation_test(
        (new.numpy(), reference.numpy()),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        alternative="greater",
        n_resamples=20_000,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    assert ours == pytest.approx(theirs.pvalue, abs=0.015)


def test_exact_where_all_permutations_are_known() -> None:
    # of the 6 ways to choose 2 of (3, 4 | 1, 2) only one has the largest mean difference
    generator = torch.Generator().manual_seed(0)
    p = return_test(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 2.0]), generator, 50_000)
    assert p == pytest.approx(1 / 6, abs=0.01)


@pytest.mark.parametrize(("new", "reference"), [(20, 20), (16, 100), (100, 16)])
def test_level_holds_for_few_skewed_losses(new: int, reference: int) -> None:
    generator = torch.Generator().manual_seed(0)
    rounds = 1000
    false = sum(
        return_test(draw(i, new), draw(i + rounds, reference), generator, 99) <= 0.05
        for i in range(rounds)
    )
    # binomial: five standard errors above 5 %
    assert false / rounds <= 0.05 + 5 * (0.05 * 0.95 / rounds) ** 0.5


def test_power_against_another_task() -> None:
    generator = torch.Generator().manual_seed(0)
    found = sum(
        return_test(draw(i, 40, 0.3), draw(i + 500, 40), generator, 199) <= 0.05 for i in range(100)
    )
    assert found >= 95


def test_one_large_reference_loss_hides_nothing() -> None:
    new = torch.full((20,), 2.3)
    reference = torch.cat([torch.full((18,), 0.2), torch.tensor([12.0, 14.0])])
    assert float(reference.mean()) > 1.4
    generator = torch.Generator().manual_seed(0)
    assert return_test(new, reference, generator) > 0.05
    assert return_test(doubt(new), doubt(reference), generator) < 0.01


def test_equal_losses_are_a_return() -> None:
    same = torch.full((10,), 0.1)
    assert return_test(same, same[:4], torch.Generator().manual_seed(0)) == 1.0


@pytest.mark.parametrize("unit", [1e-13, 1 / 3, 1e9 / 3])
def test_ties_count_in_every_unit(unit: float) -> None:
    """Sums of small integers are exact; those of thirds are not."""
    whole = torch.arange(24.0) % 4
    exact = return_test(whole[:12], whole[12:], torch.Generator().manual_seed(0))
    assert 0.5 < exact < 0.7
    scaled = unit * whole
    found = return_test(scaled[:12], scaled[12:], torch.Generator().manual_seed(0))
    assert found == exact


def test_nothing_to_compare_is_an_error() -> None:
    for new, reference in ((0, 3), (3, 0)):
        text = f"{new} new and {reference} reference values"
        with pytest.raises(ValueError, match=text):
            return_test(torch.zeros(new), torch.zeros(reference), torch.Generator())


def test_the_least_p_is_one_in_a_thousand() -> None:
    assert return_test(torch.ones(30), torch.zeros(30), torch.Generator().manual_seed(0)) == 0.001


def test_assured_difference_is_the_lower_end_of_a_one_sided_interval() -> None:
    generator = torch.Generator().manual_seed(1)
    a = torch.rand(50, generator=generator, dtype=torch.float64)
    b = torch.rand(50, generator=generator, dtype=torch.float64) - 0.4
    d = (a - b).numpy()
    expected = d.mean() - stats.norm.ppf(0.95) * stats.sem(d)
    assert assured_difference(a, b) == pytest.approx(expected, abs=1e-4)
    assert assured_difference(b, a) < 0 < assured_difference(a, b)
    assert assured_difference(a[:1], b[:1]) == float("-inf")
    expected = d[:2].mean() - stats.norm.ppf(0.95) * stats.sem(d[:2])
    assert assured_difference(a[:2], b[:2]) == pytest.approx(expected, abs=1e-4)


def test_the_permutations_come_from_their_own_generator() -> None:
    before = torch.get_rng_state()
    found = [
        return_test(draw(0, 9), draw(1, 9), torch.Generator().manual_seed(3), 99) for _ in range(2)
    ]
    assert found[0] == found[1]
    assert torch.equal(torch.get_rng_state(), before)
