"""A network is tried before training; what was built is written down and can be built again."""

import json
import random
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.models import IncrementalClassifier, MultiHeadClassifier
from torch import Tensor, nn

from cl_manifold.errors import ConfigError, DataError
from cl_manifold.experiments import architecture
from cl_manifold.experiments.architecture import built, described, rebuilt
from cl_manifold.experiments.config import network_named, resolve
from cl_manifold.experiments.names import NETWORKS
from cl_manifold.experiments.trial import Trial
from cl_manifold.networks import Network
from cl_manifold.options import options_of

SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": (7, 5)},
    "cnn": {"channels": (4, 6)},
    "resnet18": {"width": 4, "norm": "batch"},
    "vit-tiny": {"width": 8, "depth": 2, "heads": 2, "pooling": "mean"},
}


def small(name: str) -> Network:
    return options_of(network_named(name), {"name": name, **SMALL[name]})


class Given(Network):
    """Makes what the test says."""

    name: str = "given"

    def build(self, input_shape: tuple[int, ...], classes: int) -> Any:
        return MAKE[self.name](input_shape, classes)


class Told(nn.Module):
    """A flat layer whose output is changed by a function."""

    def __init__(self, shape: tuple[int, ...], outputs: int, change: Callable[[Tensor], Any]):
        super().__init__()
        self.layer, self.change = nn.Linear(prod(shape), outputs), change

    def forward(self, x: Tensor) -> Any:
        return self.change(self.layer(x.flatten(1)))


def fails(shape: tuple[int, ...], classes: int) -> nn.Module:
    raise KeyError("depth")


MAKE: dict[str, Callable[[tuple[int, ...], int], Any]] = {
    "fine": lambda shape, n: Told(shape, n, lambda y: y),
    "too few": lambda shape, n: Told(shape, n - 1, lambda y: y),
    "a tuple": lambda shape, n: Told(shape, n, lambda y: (y, y)),
    "a dict": lambda shape, n: Told(shape, n, lambda y: {"logits": y}),
    "one axis": lambda shape, n: Told(shape, 1, lambda y: y.squeeze(1)),
    "maps": lambda shape, n: Told(shape, n, lambda y: y[:, :, None]),
    "swapped": lambda shape, n: Told(shape, n, lambda y: y.T),
    "other inputs": lambda shape, n: nn.Sequential(nn.Flatten(), nn.Linear(17, n)),
    "more arguments": lambda shape, n: nn.Bilinear(prod(shape), 3, n),
    "no module": lambda shape, n: "a network",
    "an error": fails,
}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("too few", r"returns a tensor of shape \(2, 4\) for 2 inputs, but needs .* \(2, 5\)"),
        (
            "a tuple",
            r"returns a tuple, but needs a tensor of shape \(2, 5\), one row per input; le",
        ),
        ("a dict", r"returns a dict, but needs"),
        ("one axis", r"of shape \(2,\) for 2 inputs, but needs a tensor of shape \(2, 5\)"),
        ("maps", r"of shape \(2, 5, 1\) for 2 inputs"),
        ("swapped", r"of shape \(5, 2\) for 2 inputs"),
        (
            "other inputs",
            r"run on inputs of shape \(2, 3, 4\) \(RuntimeError: .*mat1 .*\), which is",
        ),
        ("more arguments", r"cannot be run on inputs of shape \(2, 3, 4\) \(TypeError: "),
        ("no module", r"made 'a network', but needs to make a torch.nn.Module"),
        ("an error", r"for inputs of shape \(3, 4\) and 5 outputs \(KeyError: 'depth'\); choose"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(name: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"^network {name} .*{sentence}") as error:
        built(Given(name=name), (3, 4), 5)
    assert "\n" not in str(error.value)


def test_refused_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{__name__}:Given"
    monkeypatch.setitem(MAKE, name, MAKE["too few"])
    with pytest.raises(ConfigError, match=r"\(2, 9\) for 2 inputs, but .* \(2, 10\)"):
        Trial(resolve([("test", {"network.name": name, "stream.contexts": 2})]))


class Restless(nn.Module):
    """Draws from every random stream, counts in a buffer, and drops out."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.drop = nn.Linear(12, 5), nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(5).eval()
        self.register_buffer("calls", torch.zeros(()))
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        torch.rand(3)
        np.random.rand(3)  # noqa: NPY002
        random.random()
        self.calls += 1
        self.modes += [self.training, torch.is_grad_enabled()]
        return self.norm(self.drop(self.layer(x.flatten(1))))


def test_trying_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Restless()
    monkeypatch.setitem(MAKE, "restless", lambda shape, n: module)
    torchs, numpys = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    kept = {key: value.clone() for key, value in module.state_dict().items()}
    assert built(Given(name="restless"), (3, 4), 5) is module
    assert torch.equal(torchs, torch.get_rng_state())
    assert numpys == str(np.random.get_state())  # noqa: NPY002
    assert module.modes == [False, False], "in evaluation mode, without gradients, once"
    assert (module.training, module.drop.training, module.norm.training) == (True, True, False)
    assert all(torch.equal(value, module.state_dict()[key]) for key, value in kept.items())


def test_trying_draws_nothing_of_pythons_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beartype draws some, as many for a network that draws as for one that does not."""
    monkeypatch.setitem(MAKE, "restless", lambda shape, n: Restless())
    states = []
    for name in ("fine", "restless"):
        random.seed(5)
        built(Given(name=name), (3, 4), 5)
        states.append(random.getstate())
    assert states[0] == states[1]


def test_trying_changes_no_weights_and_no_later_draw() -> None:
    for name in NETWORKS:
        network = small(name)
        torch.manual_seed(3)
        plain, after = network.build((1, 8, 8), 5), torch.rand(3)
        torch.manual_seed(3)
        tried = built(network, (1, 8, 8), 5)
        assert torch.equal(after, torch.rand(3))
        mine, yours = plain.state_dict(), tried.state_dict()
        assert all(torch.equal(mine[key], yours[key]) for key in mine)


@pytest.mark.parametrize("head", [IncrementalClassifier, MultiHeadClassifier])
def test_outputs_that_grow_are_not_measured(
    head: Callable[..., nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = nn.Sequential(nn.Flatten(), head(12))
    monkeypatch.setitem(MAKE, "growing", lambda shape, n: module)
    assert built(Given(name="growing"), (3, 4), 5) is module


def test_a_lazy_network_gets_its_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        MAKE, "lazy", lambda shape, n: nn.Sequential(nn.Flatten(), nn.LazyLinear(n))
    )
    module: Any = built(Given(name="lazy"), (3, 4), 5)
    assert module[1].weight.shape == (5, 12)


# -- writing down and building again ---------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_built_again_with_the_same_weights_it_answers_the_same(name: str) -> None:
    network = small(name)
    module = built(network, (2, 8, 12), 5)
    module(torch.randn(6, 2, 8, 12))  # moves the statistics of BatchNorm
    text = json.dumps(described(network, module, (2, 8, 12), 5))
    draws = torch.get_rng_state()
    again = rebuilt(json.loads(text))
    assert torch.equal(draws, torch.get_rng_state())
    mine, yours = module.state_dict(), again.state_dict()
    assert {k: v.shape for k, v in mine.items()} == {k: v.shape for k, v in yours.items()}
    again.load_state_dict(mine)
    x = torch.randn(3, 2, 8, 12)
    assert torch.equal(module.eval()(x), again.eval()(x))


def test_what_is_written_down() -> None:
    network = small("vit-tiny")
    module = built(network, (2, 8, 12), 5)
    assert described(network, module, (2, 8, 12), 5) == {
        "name": "vit-tiny",
        "settings": {"patch": 4, "width": 8, "depth": 2, "heads": 2, "pooling": "mean"},
        "input_shape": [2, 8, 12],
        "outputs": 5,
        "parameters": sum(p.numel() for p in module.parameters()),
    }


def test_what_cannot_be_built_again() -> None:
    network = small("mlp")
    found = described(network, built(network, (3,), 2), (3,), 2)
    with pytest.raises(DataError, match=r"lacks 'outputs'; give the network\.json of a run"):
        rebuilt({key: value for key, value in found.items() if key != "outputs"})
    with pytest.raises(DataError, match="has 80 parameters here, but had 81 when"):
        rebuilt(found | {"parameters": 81})
    with pytest.raises(ConfigError, match="unknown network 'mpl'; did you mean mlp"):
        rebuilt(found | {"name": "mpl"})
    with pytest.raises(ConfigError, match=r"^network\.depth"):
        rebuilt(found | {"settings": {"depth": 3}})
    assert architecture.FEW > 1, "one sample may lose its axis"
