"""A dry run of one mini-batch before the first training: what cannot work is said at once."""

from typing import Any

import torch
from torch import Tensor

from cl_manifold.contexts.sweep import logits_with
from cl_manifold.errors import ClManifoldError, IncompatibleError
from cl_manifold.manifold.information import ExactInformation, FisherInformation
from cl_manifold.manifold.likelihood import Categorical, Projections, likelihood_of
from cl_manifold.manifold.watching import watching
from cl_manifold.manifold.weight_manifold import WeightManifold

from .measure import trained_head
from .samples import Samples, drawn

FEW = 8
"""Samples of the dry run."""


def dry_run(
    strategy: Any,
    manifold: WeightManifold,
    information: FisherInformation | ExactInformation,
    generator: torch.Generator,
) -> None:
    """Forward pass, criterion, gradients, information and the manifold's own forward pass.

    Nothing of the strategy changes: no weight, gradient, mode or random stream.

    Raises:
        IncompatibleError: something cannot work with the weight manifold.
    """
    samples = drawn(strategy, FEW, generator)
    _check_samples(strategy, samples)
    likelihood = likelihood_of(strategy._criterion)
    try:
        with watching(strategy.model), trained_head(strategy.model):
            outputs = strategy.model(*samples.inputs)
            _check_outputs(outputs, len(samples), isinstance(likelihood, Categorical))
            if not isinstance(likelihood, Projections):
                _check_gradients(strategy, outputs, samples.targets)
        with trained_head(strategy.model):
            inputs = samples.inputs
            information(manifold.module, inputs, manifold.layout, likelihood, generator)
            state = {n: w[None] for n, w in manifold.layout.read(manifold.module).items()}
            logits_with(manifold, state, inputs)
    except ClManifoldError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise IncompatibleError(
            f"a dry run of {len(samples)} samples through {type(strategy.model).__name__} and its "
            f"loss failed ({type(error).__name__}: {reason}); nothing was trained"
        ) from error


def check_optimizer(strategy: Any) -> None:
    """Raise `IncompatibleError` unless the strategy has a torch optimizer."""
    if not isinstance(strategy.optimizer, torch.optim.Optimizer):
        raise IncompatibleError(
            f"the strategy's optimizer is {strategy.optimizer!r}, but the price of moving weights "
            "is added in the step of a torch optimizer; pass one, for example SGD"
        )


def _check_samples(strategy: Any, samples: Samples) -> None:
    x, y = samples.inputs[0], samples.targets
    if len(x) != len(y):
        raise IncompatibleError(f"there are {len(y)} targets for {len(x)} inputs; give one each")
    for name, values in (("inputs", x), ("targets", y)):
        if values.is_floating_point() and not bool(values.isfinite().all()):
            raise IncompatibleError(
                f"some {name} of the first experience are not finite numbers; clean the data"
            )
    if x.is_floating_point() and len(x) > 1 and bool((x == x[:1]).all()):
        raise IncompatibleError(
            f"{len(x)} random inputs of the first experience are all the same, so there is "
            "nothing to learn from; check how the data are read"
        )


def _check_outputs(outputs: Any, count: int, categorical: bool) -> None:
    if not isinstance(outputs, Tensor):
        raise IncompatibleError(
            f"the network returns a {type(outputs).__name__}, but the weight manifold compares "
            "outputs as one tensor; wrap the network so that it returns a tensor"
        )
    if outputs.ndim == 0 or len(outputs) != count:
        raise IncompatibleError(
            f"the network returns shape {tuple(outputs.shape)} for {count} inputs; axis 0 of its "
            "output must be the batch"
        )
    if categorical and outputs.ndim > 1 and outputs.shape[1] == 1:
        raise IncompatibleError(
            "cross-entropy over a single output is always zero and teaches nothing; use "
            "BCEWithLogitsLoss for one logit, or give one output per class"
        )


def _check_gradients(strategy: Any, outputs: Tensor, targets: Tensor) -> None:
    """The criterion accepts the targets, and gradients are dense tensors."""
    parameters = [p for p in strategy.model.parameters() if p.requires_grad]
    if not parameters or not outputs.requires_grad:
        return
    loss = strategy._criterion(outputs, targets)
    total = loss if loss.ndim == 0 else loss.sum()
    for gradient in torch.autograd.grad(total, parameters, allow_unused=True):
        if gradient is not None and gradient.layout != torch.strided:
            raise IncompatibleError(
                "the network has sparse gradients, to which no price can be added; build its "
                "Embedding with sparse=False"
            )
