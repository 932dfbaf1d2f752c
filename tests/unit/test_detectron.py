"""The detectron's level on returns and its power on new tasks, on small digits."""

from collections.abc import Callable

import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import binom
from torch import Tensor

from cl_manifold.contexts.detectron import Detectron
from cl_manifold.contexts.features import unpacked
from cl_manifold.errors import ContextError
from cl_manifold.streams import load_digits, permute_pixels, rotate

DIGITS = load_digits()
Change = Callable[[Tensor], Tensor]


def normalised(x: Tensor) -> Tensor:
    mean, std = DIGITS.moments
    return (x.float() / 255 - mean) / std


def turned(angle: float) -> Change:
    return lambda x: rotate(x, angle)


def shuffled(seed: int) -> Change:
    order = torch.randperm(256, generator=torch.Generator().manual_seed(seed))
    return lambda x: permute_pixels(x, order)


def alarms(detectron: Detectron, pool: Tensor, batch: int, count: int) -> int:
    """How many of `count` random batches are called new."""
    generator = torch.Generator().manual_seed(7)
    draws = [torch.randperm(len(pool), generator=generator)[:batch] for _ in range(count)]
    return sum(detectron.test(pool[rows]).harmful for rows in draws)


@pytest.fixture(scope="module")
def rotations() -> Detectron:
    detectron = Detectron()
    for k in range(3):
        x = normalised(turned(30.0 * k)(DIGITS.train_x))
        detectron.remember(torch.tensor([k / 12]), x)
    return detectron


def test_new_tasks_are_recognised(rotations: Detectron) -> None:
    for change in (turned(180.0), shuffled(1), turned(270.0), lambda x: 255 - x):
        pool = normalised(change(DIGITS.test_x))
        assert alarms(rotations, pool, batch=20, count=6) == 6


def test_returns_are_recognised_at_the_stated_level() -> None:
    """Fresh splits: on one split, batches of a small test set all share its luck."""
    false, trials = 0, 80
    pool = normalised(torch.cat([DIGITS.train_x, DIGITS.test_x]))
    for trial in range(trials):
        order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(trial))
        detectron = Detectron(features=32, seed=trial)
        detectron.remember(torch.tensor([0.0]), pool[order[:600]])
        false += detectron.test(pool[order[600:632]]).harmful
    assert false <= binom.ppf(0.99, trials, 0.05)


def test_a_return_names_its_task(rotations: Detectron) -> None:
    for k in range(3):
        shift = rotations.test(normalised(turned(30.0 * k)(DIGITS.test_x[:64])))
        assert shift.context.tolist() == pytest.approx([k / 12])
        assert 0.9 < shift.excess < 1.15


def test_the_leverage_is_the_largest_disagreement() -> None:
    detectron = Detectron(features=4, ridge=0.1)
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    detectron.remember(torch.tensor([0.0]), x)
    task = detectron.tasks[0]
    a = unpacked(task.triangle).numpy()
    a = a + 0.1 * a.trace() / 4 * torch.eye(4).numpy()
    for row in x[:3]:
        psi = detectron.features(row[None])[0].numpy()
        found = minimize(
            lambda v, psi=psi: -((v @ psi) ** 2) / (v @ a @ v), psi, options={"gtol": 1e-9}
        )
        leverage = detectron._leverage(task.triangle, row[None])
        assert float(leverage[0]) == pytest.approx(-found.fun, rel=1e-6)


def test_a_task_that_is_remembered_again_replaces_its_summary(rotations: Detectron) -> None:
    detectron = Detectron(features=16)
    x = normalised(DIGITS.train_x[:100])
    for turn in (0.0, 0.5, 0.0):
        detectron.remember(torch.tensor([turn]), x)
    assert [float(t.context) for t in detectron.tasks] == [0.5, 0.0]
    # per task: a triangle of 16, 25 leverages and a context in float64; one scale
    assert detectron.stored_floats == 2 * (16 * 17 // 2 + 2 * 25 + 2) + 1


def test_a_context_is_the_same_in_every_number_format() -> None:
    detectron, x = Detectron(features=16), normalised(DIGITS.train_x[:100])
    for context in (torch.tensor([0.1]), torch.tensor([0.1], dtype=torch.float64)):
        detectron.remember(context, x)
    assert len(detectron.tasks) == 1
    detectron.remember(torch.tensor([0.1001]), x)
    assert len(detectron.tasks) == 2


def test_the_detectron_leaves_the_global_random_numbers_alone(rotations: Detectron) -> None:
    before, x = torch.get_rng_state(), normalised(DIGITS.train_x[:100])
    Detectron(features=16).remember(torch.tensor([0.1]), x)
    rotations.test(x)
    assert torch.equal(torch.get_rng_state(), before)


def test_of_two_tasks_that_fit_alike_the_nearer_one_is_named() -> None:
    """Inputs far inside both: p is 1 for each, and the smaller mean leverage decides."""
    detectron, g = Detectron(features=16), torch.Generator().manual_seed(0)
    wide, narrow = 9 * torch.randn(400, 3, generator=g), torch.randn(400, 3, generator=g)
    for place, x in ((0.0, wide), (0.5, narrow)):
        detectron.remember(torch.tensor([place]), x)
    found = detectron.test(torch.zeros(30, 3))
    leverages = [
        float(detectron._leverage(t.triangle, torch.zeros(1, 3)) / t.null.mean())
        for t in detectron.tasks
    ]
    assert float(found.context) == float(detectron.tasks[leverages.index(min(leverages))].context)


def test_a_quarter_of_a_task_or_256_inputs_make_up_the_null() -> None:
    detectron = Detectron(features=4)
    g = torch.Generator().manual_seed(0)
    for i, count in enumerate((8, 103, 1030, 1200)):
        detectron.remember(torch.tensor([i / 8]), torch.randn(count, 3, generator=g))
    assert [len(t.null) for t in detectron.tasks] == [2, 25, 256, 256]
    # the constant feature is 1 for every input, and what is kept is a mean
    assert [float(t.triangle[0]) for t in detectron.tasks] == pytest.approx([1.0] * 4)
    assert all(torch.equal(t.null, t.null.sort().values) for t in detectron.tasks)


def test_bad_input_says_what_to_do(rotations: Detectron) -> None:
    with pytest.raises(ContextError, match="remember a finished task first"):
        Detectron().test(torch.randn(4, 3))
    with pytest.raises(ContextError, match="at least 8"):
        Detectron().remember(torch.tensor([0.0]), torch.randn(7, 3))
    with pytest.raises(ContextError, match="inputs of one size"):
        rotations.test(torch.randn(4, 3))
    with pytest.raises(ValueError, match="level"):
        Detectron(level=1.0)
    with pytest.raises(ValueError, match="ridge"):
        Detectron(ridge=0.0)
