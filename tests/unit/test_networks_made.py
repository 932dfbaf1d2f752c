"""Functions and module classes as networks: their arguments are settings, or they are refused."""

import pickle
from collections.abc import Callable
from functools import partial
from math import prod
from typing import Annotated, Any, Literal

import pytest
import torch
from pydantic import Field
from torch import nn

from cl_manifold.errors import ConfigError
from cl_manifold.networks import Network, network_kind
from cl_manifold.options import Options, options_of, range_text

Shape = tuple[int, ...]


def stacked(
    input_shape: Shape,
    classes: int,
    widths: tuple[int, ...] = (6, 5),
    bias: bool = True,
    rate: float = 0.25,
    size: Annotated[int, Field(ge=1, le=9)] = 3,
    kind: Literal["relu", "tanh"] = "relu",
    more: int | None = None,
    *,
    note: str = "none yet",
) -> nn.Module:
    """Every type that a setting may have."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(prod(input_shape), classes, bias))
    network.told = (widths, bias, rate, size, kind, more, note)  # type: ignore[assignment]
    return network


class Module(nn.Module):
    def __init__(self, input_shape: Shape, outputs: int, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(prod(input_shape), width), nn.Linear(width, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x.flatten(1))


def of(found: Any, **values: Any) -> Any:
    return options_of(network_kind("m:f", found), {"name": "m:f", **values}, "network")


def test_arguments_are_settings_with_types_ranges_and_defaults() -> None:
    kind = network_kind("m:f", stacked)
    assert issubclass(kind, Network)
    assert list(kind.model_fields) == [
        "name", "widths", "bias", "rate", "size", "kind", "more", "note",
    ]  # fmt: skip
    assert range_text(kind.model_fields["size"]) == "a whole number, 1 or more and at most 9"
    assert range_text(kind.model_fields["kind"]) == "one of relu, tanh"
    assert range_text(kind.model_fields["bias"]) == "true or false"
    assert kind.model_fields["rate"].description == "`rate` of m:f."
    usual: Any = of(stacked).build((2, 3), 4)
    assert usual.told == ((6, 5), True, 0.25, 3, "relu", None, "none yet")
    texts = {"widths": "7,8", "bias": "false", "rate": "1e-3", "size": "9", "kind": "tanh"}
    given: Any = of(stacked, **texts, more="5", note="all").build((2, 3), 4)
    assert given.told == ((7, 8), False, 0.001, 9, "tanh", 5, "all")
    assert of(stacked, more="none").build((2,), 4).told[5] is None


def test_a_module_class_is_called() -> None:
    network = of(Module, width="7").build((2, 3), 5)
    assert type(network) is Module
    assert [tuple(p.shape) for p in network.parameters()] == [(7, 6), (7,), (5, 7), (5,)]


def test_what_is_like_a_function_is_called_like_one() -> None:
    half = partial(stacked, size=2)
    assert of(half).build((1,), 1).told[3] == 2


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"size": 10}, "network.size is '10', but needs a whole number, 1 or more and at most 9"),
        ({"bias": "perhaps"}, "network.bias is 'perhaps', but needs true or false"),
        ({"kind": "gelu"}, "needs one of relu, tanh"),
        ({"depth": 1}, "network.depth"),
    ],
)
def test_values_are_checked(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        of(stacked, **values)


@pytest.mark.parametrize("made", [stacked, Module])
def test_it_reaches_another_process(made: Callable[..., Any]) -> None:
    settings = of(made, **({"width": 9} if made is Module else {"size": 9}))
    again = pickle.loads(pickle.dumps(settings))
    assert again.model_dump() == settings.model_dump()
    assert again.name == "m:f"
    torch.manual_seed(0)
    mine = settings.build((3,), 2).state_dict()
    torch.manual_seed(0)
    yours = again.build((3,), 2).state_dict()
    assert mine.keys() == yours.keys()
    assert all(torch.equal(mine[key], yours[key]) for key in mine)


def without_shape(classes: int, width: int = 3) -> Any: ...
def reversed_(classes: int, input_shape: Shape) -> Any: ...
def no_default(input_shape: Shape, classes: int, width: int) -> Any: ...
def no_type(input_shape: Shape, classes: int, width=3) -> Any: ...
def any_words(input_shape: Shape, classes: int, **more: int) -> Any: ...
def any_number(input_shape: Shape, classes: int, *more: int) -> Any: ...
def a_layer(input_shape: Shape, classes: int, act: type[nn.Module] = nn.ReLU) -> Any: ...
def a_table(input_shape: Shape, classes: int, sizes: dict[str, int] | None = None) -> Any: ...
def texts(input_shape: Shape, classes: int, names: tuple[str, ...] = ()) -> Any: ...
def named(input_shape: Shape, classes: int, name: str = "x") -> Any: ...
def building(input_shape: Shape, classes: int, build: int = 1) -> Any: ...
def copying(input_shape: Shape, classes: int, copy: bool = True) -> Any: ...
def hidden(input_shape: Shape, classes: int, _width: int = 1) -> Any: ...
def unknown(input_shape: Shape, classes: int, width: "Nowhere" = 1) -> Any: ...  # type: ignore  # noqa: F821


class NoNetwork:
    def __init__(self, input_shape: Shape, classes: int) -> None: ...


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (3.14, "which cannot make networks"),
        (nn.Linear(2, 3), "which cannot make networks"),
        (NoNetwork, "which is no module"),
        (Options, "which is no module"),
        (Network, "which is no module"),
        (nn.Linear, "which takes in_features, out_features"),
        (without_shape, "which takes classes, width"),
        (reversed_, "which takes classes, input_shape"),
        (dict, "which is no module"),
        (no_default, "whose argument width has no default"),
        (no_type, "whose argument width has no type"),
        (any_words, "whose argument more has no name of its own"),
        (any_number, "whose argument more has no name of its own"),
        (a_layer, "whose argument act has a type that no text gives"),
        (a_table, "whose argument sizes has a type that no text gives"),
        (texts, "whose argument names has a type that no text gives"),
        (named, "whose argument name has a name that settings use themselves"),
        (building, "whose argument build has a name that"),
        (copying, "whose argument copy has a name that"),
        (hidden, "whose argument _width has a name that"),
        (unknown, "whose arguments cannot be read"),
    ],
)
def test_others_are_refused_in_one_sentence(found: Any, why: str) -> None:
    with pytest.raises(ConfigError) as error:
        network_kind("m:f", found)
    said = str(error.value)
    assert said.startswith("network 'm:f' is ")
    assert f", {why}" in said
    assert "; give a function or module class of (input_shape, classes)" in said
    assert "\n" not in said
