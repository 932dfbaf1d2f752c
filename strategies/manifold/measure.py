"""The information of an open visit: measured after each part of its training, averaged."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from avalanche.models import SCRModel
from avalanche.models.dynamic_modules import TrainEvalModel
from torch import Tensor, nn

from cl_manifold.manifold.information import ExactInformation, FisherInformation
from cl_manifold.manifold.likelihood import likelihood_of
from cl_manifold.manifold.watching import watching
from cl_manifold.manifold.weight_manifold import WeightManifold

from .samples import Samples


@final
class Measured:
    """A running mean of F over the samples of one visit, the latest `samples` of them.

    An online stream brings a visit in many small parts. Each adds the information that its own
    samples have at the weights of that moment.
    """

    def __init__(self, measure: FisherInformation | ExactInformation) -> None:
        self.measure = measure
        self.sharpness = 1.0
        self._mean: Tensor | None = None
        self._count = 0

    def add(
        self,
        strategy: Any,
        manifold: WeightManifold,
        samples: Samples,
        generator: torch.Generator,
    ) -> None:
        """Take in the samples at the weights that the module holds."""
        likelihood = likelihood_of(strategy._criterion)
        module, layout = manifold.module, manifold.layout
        inputs = tuple(column[: self.measure.samples or 1] for column in samples.inputs)
        with trained_head(module):
            found = self.measure(module, inputs, layout, likelihood, generator)
            with watching(module):
                outputs = module(*samples.inputs)
        self.sharpness = likelihood.sharpness(outputs, samples.targets)
        new = len(inputs[0])
        if self._mean is None or len(self._mean) != len(found):
            self._mean, self._count = found, new
            return
        old = min(self._count, max(0, self.measure.samples - new))
        self._mean = (old * self._mean + new * found) / (old + new) if old else found
        self._count = old + new

    def information(self) -> Tensor:
        """The mean F per block."""
        assert self._mean is not None
        return self._mean


@contextmanager
def trained_head(module: nn.Module) -> Iterator[None]:
    """Inside, networks with a head for training and one for tests answer with the former."""
    kinds = (TrainEvalModel, SCRModel)
    found: list[Any] = [m for m in module.modules() if isinstance(m, kinds)]
    for m in found:
        m.eval_classifier.forward = m.train_classifier.forward
    try:
        yield
    finally:
        for m in found:
            del m.eval_classifier.forward
