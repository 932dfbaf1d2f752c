"""What the strategies beside the weight manifold do to their networks, memories and inputs."""

from math import prod
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor, nn

from cl_manifold.errors import ConfigError
from cl_manifold.experiments.build import build_network, build_strategy, build_stream
from cl_manifold.experiments.config import RunConfig, resolve
from cl_manifold.experiments.names import STRATEGIES
from cl_manifold.geometry import Bernstein, Circle, Fourier, Simplex, Vertices
from cl_manifold.strategies import (
    ContextFeatures,
    ContextInput,
    ScorePlugin,
    SeparateNetworks,
)
from cl_manifold.strategies.separate import Visits
from cl_manifold.streams import TaskStream
from tests.fitting import stream_for

TINY = {
    "stream.contexts": 3,
    "stream.samples": 60,
    "stream.test_samples": 60,
    "training.epochs": 2,
    "network.hidden": (16,),
}
MEMORY = ("replay", "gdumb", "agem", "gem", "der", "der++", "er-ace")


def config_of(strategy: str, stream: str = "rotated-digits", **more: Any) -> RunConfig:
    named: dict[str, Any] = {"strategy.name": strategy, "stream.name": stream}
    named |= {"strategy.replay_samples": 31} if strategy in MEMORY else {}
    return resolve([("test", TINY | named | more)]).config


def made(config: RunConfig, *plugins: SupervisedPlugin) -> tuple[Any, TaskStream]:
    stream = build_stream(config.stream, None, config.seed)
    network = build_network(config, stream)
    evaluator = EvaluationPlugin(loggers=[])
    return build_strategy(config, stream, network, list(plugins), evaluator), stream


def trained(strategy: str, *plugins: SupervisedPlugin, **more: Any) -> tuple[Any, TaskStream]:
    config = config_of(strategy, **more)
    built, stream = made(config, *plugins)
    if strategy.startswith("joint"):
        built.train(stream.train_stream, eval_streams=[])
    else:
        for experience in stream.train_stream:
            built.train(experience, eval_streams=[])
    return built, stream


def kept(name: str, strategy: Any, stream: TaskStream) -> int:
    found = config_of(name).strategy.stored(strategy, stream.input_shape)
    assert found is not None
    return found.floats


def weights(strategy: Any) -> Tensor:
    return torch.cat([p.detach().flatten() for p in strategy.model.parameters()])


# -- the catalogue -------------------------------------------------------------------------------


def test_every_method_says_what_it_is() -> None:
    for name, item in STRATEGIES.items():
        names = {"stream.name": stream_for(name), "strategy.name": name}
        config = resolve([("test", names)]).config
        method = config.strategy
        text = (type(method).__doc__ or "").partition("\n")[0]
        assert text.rstrip(".").lower() == item.summary.lower()
        assert item.summary
        assert method.context_at_test(config.contexts) != "not stated"
        assert all(field.description for field in type(method).model_fields.values())


@pytest.mark.parametrize(
    ("strategy", "told"),
    [
        ("weight-manifold", "given"),
        ("separate", "given"),
        ("packnet", "given"),
        ("concat", "given"),
        ("joint-concat", "given"),
        ("ewc", "not used"),
        ("der", "not used"),
    ],
)
def test_who_is_told_the_context(strategy: str, told: str) -> None:
    config = config_of(strategy)
    assert config.strategy.context_at_test(config.contexts) == told


def test_an_inferred_context_is_called_so() -> None:
    config = config_of("weight-manifold", **{"contexts.test": "inferred"})
    assert config.strategy.context_at_test(config.contexts) == "inferred"


@pytest.mark.parametrize(
    ("strategy", "more", "sentence"),
    [
        ("packnet", {"training.epochs": 1}, "give at least 2"),
        ("agem", {"strategy.replay_samples": 2}, "each of the 3 experiences; give at least 3"),
        ("gem", {"strategy.replay_samples": 2}, "gem keeps samples"),
        ("concat", {"stream": "recurring-digits"}, "hides its tasks; choose a stream that gives"),
        ("joint-concat", {"stream": "recurring-digits"}, "joint-concat reads the context"),
    ],
)
def test_what_cannot_run_says_why(strategy: str, more: dict[str, Any], sentence: str) -> None:
    if "stream" in more:
        more = more | {"stream.contexts": 5}
    with pytest.raises(ConfigError, match=sentence):
        made(config_of(strategy, **more))


# -- what is kept --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "networks", "samples", "each"),
    [
        ("naive", 1, 0, 0),
        ("random", 1, 0, 0),
        ("joint", 1, 180, 0),
        ("cumulative", 1, 180, 0),
        ("ewc", 3, 0, 0),
        ("online-ewc", 2, 0, 0),
        ("si", 2, 0, 0),
        ("mas", 2, 0, 0),
        ("lwf", 1, 0, 0),
        ("replay", 1, 31, 0),
        ("gdumb", 1, 31, 0),
        ("agem", 1, 30, 0),
        ("gem", 1, 30, 0),
        ("der", 1, 31, 10),
        ("er-ace", 1, 31, 0),
        ("separate", 3, 0, 0),
    ],
)
def test_what_is_kept_is_counted(strategy: str, networks: int, samples: int, each: int) -> None:
    built, stream = trained(strategy)
    found = config_of(strategy).strategy.stored(built, stream.input_shape)
    assert found is not None
    size = 256 * 16 + 16 + 16 * 10 + 10
    assert found.samples == samples
    assert found.floats == networks * size + samples * (256 + 1 + each)


def test_packnet_keeps_a_byte_per_weight_and_concat_its_wider_network() -> None:
    built, stream = trained("packnet")
    size, matrices = 256 * 16 + 16 + 16 * 10 + 10, 256 * 16 + 16 * 10
    assert kept("packnet", built, stream) == size + matrices // 4
    built, stream = trained("concat")
    features = 2 * config_of("concat").topology.harmonics
    assert kept("concat", built, stream) == size + 16 * features


# -- networks per context ------------------------------------------------------------------------


def visited(experience: int, context: float | None) -> Any:
    class Experience:
        current_experience = experience

    found = Experience()
    if context is not None:
        found.context = torch.tensor([context], dtype=torch.float64)  # pyright: ignore[reportAttributeAccessIssue]
    return found


def test_the_nearest_context_is_found_around_the_circle() -> None:
    visits = Visits(Circle())
    for index, context in enumerate((0.0, 0.3, 0.6, 0.3)):
        visits.remember(visited(index, context), index)
    assert visits.at(visited(9, 0.3)) == 3
    assert visits.at(visited(9, 0.31)) is None
    assert [visits.nearest(visited(9, c)) for c in (0.95, 0.31, 0.5)] == [0, 3, 2]


def test_without_contexts_the_place_in_the_stream_counts() -> None:
    visits = Visits(Simplex(2))
    for index in range(3):
        visits.remember(visited(index, None), index + 10)
    assert visits.at(visited(1, None)) is None
    assert [visits.nearest(visited(i, None)) for i in (0, 1, 2, 3)] == [10, 11, 12, 12]


def test_separate_networks_are_trained_alone() -> None:
    plugin_weights: list[Tensor] = []
    built, stream = trained("separate")
    plugin = next(p for p in built.plugins if isinstance(p, SeparateNetworks))
    for place in range(3):
        built.model.load_state_dict(plugin.networks[place])
        plugin_weights.append(weights(built))
    again, _ = made(config_of("separate"))
    again.train(stream.train_stream[0], eval_streams=[])
    assert torch.equal(weights(again), plugin_weights[0])
    assert not torch.equal(plugin_weights[0], plugin_weights[1])
    accuracy = ScorePlugin()
    built, stream = trained("separate", accuracy)
    live = weights(built)
    found = accuracy.measure(built, stream.test_stream)
    assert torch.equal(weights(built), live)
    for place, experience in enumerate(stream.test_stream):
        built.model.load_state_dict(plugin.networks[place])
        x = torch.stack([item[0] for item in experience.dataset])
        y = torch.tensor([item[1] for item in experience.dataset])
        assert found[place] == pytest.approx(float((built.model(x).argmax(1) == y).float().mean()))


def test_a_context_that_returns_finds_its_network() -> None:
    built, stream = trained("separate")
    plugin = next(p for p in built.plugins if isinstance(p, SeparateNetworks))
    before = {name: value.clone() for name, value in plugin.networks[0].items()}
    built.train(stream.train_stream[0], eval_streams=[])
    assert len(plugin.networks) == 3
    assert any(not torch.equal(before[name], plugin.networks[0][name]) for name in before)


@pytest.mark.parametrize("strategy", ["separate", "packnet"])
def test_nothing_is_forgotten(strategy: str) -> None:
    accuracy = ScorePlugin()
    built, stream = made(config_of(strategy), accuracy)
    right_after: list[float] = []
    for step, experience in enumerate(stream.train_stream):
        built.train(experience, eval_streams=[])
        right_after.append(accuracy.measure(built, stream.test_stream)[step])
    assert accuracy.measure(built, stream.test_stream) == right_after
    assert len(accuracy.measure(built, stream.unseen_stream)) == 3


# -- the context as an input ---------------------------------------------------------------------


def test_features_leave_out_a_constant_function() -> None:
    context = torch.tensor([[0.1], [0.7]], dtype=torch.float64)
    found = ContextFeatures(Fourier(2))(context)
    angle = 2 * torch.pi * context
    waves = [angle.cos(), angle.sin(), (2 * angle).cos(), (2 * angle).sin()]
    assert torch.allclose(found, torch.cat(waves, dim=1).float())
    assert ContextFeatures(Vertices(4)).size == 4
    assert ContextFeatures(Bernstein(3)).size == 4


def test_the_network_reads_input_and_context() -> None:
    network = ContextInput(nn.Identity(), 2)
    x = torch.randn(3, 1, 2, 2)
    assert torch.equal(network(x), torch.cat([x.flatten(1), torch.zeros(3, 2)], dim=1))
    network.told = torch.tensor([1.0, 2.0])
    assert torch.equal(network(x)[:, 4:], torch.tensor([[1.0, 2.0]]).expand(3, 2))
    network.told = torch.arange(6.0).reshape(3, 2)
    assert torch.equal(network(x)[:, 4:], network.told)


class Inputs(SupervisedPlugin):
    """Keeps what the network was told with every sample that it was trained or tested on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def after_forward(self, strategy: Any, **kwargs: Any) -> None:
        told = strategy.model.told.expand(len(strategy.mb_x), -1)
        self.seen += zip(strategy.mb_x, told, strict=True)

    def after_eval_forward(self, strategy: Any, **kwargs: Any) -> None:
        self.after_forward(strategy)


@pytest.mark.parametrize("strategy", ["concat", "joint-concat"])
def test_every_sample_comes_with_the_features_of_its_context(strategy: str) -> None:
    inputs = Inputs()
    built, stream = trained(strategy, inputs)
    features = ContextFeatures(Fourier(config_of(strategy).topology.harmonics))
    expected = {
        item[0].numpy().tobytes(): features(experience.context)
        for experience in stream.train_stream
        for item in experience.dataset
    }
    assert len(inputs.seen) == 2 * 180
    assert {x.numpy().tobytes() for x, _ in inputs.seen} == set(expected)
    assert all(torch.equal(told, expected[x.numpy().tobytes()]) for x, told in inputs.seen)
    inputs.seen.clear()
    built.eval(list(stream.unseen_stream))
    assert torch.equal(inputs.seen[0][1], features(stream.unseen_stream[0].context))
    assert torch.equal(inputs.seen[-1][1], features(stream.unseen_stream[2].context))


# -- the others ----------------------------------------------------------------------------------


def test_chance_is_chance_and_trains_nothing() -> None:
    accuracy = ScorePlugin()
    everything: dict[str, Any] = {"stream.test_samples": None}
    config = config_of("random", **everything)
    built, stream = made(config, accuracy)
    before = weights(built)
    for experience in stream.train_stream:
        built.train(experience, eval_streams=[])
    assert torch.equal(weights(built), before)
    found = accuracy.measure(built, stream.test_stream)
    tested = sum(len(experience.dataset) for experience in stream.test_stream)
    deviation = (0.1 * 0.9 / tested) ** 0.5
    assert abs(sum(found) / 3 - 0.1) < 4 * deviation
    again = ScorePlugin()
    assert again.measure(made(config, again)[0], stream.test_stream) == found


def test_cumulative_training_sees_everything_so_far() -> None:
    class Sizes(SupervisedPlugin):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[int] = []

        def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
            self.seen.append(len(strategy.adapted_dataset))

    sizes = Sizes()
    trained("cumulative", sizes)
    assert sizes.seen == [60, 60, 120, 120, 180, 180]


def test_gdumb_starts_anew_and_learns_from_its_memory_alone() -> None:
    class Rows(SupervisedPlugin):
        def __init__(self) -> None:
            super().__init__()
            self.seen: dict[int, set[bytes]] = {}
            self.first: list[Tensor] = []

        def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
            if strategy.clock.train_exp_epochs == 0:
                self.first.append(weights(strategy))

        def before_forward(self, strategy: Any, **kwargs: Any) -> None:
            rows = self.seen.setdefault(int(strategy.experience.current_experience), set())
            rows.update(x.numpy().tobytes() for x in strategy.mb_x)

    rows = Rows()
    built, _ = trained("gdumb", rows)
    assert all(torch.equal(first, rows.first[0]) for first in rows.first)
    assert [len(seen) for seen in rows.seen.values()] == [31, 31, 31]
    assert not torch.equal(weights(built), rows.first[0])
    assert prod(built.model(torch.zeros(1, 1, 16, 16)).shape) == 10
