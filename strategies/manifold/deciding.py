"""Deciding about an experience: search its coordinate, gather evidence, reuse, place or grow."""

import time
from dataclasses import dataclass, field, replace
from typing import Any, final
from warnings import warn

import torch
from torch import Tensor

from cl_manifold.contexts.decisions import ByEvidence, Rule
from cl_manifold.contexts.evidence import Decision, Evidence
from cl_manifold.contexts.policies import ContextPolicy, InferredContext, position
from cl_manifold.contexts.statistics import assured_difference
from cl_manifold.contexts.sweep import logits_at, logits_with, row
from cl_manifold.errors import ContextError, context_text
from cl_manifold.geometry import Growth, Vertices
from cl_manifold.manifold.atlas import Reference
from cl_manifold.manifold.layout import State
from cl_manifold.manifold.likelihood import Categorical
from cl_manifold.manifold.weight_manifold import WeightManifold

from .drift import drift_of_commit
from .probes import Probe, losses, probe
from .support import Support, hold_out
from .zero_shot import zero_shot

FREE = 0.5
"""Plasticity from which an unvisited coordinate is taken before the basis grows."""

MORE = 1.5
"""A task that comes back with so many times the samples refines its coordinate."""


@dataclass(frozen=True)
class DecisionOptions:
    """Who decides, and what deciding may cost.

    Attributes:
        rule: from evidence to reuse, place or grow.
        held_out: labelled samples that are kept from training, at most; a fifth of the data is the
            other limit.
        probe_share: length of each of the two probes, as a share of the experience's steps.
        max_control_points: the basis does not grow beyond it; None for no limit.
        seed: of the held-out samples and the permutations of the return test.
    """

    rule: Rule = field(default_factory=ByEvidence)
    held_out: int = 256
    probe_share: float = 0.04
    max_control_points: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Chosen:
    """What was decided about one experience.

    Attributes:
        context: its coordinate.
        decision: reuse, place or grow.
        evidence: why; None for the first experience.
        trains: whether it is trained at all.
        refines: whether it is a finished task that is trained further.
        start: weights to start from, where they are not w(context).
    """

    context: Tensor
    decision: Decision
    evidence: Evidence | None = None
    trains: bool = True
    refines: bool = False
    start: State | None = None


@final
class Decider:
    """Decides about one experience after the other, by a rule.

    Stores per visited coordinate the held-out losses of its task: numbers, no samples.
    """

    def __init__(self, options: DecisionOptions, search: InferredContext) -> None:
        self.rule, self.options, self.search = options.rule, options, search
        self.support: Support | None = None
        self._generator = torch.Generator().manual_seed(options.seed)
        self._probe: Probe | None = None
        self._is_given = False

    def hold_out(self, strategy: Any) -> None:
        """Set the support of the coming experience aside."""
        self.support = hold_out(strategy, self.options.held_out, self._generator)

    # -- before training ---------------------------------------------------------------------

    def decide(
        self, strategy: Any, manifold: WeightManifold, given: Tensor | None, price: float
    ) -> Chosen:
        """Gather evidence until the rule has decided; grow the manifold if it says so.

        Raises:
            ContextError: the given context holds a finished task that the new one contradicts.
        """
        manifold.visit = None  # what is decided about is a task of its own
        if not manifold.atlas.tasks:
            return Chosen(self._home(manifold) if given is None else given, "place")
        begin = time.perf_counter()
        support, can_grow = self._required_support(), self._can_grow(manifold)
        evidence = zero_shot(manifold, support, self.search, given, can_grow, self._generator)
        context = torch.tensor(evidence.context, dtype=torch.float64)
        decision = self.rule.decide(evidence)
        if decision is None:
            evidence = self._probed(strategy, manifold, evidence, context, price)
            decision = self.rule.decide(evidence)
        assert decision is not None
        self._is_given = given is not None
        self._check_contradiction(position(strategy.experience), evidence)
        chosen = Chosen(context, decision, evidence)
        if decision == "grow":
            chosen = self._grow(manifold, chosen, given)
        elif evidence.visited:
            chosen = self._return(manifold, chosen)
        elif decision == "reuse":
            chosen = replace(chosen, trains=False)
        evidence = replace(evidence, seconds=time.perf_counter() - begin)
        return replace(chosen, evidence=evidence)

    def _home(self, manifold: WeightManifold) -> Tensor:
        """Where the first task goes: the first vertex, the origin of other topologies."""
        return manifold.basis.topology.grid(2)[0].double()

    def _probed(
        self,
        strategy: Any,
        manifold: WeightManifold,
        evidence: Evidence,
        context: Tensor,
        price: float,
    ) -> Evidence:
        """The same evidence with what two short trainings found."""
        support = self._required_support()
        found = probe(strategy, manifold, context, support, self.options.probe_share, price)
        self._probe = found
        here = losses(logits_at(manifold, context[None], support.inputs)[0], support.y)
        return replace(
            evidence,
            constrained_loss=float(found.constrained.mean()),
            unconstrained_loss=float(found.unconstrained.mean()),
            unconstrained_acc=found.accuracy,
            gain=assured_difference(here, found.unconstrained),
            shortfall=found.shortfall(),
            drift=self._drift(manifold, context, found.weights),
        )

    # -- the three decisions -----------------------------------------------------------------

    def _return(self, manifold: WeightManifold, chosen: Chosen) -> Chosen:
        """A finished task is back: nothing is trained, unless it brings more data than before."""
        support = self._required_support()
        before = manifold.atlas.reference(chosen.context)
        assert before is not None
        more = support.trained > MORE * before.trained
        trains = more or chosen.decision == "place"
        return replace(chosen, decision="reuse", trains=trains, refines=more)

    def _grow(self, manifold: WeightManifold, chosen: Chosen, given: Tensor | None) -> Chosen:
        """Grow the basis and find the new task's place on it."""
        if given is not None:
            evidence = chosen.evidence
            assert evidence is not None
            self._grow_until_harmless(manifold, given, evidence, self._probe)
            return chosen
        if isinstance(manifold.basis, Vertices):
            context = self._new_vertex(manifold)
            return self._warm(manifold, replace(chosen, context=context), chosen.context)
        freest = self._freest(manifold)
        if manifold.plasticity(freest) < FREE:
            _grow(manifold, manifold.basis.grown())
            return replace(chosen, context=self._freest(manifold))
        return replace(chosen, context=freest, decision="place")

    def _grow_until_harmless(
        self, manifold: WeightManifold, context: Tensor, evidence: Evidence, found: Probe | None
    ) -> None:
        """Once, and on as long as the rule would grow for the drift that is left."""
        evidence = replace(evidence, shortfall=0.0)
        while self._can_grow(manifold):
            _grow(manifold, manifold.basis.grown())
            if found is None:
                return
            drift = self._drift(manifold, context, found.weights)
            evidence = replace(evidence, drift=drift, can_grow=self._can_grow(manifold))
            if self.rule.decide(evidence) != "grow":
                return

    def _new_vertex(self, manifold: WeightManifold) -> Tensor:
        _grow(manifold, manifold.basis.grown())
        return torch.eye(manifold.basis.size, dtype=torch.float64)[-1]

    def _warm(self, manifold: WeightManifold, chosen: Chosen, nearest: Tensor) -> Chosen:
        """Start at a new vertex from the initial network or the nearest task: what fits better."""
        support = self._required_support()
        nearest = torch.nn.functional.pad(nearest, (0, 1))
        starts = manifold.state(torch.stack([chosen.context, nearest]))
        found = logits_with(manifold, starts, support.inputs)
        own, near = (losses(logits, support.y).mean() for logits in found)
        return replace(chosen, start=row(starts, 1)) if near < own else chosen

    def _freest(self, manifold: WeightManifold) -> Tensor:
        places = manifold.basis.topology.grid(self.search.grid).double()
        free = torch.tensor([manifold.plasticity(place) for place in places])
        return places[int(free.argmax())]

    # -- after training ----------------------------------------------------------------------

    def make_room(self, manifold: WeightManifold, chosen: Chosen, experience: int) -> Chosen:
        """Grow if committing what was trained would drift; the trained weights stay.

        Raises:
            ContextError: the given context holds a finished task that the new one contradicts.
        """
        if chosen.evidence is None or chosen.evidence.drift is None or chosen.refines:
            return chosen
        weights = manifold.layout.read(manifold.module)
        drift = self._drift(manifold, chosen.context, weights)
        evidence = replace(chosen.evidence, commit_drift=drift)
        chosen = replace(chosen, evidence=evidence)
        if chosen.decision == "grow" and isinstance(manifold.basis, Vertices):
            return chosen  # it has a vertex of its own
        # the trained weights count now, no longer the probes
        settled = replace(evidence, shortfall=0.0, drift=0.0, can_grow=self._can_grow(manifold))
        if self.rule.decide(replace(settled, commit_drift=0.0)) == "grow":
            return chosen  # it does not depend on drift
        self._check_contradiction(experience, settled)
        if self.rule.decide(settled) != "grow":
            return chosen
        if isinstance(manifold.basis, Vertices):
            return replace(chosen, context=self._new_vertex(manifold), decision="grow")
        while self.rule.decide(settled) == "grow":
            _grow(manifold, manifold.basis.grown())
            drift = self._drift(manifold, chosen.context, weights)
            settled = replace(settled, commit_drift=drift, can_grow=self._can_grow(manifold))
        return replace(chosen, decision="grow")

    def finish(self, manifold: WeightManifold, chosen: Chosen) -> None:
        """Remember the task: its coordinate, and how it does on held-out samples."""
        support = self._required_support()
        if chosen.trains or manifold.atlas.reference(chosen.context) is None:
            logits = logits_at(manifold, chosen.context[None], support.inputs)[0]
            kept = losses(logits, support.y).cpu().float()
            manifold.atlas.remember(Reference(chosen.context, kept, support.trained))
        self.support = self._probe = None

    # -- helpers -----------------------------------------------------------------------------

    def _check_contradiction(self, experience: int, evidence: Evidence) -> None:
        """Two tasks at one coordinate that was given, or where the basis may not grow."""
        asked = self.rule.decide(replace(evidence, can_grow=True))
        if asked != "grow" or not evidence.visited or evidence.drift is None:
            return
        text = (
            f"{context_text(evidence.context)} of a finished task that it contradicts (accuracy "
            f"{evidence.zero_shot_score:.2f}, loss {evidence.zero_shot_loss:.2f} against "
            f"{evidence.reference_loss:.2f})"
        )
        if self._is_given:
            raise ContextError(
                f"experience {experience} was given the context {text}; no basis can tell two "
                "tasks at one coordinate apart: give it a context of its own, or let contexts be "
                "inferred"
            )
        if not evidence.can_grow:
            warn(
                f"experience {experience} is trained at the context {text}, because the basis may "
                "not grow: that task will suffer; raise max_control_points",
                stacklevel=2,
            )

    def _can_grow(self, manifold: WeightManifold) -> bool:
        """Within the limit, and while there are no more control points than tasks."""
        limit, tasks = self.options.max_control_points, len(manifold.atlas.references) + 1
        within = limit is None or manifold.basis.grown().basis.size <= limit
        return within and manifold.basis.size < tasks

    def _drift(self, manifold: WeightManifold, context: Tensor, weights: State) -> float:
        """Of committing weights at a context, on the support; 0 where nothing may move."""
        try:
            visit = manifold.look(context)
        except ContextError:
            return 0.0
        inputs, tasks = self._required_support().inputs, manifold.atlas.tasks
        return drift_of_commit(manifold, visit, weights, tasks, inputs, Categorical())

    def _required_support(self) -> Support:
        assert self.support is not None
        return self.support


def _grow(manifold: WeightManifold, growth: Growth) -> None:
    """A further vertex leaves all others alone; any other growth is re-embedded."""
    if isinstance(growth.basis, Vertices) and isinstance(manifold.basis, Vertices):
        manifold.grow(growth)
    else:
        manifold.grow_and_reembed(growth)


def decider_for(options: DecisionOptions | None, policy: ContextPolicy) -> Decider | None:
    """Who decides; None where every experience is placed where its context is.

    Raises:
        ValueError: contexts are inferred, but nobody decides.
    """
    search = policy if isinstance(policy, InferredContext) else InferredContext()
    if options is None and search is policy:
        raise ValueError(
            "inferred contexts need a rule that tells returning tasks from new ones; "
            "pass deciding=DecisionOptions()"
        )
    return None if options is None else Decider(options, search)
