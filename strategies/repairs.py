"""What of Avalanche 0.6 does not work on today's torch, or not here, put right: a class per fault.

tests/unit/test_repairs.py shows every fault in Avalanche itself, so that a repair that is no longer
needed is noticed. Memories are read once and kept as tensors, as `InMemoryLoaderPlugin` keeps data.
"""

from collections.abc import Iterator
from typing import Any, final

import torch
from avalanche.models.packnet import PackNetModule, PackNetPlugin
from avalanche.training.plugins import (
    AGEMPlugin,
    GDumbPlugin,
    LwFPlugin,
    ReplayPlugin,
    SynapticIntelligencePlugin,
)
from avalanche.training.storage_policy import ClassBalancedBuffer, ExperienceBalancedBuffer
from avalanche.training.supervised import DER, ER_ACE
from avalanche.training.utils import cycle
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.utils.data import default_collate

from .loader import TensorLoader
from .materialise import tensors_of

Batches = Iterator[list[Tensor]]

# -- penalties -----------------------------------------------------------------------------------


@final
class SynapticIntelligence(SynapticIntelligencePlugin):
    """Synaptic intelligence that sees its weights move.

        ω_i = −Σ_steps g_i Δθ_i,   Ω_i = max(0, Σ_tasks ω_i / ((θ_i − θ*_i)² + ξ)),
        loss + (λ/2) Σ_i Ω_i (θ_i − θ*_i)²

    On a CPU Avalanche keeps views of the living weights instead of copies: nothing ever moves, all
    Ω are 0, and the strategy is fine-tuning. Its Ω are also cut off at 0.001, where with its ξ of
    1e-7 nearly all of them end; here ξ is the `eps` that is passed and nothing is cut off.

    Source: Zenke et al. 2017, eqs. (3) to (5).
    """

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Copy the weights θ* of the finished tasks."""
        super().before_training_exp(strategy, **kwargs)
        _copied(self.ewc_data[0])

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Copy the weights before the step."""
        super().before_training_iteration(strategy, **kwargs)
        _copied(self.syn_data["old_theta"])

    @torch.no_grad()
    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Add the task's ω / ((θ − θ*)² + ξ), and move θ* to where the task ended."""
        anchors, importances = self.ewc_data
        for name, parameter in self.allowed_parameters(strategy.model, self.excluded_parameters):
            now = parameter.detach().cpu().flatten()
            path: Any = self.syn_data["trajectory"][name]
            total: Any = self.syn_data["cum_trajectory"][name]
            total.data = total.data - path.data / ((now - anchors[name].data) ** 2 + self.eps)
            importances[name].data = total.data.clamp(min=0)
            anchors[name].data = now.clone()


def _copied(values: Any) -> None:
    for value in values.values():
        value.data = value.data.clone()


@final
class Distillation(LwFPlugin):
    """Learning without forgetting, with plain numbers for its two settings."""

    def __init__(self, penalty: float, temperature: float) -> None:
        weight: Any = penalty
        softness: Any = temperature
        super().__init__(weight, softness)


# -- memories ------------------------------------------------------------------------------------


@final
class ExperienceBuffer(ExperienceBalancedBuffer):
    """Avalanche's buffer, the same number of samples from each experience.

    Avalanche's strategies call its `update`, which Avalanche declares deprecated, aloud.
    """

    def update(self, strategy: Any, **kwargs: Any) -> None:
        """Take in the experience."""
        self.post_adapt(strategy, strategy.experience)


@final
class ClassBuffer(ClassBalancedBuffer):
    """The same with as many samples from each class."""

    def update(self, strategy: Any, **kwargs: Any) -> None:
        """Take in the experience."""
        self.post_adapt(strategy, strategy.experience)


@final
class MixedLoader:
    """Mini-batches of new samples, each followed by one of remembered samples, again and again."""

    def __init__(self, new: TensorLoader, remembered: TensorLoader) -> None:
        self.new, self.remembered = new, remembered

    def __len__(self) -> int:
        return len(self.new)

    def __iter__(self) -> Batches:
        for batch, old in zip(self.new, cycle(self.remembered), strict=False):
            yield [torch.cat(columns) for columns in zip(batch, old, strict=True)]


@final
class Replay(ReplayPlugin):
    """Experience replay beside the in-memory loader, which Avalanche's would replace."""

    def __init__(self, samples: int) -> None:
        super().__init__(samples, storage_policy=ExperienceBuffer(samples))

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """From the second experience on, mix in as many remembered samples as new ones."""
        memory, new = self.storage_policy.buffer, strategy.dataloader
        if len(memory) == 0:
            return
        if not isinstance(new, TensorLoader):
            super().before_training_exp(strategy, *args, **kwargs)
            return
        old = TensorLoader(columns_of(memory, strategy.device), new.batch_size, shuffle=True)
        strategy.dataloader = MixedLoader(new, old)


@final
class GreedySampler(GDumbPlugin):
    """GDumb with a buffer that keeps quiet."""

    def __init__(self, samples: int) -> None:
        super().__init__(samples)
        self.storage_policy = ClassBuffer(samples)


class DarkReplay(DER):
    """DER and DER++ with the memory in tensors."""

    def _before_training_exp(self, **kwargs: Any) -> None:
        super()._before_training_exp(**kwargs)
        if self.replay_loader is not None:
            self.replay_loader = endless(self.storage_policy.buffer, self.batch_size_mem)


class AsymmetricReplay(ER_ACE):
    """ER-ACE with a finite loss, and with the memory in tensors."""

    def __init__(self, **template: Any) -> None:
        super().__init__(**template)
        self.storage_policy = ClassBuffer(self.mem_size)
        self.ace_criterion: Any = asymmetric_loss

    def _before_training_exp(self, **kwargs: Any) -> None:
        super()._before_training_exp(**kwargs)
        if self.replay_loader is not None:
            self.replay_loader = endless(self.storage_policy.buffer, self.batch_size_mem)


def asymmetric_loss(
    new: Float[Tensor, "N C"],
    new_classes: Int64[Tensor, " N"],
    old: Float[Tensor, "M C"],
    old_classes: Int64[Tensor, " M"],
) -> Float[Tensor, ""]:
    """½ (ℓ(new among their own classes) + ℓ(old among all classes)), ℓ the cross-entropy.

    Avalanche takes the logarithm of a softmax that may be 0, and the loss becomes NaN.

    Source: Caccia et al. 2022, eq. (3).
    """
    present, places = new_classes.unique(return_inverse=True)
    among = nn.functional.cross_entropy(new[:, present], places)
    return (among + nn.functional.cross_entropy(old, old_classes)) / 2


@final
class AveragedGradients(AGEMPlugin):
    """A-GEM whose memory follows torch's seed and serves any number of experiences.

    Avalanche's draws with Python's random numbers, which no seed of a run reaches, and takes
    `sample_size` divided by the number of experiences from each: nothing where that rounds to 0.
    """

    transient = ("buffer_dliter",)

    def __init__(self, patterns_per_experience: int, sample_size: int) -> None:
        super().__init__(patterns_per_experience, sample_size)
        self._columns: list[Tensor] = []

    @torch.no_grad()
    def update_memory(self, dataset: Any, num_workers: int = 0, **kwargs: Any) -> None:
        """Keep some samples of the experience."""
        rows = torch.randperm(len(dataset))[: self.patterns_per_experience]
        self.buffers.append(dataset.subset(rows.tolist()))
        new = columns_of(self.buffers[-1], torch.device("cpu"))
        old = self._columns or [column[:0] for column in new]
        self._columns = [torch.cat(pair) for pair in zip(old, new, strict=True)]

    def sample_from_memory(self) -> list[Tensor]:
        """A random mini-batch of the samples of all earlier experiences."""
        rows = torch.randperm(len(self._columns[0]))[: self.sample_size]
        return [column[rows] for column in self._columns]


def columns_of(dataset: Any, device: torch.device) -> list[Tensor]:
    """The columns of a data set in memory; random transforms are drawn once."""
    columns = tensors_of(dataset)
    if columns is None:
        columns = default_collate([dataset[i] for i in range(len(dataset))])
    return [column.to(device) for column in columns]


def endless(memory: Any, batch_size: int) -> Batches:
    """Full mini-batches of a memory, shuffled anew each time round."""
    columns = columns_of(memory, torch.device("cpu"))
    return cycle(TensorLoader(columns, batch_size, shuffle=True, drop_last=True))


# -- masks ---------------------------------------------------------------------------------------


class Pruning(PackNetPlugin):
    """PackNet for a module whose layers are packed, with any optimizer.

    Avalanche's builds the optimizer anew from its defaults, which today's AdamW does not take, and
    its model wants a task label with every mini-batch. Here the optimizer's state is dropped
    instead, and whoever uses this activates the tasks of `packed`.
    """

    def __init__(self, packed: PackNetModule, post_prune_epochs: int, pruned: float) -> None:
        super().__init__(post_prune_epochs, pruned)
        self.packed = packed

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Momentum must not move weights that belong to earlier tasks."""
        strategy.optimizer.state.clear()

    def _get_model(self, strategy: Any) -> PackNetModule:
        return self.packed
