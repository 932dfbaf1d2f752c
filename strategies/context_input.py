"""The context as further inputs of the network: in sequence, or all contexts at once."""

from typing import Any, final

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.supervised import JointTraining
from jaxtyping import Float
from torch import Tensor, nn

from cl_manifold.geometry import Basis

from .conditioned import CONTEXTS, with_sample_contexts


@final
class ContextInput(nn.Module):
    """A network that reads features of the context beside the input: f([x, φ(c)]).

    Attributes:
        told: features of the present mini-batch, (F,) for all or (B, F) for each; the plugin
            `TellContext` sets them.
    """

    told: Tensor

    def __init__(self, network: nn.Module, features: int, flat: bool = True) -> None:
        """Around a network of inputs that `joined` joins to that many features."""
        super().__init__()
        self.network, self.flat = network, flat
        self.register_buffer("told", torch.zeros(features), persistent=False)

    def forward(self, x: Float[Tensor, "B ..."]) -> Float[Tensor, "B classes"]:
        """The network's answer at the context that was told."""
        told = self.told.to(x).expand(len(x), -1)
        return self.network(joined(x, told, self.flat))


def joined(x: Float[Tensor, "B ..."], told: Float[Tensor, "B F"], flat: bool) -> Tensor:
    """Inputs and what is told beside them, one row per sample.

    Returns:
        (B, inputs + F) where `flat`; else, for convolutions, (B, C + F, H, W) with constant
        channels.
    """
    if flat:
        return torch.cat([x.flatten(1), told], 1)
    return torch.cat([x, told[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1)


@final
class ContextFeatures:
    """φ(c) without a function that is constant by itself, which the network's biases already have.

    Attributes:
        size: F, how many features there are.
    """

    def __init__(self, basis: Basis) -> None:
        self.basis = basis
        constant = basis.constant()
        functions = () if constant is None else constant.nonzero().flatten().tolist()
        alone = functions if len(functions) == 1 else ()
        self._kept = [k for k in range(basis.size) if k not in alone]
        self.size = len(self._kept)

    def __call__(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch F"]:
        """The features of each context (float32).

        Raises:
            ContextError: a context lies outside the topology.
        """
        return self.basis(context.double())[..., self._kept].float()


@final
class TellContext(SupervisedPlugin, supports_distributed=False):
    """Tells a `ContextInput` the context of the experience, or of each sample where they differ."""

    def __init__(self, features: ContextFeatures) -> None:
        super().__init__()
        self.features = features

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """One context for the experience."""
        strategy.model.told = self.features(strategy.experience.context)

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """A context for each sample, where the samples carry theirs."""
        appended = strategy.adapted_dataset._data_attributes.values()
        columns = [a.name for a in appended if a.use_in_getitem]
        if CONTEXTS in columns:
            contexts = strategy.mbatch[2 + columns.index(CONTEXTS)]
            strategy.model.told = self.features(contexts)

    def before_eval_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """One context for the experience."""
        strategy.model.told = self.features(strategy.experience.context)


class JointContextTraining(JointTraining):
    """Joint training in which every sample carries the context of its experience."""

    def train_dataset_adaptation(self, **kwargs: Any) -> None:
        """All experiences, joined, with their contexts."""
        super().train_dataset_adaptation(**kwargs)
        contexts = [e.context.expand(len(e.dataset), -1) for e in self._experiences]
        assert self.adapted_dataset is not None
        self.adapted_dataset = with_sample_contexts(self.adapted_dataset, torch.cat(contexts))
