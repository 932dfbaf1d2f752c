"""The streaming encoder against a ridge regression that holds all data at once."""

from math import log, pi

import numpy as np
import pytest
import torch
from torch import Tensor

from cl_manifold.contexts.codes import ContextCode
from cl_manifold.contexts.encoder import RandomFeatureEncoder
from cl_manifold.contexts.features import RandomFeatures, add_moments, packed, unpacked
from cl_manifold.errors import ContextError
from cl_manifold.geometry import Circle, Interval, Product, Simplex, Topology

Task = tuple[Tensor, Tensor, Tensor]


def circle_tasks(count: int = 4, size: int = 40) -> list[Task]:
    """Points around a centre that moves with the context."""
    tasks: list[Task] = []
    for k in range(count):
        angle = torch.tensor(2 * pi * k / count)
        centre = 2 * torch.stack([angle.cos(), angle.sin(), torch.tensor(0.3)])
        x = centre + 0.4 * torch.randn(size, 3)
        tasks.append((x, torch.arange(size) % 2, torch.tensor([k / count])))
    return tasks


def vertex_tasks(count: int = 3, dim: int = 3, size: int = 40) -> list[Task]:
    """Every task has two classes of its own."""
    return [
        (torch.randn(size, 3) + 2 * torch.eye(3)[k], 2 * k + torch.arange(size) % 2, e)
        for k, e in enumerate(torch.eye(dim)[:count])
    ]


def learned(tasks: list[Task], topology: Topology, **options: int) -> RandomFeatureEncoder:
    encoder = RandomFeatureEncoder(topology, features=30, **options)
    for x, y, context in tasks:
        encoder.learn(x, y, context)
    return encoder


def features(encoder: RandomFeatureEncoder, x: Tensor, scale: float) -> np.ndarray:
    """ψ from the formula, feature by feature."""
    generator = torch.Generator().manual_seed(encoder.features.seed)
    n, d = encoder.features.count, x.shape[1]
    w = torch.randn(d, n, generator=generator, dtype=torch.float32).double()
    b = 2 * pi * torch.rand(n, generator=generator, dtype=torch.float32).double()
    rows = [
        [1.0, *(float(torch.cos(w[:, i] @ row / (scale * d**0.5) + b[i])) for i in range(1, n))]
        for row in x
    ]
    return np.array(rows)


@pytest.mark.parametrize("kind", ["circle", "simplex"])
def test_streaming_moments_give_the_ridge_regression_on_all_data(kind: str) -> None:
    tasks = circle_tasks() if kind == "circle" else vertex_tasks()
    topology = Circle() if kind == "circle" else Simplex(3)
    encoder = learned(tasks, topology)
    scale = float(tasks[0][0].square().mean().sqrt())
    psi = np.concatenate([features(encoder, x, scale) for x, _, _ in tasks])
    code = ContextCode(topology)
    labels = torch.cat([y for _, y, _ in tasks])
    codes = torch.cat([code(c.expand(len(x), -1)) for x, _, c in tasks])
    count = int(labels.max()) + 1 if kind == "simplex" else 1
    hot = torch.nn.functional.one_hot(labels, count) if kind == "simplex" else torch.ones(160, 1)
    targets = (hot[:, :, None] * codes[:, None]).flatten(1).numpy()
    a = psi.T @ psi
    weights = np.linalg.solve(a + 1e-3 * np.trace(a) / 30 * np.eye(30), psi.T @ targets)
    x = torch.randn(5, 3)
    expected = torch.tensor(features(encoder, x, scale) @ weights)
    torch.testing.assert_close(encoder.read(x).flatten(1), expected, rtol=1e-7, atol=1e-9)


def test_the_log_likelihood_is_that_of_gaussian_residuals() -> None:
    encoder = learned(vertex_tasks(), Simplex(3))
    reading, mixture = encoder.read(torch.randn(6, 3)), torch.full((1, 3), 1 / 3)
    contexts = torch.cat([torch.eye(3), mixture])
    tau = encoder.temperature
    found = encoder.log_likelihood(reading, contexts).log_softmax(1)
    for g, row in zip(reading, found, strict=True):
        density = [
            sum(
                float(torch.exp(-tau / 2 * ((g[y] - e).square().sum() - g[y].square().sum())))
                for y in range(6)
            )
            for e in contexts
        ]
        expected = torch.tensor([log(p / sum(density)) for p in density])
        torch.testing.assert_close(row, expected, rtol=1e-8, atol=1e-10)


def test_contexts_are_recognised() -> None:
    encoder = learned(circle_tasks(size=200), Circle())
    grid = Circle().grid(40)
    for x, _, context in circle_tasks(size=50):
        total = encoder.log_likelihood(encoder.read(x), grid).sum(0)
        assert float(Circle().distance(grid[total.argmax()], context)) < 0.03


def test_unseen_contexts_between_learned_ones_are_recognised() -> None:
    encoder = learned(circle_tasks(12, size=200), Circle())
    x, _, context = circle_tasks(24, size=100)[1]
    grid = Circle().grid(72)
    total = encoder.log_likelihood(encoder.read(x), grid).sum(0)
    assert float(Circle().distance(grid[total.argmax()], context)) < 0.03


def test_the_log_likelihood_is_differentiable_in_the_context() -> None:
    encoder = learned(circle_tasks(), Circle())
    reading = encoder.read(torch.randn(4, 3))
    contexts = torch.tensor([[0.13], [0.71]], requires_grad=True)
    assert torch.autograd.gradcheck(lambda c: encoder.log_likelihood(reading, c), contexts)


def test_order_and_portions_do_not_matter() -> None:
    tasks = circle_tasks()
    halves = [(x[rows], y[rows], c) for x, y, c in tasks[1:] for rows in (slice(20), slice(20, 40))]
    one = learned(tasks, Circle())
    two = learned([tasks[0], *reversed(halves)], Circle())
    torch.testing.assert_close(one.triangle, two.triangle)
    torch.testing.assert_close(one.moments, two.moments)


def test_a_growing_simplex_ends_where_the_full_one_would() -> None:
    tasks, x = vertex_tasks(), torch.randn(3, 3)
    full = learned(tasks, Simplex(3))
    growing = RandomFeatureEncoder(Simplex(1), features=30)
    for k, (inputs, y, _) in enumerate(tasks):
        growing.learn(inputs, y, torch.eye(k + 1)[k], Simplex(k + 1))
    assert growing.visited.tolist() == torch.eye(3).tolist()
    torch.testing.assert_close(growing.read(x), full.read(x))
    assert growing.temperature == pytest.approx(full.temperature)


def test_the_temperature_is_calibrated_on_inputs_not_learned_yet() -> None:
    clear = learned(vertex_tasks(size=200), Simplex(3)).temperature
    noise = [(torch.randn(200, 3), y, c) for _, y, c in vertex_tasks(size=200)]
    vague = learned([(x, y % 2, c) for x, y, c in noise], Simplex(3)).temperature
    assert 1 <= vague < clear <= 64
    assert learned(circle_tasks(1), Circle()).temperature == pytest.approx(8)


def best_inverse_temperature(seen: list[Task], x: Tensor, truth: int, scale: float) -> float:
    """The log τ on a grid that predicts a vertex best, from one ridge regression on all data."""
    shape = RandomFeatureEncoder(Simplex(3), features=30)
    psi = np.concatenate([features(shape, inputs, scale) for inputs, _, _ in seen])
    labels = torch.cat([y for _, y, _ in seen])
    known = sorted(set(labels.tolist()))
    hot = torch.stack([labels == y for y in known], 1).double()
    codes = torch.cat([c.expand(len(x), -1) for x, _, c in seen])
    targets = (hot[:, :, None] * codes[:, None]).flatten(1).numpy()
    a = psi.T @ psi
    weights = np.linalg.solve(a + 1e-3 * np.trace(a) / 30 * np.eye(30), psi.T @ targets)
    g = torch.tensor(features(shape, x, scale) @ weights).unflatten(1, (len(known), 3))
    losses: list[float] = []
    for k in range(13):
        joint = 2 ** (k / 2) * torch.stack([g[:, :, c] - 0.5 for c in range(len(seen))], 2)
        right = joint[:, :, truth].exp().sum(1) / joint.exp().sum((1, 2))
        losses.append(float(-right.log().mean()))
    return losses.index(min(losses)) / 2 * log(2)


def test_the_temperature_averages_those_that_predict_held_out_inputs_best() -> None:
    """Of each task a tenth, before it is learned; n contexts to confuse it with count n times."""
    tasks = [
        (x + 0.3 * k * torch.randn(60, 3), y % 2, c)
        for k, (x, y, c) in enumerate(vertex_tasks(size=60))
    ]
    scale = float(tasks[0][0].square().mean().sqrt())
    found: list[float] = []
    for k in (1, 2):
        rows = torch.randperm(60, generator=torch.Generator().manual_seed(k))
        x, y, c = tasks[k]
        rest = (x[rows[6:]], y[rows[6:]], c)
        found.append(best_inverse_temperature([*tasks[:k], rest], x[rows[:6]], k, scale))
    assert found[0] != found[1]
    encoder = learned(tasks, Simplex(3))
    assert encoder.log_temperature == pytest.approx((found[0] + 2 * found[1]) / 3)
    assert encoder.calibrations == 3


def test_a_tenth_of_a_task_or_256_inputs_calibrate(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def calibrate(encoder: RandomFeatureEncoder, flat: Tensor, context: Tensor) -> None:
        seen.append(len(flat))

    monkeypatch.setattr(RandomFeatureEncoder, "_calibrate", calibrate)
    encoder = RandomFeatureEncoder(Circle(), features=4)
    for k, size in enumerate((100, 50, 9, 3000)):
        y = torch.zeros(size, dtype=torch.int64)
        encoder.learn(torch.randn(size, 3), y, torch.tensor([k / 4]))
    assert seen == [5, 256], "not the first task, and not one of too few inputs"


@pytest.mark.parametrize(("bumps", "count"), [(8, 8), (1, 4)])
def test_a_code_on_a_circle_has_gaussian_bumps_a_width_apart(bumps: int, count: int) -> None:
    contexts = torch.rand(5, 1)
    away = (contexts - torch.arange(count) / count).abs()
    steps = count * torch.minimum(away, 1 - away)
    torch.testing.assert_close(ContextCode(Circle(), bumps)(contexts), (-(steps**2) / 2).exp())


def test_moments_of_many_features_are_formed_block_by_block() -> None:
    psi, square = torch.randn(20, 600), torch.zeros(600, 600)
    add_moments(square, psi)
    add_moments(square, psi)
    expected = 2 * psi.mT @ psi
    torch.testing.assert_close(packed(square), packed(expected))
    torch.testing.assert_close(square.triu(), expected.triu())


def test_codes_of_products_multiply() -> None:
    space = Product(Circle(), Simplex(2))
    code, contexts = ContextCode(space, 6), torch.tensor([[0.2, 0.3, 0.7], [0.9, 1.0, 0.0]])
    bumps = ContextCode(Circle(), 6)(contexts[:, :1])
    expected = (bumps[:, :, None] * contexts[:, None, 1:]).flatten(1)
    torch.testing.assert_close(code(contexts), expected)
    assert code.sizes == (6, 2)
    assert ContextCode(Product(Circle(), Interval())).sizes == (8, 8)
    larger = code.grown(Product(Circle(), Simplex(3)))
    moments = torch.rand(4, 12)
    wide = larger.padded(moments, code)
    c = torch.tensor([[0.4, 0.1, 0.9]])
    torch.testing.assert_close(larger(larger.embedded(c, code)) @ wide.mT, code(c) @ moments.mT)


def test_what_is_stored_is_counted_and_restored() -> None:
    encoder = learned(vertex_tasks(), Simplex(3), seed=3)
    # A, six labels with three columns of 30, three contexts of three float64, two numbers
    assert encoder.stored_floats == 30 * 31 // 2 + 6 * 30 * 3 + 2 * 9 + 2
    again = RandomFeatureEncoder(Simplex(1), features=30, seed=3)
    again.restore(encoder.state(), Simplex(3))
    x = torch.randn(4, 3)
    assert torch.equal(again.read(x), encoder.read(x))
    assert again.temperature == encoder.temperature


def test_labels_share_one_target_unless_tasks_are_pure() -> None:
    assert list(learned(circle_tasks(2), Circle()).moments) == [-1]
    assert sorted(learned(vertex_tasks(), Simplex(3)).moments) == [0, 1, 2, 3, 4, 5]


def test_at_most_so_many_samples_are_learned() -> None:
    encoder = learned(circle_tasks(1), Circle(), samples=10)
    assert float(encoder.triangle[0]) == 10


def test_triangles_unpack_to_symmetric_matrices() -> None:
    square = torch.randn(7, 7)
    square = square + square.mT
    assert torch.equal(unpacked(packed(square)), square)


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ContextError, match="call learn first"):
        RandomFeatureEncoder(Circle(), features=8).read(torch.randn(2, 3))
    encoder = learned(circle_tasks(), Circle())
    with pytest.raises(ContextError, match="inputs of one size"):
        encoder.read(torch.randn(2, 4))
    with pytest.raises(ContextError, match="start a new encoder"):
        encoder.learn(*circle_tasks()[0], topology=Circle(2.0))
    with pytest.raises(ValueError, match="features"):
        RandomFeatureEncoder(Circle(), features=1)
    with pytest.raises(ValueError, match="ridge"):
        RandomFeatureEncoder(Circle(), ridge=0.0)


def test_features_take_their_scale_from_the_first_inputs() -> None:
    features, x = RandomFeatures(8, 0), torch.randn(50, 3)
    features.adapt(0.01 * x)
    assert features.scale == pytest.approx(0.01 * float(x.square().mean().sqrt()), rel=1e-6)
    kept = features.scale
    features.adapt(x)
    assert features.scale == kept
