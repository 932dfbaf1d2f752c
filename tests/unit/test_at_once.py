"""Strategies on all contexts at once: what they are built of, how they train, what is refused."""

from typing import Any

import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin
from torch.nn.functional import cross_entropy

from cl_manifold.comparison.entries import check_settings, parse_entries
from cl_manifold.errors import ConfigError, ContextError
from cl_manifold.experiments.build import build_network, build_strategy, build_stream
from cl_manifold.experiments.config import names_of, resolve
from cl_manifold.experiments.fitting import AT_ONCE, usual_strategies
from cl_manifold.experiments.names import STRATEGIES, STREAMS
from cl_manifold.experiments.settings import StepTraining
from cl_manifold.geometry import Bernstein, Fourier, Orthonormal, TensorProduct
from cl_manifold.manifold.module import ManifoldModule
from cl_manifold.networks import mlp
from cl_manifold.strategies.context_networks import Untold
from cl_manifold.strategies.continuum import ContinuumTraining, DrawingLoader
from cl_manifold.streams.continuum import FAMILIES, rotation

TINY = {"stream.test_samples": 30, "network.hidden": (8, 6), "training.steps": 5}
CONTINUA = [name for name, item in STREAMS.items() if item.at_once]


def built(stream: str, strategy: str, **more: Any) -> Any:
    values = TINY | {"stream.name": stream, "strategy.name": strategy} | more
    config = resolve([("test", values)]).config
    made = build_stream(config.stream, None, config.seed)
    network = build_network(config, made)
    return build_strategy(config, made, network, [], EvaluationPlugin(loggers=[]))


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


PLAIN = count(mlp((1, 16, 16), (8, 6), 10))
READERS = {
    name: (32 * features + 32, 32 + 1)
    for name, features in {"rotation": 2, "noise": 2, "rotation-noise": 6}.items()
}
"""Weights of the layers of the network that reads a context: first, and of each output."""


@pytest.mark.parametrize("stream", CONTINUA)
def test_every_strategy_has_the_parameters_that_it_says_and_trains_them_all(stream: str) -> None:
    first, each = READERS[stream]
    bins, points = {"rotation": (9, 3), "noise": (5, 2), "rotation-noise": (18, 6)}[stream]
    features = {"rotation": 2, "noise": 2, "rotation-noise": 6}[stream]
    expected = {
        "joint-manifold": points * PLAIN,
        "concat": PLAIN + 8 * features,
        "film": PLAIN + first + 28 * each,
        "hypernetwork": 3 * PLAIN + first + 2 * each,
        "scn": 3 * PLAIN + first + 3 * each,
        "one-per-context": bins * PLAIN,
        "joint": PLAIN,
    }
    assert set(expected) == set(AT_ONCE)
    (experience,) = build_stream(
        resolve([("test", TINY | {"stream.name": stream})]).config.stream, None, 0
    ).train_stream
    for name, weights in expected.items():
        strategy = built(stream, name, **{"training.batch_size": 256})
        assert count(strategy.model) == weights, name
        before = {n: p.detach().clone() for n, p in strategy.model.named_parameters()}
        strategy.train(experience)
        stuck = [n for n, p in strategy.model.named_parameters() if torch.equal(p, before[n])]
        assert stuck == [], name


def test_a_strategy_learns_a_stream_of_one_kind_or_of_both() -> None:
    fitting = []
    for name in STRATEGIES:
        try:
            resolve([("test", {"stream.name": "rotation", "strategy.name": name})])
            fitting.append(name)
        except ConfigError:
            resolve([("test", {"strategy.name": name})])
    assert set(fitting) == set(AT_ONCE)


def test_all_start_from_the_network_of_the_seed() -> None:
    x = torch.randn(4, 1, 16, 16)
    context = torch.tensor([40.0], dtype=torch.float64)
    answers = {
        name: built("rotation", name).model(x, context).detach()
        for name in ("joint", "joint-manifold", "film", "hypernetwork")
    }
    for answer in answers.values():
        torch.testing.assert_close(answer, answers["joint"], rtol=1e-4, atol=1e-5)
    mixture = built("rotation", "scn").model.manifold
    [weight] = [p.detach() for n, p in mixture.named_parameters() if n.endswith("1.weight")]
    each = built("rotation", "one-per-context").model.networks
    for networks in (list(weight), [n[1].weight.detach() for n in each]):
        assert not torch.equal(networks[0], networks[1])
        assert float(networks[0].std()) == pytest.approx(float(networks[2].std()), rel=0.2)


def test_a_step_is_a_step_of_the_optimizer_on_the_drawn_samples() -> None:
    """Against a loop written by hand: the same draws, Adam on the loss of f(x, c)."""
    stream = rotation(test_samples=5)
    (experience,) = stream.train_stream
    assert experience.draw is not None
    torch.manual_seed(0)
    start = mlp(stream.input_shape, (8,), 10)
    nets = [ManifoldModule(start, Fourier(1, 360.0)) for _ in range(2)]
    adam = [torch.optim.Adam(net.parameters(), 1e-2) for net in nets]
    strategy = ContinuumTraining(
        model=nets[0], optimizer=adam[0], steps=7, seed=4, train_mb_size=12, train_epochs=3,
        evaluator=EvaluationPlugin(loggers=[]),
    )  # fmt: skip
    strategy.train(stream.train_stream)
    generator = torch.Generator().manual_seed(4)
    for _ in range(7):
        x, y, contexts = experience.draw(12, generator)
        adam[1].zero_grad()
        cross_entropy(nets[1](x, contexts), y).backward()
        adam[1].step()
    for found, expected in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("steps", [1, 2, 19, 20, 21, 41, 45, 50, 400, 401, 3000])
def test_all_steps_are_taken_in_at_most_twenty_rounds(steps: int) -> None:
    rounds = StepTraining(steps=steps).epochs
    assert 1 <= rounds <= 20
    drawn: list[int] = []

    def draw(size: int, generator: torch.Generator) -> Any:
        drawn.append(int(torch.randint(10**9, (), generator=generator)))
        return (torch.zeros(size),) * 3

    loader = DrawingLoader(draw, 2, steps, rounds, 0)
    lengths = [len(list(loader)) for _ in range(rounds)]
    assert sum(lengths) == steps
    assert min(lengths) >= 1
    assert set(lengths[:-1]) <= {len(loader)}
    once = torch.Generator().manual_seed(0)
    assert drawn == [int(torch.randint(10**9, (), generator=once)) for _ in range(steps)]


def test_training_needs_an_experience_that_draws() -> None:
    stream = rotation(test_samples=5)
    model = Untold(mlp(stream.input_shape, (4,), 10))
    strategy = ContinuumTraining(
        model=model, optimizer=torch.optim.SGD(model.parameters(), 0.1), steps=2,
        evaluator=EvaluationPlugin(loggers=[]),
    )  # fmt: skip
    with pytest.raises(ContextError, match=r"holds samples of one context.*streams\.rotation"):
        strategy.train(stream.test_stream[0])


def test_the_basis_of_each_stream_is_the_smallest_that_knows_its_topology() -> None:
    expected = {
        "rotation": Fourier(1, 360.0),
        "noise": Bernstein(1),
        "rotation-noise": TensorProduct(Fourier(1, 360.0), Bernstein(1)),
    }
    for name, basis in expected.items():
        assert FAMILIES[name].topology.spec() == basis.topology.spec()
        found = built(name, "joint-manifold").model.basis
        assert found.spec() == Orthonormal(basis).spec()
    line = built("rotation", "joint-manifold", **{"topology.kind": "interval",
                                                  "topology.degree": 1})  # fmt: skip
    assert line.model.basis.spec() == Orthonormal(Bernstein(1, 0.0, 360.0)).spec()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"stream.name": "rotated-digits", "strategy.name": "film"},
         r"film learns all contexts at once, but rotated-digits gives one task .*choose one of "
         r"the streams rotation, noise, rotation-noise, or a strategy such as weight-manifold"),
        ({"stream.name": "rotation", "strategy.name": "naive"},
         r"naive learns one task after the other, but rotation trains all contexts at once; choose "
         r"one of joint-manifold, concat, film, hypernetwork, scn, one-per-context, joint$"),
        ({"stream.name": "rotation", "strategy.name": "joint-concat"}, "choose one of joint-mani"),
        ({"stream.name": "rotation", "stream.contexts": 4}, "unknown key 'stream.contexts'"),
        ({"stream.name": "rotation", "training.epochs": 4}, "did you mean training.steps"),
        ({"training.steps": 4}, "unknown key 'training.steps'; did you mean"),
        ({"stream.name": "rotation", "training.steps": 0}, "training.steps is '0', but needs a wh"),
        ({"stream.name": "rotation", "strategy.name": "film", "strategy.networks": 2},
         "film has no such setting; it is one of scn, one-per-context"),
        ({"stream.name": "noise", "strategy.name": "joint", "topology.degree": 2},
         "joint reads no topology"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_anything_is_built(
    values: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        resolve([("test", values)])


def test_what_does_not_fit_each_other_is_refused_before_training() -> None:
    with pytest.raises(ConfigError, match=r"networks has 2 numbers, but .* has 1; give one for"):
        built("rotation", "one-per-context", **{"strategy.networks": (3, 2)})
    with pytest.raises(ConfigError, match=r"circle has 1 .*choose --topology cylinder"):
        built("rotation-noise", "film", **{"topology.kind": "circle"})


def test_a_comparison_refuses_all_before_the_first_run() -> None:
    layers = [("command line", {"stream.name": "rotation"})]
    with pytest.raises(ConfigError, match="naive learns one task after the other"):
        check_settings(parse_entries(["joint-manifold", "naive"]), layers)
    check_settings(parse_entries(usual_strategies("rotation")), layers)


def test_the_usual_strategy_belongs_to_the_stream() -> None:
    assert names_of([{"stream.name": "noise"}])["strategy"] == "joint-manifold"
    assert names_of([{"stream.name": "noise"}, {"strategy.name": "scn"}])["strategy"] == "scn"
    assert names_of([{}])["strategy"] == "weight-manifold"
