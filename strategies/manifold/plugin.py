"""WeightManifoldPlugin: any Avalanche strategy on a weight manifold.

The strategy trains an ordinary module with an ordinary optimizer. Around it, this plugin checks the
weights of the experience's context out of the manifold, adds the price of moving them, commits what
was trained, and evaluates every experience with the weights of its own context.
"""

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any, final
from warnings import warn

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.supervised import JointTraining
from torch import Tensor
from typing_extensions import Unpack

from cl_manifold.contexts import ContextPolicy, policy_of, position
from cl_manifold.errors import ContextError, IncompatibleError, LayoutError
from cl_manifold.geometry import Basis
from cl_manifold.manifold.information import ExactInformation, FisherInformation
from cl_manifold.manifold.layout import State
from cl_manifold.manifold.weight_manifold import WeightManifold

from .coordinates import Coordinates
from .deciding import Chosen, DecisionOptions, decider_for
from .drift import DriftGate, warn_of_far_moves
from .dry_run import check_optimizer, dry_run
from .inference import InferredTesting
from .measure import Measured
from .options import ManifoldOptions, PluginOptions
from .price import Price
from .samples import arguments, drawn
from .shaping import TopologyWatch
from .trace import TaskTrace


@final
class WeightManifoldPlugin(SupervisedPlugin, supports_distributed=False):
    """Continual learning on a weight manifold, for any supervised Avalanche strategy.

    Minimises ℓ(w) + (λ/2) (10/ρ) Σ_blocks κ ‖w − w(c)‖² for each experience, then commits. Training
    that goes on at the same context, as in online streams, is one visit with one commit.

    Reads at test time: the context of each evaluated experience, or with `testing` its inputs.
    Stores between experiences: the control points and small covariances, losses of held-out
    samples where decisions are made, an encoder's moments where contexts are inferred; no samples.

    Attributes:
        manifold: the weight manifold; None before the first training experience.
        traces: one record per training experience.
    """

    def __init__(
        self,
        basis: Basis,
        *,
        contexts: ContextPolicy | Callable[[Any], Any] | None = None,
        price: float = 10.0,
        information: FisherInformation | ExactInformation | None = None,
        deciding: DecisionOptions | None = None,
        testing: InferredTesting | None = None,
        shaping: TopologyWatch | None = None,
        **options: Unpack[PluginOptions],
    ) -> None:
        """A plugin for one strategy and one stream.

        Args:
            basis: topology and functions of the manifold, e.g. `Fourier(harmonics=3)`.
            contexts: any function from an experience to its context: a number or several, on a
                simplex the number of a vertex. By default the experience's attribute `context`.
                `InferredContext()` finds it by itself.
            price: λ ≥ 0, how much the price of moving weights counts; the same on every basis.
            information: how firmly a finished task is held; Fisher information by default.
            deciding: decides between reuse, place and grow, e.g. `DecisionOptions()`. Without it
                every experience is placed where its context is; inferred contexts need it.
            testing: infers contexts at test time. Without it an experience is evaluated at its
                given context, or at the coordinate that it was assigned in training: then its
                place in the stream is told.
            shaping: compares topologies after each task, and may turn into the best one, from
                `Vertices(1)`. It needs given contexts.
            **options: of `WeightManifold`: blocks, strength, storage, growable, select. And what
                happens if a commit would change outputs at an earlier context by more than
                `drift_limit` (share of changed predictions, or relative change in regression; 0.8
                by default): `on_drift` is "warn", "grow" (the basis) or "refuse" (with an error).
        """
        super().__init__()
        if not 0 <= price < float("inf"):
            raise ValueError(f"price must be finite and 0 or more, got {price}")
        policy = policy_of(contexts)
        self.basis, self.price_weight = basis, price
        self.information = information or FisherInformation()
        self.decider = decider_for(deciding, policy)
        self.testing, self.shaping = testing, shaping
        self.gate = DriftGate(options.pop("on_drift", "warn"), options.pop("drift_limit", 0.8))
        self.coordinates_of = Coordinates(policy, shaping)
        self.options: ManifoldOptions = options
        if self.decider is not None or shaping is not None or self.gate.on_drift == "grow":
            self.options.setdefault("growable", True)
        self.manifold: WeightManifold | None = None
        self.traces: list[TaskTrace] = []
        self._owner: weakref.ref[Any] | None = None
        self._generator = torch.Generator().manual_seed(0)
        self._price: Price | None = None
        self._measured = Measured(self.information)
        self._chosen: Chosen | None = None
        self._live: State | None = None
        self._settling = self._began = False

    def __getstate__(self) -> dict[str, Any]:
        """A copy belongs to no strategy yet."""
        return {**self.__dict__, "_owner": None}

    @property
    def stored_floats(self) -> int:
        """Everything kept between experiences, in units of 32 bits."""
        if self.manifold is None:
            return 0
        parts = [self.testing, self.shaping]
        return self.manifold.stored_floats + sum(part.stored_floats for part in parts if part)

    def coordinates(self) -> list[Tensor]:
        """The coordinate of every trained experience on today's basis, in the order of training."""
        assert self.manifold is not None
        return [self.manifold.atlas.assigned[trace.experience] for trace in self.traces]

    # -- training ----------------------------------------------------------------------------

    def before_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse what cannot work before anything is trained."""
        self._own(strategy)
        check_optimizer(strategy)
        self._began = False
        if isinstance(strategy, JointTraining) and len(strategy._experiences) > 1:
            raise IncompatibleError(
                f"JointTraining trains {len(strategy._experiences)} experiences at once, but the "
                "weight manifold learns one context after the other; use Naive, or a "
                "ManifoldModule with ConditionedTraining for all contexts at once"
            )

    def after_train_dataset_adaptation(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Where a rule decides, keep the support of its decision out of the training data."""
        if self.decider is not None:
            self.decider.hold_out(strategy)

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Decide where the experience goes, check out its weights and set their price."""
        self._began = True
        manifold = self._ready(strategy)
        given = self.coordinates_of.trained(manifold, strategy.experience)
        chosen = self._chosen = self._choose(strategy, given)
        if chosen.refines:
            manifold.release(chosen.context)
        if chosen.trains:
            self._open(strategy, chosen)
        else:
            manifold.write(manifold.state(chosen.context))
            self._price = None
        if self._price is None:
            strategy.stop_training()
        if chosen.start is not None:
            manifold.write(chosen.start)

    def _ready(self, strategy: Any) -> WeightManifold:
        """The manifold around the strategy's network as it is now."""
        if self.manifold is None:
            self.gate.check_network(strategy.model)
            manifold = WeightManifold(strategy.model, self.basis, **self.options)
            dry_run(strategy, manifold, self.information, self._generator)
            self.manifold = manifold
            return manifold
        self._follow(strategy)
        self._settle()
        return self.manifold

    def _follow(self, strategy: Any) -> None:
        """Go on with the strategy's network if it is another one, or became wider."""
        assert self.manifold is not None
        try:
            if self.manifold.module is not strategy.model:
                self.manifold.follow(strategy.model)
            self.manifold.extend()
        except LayoutError as error:
            raise LayoutError(f"the strategy's network changed: {error}") from error

    def _choose(self, strategy: Any, given: Tensor | None) -> Chosen:
        assert self.manifold is not None
        if self.decider is not None:
            return self.decider.decide(strategy, self.manifold, given, self.price_weight)
        assert given is not None
        return Chosen(given, "reuse" if self.manifold.atlas.visited(given) else "place")

    def _open(self, strategy: Any, chosen: Chosen) -> None:
        """Check the weights out and set their price; both go on where a visit goes on."""
        assert self.manifold is not None
        try:
            visit = self.manifold.check_out(chosen.context)
        except ContextError as error:
            if chosen.evidence is None:
                raise
            warn(f"{error}; the experience was left untrained", stacklevel=2)
            self.manifold.write(self.manifold.state(chosen.context))
            self._price = None
            return
        if self._price is None or self._price.visit is not visit:
            self._measured = Measured(self.information)
            # momentum belongs to the weights of the previous context
            strategy.optimizer.state.clear()
        self._price = Price(self.manifold, visit, self.price_weight)
        self._price.attach(strategy.optimizer)

    def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Follow the strategy to another optimizer, such as one that a plugin has built since."""
        if self._price is not None:
            self._price.attach(strategy.optimizer)

    @torch.no_grad()
    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Measure the information of what was learned, commit it, and trace what the commit did."""
        assert self.manifold is not None
        assert self._chosen is not None
        manifold, chosen = self.manifold, self._chosen
        index, self._chosen = position(strategy.experience), None
        overshoot, drift, gate = 0.0, 0.0, "passed"
        plasticity = manifold.plasticity(chosen.context)
        if self._price is not None:
            self._price.detach()
            for parameter in self._price.parameters:
                parameter.grad = None
            self._follow(strategy)
            if self.decider is not None:
                chosen = self.decider.make_room(manifold, chosen, index)
            visit = manifold.open(chosen.context)
            plasticity = manifold.average(visit.step.freedom)
            samples = drawn(strategy, max(self.information.samples, 64), self._generator)
            manifold.take_up_buffers()
            warn_of_far_moves(manifold, index)
            self._measured.add(strategy, manifold, samples, self._generator)
            drift, gate = self.gate.check(strategy, manifold, samples, index)
            chosen = replace(chosen, context=manifold.open_visit.context)
            measured = self._measured
            report = manifold.commit(measured.information(), measured.sharpness)
            overshoot = report.overshoot
            manifold.write(manifold.state(chosen.context))
        manifold.atlas.assigned[index] = chosen.context
        self._settling = True
        self._finish(strategy, chosen)
        self.traces.append(
            TaskTrace(
                experience=index,
                context=chosen.context,
                source=self.coordinates_of.policy.source,
                decision="grow" if gate == "grown" else chosen.decision,
                plasticity=plasticity,
                overshoot=overshoot,
                drift=drift,
                gate=gate,
                evidence=chosen.evidence,
                topologies=dict(self.shaping.evidence) if self.shaping else {},
            )
        )

    def _finish(self, strategy: Any, chosen: Chosen) -> None:
        """Let everybody who learns from finished tasks do so."""
        assert self.manifold is not None
        if self.decider is not None:
            self.decider.finish(self.manifold, chosen)
        if self.testing is not None:
            self.testing.learn(strategy, chosen.context, self.manifold.basis.topology)
        told = self.coordinates_of.told
        if self.shaping is not None and told is not None:
            growth = self.shaping.watch(strategy, self.manifold, told)
            if growth is not None:
                self.manifold.grow_and_reembed(growth)
                here = self.manifold.atlas.assigned[position(strategy.experience)]
                self.manifold.write(self.manifold.state(here))

    def after_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Take over what other plugins wrote into the network after the commit.

        Raises:
            IncompatibleError: nothing was trained, because a generator was used up before.
        """
        self._settle()
        if not self._began:
            raise IncompatibleError(
                "no experience was trained; Avalanche uses a generator up before training begins: "
                "pass a list of experiences, or one after the other"
            )

    def _settle(self) -> None:
        """The experience ends with what the network holds; what is written later is not of it."""
        if self._settling and self.manifold is not None:
            self.manifold.absorb()
        self._settling = False

    # -- evaluation --------------------------------------------------------------------------

    def before_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Set the live weights aside: evaluation writes those of other contexts."""
        if self.manifold is None:
            return
        self._own(strategy)
        if self._chosen is None:
            self._follow(strategy)
            if self._settling:
                self.manifold.absorb()
        self._live = self.manifold.layout.read(self.manifold.module)
        if self._infers:
            assert self.testing is not None
            self.testing.prepare(self.manifold)

    @property
    def _infers(self) -> bool:
        """In the middle of the first training there is nothing yet to infer from."""
        return self.testing is not None and bool(self.manifold and self.manifold.atlas.tasks)

    def before_eval_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Write the weights of the experience's context.

        In the middle of training they are those that would hold if it were committed now.
        """
        if self.manifold is None or self._live is None:
            return
        manifold = self.manifold
        if manifold.extend():
            self._live = manifold.layout.read(manifold.module) | self._live_where_same()
            if self._price is not None and self._chosen is not None:
                self._price.detach()
                self._price = Price(manifold, self._price.visit, self.price_weight)
                self._price.attach(strategy.optimizer)
        if self._infers:
            return
        context = self.coordinates_of.tested(manifold, strategy.experience)
        if self._chosen is not None and self._price is not None:
            manifold.take_up_buffers()
            live = manifold.layout.read(manifold.module) | self._live
            manifold.write(manifold.preview(context, live))
        else:
            manifold.write(manifold.state(context))

    def _live_where_same(self) -> State:
        """The live weights of tensors that did not become wider since."""
        assert self.manifold is not None
        assert self._live is not None
        shapes = {e.name: e.shape for e in self.manifold.layout.entries}
        return {n: t for n, t in self._live.items() if tuple(t.shape) == shapes[n]}

    def after_eval_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Where contexts are inferred, answer with the weights of the inferred ones."""
        if self._infers and self._live is not None:
            assert self.testing is not None
            labels = strategy.mbatch[-1] if len(strategy.mbatch) > 2 else None
            inputs = arguments(strategy, strategy.mb_x, labels)
            _, strategy.mb_output = self.testing.predict(inputs)

    def after_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Put the live weights back."""
        if self.manifold is not None and self._live is not None:
            self.manifold.write(self.manifold.layout.read(self.manifold.module) | self._live)
        self._live = None

    def _own(self, strategy: Any) -> None:
        """One plugin is for one strategy: its manifold holds what that one learned."""
        if self._owner is None:
            self._owner = weakref.ref(strategy)
        elif self._owner() is not strategy:
            raise IncompatibleError(
                "this WeightManifoldPlugin already belongs to another strategy, whose tasks its "
                "manifold holds; make a new plugin for each strategy, for example inside the loop"
            )
