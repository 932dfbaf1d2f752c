"""Contexts at test time that nobody gives: inferred from the inputs of a mini-batch."""

from typing import Any, final

import torch
from torch import Tensor

from cl_manifold.contexts.encoder import RandomFeatureEncoder
from cl_manifold.contexts.inference import ContextInference, InferenceSettings
from cl_manifold.geometry import Topology
from cl_manifold.manifold.layout import Inputs
from cl_manifold.manifold.weight_manifold import WeightManifold

from .samples import drawn


@final
class InferredTesting:
    """Answers test inputs with the weights of a context that is inferred from them.

    Every `batch` consecutive inputs are taken to share one context; 1 infers one for each input.
    Reads inputs only. With `features` an encoder without exemplars learns, from training inputs,
    which inputs come with which context; its moments are counted as stored.

    Attributes:
        batch: how many inputs share a context.
        encoder: None before the first task, or without features.
    """

    def __init__(
        self,
        batch: int = 64,
        features: int = 0,
        settings: InferenceSettings | None = None,
        seed: int = 0,
    ) -> None:
        """How contexts are inferred.

        Args:
            batch: inputs that share one context.
            features: random features of the encoder; 0 for none.
            settings: of the search; its defaults otherwise.
            seed: of the features.
        """
        if batch < 1:
            raise ValueError(f"a batch must have 1 or more inputs, got {batch}")
        if features < 0:
            raise ValueError(f"features must be 0 or more, got {features}")
        self.batch, self.features, self.seed = batch, features, seed
        self.settings = settings or InferenceSettings()
        self.encoder: RandomFeatureEncoder | None = None
        self._generator = torch.Generator().manual_seed(seed)
        self._inference: ContextInference | None = None

    def learn(self, strategy: Any, context: Tensor, topology: Topology) -> None:
        """Let the encoder learn the experience that was just trained, at its coordinate."""
        if self.features == 0:
            return
        if self.encoder is None:
            self.encoder = RandomFeatureEncoder(topology, features=self.features, seed=self.seed)
        samples = drawn(strategy, self.encoder.samples, self._generator)
        classes = samples.targets
        if classes.is_floating_point():  # numbers to predict: inputs are of one kind
            classes = torch.zeros(len(classes), dtype=torch.int64, device=classes.device)
        self.encoder.learn(samples.inputs[0], classes, context, topology)

    def prepare(self, manifold: WeightManifold) -> None:
        """Get ready for the manifold as it is now."""
        self._inference = ContextInference(self.encoder, self.settings)
        self._inference.prepare(manifold)

    def predict(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Contexts and logits for a mini-batch, (N, dim) and (N, C)."""
        assert self._inference is not None
        found = self._inference.predict(inputs, self.batch)
        return found.contexts, found.logits

    @property
    def stored_floats(self) -> int:
        """What the encoder keeps, in units of 32 bits."""
        return self.encoder.stored_floats if self.encoder else 0
