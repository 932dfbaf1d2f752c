"""Likelihoods against torch.distributions, scipy and closed forms."""

from functools import partial
from typing import Any, final

import pytest
import scipy.stats
import torch
from torch import Tensor, distributions, nn
from torch.nn import functional as F

from cl_manifold.errors import IncompatibleError
from cl_manifold.manifold.likelihood import (
    Bernoulli,
    Categorical,
    Gaussian,
    Likelihood,
    Poisson,
    Projections,
    likelihood_of,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- which one --------------------------------------------------------------------------------


class Wrapping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.criterion = nn.CrossEntropyLoss()


class Subclass(nn.CrossEntropyLoss):
    pass


@final
class Stating:
    likelihood = Poisson(False)


@final
class StatingSomethingElse:
    """As the marginal likelihoods of gpytorch do."""

    likelihood = "a likelihood of another library"


@final
class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.sum()


KINDS: list[tuple[Any, type[Likelihood]]] = [
    (nn.CrossEntropyLoss(label_smoothing=0.1), Categorical),
    (nn.NLLLoss(), Categorical),
    (Subclass(), Categorical),
    (F.cross_entropy, Categorical),
    (F.nll_loss, Categorical),
    (partial(F.cross_entropy, label_smoothing=0.1), Categorical),
    (nn.BCEWithLogitsLoss(), Bernoulli),
    (nn.BCELoss(), Bernoulli),
    (nn.MultiLabelSoftMarginLoss(), Bernoulli),
    (nn.SoftMarginLoss(), Bernoulli),
    (F.binary_cross_entropy_with_logits, Bernoulli),
    (F.binary_cross_entropy, Bernoulli),
    (F.multilabel_soft_margin_loss, Bernoulli),
    (F.soft_margin_loss, Bernoulli),
    (nn.MSELoss(), Gaussian),
    (nn.L1Loss(), Gaussian),
    (nn.SmoothL1Loss(), Gaussian),
    (nn.HuberLoss(), Gaussian),
    (nn.GaussianNLLLoss(), Gaussian),
    (F.mse_loss, Gaussian),
    (F.l1_loss, Gaussian),
    (F.smooth_l1_loss, Gaussian),
    (F.huber_loss, Gaussian),
    (F.gaussian_nll_loss, Gaussian),
    (nn.PoissonNLLLoss(), Poisson),
    (F.poisson_nll_loss, Poisson),
    (partial(F.poisson_nll_loss, log_input=False), Poisson),
    (Stating(), Poisson),
    (StatingSomethingElse(), Projections),
    (nn.MultiMarginLoss(), Projections),
    (nn.KLDivLoss(), Projections),
    (Wrapping(), Projections),
    (Unhashable(), Projections),
    (lambda outputs, targets: outputs.sum(), Projections),
]


@pytest.mark.parametrize(("criterion", "kind"), KINDS, ids=lambda value: str(value)[:40])
def test_the_criterion_decides(criterion: Any, kind: type[Likelihood]) -> None:
    assert type(likelihood_of(criterion)) is kind


def test_probabilities_and_logits_are_told_apart() -> None:
    of: Any = likelihood_of
    assert not of(nn.BCELoss()).logits
    assert not of(F.binary_cross_entropy).logits
    for criterion in (nn.BCEWithLogitsLoss(), nn.MultiLabelSoftMarginLoss(), nn.SoftMarginLoss()):
        assert of(criterion).logits
    for function in (
        F.binary_cross_entropy_with_logits,
        F.multilabel_soft_margin_loss,
        F.soft_margin_loss,
    ):
        assert of(function).logits


def test_rates_and_their_logarithms_are_told_apart() -> None:
    of: Any = likelihood_of
    assert of(nn.PoissonNLLLoss()).log_input
    assert not of(nn.PoissonNLLLoss(log_input=False)).log_input
    assert of(F.poisson_nll_loss).log_input
    assert of(partial(F.poisson_nll_loss, full=True)).log_input
    assert not of(partial(F.poisson_nll_loss, log_input=False)).log_input


# -- densities --------------------------------------------------------------------------------


def categorical(o: Tensor) -> Any:
    return distributions.Categorical(logits=o.movedim(1, -1))


def unit_normal(o: Tensor) -> Any:
    return distributions.Normal(o, torch.ones_like(o))


def rates(o: Tensor) -> Tensor:
    return o.square() + 0.3


LAWS: dict[str, tuple[Likelihood, Any, Any, tuple[int, ...]]] = {
    "categorical": (Categorical(), lambda o: o, categorical, (5, 4)),
    "per position": (Categorical(), lambda o: o, categorical, (5, 4, 3, 2)),
    "log-probabilities": (Categorical(), lambda o: o.log_softmax(1), categorical, (5, 4)),
    "one logit": (Bernoulli(True), lambda o: o, lambda o: distributions.Bernoulli(logits=o), (5,)),
    "many logits": (
        Bernoulli(True),
        lambda o: o,
        lambda o: distributions.Bernoulli(logits=o),
        (5, 3, 2),
    ),
    "probabilities": (Bernoulli(False), torch.sigmoid, distributions.Bernoulli, (5, 3)),
    "gaussian": (Gaussian(), lambda o: o, unit_normal, (5, 3)),
    "log rates": (Poisson(True), lambda o: o, lambda o: distributions.Poisson(o.exp()), (5, 3)),
    "rates": (Poisson(False), rates, distributions.Poisson, (5, 3)),
}


@pytest.mark.parametrize("name", LAWS)
def test_losses_are_log_densities_up_to_a_constant(name: str) -> None:
    likelihood, to_outputs, law, shape = LAWS[name]
    outputs = to_outputs(torch.randn(shape))
    others = to_outputs(torch.randn(shape))
    targets = likelihood.draw(outputs, seeded())
    # the constant depends on the targets alone: differences between outputs are free of it
    exact = law(others).log_prob(targets) - law(outputs).log_prob(targets)
    found = likelihood.loss(outputs, targets) - likelihood.loss(others, targets)
    torch.testing.assert_close(found, exact.sum())
    each = likelihood.losses(outputs, targets) - likelihood.losses(others, targets)
    assert each.shape == (5,)
    torch.testing.assert_close(each, exact.reshape(5, -1).mean(1))


@pytest.mark.parametrize("name", LAWS)
def test_targets_come_from_the_predictive_distribution(name: str) -> None:
    likelihood, to_outputs, law, shape = LAWS[name]
    one = to_outputs(torch.randn(1, *shape[1:]))
    many = one.expand(20_000, *shape[1:]).contiguous()
    drawn = likelihood.draw(many, seeded()).double()
    if isinstance(likelihood, Categorical):
        found = F.one_hot(drawn.long(), 4).double().mean(0)
        expected = law(one).probs[0]
    else:
        found, expected = drawn.mean(0), law(one).mean[0]
        spread, known = drawn.var(0), law(one).variance[0]
        torch.testing.assert_close(spread, known, atol=0.02, rtol=0.12)
    torch.testing.assert_close(found, expected, atol=0.025, rtol=0.03)


def test_gaussian_noise_is_normal() -> None:
    drawn = Gaussian().draw(torch.full((4000,), 2.0), seeded())
    assert scipy.stats.kstest(drawn.numpy() - 2.0, "norm").pvalue > 0.01


def test_projections_are_linear_in_the_outputs() -> None:
    outputs = torch.randn(5, 3, requires_grad=True)
    r = Projections().draw(outputs, seeded())
    (gradient,) = torch.autograd.grad(Projections().loss(outputs, r), outputs)
    torch.testing.assert_close(gradient, -r)
    long = Projections().draw(torch.zeros(4000), seeded())
    assert scipy.stats.kstest(long.numpy(), "norm").pvalue > 0.01


@pytest.mark.parametrize("likelihood", [Gaussian(), Projections(), Poisson(True)])
def test_targets_are_as_precise_as_outputs(likelihood: Likelihood) -> None:
    for given, expected in (
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        assert likelihood.draw(torch.zeros(3, dtype=given), seeded()).dtype == expected


def test_projections_know_no_losses() -> None:
    with pytest.raises(IncompatibleError, match="does not tell"):
        Projections().losses(torch.randn(3, 2), torch.zeros(3))


def test_margin_targets_of_minus_one_are_no() -> None:
    o = torch.randn(6, 1)
    y = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, -1.0])
    found = Bernoulli(True).losses(o, y)
    torch.testing.assert_close(found, torch.log1p((-y * o[:, 0]).exp()))


@pytest.mark.parametrize("likelihood", [Gaussian(), Poisson(True), Bernoulli(True)])
def test_targets_may_lack_an_axis_of_length_one(likelihood: Likelihood) -> None:
    o, y = torch.randn(6, 1), torch.ones(6)
    torch.testing.assert_close(likelihood.losses(o, y), likelihood.losses(o[:, 0], y))


def test_very_large_rates_are_counts() -> None:
    drawn = Poisson(False).draw(torch.full((20_000,), 1e30), seeded())
    assert bool((drawn > 0.99e30).all())
    rate = 4e6
    drawn = Poisson(False).draw(torch.full((20_000,), rate), seeded())
    assert float(drawn.mean()) == pytest.approx(rate, rel=1e-4)
    assert float(drawn.var()) == pytest.approx(rate, rel=0.05)
    assert bool((drawn == drawn.round()).all())


def test_moderate_rates_keep_the_skew_of_counts() -> None:
    drawn = Poisson(False).draw(torch.full((50_000,), 0.7), seeded()).numpy()
    assert scipy.stats.skew(drawn) == pytest.approx(0.7**-0.5, rel=0.05)


def test_negative_rates_count_as_none() -> None:
    o = torch.tensor([-2.0, 0.0, 1.0])
    assert Poisson(False).draw(o, seeded())[:2].tolist() == [0.0, 0.0]
    assert bool(Poisson(False).losses(o, torch.zeros(3)).isfinite().all())


def test_probabilities_beyond_one_by_rounding_are_drawn() -> None:
    assert Bernoulli(False).draw(torch.tensor([1.0 + 1e-9, -1e-9]), seeded()).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_numbers_are_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    likelihood, to_outputs, _, shape = LAWS[name]
    outputs = to_outputs(torch.randn(shape)).to(dtype)
    targets = likelihood.draw(outputs, seeded())
    assert likelihood.loss(outputs, targets).dtype == torch.float32
    exact = likelihood.loss(
        outputs.double(), targets.double() if targets.is_floating_point() else targets
    )
    torch.testing.assert_close(
        likelihood.loss(outputs, targets).double(), exact, rtol=1e-5, atol=1e-4
    )


@pytest.mark.parametrize("likelihood", [law[0] for law in LAWS.values()] + [Projections()])
def test_no_global_random_number_is_drawn(likelihood: Likelihood) -> None:
    before = torch.get_rng_state()
    outputs = torch.full((4, 3), 0.4)
    first = likelihood.draw(outputs, seeded(1))
    torch.testing.assert_close(likelihood.draw(outputs, seeded(1)), first)
    assert torch.equal(torch.get_rng_state(), before)


# -- drift ------------------------------------------------------------------------------------


def test_change_of_classes_is_the_share_of_predictions() -> None:
    before = torch.eye(4)
    after = before.clone()
    after[0] = torch.tensor([0.0, 0.0, 3.0, 0.0])
    assert Categorical().change(before, after) == 0.25
    assert Categorical().change(before, 7 * before + 2) == 0
    maps = torch.stack([before, before], 2)
    other = torch.stack([before, after], 2)
    assert Categorical().change(maps, other) == 0.125


def test_change_of_answers_is_the_share_of_signs() -> None:
    before, after = torch.tensor([[0.2, -0.2, 3.0, -1.0]]), torch.tensor([[0.9, 0.1, 2.0, -0.1]])
    assert Bernoulli(True).change(before, after) == 0.25
    assert Bernoulli(False).change(torch.tensor([0.6, 0.4]), torch.tensor([0.9, 0.6])) == 0.5
    assert Bernoulli(True).change(torch.ones(2), torch.tensor([torch.nan, 1.0])) == 0.5
    assert Bernoulli(True).change(-torch.ones(2), torch.tensor([torch.nan, -1.0])) == 0.5


@pytest.mark.parametrize("likelihood", [Gaussian(), Projections()])
def test_change_of_numbers_is_relative_to_how_much_they_vary(likelihood: Likelihood) -> None:
    # two outputs with means 100 and 7: what varies is ±1 and ±2 over four samples
    before = torch.tensor([[101.0, 9.0], [99.0, 5.0], [101.0, 5.0], [99.0, 9.0]])
    after = before + torch.tensor([0.3, 0.4])
    assert likelihood.change(before, after) == pytest.approx((4 * 0.25 / 20) ** 0.5)
    assert likelihood.change(before, before) == 0
    assert likelihood.change(before, 50 * before) == 1
    assert likelihood.change(before, torch.full_like(before, torch.nan)) == 1


def test_change_of_constant_outputs_is_relative_to_them() -> None:
    before = torch.full((4, 1), 2.0)
    assert Gaussian().change(before, before + 1e-3) == pytest.approx(0.5)
    assert Gaussian().change(before, before + 1e-6) == pytest.approx(5e-4)
    assert Gaussian().change(torch.zeros(3), torch.zeros(3)) == 0
    assert Gaussian().change(torch.zeros(3), torch.ones(3)) == 1


def test_change_of_rates() -> None:
    before, after = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [1.1]])
    rate, moved = before.exp(), after.exp()
    expected = (moved - rate).norm() / (rate - rate.mean()).norm()
    assert Poisson(True).change(before, after) == pytest.approx(float(expected))
    assert Poisson(False).change(rate, moved) == pytest.approx(float(expected))


def test_sharpness_of_regression_is_signal_over_noise() -> None:
    y = torch.tensor([[1.0, 10.0], [3.0, 14.0], [5.0, 12.0], [3.0, 12.0]])
    o = y + torch.tensor([0.3, -0.1])
    signal = (y[:, 0].var(correction=0) + y[:, 1].var(correction=0)) / 2
    expected = float(signal / ((0.09 + 0.01) / 2))
    assert Gaussian().sharpness(o, y) == pytest.approx(expected)
    assert Gaussian().sharpness(o[:, :1], y[:, 0]) == pytest.approx(float(2 / 0.09))
    assert Gaussian().sharpness(y + 100, y) == 1
    assert Gaussian().sharpness(y, y) == 1e4
    assert Gaussian().sharpness(y + 1e-6, y) == 1e4


@pytest.mark.parametrize(
    "likelihood", [Categorical(), Bernoulli(True), Poisson(True), Projections()]
)
def test_other_likelihoods_are_as_sharp_as_they_say(likelihood: Likelihood) -> None:
    assert likelihood.sharpness(torch.rand(4, 3), torch.rand(4, 3)) == 1
