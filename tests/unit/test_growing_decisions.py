"""Growth that a rule asks for: where a task goes, how far the basis grows, what is started from."""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from cl_manifold.contexts import AlwaysGrow, ByEvidence, GivenContext, InferredContext
from cl_manifold.contexts.evidence import Decision, Evidence
from cl_manifold.geometry import Basis, Fourier, Vertices
from cl_manifold.manifold.atlas import Reference
from cl_manifold.manifold.information import ExactInformation
from cl_manifold.manifold.weight_manifold import WeightManifold
from cl_manifold.strategies import DecisionOptions
from cl_manifold.strategies.manifold.deciding import Chosen, Decider
from cl_manifold.strategies.manifold.probes import Probe
from cl_manifold.strategies.manifold.support import Support
from tests.networks import flat, points_of, shake, small_mlp, weights_at

from .test_deciding import decisions, strategy, stream, task


@dataclass(frozen=True)
class ByDrift:
    """Grows as long as the drift is above a limit; says nothing before it was measured."""

    limit: float

    def decide(self, evidence: Evidence) -> Decision | None:
        if evidence.drift is None:
            return None
        drift = max(evidence.drift, evidence.commit_drift or 0.0)
        return "grow" if drift > self.limit and evidence.can_grow else "place"


@dataclass(frozen=True)
class Says:
    """The same for everything."""

    decision: Decision

    def decide(self, evidence: Evidence) -> Decision:
        return self.decision


def at(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def walked(basis: Basis, places: list[Tensor], more: int = 0) -> WeightManifold:
    """Random tasks, each with a reference; more references let the basis grow further."""
    torch.manual_seed(0)
    manifold = WeightManifold(small_mlp(), basis, growable=True)
    for place in places:
        shake(manifold, place, 1.0)
        manifold.atlas.remember(Reference(place, torch.rand(40), 100))
    for i in range(more):
        manifold.atlas.remember(Reference(at(0.05 + 0.1 * i), torch.rand(40), 100))
    return manifold


def decider(rule: Any, **options: Any) -> Decider:
    made = Decider(DecisionOptions(rule, **options), InferredContext(grid=9))
    x, y = torch.randn(60, 6), torch.randint(3, (60,))
    made.support = Support((x,), y, 100, 3)
    return made


def evidence(context: Tensor, drift: float = 0.0) -> Evidence:
    """Of a probe that found nothing to grow for."""
    return Evidence(60, tuple(context.tolist()), False, 1.0, 0.3, 1.0, 0.0, 1.0, 1.0, drift=drift)


def drift_at(made: Decider, manifold: WeightManifold, context: Tensor) -> float:
    return made._drift(manifold, context, manifold.layout.read(manifold.module))


def test_a_commit_that_would_drift_makes_room_and_no_more_than_it_needs() -> None:
    places = [at(0.0), at(0.2), at(0.4), at(0.6)]
    manifold, made = walked(Fourier(0), places, more=4), decider(ByDrift(0.3))
    manifold.check_out(at(0.8))
    with torch.no_grad():
        for p in manifold.module.parameters():
            p.mul_(-3)
    live = flat(manifold, manifold.layout.read(manifold.module))
    chosen = Chosen(at(0.8), "place", evidence(at(0.8)))
    found = made.make_room(manifold, chosen, 4)
    assert found.decision == "grow"
    assert torch.equal(found.context, at(0.8))
    assert found.evidence is not None
    assert found.evidence.commit_drift is not None
    assert found.evidence.commit_drift > 0.3, "as it was before the growth"
    assert drift_at(made, manifold, at(0.8)) <= 0.3
    assert manifold.basis.size == 5, "three functions would still drift, seven are allowed"
    assert torch.equal(flat(manifold, manifold.layout.read(manifold.module)), live)


def test_a_commit_that_would_not_drift_makes_no_room() -> None:
    manifold, made = walked(Fourier(0), [at(0.0)]), decider(ByDrift(0.3))
    manifold.check_out(at(0.8))
    found = made.make_room(manifold, Chosen(at(0.8), "place", evidence(at(0.8))), 1)
    assert found.decision == "place"
    assert found.evidence is not None
    assert found.evidence.commit_drift == 0.0
    assert manifold.basis.size == 1


def test_on_vertices_a_commit_that_would_drift_gets_a_vertex_of_its_own() -> None:
    manifold, made = walked(Vertices(1), [at(1.0)]), decider(ByDrift(0.3))
    manifold.check_out(at(1.0))
    with torch.no_grad():
        for p in manifold.module.parameters():
            p.mul_(-3)
    found = made.make_room(manifold, Chosen(at(1.0), "place", evidence(at(1.0))), 1)
    assert found.decision == "grow"
    assert torch.equal(found.context, at(0.0, 1.0))
    assert found.context.dtype == torch.float64
    assert manifold.basis.size == 2


@pytest.mark.parametrize(("limit", "size"), [(0.3, 5), (-1.0, 9)])
def test_a_given_context_grows_until_the_probe_does_no_harm(limit: float, size: int) -> None:
    """At the limit −1 everything is harm: it grows as long as it may."""
    places = [at(0.0), at(0.2), at(0.4), at(0.6)]
    manifold, made = walked(Fourier(0), places, more=4), decider(ByDrift(limit))
    state = {n: -3 * w for n, w in manifold.state(at(0.8)).items()}
    probe = Probe(torch.zeros(1), torch.zeros(1), 0.0, state)
    made._grow_until_harmless(manifold, at(0.8), evidence(at(0.8), drift=1.0), probe)
    assert manifold.basis.size == size


def test_growth_for_drift_does_not_go_on_for_a_shortfall() -> None:
    """The shortfall was measured before the growth, and nothing is trained in between."""
    manifold = walked(Fourier(0), [at(0.0), at(0.2), at(0.4), at(0.6)], more=4)
    made = decider(ByEvidence(drift=0.3))
    probe = Probe(torch.zeros(1), torch.zeros(1), 0.0, manifold.state(at(0.8)))
    short = replace(evidence(at(0.8), drift=1.0), shortfall=9.0)
    made._grow_until_harmless(manifold, at(0.8), short, probe)
    assert manifold.basis.size == 3


@pytest.mark.parametrize(("said", "trains"), [("reuse", False), ("place", True)])
def test_reuse_between_finished_tasks_trains_nothing(said: Decision, trains: bool) -> None:
    manifold, made = walked(Fourier(1), [at(0.0), at(0.5)]), decider(Says(said))
    experience = SimpleNamespace(current_experience=2)
    chosen = made.decide(SimpleNamespace(experience=experience), manifold, at(0.25), 1.0)
    assert (chosen.decision, chosen.trains, chosen.refines) == (said, trains, False)


def test_untrained_experiences_move_nothing_and_say_so() -> None:
    trained = strategy(Says("reuse"))
    for experience in stream(task(0, 0), task(2, 240)):
        trained.train(experience)
    trace = trained.manifold_plugin.traces[1]
    assert (trace.decision, trace.overshoot, trace.drift, trace.gate) == ("reuse", 0, 0, "passed")
    assert trace.evidence is not None


def test_what_cannot_be_learned_any_more_is_left_untrained_and_warned_of() -> None:
    """On a point that one exact task fixes, where a rule places another."""
    exact = ExactInformation()
    trained = strategy(Says("place"), Fourier(0), GivenContext(), information=exact)
    first, second = stream(task(0, 0), task(2, 240), contexts=[0.0, 0.5])
    trained.train(first)
    assert trained.manifold is not None
    before = points_of(trained.manifold)
    with pytest.warns(UserWarning, match=r"cannot be learned.*experience was left untrained"):
        trained.train(second)
    assert torch.equal(points_of(trained.manifold), before)
    assert len(trained.manifold.atlas) == 1
    assert trained.manifold_plugin.traces[1].overshoot == 0


def test_a_circle_grows_and_takes_the_coordinate_that_is_freest() -> None:
    trained = strategy(AlwaysGrow(), Fourier(0))
    for experience in stream(task(0, 0), task(2, 240)):
        trained.train(experience)
    assert trained.manifold is not None
    assert decisions(trained) == ["place", "grow"]
    assert trained.manifold.basis.size == 3
    first, second = trained.manifold_plugin.coordinates()
    assert second.shape == (1,)
    assert float(trained.manifold.basis.topology.distance(first, second)) > 0.2


class Starts(SupervisedPlugin):
    """The weights that each experience begins with, and those of the first vertex then."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []
        self.first: list[Tensor] = []

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        if strategy.clock.train_exp_epochs == 0:
            manifold = strategy.manifold_plugin.manifold
            self.found.append(flat(manifold, manifold.layout.read(strategy.model)))
            vertex = torch.eye(manifold.basis.size, dtype=torch.float64)[0]
            self.first.append(weights_at(manifold, vertex))


@pytest.mark.parametrize("kind", [0, 3])
def test_a_new_vertex_starts_from_what_fits_better(kind: int) -> None:
    """From the nearest task if it is alike; from the initial network if it is worse than that."""
    trained, starts = strategy(AlwaysGrow()), Starts()
    trained.plugins.append(starts)
    for experience in stream(task(0, 0), task(kind, 240)):
        trained.train(experience)
    expected = starts.first[1] if kind == 0 else starts.found[0]
    assert torch.equal(starts.found[1], expected)
    assert not torch.equal(starts.first[1], starts.found[0])
