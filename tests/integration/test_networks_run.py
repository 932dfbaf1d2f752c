"""The named networks in whole runs: with every kind of strategy, put aside, built again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cl_manifold.errors import ConfigError
from cl_manifold.experiments import snapshot
from cl_manifold.experiments.architecture import rebuilt
from cl_manifold.experiments.config import resolve
from cl_manifold.experiments.fitting import AT_ONCE
from cl_manifold.experiments.trial import Trial
from cl_manifold.manifold.saving import load_manifold

from .test_resuming import compared

TASKS = {
    "stream.contexts": 2,
    "stream.samples": 40,
    "stream.test_samples": 20,
    "training.epochs": 1,
}
ALL = {"stream.name": "rotation", "stream.test_samples": 4, "training.steps": 2}
NETWORKS: dict[str, dict[str, Any]] = {
    "resnet18": {"network.name": "resnet18", "network.width": 2},
    "resnet18, batch": {
        "network.name": "resnet18",
        "network.width": 2,
        "network.norm": "batch",
        "network.stem": "imagenet",
    },
    "vit-tiny": {"network.name": "vit-tiny", "network.width": 6, "network.depth": 1},
}
FEW = ("resnet18", "vit-tiny")


def trial_of(**values: Any) -> Trial:
    return Trial(resolve([("test", values)]))


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if "batch" in n else ()) for n in NETWORKS],
)
def test_they_lie_on_a_manifold_and_go_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    whole, resumed = (trial_of(**TASKS, **NETWORKS[name]) for _ in range(2))
    for step in whole.steps():
        if step == 0:
            snapshot.save(tmp_path / "0", whole.freeze())
    resumed.thaw(snapshot.load(tmp_path / "0"))
    assert list(resumed.steps()) == [1]
    compared(whole, resumed)
    assert whole.manifold is not None
    assert whole.manifold.manifold is not None
    names = whole.manifold.manifold.layout.names
    parameters, buffers = whole.network.named_parameters(), whole.network.named_buffers()
    assert names >= {name for name, _ in parameters}
    assert {n for n, _ in buffers if "running" in n} <= names, "statistics ride along"


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("strategy", [s for s in AT_ONCE if s not in ("film", "one-per-context")])
def test_all_contexts_at_once(name: str, strategy: str) -> None:
    trial = trial_of(**ALL, **NETWORKS[name], **{"strategy.name": strategy})
    before = {key: value.clone() for key, value in trial.strategy.model.named_parameters()}
    assert list(trial.steps()) == [17]
    still = [
        key for key, value in trial.strategy.model.named_parameters()
        if torch.equal(value, before[key])
    ]  # fmt: skip
    assert not still, "everything is trained"
    assert 0 <= trial.result("").score <= 1


@pytest.mark.parametrize("name", FEW)
def test_film_and_packnet_refuse_what_they_cannot_change(name: str) -> None:
    with pytest.raises(ConfigError, match=r"film modulates .*; choose network mlp or cnn"):
        trial_of(**ALL, **NETWORKS[name], **{"strategy.name": "film"})
    values = TASKS | NETWORKS[name] | {"strategy.name": "packnet", "training.epochs": 2}
    with pytest.raises(ConfigError, match=r"packnet prunes .*\(.*\); choose network mlp"):
        trial_of(**values)


@pytest.mark.parametrize("network", ["cnn", *FEW])
@pytest.mark.parametrize("strategy", ["concat", "joint-concat"])
def test_the_context_is_told_in_further_channels(network: str, strategy: str) -> None:
    values: dict[str, Any] = NETWORKS.get(network, {"network.name": network})
    trial = trial_of(**TASKS, **values, **{"strategy.name": strategy})
    model = trial.strategy.model
    assert not model.flat
    features = model.told.shape[0]
    first = next(m for m in model.modules() if isinstance(m, torch.nn.Conv2d))
    assert first.in_channels == 1 + features > 1
    model.told = torch.arange(features) + 1.0
    seen: list[torch.Tensor] = []
    first.register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0]))
    x = torch.rand(3, 1, 16, 16)
    model(x)
    assert torch.equal(seen[0][:, :1], x)
    for feature in range(features):
        assert bool((seen[0][:, 1 + feature] == feature + 1).all())


Call = Callable[..., tuple[int, str, str]]


def test_the_artifacts_of_a_run_build_its_network_again(call: Call, folder: Path) -> None:
    values = TASKS | {"network.name": "resnet18", "network.width": 2, "seed": 3}
    words = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    code, out, err = call("run", *words, "--json")
    assert code == 0, err
    (file,) = folder.rglob("artifacts/network.json")
    module = rebuilt(json.loads(file.read_text()))
    assert file.with_suffix(".txt").read_text() == f"{module}\n"
    manifold = load_manifold(file.with_name("manifold.safetensors"), module)
    again = trial_of(**values)  # the same weights, since the seed is the same
    assert list(again.steps()) == [0, 1]
    plugin: Any = again.manifold
    assert json.loads(out)["score_matrix"] == again.result("").score_matrix
    x = torch.rand(5, 1, 16, 16)
    for context in plugin.coordinates():
        manifold.layout.write(module, manifold.state(context))
        plugin.manifold.layout.write(again.network, plugin.manifold.state(context))
        assert torch.equal(module.eval()(x), again.network.eval()(x))


def test_their_settings_are_listed(call: Call) -> None:
    code, out, _ = call("settings", "--set", "network.name=vit-tiny", "--json")
    assert code == 0
    rows = {row["key"]: row for row in json.loads(out)}
    assert {key for key in rows if key.startswith("network.")} == {
        *("network.name", "network.patch", "network.width", "network.depth"),
        *("network.heads", "network.pooling"),
    }
    assert rows["network.pooling"]["range"] == "one of token, mean"
    code, out, _ = call(
        "settings", "rotation", "--network", "resnet18", "--set", "network.width=8",
        "--set", "strategy.name=film",
    )  # fmt: skip
    assert code == 0
    assert "network.stem " in out
    assert [line.split()[1] for line in out.splitlines() if line.startswith("network.width")] == [
        "8"
    ]
    assert "strategy.hidden" in out
    assert call("settings", "--set", "network.depth=3")[0] == 2
