"""WeightManifoldPlugin: any Avalanche strategy on a weight manifold.

The strategy trains an ordinary module with an ordinary optimizer. Around it, this plugin checks the
weights of the experience's context out of the manifold, adds the price of moving them, commits what
was trained, and evaluates every experience with the weights of its own context.
"""

from collections.abc import Callable
from typing import Any, TypedDict, final

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn
from typing_extensions import Unpack

from cl_manifold.contexts import ContextPolicy, GivenContext
from cl_manifold.errors import ContextError
from cl_manifold.geometry import Basis
from cl_manifold.information import ExactInformation, FisherInformation
from cl_manifold.layout import Granularity, Layout
from cl_manifold.manifold import WeightManifold

from .task import Batch, PricedTask, TaskTrace, some_batches


class ManifoldOptions(TypedDict, total=False):
    """What `WeightManifold` takes besides module and basis."""

    blocks: Granularity
    strength: float
    growable: bool
    select: Callable[[str], bool]


@final
class WeightManifoldPlugin(SupervisedPlugin, supports_distributed=False):
    """Continual learning on a weight manifold, for any supervised Avalanche strategy.

    Minimises ℓ(w) + (λ/2) Σ_blocks κ ‖w − w(c)‖² for each experience, then commits.

    Reads at test time: the context of each evaluated experience. Stores between experiences: the
    control points and small covariances (`manifold.stored_floats`), no samples.

    Attributes:
        manifold: the weight manifold; None before the first training experience.
        traces: one record per training experience.
    """

    drift_contexts = 3
    """Drift is measured at this many earlier contexts: those that the commit moves most."""

    def __init__(
        self,
        basis: Basis,
        *,
        contexts: ContextPolicy | None = None,
        price: float = 30.0,
        information: FisherInformation | ExactInformation | None = None,
        **options: Unpack[ManifoldOptions],
    ) -> None:
        """A plugin for one strategy and one stream.

        Args:
            basis: topology and functions of the manifold, e.g. `Fourier(harmonics=3)`.
            contexts: gives the context of an experience; by default its attribute `context`.
            price: λ ≥ 0, how much the price of moving weights counts.
            information: how firmly a finished task is held; Fisher information by default.
            **options: of `WeightManifold`: blocks, strength, growable, select.
        """
        super().__init__()
        if not 0 <= price < float("inf"):
            raise ValueError(f"price must be finite and 0 or more, got {price}")
        self.basis = basis
        self.contexts = contexts or GivenContext()
        self.price_weight = price
        self.information = information or FisherInformation()
        self.options = options
        self.manifold: WeightManifold | None = None
        self.traces: list[TaskTrace] = []
        self._task: PricedTask | None = None
        self._live: Tensor | None = None

    # -- training ----------------------------------------------------------------------------

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Check out the weights of the experience's context and set their price."""
        if self.manifold is None:
            self.manifold = WeightManifold(strategy.model, self.basis, **self.options)
        else:
            self.manifold.extend()
        manifold = self.manifold
        context = self._context(strategy.experience)
        price = manifold.price(context)
        manifold.check_out(context)
        anchor = manifold.layout.split(manifold.weights(context))
        parameters = dict(strategy.model.named_parameters())
        trained = [e.name for e in manifold.layout.trained]
        self._task = PricedTask(
            context=context,
            parameters=[parameters[name] for name in trained],
            anchors=[anchor[name] for name in trained],
            scales=[self.price_weight * kappa for kappa in price],
            plasticity=manifold.plasticity(context),
        )
        # momentum belongs to the weights of the previous context
        strategy.optimizer.state.clear()

    def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Add the gradient of the price, λ κ (w − w(c)), to those of the loss."""
        if self._task is not None and self.price_weight > 0:
            self._task.add_price(max(group["lr"] for group in strategy.optimizer.param_groups))

    @torch.no_grad()
    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Measure the information of what was learned, commit it, and trace what the commit did."""
        assert self.manifold is not None
        assert self._task is not None
        manifold, task = self.manifold, self._task
        self._task = None
        for parameter in task.parameters:
            parameter.grad = None
        was_training = strategy.model.training
        strategy.model.eval()
        batches = some_batches(strategy, max(self.information.samples, 1))
        information = self._measure(strategy.model, batches, manifold.layout)
        watched = self._most_moved(task.context)
        live = manifold.layout.read(manifold.module)
        before = [self._predict(c, batches) for c in watched]
        manifold.layout.write(manifold.module, live)
        del live
        report = manifold.commit(task.context, information)
        after = [self._predict(c, batches) for c in watched]
        manifold.check_out(task.context)
        strategy.model.train(was_training)
        changed = [float((a != b).float().mean()) for a, b in zip(before, after, strict=True)]
        self.traces.append(
            TaskTrace(
                experience=int(strategy.experience.current_experience),
                context=task.context,
                source=self.contexts.source,
                decision="reuse" if self._visited(task.context) else "place",
                plasticity=task.plasticity,
                overshoot=report.overshoot,
                drift=max(changed, default=0.0),
            )
        )

    # -- evaluation --------------------------------------------------------------------------

    def before_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Set the live weights aside: evaluation checks out other contexts."""
        if self.manifold is not None:
            self._live = self.manifold.layout.read(self.manifold.module)

    def before_eval_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Check out the weights of the experience's context.

        In the middle of training, the context being trained is evaluated with the live weights.
        """
        if self.manifold is None or self._live is None:
            return
        context = self._context(strategy.experience)
        distance = self.basis.topology.distance
        if self._task is not None and float(distance(context, self._task.context)) == 0:
            self.manifold.layout.write(self.manifold.module, self._live)
        else:
            self.manifold.check_out(context)

    def after_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Put the live weights back."""
        if self.manifold is not None and self._live is not None:
            self.manifold.layout.write(self.manifold.module, self._live)
        self._live = None

    # -- helpers -----------------------------------------------------------------------------

    def _context(self, experience: Any) -> Tensor:
        """The experience's context in canonical coordinates, or an error that names it."""
        context = self.contexts(experience)
        try:
            return self.basis.topology.wrap(context)
        except ContextError as error:
            index = experience.current_experience
            raise ContextError(f"experience {index}: {error}") from error

    def _visited(self, context: Tensor) -> bool:
        """Whether the context was already visited before the commit that was just made."""
        assert self.manifold is not None
        earlier = [v.context for v in self.manifold.visits[:-1]]
        return any(torch.allclose(context, c, rtol=0, atol=1e-12) for c in earlier)

    def _most_moved(self, context: Tensor) -> list[Tensor]:
        """The visited contexts that a commit at `context` moves most."""
        assert self.manifold is not None
        visited = [v.context for v in self.manifold.visits]
        if not visited:
            return []
        moved = self.manifold.influence(context, torch.stack(visited)).abs().mean(-1)
        order = moved.argsort(descending=True)[: self.drift_contexts]
        return [visited[i] for i in order.tolist()]

    def _measure(self, model: nn.Module, batches: list[Batch], layout: Layout) -> Tensor:
        """The information over all batches, in memory for one."""
        parts = torch.stack([self.information(model, b.forward, b.x, layout) for b in batches])
        shares = torch.tensor([float(len(b.x)) for b in batches]).to(parts)
        return (shares / shares.sum()) @ parts

    def _predict(self, context: Tensor, batches: list[Batch]) -> Tensor:
        assert self.manifold is not None
        self.manifold.check_out(context)
        return torch.cat([b.forward(b.x).argmax(-1) for b in batches])
