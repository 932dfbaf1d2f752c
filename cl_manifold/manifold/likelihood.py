"""Likelihoods: what a loss takes the outputs of a network to be.

A task's information is E (∂ log p(y|x, w)/∂w)² with y drawn from the network's own p(y|x, w), so it
needs to know p. It is chosen from the criterion:

    categorical   cross-entropy, negative log-likelihood; also per position, outputs (N, C, …)
    Bernoulli     binary cross-entropy, soft margin; one or many outputs of any shape
    Gaussian      squared error, with unit variance; L1, smooth L1 and Huber count as such
    Poisson       Poisson loss, of rates or their logarithms
    projections   any other: p is not known, and the outputs themselves are projected at random

Source: Martens 2020, New Insights and Perspectives on the Natural Gradient Method, sec. 9.2.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Any, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from cl_manifold.errors import IncompatibleError

MANY = 1e6
"""A Poisson rate above which counts are drawn from a normal distribution."""

SHARPEST = 1e4
"""Where a network predicts its samples without any error."""


class Likelihood(ABC):
    """P(targets | outputs); the batch is axis 0 of both."""

    @abstractmethod
    def draw(self, outputs: Float[Tensor, "n ..."], generator: torch.Generator) -> Tensor:
        """Targets from the network's own predictions.

        Args:
            outputs: of the network.
            generator: on the CPU; no global random number is drawn.
        """

    @abstractmethod
    def loss(self, outputs: Float[Tensor, "n ..."], targets: Tensor) -> Float[Tensor, ""]:
        """−log p summed over samples, up to a constant."""

    @abstractmethod
    def losses(self, outputs: Float[Tensor, "n ..."], targets: Tensor) -> Float[Tensor, " n"]:
        """−log p of each sample, up to a constant; the mean where it has several outputs."""

    @abstractmethod
    def change(self, before: Float[Tensor, "n ..."], after: Float[Tensor, "n ..."]) -> float:
        """Drift from 0, equal outputs, to 1: all predictions differ, or as much as they vary."""

    @abstractmethod
    def sharpness(self, outputs: Float[Tensor, "n ..."], targets: Tensor) -> float:
        """How much more a task is worth than its normalised information says; 1 or more."""


@final
class Categorical(Likelihood):
    """P = softmax(outputs) over axis 1; log-probabilities are their own logits."""

    def draw(self, outputs: Float[Tensor, "n ..."], generator: torch.Generator) -> Tensor:
        """One class per sample and position."""
        p = _wide(outputs).detach().cpu().softmax(1).movedim(1, -1)
        drawn = torch.multinomial(p.flatten(0, -2), 1, generator=generator)
        return drawn.reshape(p.shape[:-1]).to(outputs.device)

    def loss(self, outputs: Float[Tensor, "n ..."], targets: Tensor) -> Float[Tensor, ""]:
        """Cross-entropy."""
        return F.cross_entropy(_wide(outputs), targets, reduction="sum")

    def losses(self, outputs: Float[Tensor, "n ..."], targets: Tensor) -> Float[Tensor, " n"]:
        """Cross-entropy, mean over positions."""
        each = F.cross_entropy(_wide(outputs), targets, reduction="none")
        return each.reshape(len(outputs), -1).mean(1)

    def change(self, before: Float[Tensor, "n ..."], after: Float[Tensor, "n ..."]) -> float:
        """Share of predicted classes that differ."""
        return float((before.argmax(1) != after.argmax(1)).double().mean())

    def sharpness(self, outputs: Float[Tensor, "n ..."], targets: Tensor) -> float:
        """1: predictions are right or wrong."""
        return 1.0


@final
class Bernoulli(Likelihood):
    """Independent yes or no for every output.

    Args:
        logits: whether outputs are logits, or probabilities.
    """

    def __init__(self, logits: bool) -> None:
        self.logits = logits

    def draw(self, outputs: Float[Tensor, "n ..."], generator: torch.Generator) -> Tensor:
        """0 or 1 for every output."""
        o = _wide(outputs).detach().cpu()
        p = o.sigmoid() if self.logits else o.clamp(0, 1)
        return torch.bernoulli(p, generator=generator).to(outputs.device)

    def loss(self, outputs: Float[Tensor, "n ..."], targets: Tensor) -> Float[Tensor, ""]:
        """Binary cross-entropy."""
        return self._each(outputs, targets).sum()

    def losses(self, outputs: Float[Tensor, "n ..."], targets: Tensor) -> Float[Tensor, " n"]:
        """Binary cross-entropy, mean over outputs; targets −1 count as 0."""
        return self._each(outputs, targets).reshape(len(outputs), -1).mean(1)

    def _each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        o = _wide(outputs)
        y = targets.to(o).clamp(min=0).reshape(o.shape)
        function = F.binary_cross_entropy_with_logits if self.logits else F.binary_cross_entropy
        return function(o, y, reduction="none")

    def change(self, before: Float[Tensor, "n ..."], after: Float[Tensor, "n ..."]) -> float:
        """Share of answers that differ."""
        limit = 0.0 if self.logits else 0.5
        differ = (before > limit) != (after > limit)
        return float((differ | (before.isnan() != after.isnan())).double().mean())

    def sharpness(self, outputs: Float[Tensor, "n ..."], targets: Tensor) -> float:
        """1: answers are right or wrong."""
        return 1.0


@final
class Gaussian(Likelihood):
    """Independent outputs with unit variance."""

    def draw(self, outputs: Float[Tensor, "n ..."], generator: torch.Generator) -> Tensor:
        """Outputs with noise of unit variance."""
        return _wide(outputs).detach() + _noise(outputs, generator)

    def loss(self, outputs: Float[Tensor, "n ..."], targets: Tensor) -> Float[Tensor, ""]:
        """½ ‖o − y‖²."""
        return self._each(outputs, targets).sum()

    def losses(self, outputs: Float[Tensor, "n ..."], targets: Tensor) -> Float[Tensor, " n"]:
        """½ (o − y)², mean over outputs."""
        return self._each(outputs, targets).reshape(len(outputs), -1).mean(1)

    def _each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        o = _wide(outputs)
        return (o - targets.to(o).reshape(o.shape)).square() / 2

    def change(self, before: Float[Tensor, "n ..."], after: Float[Tensor, "n ..."]) -> float:
        """‖after − before‖ / ‖before − mean over samples‖, at most 1."""
        return _relative(before, after)

    def sharpness(self, outputs: Float[Tensor, "n ..."], targets: Tensor) -> float:
        """Var y / E (o − y)², the signal over the noise, at least 1.

        Information is that of unit variance. The better a network predicts, the less its outputs
        may move before its error grows: with the variance σ² = E (o − y)² of its errors the
        information of targets in units of their own variance is larger by this factor.
        """
        o = _wide(outputs).detach().double()
        y = targets.to(o).reshape(o.shape)
        noise, signal = float((o - y).square().mean()), float((y - y.mean(0)).square().mean())
        return min(max(1.0, signal / noise), SHARPEST) if noise > 0 else SHARPEST


@final
class Poisson(Likelihood):
    """Counts with the outputs as rates.

    Args:
        log_input: whether outputs are logarithms of rates.
    """

    def __init__(self, log_input: bool) -> None:
        self.log_input = log_input

    def _rate(self, outputs: Tensor) -> Tensor:
        return outputs.exp() if self.log_input else outputs.clamp(min=1e-8)

    def draw(self, outputs: Float[Tensor, "n ..."], generator: torch.Generator) -> Tensor:
        """A count for every output."""
        rate = self._rate(_wide(outputs).detach().cpu())
        few = torch.poisson(rate.clamp(max=MANY), generator=generator)
        many = (rate + rate.sqrt() * _noise(rate, generator)).round()
        return torch.where(rate < MANY, few, many).to(outputs.device)

    def loss(self, outputs: Float[Tensor, "n ..."], targets: Tensor) -> Float[Tensor, ""]:
        """Rate − y log rate."""
        return self._each(outputs, targets).sum()

    def losses(self, outputs: Float[Tensor, "n ..."], targets: Tensor) -> Float[Tensor, " n"]:
        """Rate − y log rate, mean over outputs."""
        return self._each(outputs, targets).reshape(len(outputs), -1).mean(1)

    def _each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        o = _wide(outputs)
        rate, y = self._rate(o), targets.to(o).reshape(o.shape)
        return rate - y * (o if self.log_input else rate.log())

    def change(self, before: Float[Tensor, "n ..."], after: Float[Tensor, "n ..."]) -> float:
        """That of the rates, relative to how much they vary."""
        return _relative(self._rate(_wide(before)), self._rate(_wide(after)))

    def sharpness(self, outputs: Float[Tensor, "n ..."], targets: Tensor) -> float:
        """1: counts have the variance of their rate."""
        return 1.0


@final
class Projections(Likelihood):
    """Nothing is known of p: E (∂ rᵀo/∂w)² with r ~ N(0, I) is Σ over outputs of (∂o/∂w)²."""

    def draw(self, outputs: Float[Tensor, "n ..."], generator: torch.Generator) -> Tensor:
        """R, one number per output."""
        return _noise(outputs, generator)

    def loss(self, outputs: Float[Tensor, "n ..."], targets: Tensor) -> Float[Tensor, ""]:
        """−rᵀo."""
        return -(_wide(outputs) * targets).sum()

    def losses(self, outputs: Float[Tensor, "n ..."], targets: Tensor) -> Float[Tensor, " n"]:
        """Not known.

        Raises:
            IncompatibleError: always.
        """
        raise IncompatibleError(
            "decisions compare losses of single samples, which this criterion does not tell; use a "
            "loss of torch such as CrossEntropyLoss or MSELoss, or leave decisions out"
        )

    def change(self, before: Float[Tensor, "n ..."], after: Float[Tensor, "n ..."]) -> float:
        """‖after − before‖ / ‖before − mean over samples‖, at most 1."""
        return _relative(before, after)

    def sharpness(self, outputs: Float[Tensor, "n ..."], targets: Tensor) -> float:
        """1: nothing is known of the targets."""
        return 1.0


@runtime_checkable
class StatesLikelihood(Protocol):
    """A criterion that says what it takes outputs to be."""

    @property
    def likelihood(self) -> Likelihood:
        """P(targets | outputs)."""
        ...


_MODULES: tuple[tuple[type[nn.Module], Likelihood], ...] = (
    (nn.CrossEntropyLoss, Categorical()),
    (nn.NLLLoss, Categorical()),
    (nn.BCEWithLogitsLoss, Bernoulli(True)),
    (nn.MultiLabelSoftMarginLoss, Bernoulli(True)),
    (nn.SoftMarginLoss, Bernoulli(True)),
    (nn.BCELoss, Bernoulli(False)),
    (nn.MSELoss, Gaussian()),
    (nn.L1Loss, Gaussian()),
    (nn.SmoothL1Loss, Gaussian()),
    (nn.HuberLoss, Gaussian()),
    (nn.GaussianNLLLoss, Gaussian()),
)
_FUNCTIONS: tuple[tuple[Callable[..., Any], Likelihood], ...] = (
    (F.cross_entropy, Categorical()),
    (F.nll_loss, Categorical()),
    (F.binary_cross_entropy_with_logits, Bernoulli(True)),
    (F.multilabel_soft_margin_loss, Bernoulli(True)),
    (F.soft_margin_loss, Bernoulli(True)),
    (F.binary_cross_entropy, Bernoulli(False)),
    (F.mse_loss, Gaussian()),
    (F.l1_loss, Gaussian()),
    (F.smooth_l1_loss, Gaussian()),
    (F.huber_loss, Gaussian()),
    (F.gaussian_nll_loss, Gaussian()),
)


def likelihood_of(criterion: object) -> Likelihood:
    """The likelihood of a criterion: what it states, or that of torch's loss, or `Projections`.

    Class weights and label smoothing are left out of account. A criterion that wraps another is
    not looked into; it may state its `likelihood`.

    >>> type(likelihood_of(nn.HuberLoss())).__name__
    'Gaussian'
    """
    if isinstance(criterion, StatesLikelihood) and isinstance(criterion.likelihood, Likelihood):
        return criterion.likelihood
    if isinstance(criterion, nn.PoissonNLLLoss):
        return Poisson(criterion.log_input)
    if isinstance(criterion, partial):
        if criterion.func is F.poisson_nll_loss:
            return Poisson(criterion.keywords.get("log_input", True))
        return likelihood_of(criterion.func)
    if criterion is F.poisson_nll_loss:
        return Poisson(True)
    of_module = (known for kind, known in _MODULES if isinstance(criterion, kind))
    of_function = (known for function, known in _FUNCTIONS if function is criterion)
    return next(chain(of_module, of_function), Projections())


def _wide(outputs: Tensor) -> Tensor:
    """At least float32."""
    return outputs.to(torch.promote_types(torch.float32, outputs.dtype))


def _noise(outputs: Tensor, generator: torch.Generator) -> Tensor:
    dtype = torch.promote_types(torch.float32, outputs.dtype)
    return torch.randn(outputs.shape, generator=generator, dtype=dtype).to(outputs.device)


def _relative(before: Tensor, after: Tensor) -> float:
    """min(1, ‖a − b‖ / max(‖b − mean b‖, ‖b‖/1000)), the mean over samples; 0 for equal ones.

    The second scale keeps rounding from counting where outputs hardly vary.
    """
    a, b = after.detach().double(), before.detach().double()
    if torch.equal(a, b):
        return 0.0
    scale = max(float((b - b.mean(0)).norm()), float(b.norm()) / 1000)
    moved = float((a - b).norm())
    return moved / scale if moved < scale else 1.0
