"""WeightManifoldPlugin: any Avalanche strategy on a weight manifold.

The strategy trains an ordinary module with an ordinary optimizer. Around it, this plugin checks the
weights of the experience's context out of the manifold, adds the price of moving them, commits what
was trained, and evaluates every experience with the weights of its own context.
"""

from collections.abc import Callable
from typing import Any, TypedDict, final
from warnings import warn

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn
from typing_extensions import Unpack

from cl_manifold.contexts import ContextPolicy, GivenContext, InferredContext
from cl_manifold.errors import ContextError
from cl_manifold.geometry import Basis
from cl_manifold.manifold.information import ExactInformation, FisherInformation
from cl_manifold.manifold.layout import Granularity, Layout
from cl_manifold.manifold.revision import release
from cl_manifold.manifold.weight_manifold import WeightManifold

from .deciding import Chosen, Decider, DecisionOptions
from .inferring import InferredTesting
from .memory import TaskMemory
from .probes import most_moved, priced_task
from .shaping import TopologyWatch
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

    Reads at test time: the context of each evaluated experience, or with `testing` its inputs.
    Stores between experiences: the control points and small covariances, losses of held-out
    samples where decisions are made, an encoder's moments where contexts are inferred; no samples.

    Attributes:
        manifold: the weight manifold; None before the first training experience.
        memory: the coordinate of every experience, and losses that decisions compare with.
        traces: one record per training experience.
    """

    def __init__(
        self,
        basis: Basis,
        *,
        contexts: ContextPolicy | None = None,
        price: float = 30.0,
        information: FisherInformation | ExactInformation | None = None,
        deciding: DecisionOptions | None = None,
        testing: InferredTesting | None = None,
        shaping: TopologyWatch | None = None,
        **options: Unpack[ManifoldOptions],
    ) -> None:
        """A plugin for one strategy and one stream.

        Args:
            basis: topology and functions of the manifold, e.g. `Fourier(harmonics=3)`.
            contexts: gives the context of an experience; by default its attribute `context`.
                `InferredContext()` finds it by itself.
            price: λ ≥ 0, how much the price of moving weights counts.
            information: how firmly a finished task is held; Fisher information by default.
            deciding: decides between reuse, place and grow, e.g. `DecisionOptions()`. Without it
                every experience is placed where its context is; inferred contexts need it.
            testing: infers contexts at test time. Without it an experience is evaluated at its
                given context, or at the coordinate that it was assigned in training: then its
                place in the stream is told.
            shaping: compares topologies after each task, and may turn into the best one, from
                `Vertices(1)`. It needs given contexts.
            **options: of `WeightManifold`: blocks, strength, growable, select.
        """
        super().__init__()
        if not 0 <= price < float("inf"):
            raise ValueError(f"price must be finite and 0 or more, got {price}")
        self.basis = basis
        self.contexts = contexts or GivenContext()
        self.price_weight = price
        self.information = information or FisherInformation()
        self.decider = self._decider(deciding)
        self.testing, self.shaping = testing, shaping
        self.memory = TaskMemory() if self.decider is None else self.decider.memory
        self.options = options
        if self.decider is not None or shaping is not None:
            self.options.setdefault("growable", True)
        self.manifold: WeightManifold | None = None
        self.traces: list[TaskTrace] = []
        self._task: PricedTask | None = None
        self._chosen: Chosen | None = None
        self._live: Tensor | None = None
        self._told: Tensor | None = None

    def _decider(self, options: DecisionOptions | None) -> Decider | None:
        search = self.contexts if isinstance(self.contexts, InferredContext) else InferredContext()
        if options is None and search is self.contexts:
            raise ValueError(
                "inferred contexts need a rule that tells returning tasks from new ones; "
                "pass deciding=DecisionOptions()"
            )
        return None if options is None else Decider(options, search)

    @property
    def stored_floats(self) -> int:
        """Everything kept between experiences, in units of 32 bits."""
        if self.manifold is None:
            return 0
        remembered = self.decider.memory.stored_floats if self.decider else 0
        remembered += self.testing.stored_floats if self.testing else 0
        remembered += self.shaping.stored_floats if self.shaping else 0
        return self.manifold.stored_floats + remembered

    def coordinates(self) -> list[Tensor]:
        """The coordinate of every trained experience on today's basis, in the order of training."""
        return [self.memory.assigned[trace.experience] for trace in self.traces]

    # -- training ----------------------------------------------------------------------------

    def after_train_dataset_adaptation(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Where a rule decides, keep the support of its decision out of the training data."""
        if self.decider is not None:
            self.decider.hold_out(strategy)

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Decide where the experience goes, check out its weights and set their price."""
        if self.manifold is None:
            self.manifold = WeightManifold(strategy.model, self.basis, **self.options)
        else:
            self.manifold.extend()
        manifold = self.manifold
        chosen = self._chosen = self._choose(strategy)
        if chosen.refines:
            release(manifold, chosen.context)
        manifold.check_out(chosen.context)
        self._task = self._priced(chosen)
        if self._task is None:
            strategy.stop_training()
        if chosen.start is not None:
            manifold.layout.write(manifold.module, chosen.start)
        # momentum belongs to the weights of the previous context
        strategy.optimizer.state.clear()

    def _priced(self, chosen: Chosen) -> PricedTask | None:
        """The price of the coming training; None where nothing is to be trained, or can be."""
        assert self.manifold is not None
        if not chosen.trains:
            return None
        try:
            return priced_task(self.manifold, chosen.context, self.price_weight)
        except ContextError as error:
            if chosen.evidence is None:
                raise
            warn(f"{error}; the experience was left untrained", stacklevel=2)
            return None

    def _choose(self, strategy: Any) -> Chosen:
        assert self.manifold is not None
        given = self._given(strategy.experience)
        if given is not None and self.shaping is not None:
            self._told = given
            given, growth = self.shaping.place(self.manifold, given)
            if growth is not None:
                self.memory.grow(self.manifold, growth)
        given = self._wrapped(strategy.experience, given)
        if self.decider is not None:
            return self.decider.decide(strategy, self.manifold, given, self.price_weight)
        assert given is not None
        return Chosen(given, "reuse" if self._visited(given) else "place")

    def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Add the gradient of the price, λ κ (w − w(c)), to those of the loss."""
        if self._task is not None and self.price_weight > 0:
            self._task.add_price(max(group["lr"] for group in strategy.optimizer.param_groups))

    @torch.no_grad()
    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Measure the information of what was learned, commit it, and trace what the commit did."""
        assert self.manifold is not None
        assert self._chosen is not None
        manifold, chosen = self.manifold, self._chosen
        for parameter in self._task.parameters if self._task else ():
            parameter.grad = None
        plasticity = self._task.plasticity if self._task else manifold.plasticity(chosen.context)
        trained = self._task is not None
        self._task = self._chosen = None
        index = int(strategy.experience.current_experience)
        overshoot, drift = 0.0, 0.0
        if trained or not self._visited(chosen.context):
            if self.decider is not None and trained:
                live = manifold.layout.read(manifold.module)
                chosen = self.decider.make_room(manifold, chosen, live, index)
            overshoot, drift = self._commit(strategy, chosen.context)
        self.memory.assigned[index] = chosen.context
        if self.decider is not None:
            self.decider.finish(manifold, chosen)
        if self.testing is not None:
            self.testing.learn(strategy, chosen.context, manifold.basis.topology)
        if self.shaping is not None and self._told is not None:
            growth = self.shaping.watch(strategy, manifold, self._told)
            if growth is not None:
                self.memory.grow(manifold, growth)
                manifold.check_out(self.memory.assigned[index])
        self.traces.append(
            TaskTrace(
                experience=index,
                context=chosen.context,
                source=self.contexts.source,
                decision=chosen.decision,
                plasticity=plasticity,
                overshoot=overshoot,
                drift=drift,
                evidence=chosen.evidence,
                topologies=dict(self.shaping.evidence) if self.shaping else {},
            )
        )

    def _commit(self, strategy: Any, context: Tensor) -> tuple[float, float]:
        """Measure and commit; returns overshoot and drift."""
        assert self.manifold is not None
        manifold = self.manifold
        was_training = strategy.model.training
        strategy.model.eval()
        batches = some_batches(strategy, max(self.information.samples, 1))
        information = self._measure(strategy.model, batches, manifold.layout)
        watched = most_moved(manifold, context)
        live = manifold.layout.read(manifold.module)
        before = [self._predict(c, batches) for c in watched]
        manifold.layout.write(manifold.module, live)
        del live
        report = manifold.commit(context, information)
        after = [self._predict(c, batches) for c in watched]
        manifold.check_out(context)
        strategy.model.train(was_training)
        changed = [float((a != b).float().mean()) for a, b in zip(before, after, strict=True)]
        return report.overshoot, max(changed, default=0.0)

    # -- evaluation --------------------------------------------------------------------------

    def before_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Set the live weights aside: evaluation checks out other contexts."""
        if self.manifold is None:
            return
        self._live = self.manifold.layout.read(self.manifold.module)
        if self._infers:
            assert self.testing is not None
            self.testing.prepare(self.manifold)

    @property
    def _infers(self) -> bool:
        """In the middle of the first training there is nothing yet to infer from."""
        return self.testing is not None and bool(self.manifold and self.manifold.visits)

    def before_eval_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Check out the weights of the experience's context.

        In the middle of training, the context being trained is evaluated with the live weights.
        """
        if self.manifold is None or self._live is None or self._infers:
            return
        context = self._test_context(strategy.experience)
        distance = self.manifold.basis.topology.distance
        if self._task is not None and float(distance(context, self._task.context)) == 0:
            self.manifold.layout.write(self.manifold.module, self._live)
        else:
            self.manifold.check_out(context)

    def after_eval_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Where contexts are inferred, answer with the weights of the inferred ones."""
        if self._infers and self._live is not None:
            assert self.testing is not None
            _, strategy.mb_output = self.testing.predict(strategy.mb_x)

    def after_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Put the live weights back."""
        if self.manifold is not None and self._live is not None:
            self.manifold.layout.write(self.manifold.module, self._live)
        self._live = None

    # -- helpers -----------------------------------------------------------------------------

    def _given(self, experience: Any) -> Tensor | None:
        """The context as it was given."""
        context = self.contexts(experience)
        if context is None and self.shaping is not None:
            raise ContextError(
                f"experience {experience.current_experience} has no given context, which "
                "topologies are compared by; give contexts, or leave shaping out"
            )
        return context

    def _wrapped(self, experience: Any, context: Tensor | None) -> Tensor | None:
        """The context in canonical coordinates, or an error that names the experience."""
        if context is None:
            return None
        assert self.manifold is not None
        try:
            return self.manifold.basis.topology.wrap(context)
        except ContextError as error:
            index = experience.current_experience
            raise ContextError(f"experience {index}: {error}") from error

    def _test_context(self, experience: Any) -> Tensor:
        """The given context, or the one that the experience was assigned while training."""
        assert self.manifold is not None
        given = self._given(experience)
        if given is not None and self.shaping is not None:
            given = self.shaping.somewhere(self.manifold, given)
        wrapped = self._wrapped(experience, given)
        if wrapped is not None:
            return wrapped
        assigned = self.memory.assigned
        index = int(experience.current_experience)
        return assigned[index if index in assigned else max(assigned)]

    def _visited(self, context: Tensor) -> bool:
        """Whether a finished task lies at the context."""
        assert self.manifold is not None
        earlier = [v.context for v in self.manifold.visits]
        return any(torch.allclose(context, c, rtol=0, atol=1e-12) for c in earlier)

    def _measure(self, model: nn.Module, batches: list[Batch], layout: Layout) -> Tensor:
        """The information over all batches, in memory for one."""
        parts = torch.stack([self.information(model, b.forward, b.x, layout) for b in batches])
        shares = torch.tensor([float(len(b.x)) for b in batches]).to(parts)
        return (shares / shares.sum()) @ parts

    def _predict(self, context: Tensor, batches: list[Batch]) -> Tensor:
        assert self.manifold is not None
        self.manifold.check_out(context)
        return torch.cat([b.forward(b.x).argmax(-1) for b in batches])
