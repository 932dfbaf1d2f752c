"""Weights of its own for every task: separate networks, and the parts of one network of PackNet.

Both are told the context of an experience when it is tested, and answer at a context that was never
trained as at the nearest one that was.
"""

from collections.abc import Mapping
from typing import Any, final

import torch
from avalanche.core import SupervisedPlugin
from avalanche.models.packnet import PackNetModule
from torch import Tensor, nn

from cl_manifold.geometry import Topology

from .repairs import Pruning


@final
class Visits:
    """Which slot of weights an experience belongs to: by its context, or by its place.

    Where tasks are hidden an experience has no context; its place in the stream is told instead.
    """

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self._slots: dict[int, tuple[Tensor | None, int]] = {}

    def remember(self, experience: Any, slot: int) -> None:
        """The experience is trained and lies in that slot."""
        index = int(experience.current_experience)
        self._slots[index] = (getattr(experience, "context", None), slot)

    def at(self, experience: Any) -> int | None:
        """The slot of an earlier experience at the very context; None where there is none."""
        context = getattr(experience, "context", None)
        if context is None:
            return None
        found = [s for c, s in self._slots.values() if self._distance(c, context) <= 1e-9]
        return found[-1] if found else None

    def nearest(self, experience: Any) -> int:
        """The slot of the nearest context, of equally near ones the latest.

        Without a context: of the same place in the stream, or else of the latest experience.
        There must be one.
        """
        context, places = getattr(experience, "context", None), self._slots
        if context is None:
            index = int(experience.current_experience)
            return places[index if index in places else max(places)][1]
        latest_first = list(places.values())[::-1]
        return min(latest_first, key=lambda place: self._distance(place[0], context))[1]

    def _distance(self, a: Tensor | None, b: Tensor) -> float:
        return float("inf") if a is None else float(self.topology.distance(a, b))


@final
class SeparateNetworks(SupervisedPlugin, supports_distributed=False):
    """A network for every context: what memory can buy, and what no sharing costs.

    Each starts from the weights that the strategy's network has at first.

    Attributes:
        networks: the weights of each, by name.
    """

    def __init__(self, topology: Topology) -> None:
        super().__init__()
        self.visits = Visits(topology)
        self.networks: list[Mapping[str, Tensor]] = []
        self._first: Mapping[str, Tensor] | None = None
        self._live: Mapping[str, Tensor] | None = None

    @property
    def stored_floats(self) -> int:
        """All networks; the weights at first come from the seed."""
        return sum(value.numel() for weights in self.networks for value in weights.values())

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """A new network, or that of the context."""
        if self._first is None:
            self._first = _weights(strategy.model)
        slot = self.visits.at(strategy.experience)
        strategy.model.load_state_dict(self._first if slot is None else self.networks[slot])

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Keep the network."""
        slot, weights = self.visits.at(strategy.experience), _weights(strategy.model)
        if slot is None:
            slot = len(self.networks)
            self.networks.append(weights)
        self.networks[slot] = weights
        self.visits.remember(strategy.experience, slot)

    def before_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Set the network in training aside."""
        self._live = _weights(strategy.model)

    def before_eval_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Take the network of the nearest context."""
        if self.networks:
            slot = self.visits.nearest(strategy.experience)
            strategy.model.load_state_dict(self.networks[slot])

    def after_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Put the network in training back."""
        if self._live is not None:
            strategy.model.load_state_dict(self._live)
        self._live = None


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@final
class PackedTasks(Pruning):
    """PackNet: every experience trains the weights that earlier ones left free, and keeps some.

    A forward pass at an experience sees its own weights and those of earlier experiences.
    Biases are learned with the first experience.

    Source: Mallya and Lazebnik 2018.
    """

    def __init__(
        self, packed: PackNetModule, topology: Topology, post_prune_epochs: int, pruned: float
    ) -> None:
        """A plugin.

        Args:
            packed: Avalanche's wrapper of the strategy's module.
            topology: of the contexts.
            post_prune_epochs: how long what was kept is trained alone.
            pruned: share of the free weights that an experience leaves free, in [0, 1].
        """
        super().__init__(packed, post_prune_epochs, pruned)
        self.visits = Visits(topology)

    @property
    def stored_floats(self) -> int:
        """The network, and a byte per weight that says whose it is."""
        masks = [b for name, b in self.packed.named_buffers() if name.endswith("task_index")]
        weights = sum(p.numel() for p in self.packed.parameters())
        return weights + -(-sum(mask.numel() for mask in masks) // 4)

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Free weights and all earlier ones are visible, free ones can move."""
        super().before_training_exp(strategy, *args, **kwargs)
        self.packed.activate_task(self.packed.task_count)

    @torch.no_grad()
    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Freeze what was kept."""
        self.visits.remember(strategy.experience, self.packed.task_count)
        super().after_training_exp(strategy, *args, **kwargs)

    def before_eval_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Show the weights of the nearest context."""
        if self.packed.task_count:
            self.packed.activate_task(self.visits.nearest(strategy.experience))
