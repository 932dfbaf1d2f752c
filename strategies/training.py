"""WeightManifoldTraining: the ready strategy, for scripts that want one object."""

from collections.abc import Sequence
from typing import Any

from avalanche.core import SupervisedPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import nn
from torch.optim import Optimizer

from cl_manifold.manifold.weight_manifold import WeightManifold

from .loader import InMemoryLoaderPlugin
from .manifold.plugin import WeightManifoldPlugin


class WeightManifoldTraining(SupervisedTemplate):
    """A supervised Avalanche strategy on a weight manifold, with the in-memory loader.

    The same as any Avalanche strategy with `plugins=[WeightManifoldPlugin(...)]`; other plugins
    (replay, LwF, schedulers, …) go side by side with ours.

        strategy = WeightManifoldTraining(
            model=net, optimizer=Adam(net.parameters()), manifold=WeightManifoldPlugin(Fourier(3))
        )
        for experience in benchmark.train_stream:
            strategy.train(experience)
            strategy.eval(benchmark.test_stream)
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: Optimizer,
        manifold: WeightManifoldPlugin,
        criterion: Any = None,
        plugins: Sequence[SupervisedPlugin] = (),
        **template: Any,
    ) -> None:
        """A strategy.

        Args:
            model: the network; its current weights start the manifold.
            optimizer: of the network's parameters.
            manifold: the plugin that holds basis, contexts and protection.
            criterion: the loss; cross-entropy by default.
            plugins: others, called after ours.
            **template: of `SupervisedTemplate`: train_mb_size, train_epochs, eval_mb_size, device,
                evaluator, eval_every.
        """
        super().__init__(
            model=model,
            optimizer=optimizer,
            criterion=criterion or nn.CrossEntropyLoss(),
            plugins=[InMemoryLoaderPlugin(), manifold, *plugins],
            **template,
        )
        self.manifold_plugin = manifold

    @property
    def manifold(self) -> WeightManifold | None:
        """The weight manifold; None before the first training experience."""
        return self.manifold_plugin.manifold
