"""The gate at the commit: drift before it, against what the commit then does."""

import copy
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cl_manifold.errors import DriftError
from cl_manifold.geometry import Basis, Fourier, Vertices
from cl_manifold.manifold.likelihood import Categorical, Gaussian
from cl_manifold.manifold.weight_manifold import WeightManifold
from cl_manifold.strategies.manifold.drift import (
    DriftGate,
    DriftWarning,
    LearningRateWarning,
    OnDrift,
    drift_of_commit,
    most_moved,
    warn_of_far_moves,
)
from cl_manifold.strategies.manifold.samples import Samples
from tests.networks import move, shake, small_mlp

CE = SimpleNamespace(_criterion=nn.CrossEntropyLoss())
X = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))


def walked(basis: Basis, places: list[float], here: float, far: int = 4) -> WeightManifold:
    """Tasks at some places, and an open visit whose weights were moved `far`."""
    torch.manual_seed(1)
    manifold = WeightManifold(small_mlp(), basis, growable=True)
    for place in places:
        shake(manifold, torch.tensor([place]), 1.0)
    manifold.check_out(torch.tensor([here]))
    for _ in range(far):
        move(manifold)
    with torch.no_grad():
        manifold.module.get_parameter("2.bias")[:2] -= far
    return manifold


def samples() -> Samples:
    return Samples((X,), torch.zeros(40, dtype=torch.int64))


def answers(manifold: WeightManifold, place: float) -> Tensor:
    other = copy.deepcopy(manifold)
    other.check_out(torch.tensor([place]))
    return other.module(X).detach()


def actual(manifold: WeightManifold, places: list[float], kind: Any) -> list[float]:
    """What a commit on a copy does to the outputs at each place."""
    after = copy.deepcopy(manifold)
    after.commit(1.0)
    return [kind.change(answers(manifold, p), answers(after, p)) for p in places]


@pytest.mark.parametrize("kind", [Categorical(), Gaussian()])
def test_drift_is_what_the_commit_then_does_where_it_moves_most(kind: Any) -> None:
    places = [0.0, 0.2, 0.5]
    manifold = walked(Fourier(1), places, 0.3, far=1)
    expected = actual(manifold, places, kind)
    live, visit = manifold.layout.read(manifold.module), manifold.open_visit
    found = drift_of_commit(manifold, visit, live, manifold.atlas.tasks, (X,), kind)
    assert found == pytest.approx(max(expected), abs=1e-5)
    assert max(expected) > 0
    assert drift_of_commit(manifold, visit, live, (), (X,), kind) == 0.0
    for name, tensor in manifold.layout.tensors(manifold.module).items():
        assert torch.equal(tensor, live[name])


def test_at_most_three_contexts_are_watched_those_that_move_most() -> None:
    places = [0.0, 0.2, 0.35, 0.5, 0.7, 0.85]
    manifold = walked(Fourier(2), places, 0.4)
    step, tasks = manifold.open_visit.step, manifold.atlas.tasks
    shares = [float(step.influence(t.phi[None]).abs().mean()) for t in tasks]
    order = sorted(range(6), key=lambda i: -shares[i])[:3]
    assert most_moved(manifold.open_visit, tasks) == [tasks[i] for i in order]
    assert most_moved(manifold.open_visit, []) == []


def test_within_the_limit_a_commit_passes() -> None:
    manifold = walked(Fourier(0), [0.1], 0.6)
    (drift,) = actual(manifold, [0.1], Categorical())
    assert drift > 0.2
    for on_drift in ("warn", "grow", "refuse"):
        found = DriftGate(on_drift, drift).check(CE, manifold, samples(), 3)
        assert found == (pytest.approx(drift), "passed")
    assert manifold.basis.size == 1


def test_above_it_people_are_warned_or_it_is_refused() -> None:
    manifold = walked(Fourier(0), [0.1], 0.6)
    (drift,) = actual(manifold, [0.1], Categorical())
    with pytest.warns(DriftWarning, match=r"committing experience 3 .* \(limit 0\.1\)"):
        assert DriftGate("warn", 0.1).check(CE, manifold, samples(), 3) == (drift, "warned")
    with pytest.raises(DriftError, match=rf"experience 3 would .* {drift:.2f} .*not committed"):
        DriftGate("refuse", 0.1).check(CE, manifold, samples(), 3)


def test_or_the_basis_grows_until_it_is_harmless_and_the_visit_stays_open() -> None:
    manifold = walked(Fourier(0), [0.1, 0.35], 0.6)
    live = manifold.layout.read(manifold.module)
    before = max(actual(manifold, [0.1, 0.35], Categorical()))
    drift, gate = DriftGate("grow", 0.1).check(CE, manifold, samples(), 3)
    assert gate == "grown"
    assert manifold.basis.size == 3
    assert drift < before
    assert float(manifold.open_visit.context) == pytest.approx(0.6)
    assert drift == pytest.approx(max(actual(manifold, [0.1, 0.35], Categorical())))
    for name, tensor in manifold.layout.tensors(manifold.module).items():
        assert torch.equal(tensor, live[name])


def test_the_basis_has_at_most_one_control_point_per_task() -> None:
    manifold = walked(Fourier(0), [0.1], 0.12, far=8)
    _, gate = DriftGate("grow", 0.0).check(CE, manifold, samples(), 3)
    assert gate == "grown"
    # two tasks: one step from K = 1, which for harmonics is two functions
    assert manifold.basis.size == 3


def test_growth_that_moves_contexts_takes_the_visit_along() -> None:
    torch.manual_seed(1)
    manifold = WeightManifold(small_mlp(), Vertices(2), growable=True)
    for i in (0, 1):
        shake(manifold, torch.eye(2)[i], 1.0)
    manifold.check_out(torch.tensor([0.5, 0.5]))
    for _ in range(5):
        move(manifold)
    manifold.module.get_parameter("2.bias").data[:2] -= 5
    DriftGate("grow", 0.0).check(CE, manifold, samples(), 3)
    assert manifold.basis.size == 3
    assert manifold.open_visit.context.tolist() == [0.5, 0.5, 0.0]


def test_at_its_own_coordinate_a_commit_replaces_what_was_there() -> None:
    manifold = walked(Fourier(1), [0.1, 0.4], 0.1)
    drift, gate = DriftGate("refuse", 1.0).check(CE, manifold, samples(), 3)
    assert drift == pytest.approx(max(actual(manifold, [0.4], Categorical())))
    assert gate == "passed"
    alone = walked(Fourier(1), [0.1], 0.1)
    assert DriftGate("refuse", 0.0).check(CE, alone, samples(), 3) == (0.0, "passed")


def test_with_heads_per_task_drift_is_not_asked() -> None:
    manifold = walked(Fourier(0), [0.1], 0.6)
    labelled = Samples((X, torch.zeros(40)), torch.zeros(40))
    assert DriftGate("refuse", 0.0).check(CE, manifold, labelled, 3) == (0.0, "unmeasured")


@pytest.mark.parametrize(
    ("on_drift", "limit", "message"),
    [
        ("stop", 0.5, "on_drift is 'stop'; choose warn, grow or refuse"),
        ("warn", -0.1, "drift_limit must be 0 or more, got -0.1"),
        ("warn", float("nan"), "drift_limit must be 0 or more, got nan"),
    ],
)
def test_values_out_of_range(on_drift: OnDrift, limit: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DriftGate.__init__.__wrapped__(  # type: ignore[attr-defined]
            object.__new__(DriftGate), on_drift, limit
        )


@pytest.mark.parametrize(("size", "limit"), [(0.5, 100.0), (4.0, 400.0)])
def test_weights_that_moved_beyond_all_measure_are_warned_of(size: float, limit: float) -> None:
    """A hundred times their root mean square, or a hundred where they are small."""
    net = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3))
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(size * (1 - 2 * (torch.arange(p.numel()) % 2)).reshape(p.shape))
    manifold = WeightManifold(net, Fourier(1))
    manifold.check_out(torch.tensor([0.3]))
    start = {n: p.detach().clone() for n, p in net.named_parameters()}

    def move_by(distance: float) -> None:
        for n, p in net.named_parameters():
            p.data.copy_(start[n] - distance)

    net.get_buffer("1.running_mean").fill_(1e6)  # statistics are as large as the data are
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        move_by(0.99 * limit)
        warn_of_far_moves(manifold, 7)
    move_by(1.01 * limit)
    text = (
        f"experience 7 moved the weights by {1.01 * limit:.3g} on average, from a size of {size:g}"
    )
    with pytest.warns(LearningRateWarning, match=text):
        warn_of_far_moves(manifold, 7)
