"""Protocols: published settings by name, their streams, and outputs that count for some samples."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin, EWCPlugin, ReplayPlugin
from avalanche.training.supervised import Naive
from torch import Tensor, nn

from cl_manifold.experiments.build import build_network, build_strategy, build_stream
from cl_manifold.experiments.config import RunConfig, resolve
from cl_manifold.experiments.names import STREAMS
from cl_manifold.experiments.settings import StreamSettings
from cl_manifold.geometry import Circle, Simplex
from cl_manifold.networks import Mlp, mlp
from cl_manifold.strategies import (
    ActiveOutputs,
    ActiveOutputsPlugin,
    FiniteLossPlugin,
    InMemoryLoaderPlugin,
    ScorePlugin,
)
from cl_manifold.streams import (
    ImageSet,
    StreamOptions,
    TaskStream,
    load_digits,
    rotate,
    rotated_at_random,
    split,
    split_class,
    split_domain,
    split_task,
)

NOTHING: Any = None
PAIRS = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))
SORTED = StreamOptions(order="sorted")

PUBLISHED = {
    "gpm-permuted-mnist": ((100, 100), "sgd", 0.01, 10, 5, 10),
    "mammoth-permuted-mnist": ((100, 100), "sgd", 0.2, 128, 1, 20),
    "mammoth-rotated-mnist": ((100, 100), "sgd", 0.2, 128, 1, 20),
    "split-mnist-task": ((400, 400), "adam", 0.001, 128, 21, 5),
    "split-mnist-domain": ((400, 400), "adam", 0.001, 128, 21, 5),
    "split-mnist-class": ((400, 400), "adam", 0.001, 128, 21, 5),
}
"""Hidden layers, optimizer, rate, batch, epochs and tasks."""


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return load_digits()


def named(name: str, **values: Any) -> RunConfig:
    return resolve([("test", {"stream.name": name, **values})]).config


def hidden_of(config: RunConfig) -> tuple[int, ...]:
    assert isinstance(config.network, Mlp)
    return config.network.hidden


# -- the settings --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_protocol_is_its_published_setting(name: str) -> None:
    config = named(name)
    training, stream = config.training, config.stream
    assert isinstance(stream, StreamSettings)
    found = (hidden_of(config), training.optimizer, training.learning_rate, training.batch_size)
    assert (*found, training.epochs, stream.contexts) == PUBLISHED[name]
    assert stream.samples is None
    assert stream.test_samples is None
    assert not training.decay
    assert STREAMS[name].source


def test_only_the_untold_scenarios_infer_the_context() -> None:
    told = {name: named(name).contexts.test for name in PUBLISHED}
    assert {n for n, how in told.items() if how == "inferred"} == {
        "split-mnist-domain",
        "split-mnist-class",
    }
    assert named("split-mnist-class").contexts.batch == 1


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_protocol_builds_and_learns(name: str, mnist_dir: Path) -> None:
    small = {"stream.samples": 256, "stream.test_samples": 20, "training.epochs": 1}
    config = named(name, **small, **{"strategy.name": "naive"})
    stream = build_stream(config.stream, mnist_dir, 0)
    assert stream.name == name
    assert len(stream.train_stream) == PUBLISHED[name][-1]
    network = build_network(config, stream)
    sizes = [tuple(p.shape) for p in network.parameters() if p.ndim == 2]
    width = PUBLISHED[name][0][0]
    assert sizes == [(width, 784), (width, width), (2 if "domain" in name else 10, width)]
    accuracy = ScorePlugin()
    strategy = build_strategy(
        config, stream, network, [accuracy, FiniteLossPlugin()], EvaluationPlugin(loggers=[])
    )
    kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[config.training.optimizer]
    assert type(strategy.optimizer) is kind
    assert strategy.optimizer.param_groups[0]["lr"] == config.training.learning_rate
    before = next(network.parameters()).detach().clone()
    strategy.train(stream.train_stream[0], eval_streams=[])
    assert not torch.equal(before, next(network.parameters()))
    (found,) = accuracy.measure(strategy, [stream.test_stream[0]])
    assert 0 <= found <= 1


# -- random rotations ----------------------------------------------------------------------------


def test_random_angles_lie_in_half_a_turn(images: ImageSet) -> None:
    options = StreamOptions(seed=4, samples=3, test_samples=3)
    stream = rotated_at_random(images, options)
    turns = stream.contexts()[:, 0]
    assert len(turns) == 20
    assert isinstance(stream.topology, Circle)
    assert bool(((turns >= 0) & (turns < 0.5)).all())
    assert len(turns.unique()) == 20
    again = rotated_at_random(images, options).contexts()[:, 0]
    other = rotated_at_random(images, StreamOptions(seed=5, samples=3, test_samples=3))
    assert torch.equal(turns, again)
    assert not torch.equal(turns.sort().values, other.contexts()[:, 0].sort().values)


def test_unseen_angles_are_halfway(images: ImageSet) -> None:
    stream = rotated_at_random(images, StreamOptions(contexts=4, samples=2, test_samples=2))
    seen = sorted(float(e.context) for e in stream.train_stream)
    unseen = [float(e.context) for e in stream.unseen_stream]
    assert unseen == pytest.approx([(a + b) / 2 for a, b in pairwise(seen)])


def test_images_are_turned_by_the_context(images: ImageSet) -> None:
    stream = rotated_at_random(images, StreamOptions(contexts=3))
    for experience in stream.test_stream:
        turned = rotate(images.test_x, 360 * float(experience.context))
        data: Any = experience.dataset._flat_data._datasets[0]
        assert torch.equal(data.images, turned)


# -- three scenarios -----------------------------------------------------------------------------


def samples(stream: TaskStream, task: int) -> tuple[Tensor, list[int]]:
    data: Any = stream.test_stream[task].dataset._flat_data._datasets[0]
    return data.images, data.targets.tolist()


def true_classes(images: ImageSet, found: Tensor) -> list[int]:
    """The classes of test images, found by their bytes."""
    known = {x.numpy().tobytes(): int(y) for x, y in zip(images.test_x, images.test_y, strict=True)}
    return [known[x.numpy().tobytes()] for x in found]


@pytest.mark.parametrize("build", [split_class, split_task, split_domain])
def test_scenarios_split_in_the_same_pairs(
    build: Callable[[ImageSet, StreamOptions], TaskStream], images: ImageSet
) -> None:
    stream = build(images, SORTED)
    assert isinstance(stream.topology, Simplex)
    for task, pair in enumerate(PAIRS):
        assert set(true_classes(images, samples(stream, task)[0])) == set(pair)


@pytest.mark.parametrize("build", [split_class, split_task])
def test_labels_are_global(
    build: Callable[[ImageSet, StreamOptions], TaskStream], images: ImageSet
) -> None:
    stream = build(images, SORTED)
    assert stream.outputs == 10
    for task in range(5):
        x, y = samples(stream, task)
        assert y == true_classes(images, x)


def test_the_domain_scenario_asks_for_the_place_in_the_pair(images: ImageSet) -> None:
    stream = split_domain(images, StreamOptions(seed=3))
    groups = split(images, StreamOptions(seed=3))
    assert stream.outputs == 2
    for task in range(5):
        x, y = samples(stream, task)
        pair = groups.train_stream[task].classes_in_this_experience
        assert y == [pair.index(label) for label in true_classes(images, x)]


def test_groups_are_told_only_where_the_task_is(images: ImageSet) -> None:
    assert split_task(images, SORTED).groups == PAIRS
    assert split_class(images, SORTED).groups is None
    assert split_domain(images, SORTED).groups is None


# -- active outputs ------------------------------------------------------------------------------


def test_the_loss_is_that_of_a_network_with_the_groups_outputs_only() -> None:
    logits = torch.randn(40, 10, requires_grad=True)
    labels = torch.randint(10, (40,))
    loss = ActiveOutputs(nn.CrossEntropyLoss(), PAIRS)(logits, labels)
    single = [
        nn.functional.cross_entropy(z[None, 2 * (y // 2) : 2 * (y // 2) + 2], (y % 2)[None])
        for z, y in zip(logits, labels, strict=True)
    ]
    torch.testing.assert_close(loss, torch.stack(single).mean())
    (gradient,) = torch.autograd.grad(loss, logits)
    inactive = torch.arange(10)[None] // 2 != labels[:, None] // 2
    assert bool((gradient[inactive] == 0).all())
    assert bool((gradient[~inactive] != 0).all())


@pytest.mark.parametrize("groups", [((0, 1), (1, 2)), ((0,), (2,)), ((1, 2),)])
def test_groups_hold_every_class_once(groups: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match="every class from 0 on exactly once"):
        ActiveOutputs(nn.CrossEntropyLoss(), groups)


def trained(stream: TaskStream, tasks: int, *plugins: Any) -> tuple[Any, ScorePlugin]:
    torch.manual_seed(0)
    network, accuracy = mlp(stream.input_shape, (16,), 10), ScorePlugin()
    outputs = ActiveOutputs(nn.CrossEntropyLoss(), PAIRS)
    strategy = Naive(
        model=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        criterion=outputs,
        train_mb_size=16,
        eval_mb_size=64,
        plugins=[ActiveOutputsPlugin(outputs), InMemoryLoaderPlugin(), accuracy, *plugins],
        evaluator=NOTHING,
    )
    for experience in stream.train_stream[:tasks]:
        strategy.train(experience, eval_streams=[])
    return strategy, accuracy


def head(strategy: Any) -> Tensor:
    return strategy.model[-1].weight.detach()


@pytest.mark.parametrize("replay", [False, True])
def test_training_leaves_the_outputs_of_other_tasks_alone(images: ImageSet, replay: bool) -> None:
    stream = split_task(images, StreamOptions(order="sorted", samples=64))
    plugins = [ReplayPlugin(mem_size=40)] if replay else []
    fresh = head(trained(stream, 0)[0])
    after_one = head(trained(stream, 1, *plugins)[0])
    assert torch.equal(after_one[2:], fresh[2:])
    assert not torch.equal(after_one[:2], fresh[:2])
    plugins = [ReplayPlugin(mem_size=40)] if replay else []
    after_two = head(trained(stream, 2, *plugins)[0])
    assert torch.equal(after_two[4:], fresh[4:])
    assert torch.equal(after_two[:2], after_one[:2]) is not replay


def test_importances_wear_the_mask_too(images: ImageSet) -> None:
    stream = split_task(images, StreamOptions(order="sorted", samples=64))
    penalty = EWCPlugin(1.0)
    trained(stream, 1, penalty)
    found: Any = penalty.importances[0]["3.weight"]
    assert bool((found.data[2:] == 0).all())
    assert bool((found.data[:2] > 0).any())


def test_accuracy_counts_the_groups_outputs_only(images: ImageSet) -> None:
    stream = split_task(images, SORTED)
    strategy, accuracy = trained(stream, 2)
    found = accuracy.measure(strategy, stream.test_stream)
    for task, pair in enumerate(PAIRS):
        x, y = stream.test_stream[task].dataset._flat_data._datasets[0].tensors()  # pyright: ignore[reportAttributeAccessIssue]
        logits = strategy.model(x)
        right = (logits[:, pair[0] : pair[1] + 1].argmax(1) + pair[0] == y).float().mean()
        assert found[task] == pytest.approx(float(right))
        blind = (logits.argmax(1) == y).float().mean()
        assert found[task] >= float(blind)
    assert found[0] > 0.5
