"""Objects as tables and back: the same values, the same sharing, into what was built the same."""

import functools
import operator
import os
import random
import re
import sqlite3
import threading
import weakref
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cl_manifold.errors import DataError, IncompatibleError
from cl_manifold.experiments.freezing import Freezer, World
from cl_manifold.experiments.resuming import left_out
from cl_manifold.experiments.thawing import Thawer
from cl_manifold.experiments.trust import Trust

OWN = Trust(["tests"])
NOTHING = World({})


class Colour(Enum):
    RED = 1
    BLUE = 2


class Plain:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__ |= attributes


class Slotted:
    __slots__ = ("__private", "a", "b")

    def __init__(self, a: Any) -> None:
        self.a = a
        self.__private = [a]

    @property
    def private(self) -> Any:
        return self.__private


@dataclass(frozen=True)
class Fixed:
    a: Any
    b: list[int] = field(default_factory=list)


class Named(dict[str, int]):
    """A container of one's own."""


class Database(sqlite3.Connection):
    """Python code over what only C code knows."""


class Forgetful:
    transient: ClassVar[tuple[str, ...]] = ("cache",)

    def __init__(self) -> None:
        self.cache: Any = (i for i in range(3))
        self.kept = 1


Point = namedtuple("Point", "x y")


def double(value: int) -> int:
    return 2 * value


def unchanged(*words: Any) -> None:
    """A hook."""


def frozen(thing: Any, world: World = NOTHING) -> list[dict[str, Any]]:
    freezer = Freezer(world, OWN, left_out)
    freezer.value({"it": thing}, "it")
    return freezer.rows


def thawed(
    rows: list[dict[str, Any]], living: Any = None, world: World = NOTHING, trust: Trust = OWN
) -> Any:
    return Thawer(rows, world, trust, left_out).into({"it": living})["it"]


def back(thing: Any, living: Any = None) -> Any:
    return thawed(frozen(thing), living)


VALUES = [
    None,
    True,
    -(2**70),
    0.1,
    "ä",
    b"\x00\xff",
    [1, [2]],
    (1, ("a", None)),
    {1: "a", "b": 2, (3, 4): 5, None: 6},
    {3, 1, 2},
    frozenset({"a"}),
    OrderedDict(b=1, a=2),
    Counter("abca"),
    deque([1, 2, 3], maxlen=3),
    range(2, 9, 3),
    slice(1, None, 2),
    Colour.BLUE,
    Path("a/b"),
    torch.float64,
    torch.device("cpu"),
    torch.Size([2, 3]),
    Point(1, [2]),
    Fixed((1, 2), [3]),
    Named(a=1),
    np.float64(0.5),
    np.int32(7),
    Colour,
    double,
    dict,
    torch.relu,
    nn.functional.relu,
]


@pytest.mark.parametrize("value", VALUES, ids=lambda v: type(v).__name__)
def test_a_value_comes_back_equal_and_of_its_class(value: Any) -> None:
    found = back(value)
    assert found == value
    assert type(found) is type(value)


def test_containers_keep_order_default_and_bound() -> None:
    assert list(back(OrderedDict(b=1, a=2))) == ["b", "a"]
    assert back(deque([1, 2], maxlen=2)).maxlen == 2
    counts = back(defaultdict(list, a=[1]))
    counts["new"].append(2)
    assert counts == {"a": [1], "new": [2]}


def test_what_is_not_a_number_stays_so() -> None:
    assert np.isnan(back(float("nan")))
    assert back(float("-inf")) == float("-inf")


@pytest.mark.parametrize(
    "array", [np.arange(6.0).reshape(2, 3), np.array([True]), np.zeros((0, 2))]
)
def test_arrays(array: np.ndarray) -> None:
    found = back(array)
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    found += found  # memory of its own that can be written


TENSORS: dict[str, Tensor] = {
    "plain": torch.arange(6.0).reshape(2, 3),
    "transposed": torch.arange(6).reshape(2, 3).mT,
    "expanded": torch.tensor([1.5]).expand(4, 3),
    "a view": torch.arange(10.0, dtype=torch.float64)[2:8:3],
    "bfloat16": torch.tensor([1.0, 3.0], dtype=torch.bfloat16),
    "complex": torch.tensor([1 + 2j]),
    "truth": torch.tensor([True, False]),
    "empty": torch.zeros(0, 3),
    "a number": torch.tensor(3),
    "channels last": torch.rand(1, 2, 3, 3).to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_keep_values_strides_and_storage(name: str) -> None:
    tensor = TENSORS[name]
    found = back(tensor)
    assert torch.equal(found, tensor)
    assert (found.dtype, found.stride()) == (tensor.dtype, tensor.stride())
    assert found.storage_offset() == tensor.storage_offset()
    assert found.untyped_storage().nbytes() == tensor.untyped_storage().nbytes()
    assert found.data_ptr() != tensor.data_ptr() or not tensor.numel()


def test_gradients_are_wanted_as_before() -> None:
    assert back(torch.ones(2, requires_grad=True)).requires_grad
    assert not back(torch.ones(2, requires_grad=True) * 2).requires_grad
    assert not back(nn.Parameter(torch.ones(2), requires_grad=False)).requires_grad


def test_what_was_shared_is_shared_again() -> None:
    inner, base = [1], torch.zeros(4)
    found = back([inner, inner, base[:2], base[2:], base])
    assert found[0] is found[1]
    found[4].fill_(7)
    assert found[2].tolist() == found[3].tolist() == [7, 7]


def test_circles() -> None:
    one: Any = Plain()
    one.other = Plain(other=one)
    one.items = [one]
    found = back(one)
    assert found.other.other is found
    assert found.items[0] is found


def test_objects_with_attributes_slots_and_methods() -> None:
    slotted = back(Slotted(3))
    assert (slotted.a, slotted.private, hasattr(slotted, "b")) == (3, [3], False)
    words = [4]
    found = back([words, functools.partial(double, 4), functools.partial(max, words, key=double)])
    assert found[1]() == 8
    assert found[2].args[0] is found[0]


def test_methods_are_those_of_the_objects_that_came_back() -> None:
    network = nn.Linear(2, 1)
    found = back([network, network.forward])
    assert found[1].__self__ is found[0]


def test_weak_references() -> None:
    thing = Plain(a=1)
    found = back([thing, weakref.ref(thing)])
    assert found[1]() is found[0]


@pytest.mark.parametrize(
    ("make", "draw"),
    [
        (lambda: torch.Generator().manual_seed(3), lambda g: torch.rand(3, generator=g).tolist()),
        (lambda: random.Random(3), lambda g: [g.random(), g.gauss(0, 1)]),
        (lambda: np.random.default_rng(3), lambda g: g.random(3).tolist()),
        (lambda: np.random.RandomState(3), lambda g: g.rand(3).tolist()),
    ],
)
def test_random_generators_go_on(make: Any, draw: Any) -> None:
    generator = make()
    draw(generator)
    found = back(generator)
    assert draw(found) == draw(generator)


# -- into what was built the same ----------------------------------------------------------------


def test_a_network_keeps_its_identity_and_takes_the_weights() -> None:
    trained, fresh = nn.Linear(2, 2), nn.Linear(2, 2)
    weight = fresh.weight
    found = thawed(frozen(trained), fresh)
    assert found is fresh
    assert found.weight is weight
    assert torch.equal(weight, trained.weight)


def test_parameters_that_became_wider() -> None:
    wide, narrow = nn.Linear(2, 5), nn.Linear(2, 3)
    found = thawed(frozen(wide), narrow)
    assert torch.equal(found(torch.ones(2)), wide(torch.ones(2)))


def test_an_optimizer_keeps_its_state_and_its_parameters() -> None:
    def built() -> Any:
        network = nn.Linear(2, 1)
        return Plain(network=network, optimizer=torch.optim.Adam(network.parameters()))

    def step(made: Any) -> None:
        made.optimizer.zero_grad()
        made.network(torch.ones(3, 2)).sum().backward()
        made.optimizer.step()

    first = built()
    step(first)
    second = thawed(frozen(first), built())
    for made in (first, second):
        step(made)
    assert second.optimizer.param_groups[0]["params"][0] is second.network.weight
    assert torch.equal(first.network.weight, second.network.weight)


def test_attributes_that_are_gone_or_new() -> None:
    living = Plain(old=1, both=2)
    found = thawed(frozen(Plain(both=3, new=4)), living)
    assert found is living
    assert vars(found) == {"both": 3, "new": 4}


def test_living_containers_and_frozen_objects_are_left_as_they_are() -> None:
    shared, constant = [1], Fixed(1)
    living = Plain(items=shared, fixed=constant)
    found = thawed(frozen(Plain(items=[2, 3], fixed=Fixed(2))), living)
    assert (found.items, found.fixed) == ([2, 3], Fixed(2))
    assert (shared, constant) == ([1], Fixed(1))


def test_an_object_is_given_away_once() -> None:
    same = Plain(a=0)
    found = thawed(frozen([Plain(a=1), Plain(a=2)]), [same, same])
    assert [part.a for part in found] == [1, 2]


def test_what_is_left_out_stays_or_is_none() -> None:
    rows = frozen(Forgetful())
    living = Forgetful()
    cache = living.cache
    assert thawed(rows, living).cache is cache
    assert vars(thawed(rows)) == {"cache": None, "kept": 1}


def test_functions_without_a_name_come_back_with_what_they_enclose() -> None:
    def counter(start: int) -> Any:
        counts = [start]
        return lambda: counts

    found = thawed(frozen(counter(5)), counter(0))
    assert found() == [5]
    with pytest.raises(DataError, match=r"function .*lambda.* which this program did not make"):
        thawed(frozen(counter(5)))


def test_a_function_that_encloses_a_name_without_a_value_is_refused() -> None:
    def early() -> Any:
        def found() -> Any:
            return later

        with pytest.raises(IncompatibleError, match="is a function, which a snapshot cannot hold"):
            frozen(found)
        later = 3
        return later

    early()


def test_hooks_that_came_back_are_not_replaced_by_later_ones() -> None:
    network = nn.Linear(1, 1)
    handle = network.register_forward_hook(unchanged)
    rows = frozen(network)
    torch.utils.hooks.RemovableHandle.next_id = handle.id
    found = thawed(rows, nn.Linear(1, 1))
    found.register_forward_hook(unchanged)
    assert len(found._forward_hooks) == 2


# -- the world -----------------------------------------------------------------------------------


def test_the_world_is_named_and_not_copied() -> None:
    here, there = torch.arange(100.0), torch.arange(100.0)
    rows = frozen([here, here[3:5]], World({"data": here}))
    assert not any(row["kind"] == "storage" for row in rows)
    found = thawed(rows, None, World({"data": there}))
    assert found[0] is there
    there[3] = -1
    assert found[1].tolist() == [-1, 4]


def test_a_world_may_be_empty() -> None:
    assert World().objects == {}
    assert World().name_of(World()) is None


def test_a_world_without_the_name_is_refused() -> None:
    thing = Plain()
    with pytest.raises(DataError, match="does not fit this program"):
        thawed(frozen(thing, World({"a": thing})))


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "thing",
    [
        iter([1]),
        (i for i in range(2)),
        torch.eye(2).to_sparse(),
        np.array([object()]),
        nn.parameter.UninitializedParameter(),
        random.SystemRandom(),
        os.getcwd,
        object(),
        [1].append,
        Path,
        operator.itemgetter(1),
        re.compile("a"),
        threading.local(),
        Database(":memory:"),
        type("Local", (threading.local,), {})(),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_what_no_table_can_hold_is_refused_by_place(thing: Any) -> None:
    with pytest.raises(IncompatibleError, match=r"it\['it'\]\[0\]\.a is a .* snapshot cannot hold"):
        Freezer(NOTHING, OWN, left_out).value({"it": [Plain(a=thing)]}, "it")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("subprocess", "Popen"),
        ("testsomething", "x"),
        ("collections", "abc"),
        ("cl_manifold.errors", "missing"),
    ],
)
def test_a_table_names_no_code_but_its_own(module: str, name: str) -> None:
    rows = [
        {"kind": "dict", "items": [["it", (1,)]], "state": {}},
        {"kind": "code", "module": module, "name": name},
    ]
    with pytest.raises(DataError, match="is not of this run's own packages; start again"):
        thawed(rows)


def test_a_class_that_nobody_trusts_is_refused() -> None:
    with pytest.raises(DataError, match=r"names tests\.unit\.test_freezing\.Plain"):
        thawed(frozen(Plain()), trust=Trust())
