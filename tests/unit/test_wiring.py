"""Every setting reaches the object that it is about, and no two random streams share a seed."""

from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin
from PIL import Image

from cl_manifold.contexts import GivenContext, InferredContext
from cl_manifold.errors import DataError
from cl_manifold.experiments.build import build_network, build_strategy, build_stream
from cl_manifold.experiments.config import fields_of, resolve
from cl_manifold.experiments.names import NETWORKS, STRATEGIES
from cl_manifold.experiments.settings import ContinuumSettings, StreamSettings
from cl_manifold.experiments.topologies import build_basis
from cl_manifold.geometry import (
    Bernstein,
    Circle,
    Fourier,
    Interval,
    Orthonormal,
    Product,
    TensorProduct,
    Vertices,
)
from cl_manifold.manifold.information import ExactInformation
from cl_manifold.manifold.natural_step import NaturalStep
from cl_manifold.strategies import LinearDecayPlugin, WeightManifoldPlugin
from cl_manifold.streams import TaskStream, load_digits
from cl_manifold.streams.builders import PURPOSES, seeded
from tests.fitting import stream_for

TINY = {"stream.contexts": 3, "stream.samples": 60, "stream.test_samples": 60}
AT_ONCE = {"stream.name": "rotation", "stream.test_samples": 20, "training.steps": 3}
INFERRED = {"contexts.training": "inferred", "topology.kind": "simplex"}
TESTED = {"contexts.test": "inferred"}


@cache
def stream_of(kind: type[StreamSettings | ContinuumSettings], text: str, seed: int) -> TaskStream:
    return build_stream(kind.model_validate_json(text), None, seed)


def built(**settings: Any) -> Any:
    config = resolve([("test", settings if "stream.name" in settings else TINY | settings)]).config
    stream = stream_of(type(config.stream), config.stream.model_dump_json(), config.seed)
    network = build_network(config, stream)
    return build_strategy(config, stream, network, [], EvaluationPlugin(loggers=[]))


def ours(strategy: Any) -> Any:
    return next(p for p in strategy.plugins if isinstance(p, WeightManifoldPlugin))


def policy(strategy: Any) -> type:
    return type(ours(strategy).coordinates_of.policy)


def of(name: str) -> Callable[[Any], Any]:
    """An attribute of one of the other strategies' plugins, searched through all of them."""

    def find(strategy: Any) -> Any:
        holders = [strategy, *strategy.plugins]
        return next(getattr(h, name) for h in holders if name in vars(h))

    return find


def rule(name: str) -> Callable[[Any], Any]:
    return lambda s: getattr(ours(s).decider.rule, name)


def deciding(name: str) -> Callable[[Any], Any]:
    return lambda s: getattr(ours(s).decider.options, name)


def inferring(name: str) -> Callable[[Any], Any]:
    return lambda s: getattr(ours(s).testing, name)


def optional(name: str) -> Callable[[Any], Any]:
    return lambda s: ours(s).options[name]


def at_once(strategy: str, **others: Any) -> dict[str, Any]:
    return AT_ONCE | {"strategy.name": strategy} | others


def points(strategy: Any) -> int:
    return len(next(iter(strategy.model.manifold.parameters())))


def is_watched(strategy: Any) -> Any:
    shaping = ours(strategy).shaping
    return None if shaping is None else shaping.follows


CASES: list[tuple[str, Any, dict[str, Any], Callable[[Any], Any], Any]] = [
    ("strategy.price", 7.5, {}, lambda s: ours(s).price_weight, 7.5),
    ("strategy.strength", 4.5, {}, optional("strength"), 4.5),
    ("strategy.blocks", "weight", {}, optional("blocks"), "weight"),
    ("strategy.blocks", "tensor", {}, optional("blocks"), "tensor"),
    ("strategy.storage", "int8", {}, optional("storage"), "int8"),
    ("strategy.protection", "exact", {}, lambda s: type(ours(s).information), ExactInformation),
    ("strategy.information_samples", 17, {}, lambda s: ours(s).information.samples, 17),
    ("network.hidden", (5, 4), {}, lambda s: [p.shape[0] for p in s.model.parameters()],
     [5, 5, 4, 4, 10, 10]),
    ("network.width", 4, {"network.name": "resnet18"},
     lambda s: s.model.head.in_features, 32),
    ("network.stem", "imagenet", {"network.name": "resnet18", "network.width": 4},
     lambda s: s.model.stem[0].kernel_size, (7, 7)),
    ("network.norm", "batch", {"network.name": "resnet18", "network.width": 4},
     lambda s: type(s.model.stem[1]), torch.nn.BatchNorm2d),
    ("network.patch", 8, {"network.name": "vit-tiny"},
     lambda s: s.model.patches.kernel_size, (8, 8)),
    ("network.width", 12, {"network.name": "vit-tiny"}, lambda s: s.model.head.in_features, 12),
    ("network.depth", 4, {"network.name": "vit-tiny"}, lambda s: len(s.model.layers), 4),
    ("network.heads", 2, {"network.name": "vit-tiny"},
     lambda s: s.model.layers[0].heads, 2),
    ("network.pooling", "mean", {"network.name": "vit-tiny"}, lambda s: s.model.token, False),
    ("training.epochs", 9, {}, lambda s: s.train_epochs, 9),
    ("training.batch_size", 11, {}, lambda s: s.train_mb_size, 11),
    ("training.optimizer", "sgd", {}, lambda s: type(s.optimizer), torch.optim.SGD),
    ("training.optimizer", "adam", {}, lambda s: type(s.optimizer), torch.optim.Adam),
    ("training.learning_rate", 0.37, {}, lambda s: s.optimizer.param_groups[0]["lr"], 0.37),
    ("training.decay", True, {},
     lambda s: sum(isinstance(p, LinearDecayPlugin) for p in s.plugins), 1),
    ("training.decay", False, {},
     lambda s: sum(isinstance(p, LinearDecayPlugin) for p in s.plugins), 0),
    ("training.device", "meta", {}, lambda s: str(s.device), "meta"),
    ("contexts.training", "given", {}, policy, GivenContext),
    ("contexts.training", "inferred", {"topology.kind": "simplex"}, policy, InferredContext),
    ("contexts.test", "given", {}, lambda s: ours(s).testing, None),
    ("contexts.test", "inferred", {"contexts.batch": 9}, inferring("batch"), 9),
    ("contexts.batch", 13, TESTED, inferring("batch"), 13),
    ("contexts.features", 19, TESTED, inferring("features"), 19),
    ("contexts.rule", "none", {}, lambda s: ours(s).decider, None),
    ("contexts.rule", "auto", {}, lambda s: ours(s).decider, None),
    ("contexts.rule", "auto", INFERRED, lambda s: type(ours(s).decider.rule).__name__,
     "ByEvidence"),
    ("contexts.rule", "csp", {}, lambda s: type(ours(s).decider.rule).__name__, "GainRule"),
    ("contexts.rule", "never-grow", {}, lambda s: type(ours(s).decider.rule).__name__,
     "NeverGrow"),
    ("contexts.level", 0.21, INFERRED, rule("level"), 0.21),
    ("contexts.tolerance", 0.22, INFERRED, rule("tolerance"), 0.22),
    ("contexts.drift", 0.23, INFERRED, rule("drift"), 0.23),
    ("contexts.held_out", 24, INFERRED, deciding("held_out"), 24),
    ("contexts.probe_share", 0.25, INFERRED, deciding("probe_share"), 0.25),
    ("contexts.max_control_points", 26, INFERRED, deciding("max_control_points"), 26),
    ("contexts.topology", "fixed", {}, is_watched, None),
    ("contexts.topology", "watched", {}, is_watched, False),
    ("contexts.topology", "auto", {}, is_watched, True),
    ("seed", 27, INFERRED, deciding("seed"), 27),
    ("seed", 28, TESTED, inferring("seed"), 28),
    ("strategy.on_drift", "refuse", {}, lambda s: ours(s).gate.on_drift, "refuse"),
    ("strategy.drift_limit", 0.29, {}, lambda s: ours(s).gate.limit, 0.29),
    ("network.channels", (3, 5), {"network.name": "cnn"},
     lambda s: [m.out_channels for m in s.model if isinstance(m, torch.nn.Conv2d)], [3, 5]),
    ("strategy.penalty", 3.4, {"strategy.name": "ewc"}, of("ewc_lambda"), 3.4),
    ("strategy.penalty", 3.3, {"strategy.name": "si"}, of("si_lambda"), [3.3]),
    ("strategy.penalty", 3.2, {"strategy.name": "lwf"}, lambda s: of("lwf")(s).alpha, 3.2),
    ("strategy.penalty", 3.5, {"strategy.name": "mas"}, of("_lambda"), 3.5),
    ("strategy.penalty", 3.6, {"strategy.name": "online-ewc"}, of("ewc_lambda"), 3.6),
    ("strategy.decay", 0.6, {"strategy.name": "online-ewc"}, of("decay_factor"), 0.6),
    ("strategy.replay_samples", 33, {"strategy.name": "replay"}, of("mem_size"), 33),
    ("strategy.replay_samples", 34, {"strategy.name": "gdumb"},
     lambda s: of("storage_policy")(s).max_size, 34),
    ("strategy.replay_samples", 36, {"strategy.name": "agem"},
     of("patterns_per_experience"), 12),
    ("strategy.replay_samples", 39, {"strategy.name": "gem"},
     of("patterns_per_experience"), 13),
    ("strategy.replay_samples", 37, {"strategy.name": "der"}, of("mem_size"), 37),
    ("strategy.replay_samples", 38, {"strategy.name": "der++"}, of("mem_size"), 38),
    ("strategy.replay_samples", 35, {"strategy.name": "er-ace"}, of("mem_size"), 35),
    ("strategy.alpha", 0.34, {"strategy.name": "der"}, of("alpha"), 0.34),
    ("strategy.alpha", 0.34, {"strategy.name": "der++"}, of("alpha"), 0.34),
    ("strategy.beta", 0.35, {"strategy.name": "der++"}, of("beta"), 0.35),
    ("strategy.temperature", 3.7, {"strategy.name": "lwf"},
     lambda s: of("lwf")(s).temperature, 3.7),
    ("strategy.margin", 0.38, {"strategy.name": "gem"}, of("memory_strength"), 0.38),
    ("strategy.pruned", 0.39, {"strategy.name": "packnet"},
     lambda s: of("prune_proportion")(s)(0), 0.39),
    ("training.steps", 47, at_once("joint"), lambda s: s.steps, 47),
    ("training.steps", 47, at_once("scn"), lambda s: s.train_epochs, 16),
    ("training.batch_size", 13, at_once("film"), lambda s: s.train_mb_size, 13),
    ("training.learning_rate", 0.17, at_once("concat"),
     lambda s: s.optimizer.param_groups[0]["lr"], 0.17),
    ("training.optimizer", "sgd", at_once("one-per-context"), lambda s: type(s.optimizer),
     torch.optim.SGD),
    ("training.decay", True, at_once("joint-manifold"),
     lambda s: sum(isinstance(p, LinearDecayPlugin) for p in s.plugins), 1),
    ("training.device", "meta", at_once("joint"), lambda s: str(s.device), "meta"),
    ("seed", 31, at_once("film"), lambda s: s.seed, 31),
    ("strategy.natural", "basis", at_once("joint-manifold"), lambda s: type(s.model.basis),
     Orthonormal),
    ("strategy.natural", "gradient", at_once("joint-manifold"),
     lambda s: (type(s.model.basis), type(s.optimizer)), (Fourier, NaturalStep)),
    ("strategy.natural", "no", at_once("joint-manifold"),
     lambda s: (type(s.model.basis), type(s.optimizer)), (Fourier, torch.optim.Adam)),
    ("topology.harmonics", 3, at_once("joint-manifold"), lambda s: s.model.basis.size, 7),
    ("topology.harmonics", 3, at_once("concat"), lambda s: s.model.features.size, 6),
    ("topology.harmonics", 3, at_once("film"), lambda s: s.model.reader[0].in_features, 6),
    ("topology.harmonics", 3, at_once("scn"), lambda s: s.model.reader[0].in_features, 6),
    ("topology.harmonics", 3, at_once("hypernetwork"),
     lambda s: s.model.reader[0].in_features, 6),
    ("strategy.hidden", 11, at_once("film"), lambda s: s.model.reader[0].out_features, 11),
    ("strategy.hidden", 11, at_once("scn"), lambda s: s.model.reader[0].out_features, 11),
    ("strategy.hidden", 11, at_once("hypernetwork"),
     lambda s: s.model.reader[0].out_features, 11),
    ("strategy.dimensions", 4, at_once("hypernetwork"),
     lambda s: (points(s), s.model.reader[-1].out_features), (5, 4)),
    ("strategy.networks", 4, at_once("scn"),
     lambda s: (points(s), s.model.reader[-1].out_features), (4, 4)),
    ("strategy.networks", (4,), at_once("one-per-context"),
     lambda s: s.model.centres.flatten().tolist(), [33.75, 101.25, 168.75, 236.25]),
    ("strategy.networks", (3, 2), at_once("one-per-context", **{"stream.name": "rotation-noise"}),
     lambda s: s.model.centres[:3].tolist(), [[45.0, 0.125], [45.0, 0.375], [135.0, 0.125]]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value", "others", "read", "expected"),
    CASES,
    ids=[f"{key}={value}-{i}" for i, (key, value, *_) in enumerate(CASES)],
)
def test_a_setting_reaches_its_object(
    key: str, value: Any, others: dict[str, Any], read: Callable[[Any], Any], expected: Any
) -> None:
    found = read(built(**{**others, key: value}))
    assert (list(found) if isinstance(expected, list) else found) == expected


def test_no_setting_is_left_out() -> None:
    """Of strategies, networks, contexts and training; two are read by whoever trains."""
    asked = {(others.get("strategy.name", "weight-manifold"), key) for key, _, others, *_ in CASES}
    networks = {(others.get("network.name", "mlp"), key) for key, _, others, *_ in CASES}
    elsewhere = {"training.threads", "training.evaluate_every"}
    for strategy in STRATEGIES:
        for key in fields_of(stream_for(strategy), "mlp", strategy):
            own = key.startswith("strategy.") and not key.endswith(".name")
            general = strategy == "weight-manifold" and key.startswith(("training.", "contexts."))
            if (own or general) and key not in elsewhere:
                assert (strategy, key) in asked
    for network in NETWORKS:
        for key in fields_of("rotated-digits", network, "naive"):
            if key.startswith("network.") and not key.endswith(".name"):
                assert (network, key) in networks


def test_the_settings_of_a_continuum_reach_the_stream(tmp_path: Path) -> None:
    def stream(**more: Any) -> TaskStream:
        values = {f"stream.{key}": value for key, value in more.items()}
        config = resolve([("test", {"stream.name": "rotation"} | values)]).config
        return build_stream(config.stream, config.data_dir, config.seed)

    usual = stream(test_samples=7)
    assert {len(e.dataset) for e in [*usual.test_stream, *usual.unseen_stream]} == {7}
    assert usual.name == "rotation-digits"
    tuned = stream(test_samples=7, holdout="validation")
    assert tuned.name == "rotation-digits-validation"
    assert len(tuned.train_stream[0].dataset) < len(usual.train_stream[0].dataset)
    for name in ("dark", "light"):
        (tmp_path / "own" / name).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (8, 8)).save(tmp_path / "own" / name / f"{index}.png")
    assert stream(images=str(tmp_path / "own")).input_shape == (3, 32, 32)
    with pytest.raises(DataError, match="pass --data-dir"):
        stream(images="mnist")
    assert stream(name="noise").topology.spec() == Interval().spec()


def test_the_download_of_a_continuum_is_allowed_where_it_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path | None, str, bool]] = []

    def images(data_dir: Path | None, holdout: str, download: bool) -> Any:
        asked.append((data_dir, holdout, download))
        return load_digits()

    monkeypatch.setattr("cl_manifold.streams.pictures.mnist_images", images)
    for download in (False, True):
        values = {"stream.name": "noise", "stream.images": "mnist", "stream.download": download}
        config = resolve([("test", values | {"data_dir": tmp_path})]).config
        build_stream(config.stream, config.data_dir, config.seed)
    assert asked == [(tmp_path, "test", False), (tmp_path, "test", True)]


def test_the_settings_of_a_topology_reach_the_basis() -> None:
    def basis(space: Any, **settings: Any) -> Any:
        config = resolve([("test", {f"topology.{k}": v for k, v in settings.items()})]).config
        return build_basis(config.topology, space, config.seed)

    circle, ends = Circle(2.5), Interval(-1.0, 3.0)
    assert basis(circle, kind="circle", harmonics=2).spec() == Fourier(2, 2.5).spec()
    assert basis(ends, kind="interval", degree=5).spec() == Bernstein(5, -1.0, 3.0).spec()
    assert basis(Vertices(4).topology, kind="simplex").spec() == Vertices(4).spec()
    spline = basis(ends, kind="spline", size=9, degree=2)
    assert (spline.size, spline.topology.low, spline.topology.high) == (9, -1.0, 3.0)
    around = basis(circle, kind="spline", size=8, degree=2)
    assert (around.size, around.topology.period) == (8, 2.5)
    cylinder = basis(Product(circle, ends), kind="cylinder", harmonics=2, degree=1)
    assert cylinder.spec() == TensorProduct(Fourier(2, 2.5), Bernstein(1, -1.0, 3.0)).spec()
    codes = [basis(Vertices(4).topology, kind="codes", size=3) for _ in range(2)]
    assert codes[0].size == 3
    assert codes[0].spec() == codes[1].spec()


def test_the_seed_reaches_network_and_stream() -> None:
    def weights(seed: int) -> Any:
        return torch.cat([p.flatten() for p in built(seed=seed).model.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_no_two_purposes_of_any_two_runs_share_random_numbers() -> None:
    """As `seed + index` would: run 0's second purpose would draw what run 1's first draws."""
    seeds = {seeded(s, p).initial_seed() for s, p in product(range(50), PURPOSES)}
    assert len(seeds) == 50 * len(PURPOSES)
