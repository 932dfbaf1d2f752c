"""Evidence against scipy, against its own draws, and on a small stream whose truth is known."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor, nn

from cl_manifold.contexts.sketch import TaskGram, drive, sketch
from cl_manifold.contexts.topology_choice import (
    STRENGTHS,
    AsVertex,
    Candidate,
    best_scale,
    candidates,
    into,
    log_evidence,
    topology_evidence,
    winner,
)
from cl_manifold.errors import ContextError
from cl_manifold.geometry import Circle, Codes, Fourier, Interval, Vertices
from cl_manifold.manifold.layout import layout_of
from cl_manifold.manifold.weight_manifold import WeightManifold
from cl_manifold.streams.images import load_digits
from cl_manifold.streams.transforms import permute_pixels, rotate
from tests.networks import shake, small_mlp


def draws(covariance: Tensor, count: int) -> Tensor:
    """D, one column per weight."""
    return torch.linalg.cholesky(covariance) @ torch.randn(len(covariance), count)


def logpdf(d: Tensor, covariance: Tensor) -> float:
    density: Any = multivariate_normal
    values = density.logpdf(d.mT.numpy(), np.zeros(len(d)), covariance.numpy())
    return float(np.sum(values))


def prior_kernel(harmonics: int, contexts: Tensor) -> Tensor:
    basis = Fourier(harmonics)
    phi = basis(contexts)
    return phi @ torch.linalg.solve(basis.prior(0.5), phi.mT)


def test_the_evidence_is_scipys_density_of_the_weights() -> None:
    kernel, noise = prior_kernel(1, torch.rand(6, 1)), torch.rand(6, 2) + 0.1
    parts = [torch.randn(6, 9), 3 * torch.randn(6, 4)]
    gram = torch.stack([d @ d.mT for d in parts])
    found = log_evidence(gram, torch.tensor([9.0, 4.0]), kernel, noise)
    expected = [logpdf(d, kernel + noise[:, b].diag()) for b, d in enumerate(parts)]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-10, atol=1e-10)


def test_the_best_scale_beats_every_other_and_reports_scipys_density() -> None:
    kernel, f = prior_kernel(1, torch.rand(7, 1)), torch.rand(7, 1) + 0.5
    d = draws(2.5 * (kernel + 1e-2 * (1 / f[:, 0]).diag()), 3000)
    scale = best_scale((d @ d.mT)[None], torch.tensor([3000.0]), kernel, f)

    def at(strength: float, variance: float) -> float:
        return logpdf(d, variance * (kernel + strength * (1 / f[:, 0]).diag()))

    best = at(float(scale.strength), float(scale.variance))
    assert float(scale.evidence) == pytest.approx(best, rel=1e-10)
    assert 0.5e-2 < float(scale.strength) < 2e-2
    assert float(scale.variance) == pytest.approx(2.5, rel=0.1)
    others = [at(e, float(scale.variance)) for e in STRENGTHS if 1e-5 < e < 1]
    others += [at(float(scale.strength), r * float(scale.variance)) for r in (0.98, 1.02)]
    assert max(others) <= best + 1e-6


def test_the_strength_is_in_units_of_information() -> None:
    """A thousandth of the information means a thousandth of the strength: no setting is left."""
    kernel, f = prior_kernel(1, torch.rand(7, 1)), torch.rand(7, 1) + 0.5
    d = draws(kernel + 1e-2 * (1 / f[:, 0]).diag(), 500)
    gram, sizes = (d @ d.mT)[None], torch.tensor([500.0])
    one, other = (best_scale(gram, sizes, kernel, s * f) for s in (1.0, 1e-3))
    assert float(other.strength) == pytest.approx(1e-3 * float(one.strength))
    torch.testing.assert_close(other.variance, one.variance)


@pytest.mark.parametrize("quarters", [-48, -17, -2, 12])
def test_the_strength_is_one_of_four_per_decade_from_1e_12_to_1e3(quarters: int) -> None:
    strength = 10 ** (quarters / 4)
    kernel, f = prior_kernel(1, torch.rand(7, 1)), torch.rand(7, 1) + 0.5
    near = (kernel + strength * (1 / f[:, 0]).diag())[None]
    found = best_scale(near, torch.ones(1), kernel, f)
    assert float(found.strength) == pytest.approx(strength)
    beyond = strength * 10 ** (-0.75 if quarters < -40 else 0.75 if quarters > 0 else 0.1)
    found = best_scale((kernel + beyond * (1 / f[:, 0]).diag())[None], torch.ones(1), kernel, f)
    assert float(found.strength) == pytest.approx(strength)


@pytest.mark.parametrize("wrong", [0.0, torch.inf, -1.0])
def test_a_scale_needs_information(wrong: float) -> None:
    with pytest.raises(ValueError, match="positive and finite information"):
        best_scale(torch.eye(3)[None], torch.ones(1), torch.eye(3), torch.full((3, 1), wrong))


@pytest.mark.parametrize("truth", ["point", "line", "interval", "ellipse", "circle", "codes"])
def test_every_kernel_wins_on_its_own_draws(truth: str) -> None:
    torch.manual_seed(3)
    known = candidates(torch.rand(12, 1))
    kernel = torch.ones(12, 12) if truth == "point" else known[truth].kernel()
    size = torch.logspace(0, -2, 12)[:, None]
    d = size * draws(0.9 * kernel + 0.1 * torch.eye(12), 4000)
    evidence = topology_evidence((d @ d.mT)[None], torch.tensor([4000.0]), known)
    assert winner(evidence, known) == truth
    assert winner(evidence, known, margin=0.0) == truth


def test_the_evidence_of_a_topology_is_the_best_density_of_the_directions() -> None:
    contexts = torch.rand(5, 1)
    d = draws(prior_kernel(2, contexts) + 0.1 * torch.eye(5), 40)
    unit = d / d.norm(dim=1, keepdim=True) * 40**0.5
    candidate = Candidate(Fourier(2), contexts)
    k = candidate.kernel()
    torch.testing.assert_close(k.diagonal(), torch.ones(5))
    best = max(
        logpdf(unit, (1 - nu) * (c + (1 - c) * k) + nu * torch.eye(5))
        for nu in (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
        for c in (0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
        if (1 - nu) * c <= 0.5
    )
    nothing = logpdf(unit, torch.eye(5))
    found = topology_evidence((d @ d.mT)[None], torch.tensor([40.0]), {"it": candidate})
    assert found["it"] == pytest.approx((best - nothing) / 40)


def test_every_noise_and_share_of_the_grid_explains_its_own_covariance_best() -> None:
    """Of moments that are C itself, C has the largest density: Gibbs' inequality."""
    candidate = Candidate(Fourier(1), torch.rand(4, 1))
    k, eye = candidate.kernel(), torch.eye(4)
    grid = [
        (nu, c)
        for nu in (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
        for c in (0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
        if (1 - nu) * c <= 0.5
    ]
    for nu, c in grid:
        covariance = (1 - nu) * (c + (1 - c) * k) + nu * eye
        found = topology_evidence(covariance[None], torch.ones(1), {"it": candidate})
        assert found["it"] == pytest.approx(-float(torch.logdet(covariance)) / 2, abs=1e-9)


def test_of_as_many_control_points_the_better_explanation_wins() -> None:
    known = candidates(torch.rand(3, 1))
    assert known["ellipse"].basis.size == known["codes"].basis.size == 3
    for better, worse in (("ellipse", "codes"), ("codes", "ellipse")):
        assert winner({worse: 0.5, better: 0.55}, known) == better
        assert winner({better: 0.55, worse: 0.5}, known) == better


def test_blocks_count_by_their_weights() -> None:
    known = {"c": Candidate(Fourier(1), torch.rand(6, 1))}
    parts = [torch.randn(6, 30), draws(known["c"].kernel() + 0.1 * torch.eye(6), 10)]
    gram, sizes = torch.stack([d @ d.mT for d in parts]), torch.tensor([30.0, 10.0])
    one, other = (topology_evidence(gram[[b]], sizes[[b]], known)["c"] for b in (0, 1))
    together = topology_evidence(gram, sizes, known)["c"]
    assert together == pytest.approx((30 * one + 10 * other) / 40)


def test_a_task_that_left_a_block_alone_does_not_count_there() -> None:
    contexts = torch.rand(6, 1)
    d = torch.randn(6, 50)
    d[2] = 0
    gram, sizes = (d @ d.mT)[None], torch.tensor([50.0])
    rest = [0, 1, 3, 4, 5]
    found = topology_evidence(gram, sizes, {"c": Candidate(Fourier(1), contexts)})
    less = topology_evidence(
        gram[:, rest][:, :, rest], sizes, {"c": Candidate(Fourier(1), contexts[rest])}
    )
    assert found == pytest.approx(less)


def test_candidates_follow_the_contexts() -> None:
    ends = candidates(torch.tensor([[-1.0], [3.0], [3.0]]))
    assert ends["codes"].basis.size == 2
    assert isinstance(ends["interval"].basis.topology, Interval)
    assert (ends["interval"].basis.topology.low, ends["interval"].basis.topology.high) == (-1, 3)
    turn = candidates(torch.tensor([[90.0], [270.0]]), period=360.0)
    assert isinstance(turn["circle"].basis.topology, Circle)
    assert turn["circle"].basis.topology.period == 360
    assert set(candidates(torch.eye(3))) == {"point", "codes"}
    kernel = candidates(torch.eye(3))["codes"].kernel()
    torch.testing.assert_close(kernel, torch.eye(3))


# -- collecting ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "size"), [(23, 7), (21, 7), (5, 7), (7, 7), (8, 7), (1, 1)])
def test_a_sketch_is_a_set_of_orthonormal_products(count: int, size: int) -> None:
    columns = torch.stack([sketch(e, size, seed=3) for e in torch.eye(count)])
    width = min(size, count)
    torch.testing.assert_close(columns.mT @ columns, torch.eye(width))


def test_a_sketch_differs_between_tensors_and_repeats() -> None:
    x = torch.randn(50)
    torch.testing.assert_close(sketch(x, 9, seed=1), sketch(x, 9, seed=1))
    assert not torch.allclose(sketch(x, 9, seed=1), sketch(x, 9, seed=2))


def test_sketched_weights_have_the_covariance_of_single_weights() -> None:
    contexts = torch.rand(5, 1)
    kernel = prior_kernel(1, contexts)
    d = draws(kernel + 0.1 * torch.eye(5), 40_000)
    rows = torch.stack([sketch(row, 4000, seed=0) for row in d])
    torch.testing.assert_close(
        rows @ rows.mT / 4000, kernel + 0.1 * torch.eye(5), atol=0.1, rtol=0.1
    )


def test_small_tensors_have_their_exact_gram_and_late_tensors_start_from_nothing() -> None:
    net = small_mlp()
    layout = layout_of(net)
    drives = {e.name: torch.randn(3, *e.shape) for e in layout.entries}
    collector = TaskGram(size=64)
    for task in range(3):
        collector.add({name: d[task] for name, d in drives.items()})
    for d, found in zip(drives.values(), collector.gram, strict=True):
        part = d.flatten(1)
        torch.testing.assert_close(found, part @ part.mT, atol=1e-5, rtol=1e-5)
    assert collector.sizes.tolist() == [48, 8, 24, 3]
    assert collector.stored_floats == 3 * 83
    net.append(nn.Linear(3, 2))
    ones = {e.name: torch.ones(e.shape) for e in layout_of(net).entries}
    # a wider tensor is another one: earlier tasks had no part in it
    ones["2.bias"] = torch.ones(5)
    collector.add(ones)
    assert collector.gram.shape == (6, 4, 4)
    assert collector.gram[4].diagonal().tolist() == [0, 0, 0, 6]
    assert collector.gram[3].diagonal().tolist() == [0, 0, 0, 5]
    assert collector.sizes.tolist() == [48, 8, 24, 5, 6, 2]
    with pytest.raises(ValueError, match="size of 1 or more"):
        TaskGram(size=0)


# -- growing into the winner -----------------------------------------------------------------------


@pytest.mark.parametrize("new", [Fourier(4), Vertices(3)])
def test_growing_into_another_topology_keeps_the_weights_of_visited_contexts(
    new: Fourier | Vertices,
) -> None:
    contexts = torch.tensor([[0.1], [0.4], [0.7]])
    manifold = WeightManifold(small_mlp(), Fourier(3), growable=True)
    trained = [shake(manifold, c, torch.inf) for c in contexts]
    vertex = AsVertex(contexts)
    embed = vertex if isinstance(new, Vertices) else torch.Tensor.clone
    manifold.grow_and_reembed(into(manifold.basis, new, contexts, embed))
    for c, weights in zip(contexts, trained, strict=True):
        for name, found in manifold.state(embed(c)).items():
            torch.testing.assert_close(found, weights[name], atol=1e-6, rtol=1e-5)
    assert manifold.basis is new
    assert manifold.atlas.tasks[0].context.shape == (new.topology.dim,)


def test_the_matrix_of_a_change_is_exact_where_the_new_basis_holds_the_old_one() -> None:
    contexts, new = torch.rand(7, 1), Fourier(3)
    growth = into(Fourier(1), new, contexts, torch.Tensor.clone)
    c = torch.rand(20, 1)
    torch.testing.assert_close(new(c) @ growth.matrix, Fourier(1)(c))


def test_unknown_contexts_have_no_vertex() -> None:
    vertex = AsVertex(torch.tensor([[0.1], [0.5], [0.1]]))
    assert vertex.count == 2
    assert vertex(torch.tensor([0.5])).tolist() == [0, 1]
    with pytest.raises(ContextError, match="none of the 2 visited ones"):
        vertex(torch.tensor([0.2]))
    assert isinstance(Codes(torch.eye(2)).topology.wrap(vertex(torch.tensor([0.1]))), Tensor)


def test_a_drive_is_the_negative_gradient_of_every_weight() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    net[0].bias.requires_grad_(False)
    layout = layout_of(net)
    x = torch.randn(6, 3)
    found = drive(net, net(x).square().mean(), layout)
    net(x).square().mean().backward()
    for name, parameter in net.named_parameters():
        expected = torch.zeros_like(parameter) if parameter.grad is None else -parameter.grad
        torch.testing.assert_close(found[name], expected)
    assert found.keys() == layout.names


def test_a_weight_that_the_loss_ignores_has_no_drive() -> None:
    net = nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2)])
    found = drive(net, net[0](torch.randn(4, 3)).square().mean(), layout_of(net))
    assert float(found["0.weight"].abs().sum()) > 0
    assert torch.equal(found["1.weight"], torch.zeros(2, 3))


def test_the_smallest_sketch_is_one_number_per_tensor() -> None:
    collected = TaskGram(1)
    collected.add({"w": torch.randn(5)})
    collected.add({"w": torch.randn(5)})
    assert collected.stored_floats == 2
    assert collected.gram.shape == (1, 2, 2)
    with pytest.raises(ValueError, match="1 or more"):
        TaskGram(0)


# -- a real stream ---------------------------------------------------------------------------------


def task_images(kind: str, turns: Tensor, index: int) -> tuple[Tensor, Tensor]:
    """200 digits: turned as the context says, in an order of their own, or always the same."""
    images = load_digits()
    rows = torch.randperm(len(images.train_y))[:200]
    x = images.train_x[rows]
    if kind == "unrelated":
        x = permute_pixels(x, torch.randperm(256, generator=torch.Generator().manual_seed(index)))
    elif kind != "same":
        x = rotate(x, 360 * float(turns))
    return x.flatten(1).to(torch.get_default_dtype()) / 64 - 1, images.train_y[rows]


def evidence_of_a_stream(kind: str, tasks: int) -> tuple[dict[str, float], str]:
    """What the drives of a stream's tasks at an untrained network say about their contexts."""
    turns = torch.randperm(tasks)[:, None] / tasks
    given = torch.rand(tasks, 1) if kind in ("same", "unrelated") else turns
    given = turns[torch.randperm(tasks)] if kind == "shuffled" else given
    net = nn.Sequential(nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10))
    layout, collector = layout_of(net), TaskGram()
    for index in range(tasks):
        x, y = task_images(kind, turns[index], index)
        collector.add(drive(net, nn.functional.cross_entropy(net(x), y), layout))
    known = candidates(given)
    evidence = topology_evidence(collector.gram, collector.sizes, known)
    return evidence, winner(evidence, known)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("rotated", "circle"), ("shuffled", "codes"), ("unrelated", "codes"), ("same", "point")],
)
def test_the_truth_of_a_small_stream_wins(kind: str, expected: str) -> None:
    evidence, best = evidence_of_a_stream(kind, tasks=12)
    assert best == expected, evidence
