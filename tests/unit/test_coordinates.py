"""Where experiences lie on the topology."""

import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cl_manifold.contexts import ByExperience, GivenContext, InferredContext
from cl_manifold.errors import ContextError
from cl_manifold.geometry import Basis, Fourier, TensorProduct, Vertices
from cl_manifold.manifold.weight_manifold import WeightManifold
from cl_manifold.strategies import TopologyWatch
from cl_manifold.strategies.manifold.coordinates import Coordinates
from tests.networks import small_mlp


def on(basis: Basis) -> WeightManifold:
    return WeightManifold(small_mlp(), basis, growable=True)


def experience(index: int, context: Any = None) -> Any:
    return SimpleNamespace(current_experience=index, context=context)


def walk(coordinates: Coordinates, manifold: WeightManifold, contexts: list[Any]) -> list[Tensor]:
    found = [coordinates.trained(manifold, experience(i, c)) for i, c in enumerate(contexts)]
    return [c for c in found if c is not None]


@pytest.mark.parametrize("value", [0.25, 1.25, np.float32(0.25), torch.tensor(-0.75), [0.25]])
def test_any_number_becomes_a_canonical_coordinate(value: Any) -> None:
    coordinates, manifold = Coordinates(GivenContext(), None), on(Fourier(1))
    (found,) = walk(coordinates, manifold, [value])
    assert found.dtype == torch.float64
    assert found.tolist() == [0.25]
    assert coordinates.tested(manifold, experience(5, value)).tolist() == [0.25]
    assert coordinates.told is None


def test_an_integer_on_a_simplex_is_a_vertex() -> None:
    found = walk(Coordinates(GivenContext(), None), on(Vertices(3)), [2, np.int64(0)])
    assert [c.tolist() for c in found] == [[0, 0, 1], [1, 0, 0]]


@pytest.mark.parametrize("method", ["trained", "tested"])
def test_contexts_that_do_not_fit_name_the_experience(method: str) -> None:
    ask = getattr(Coordinates(GivenContext(), None), method)
    with pytest.raises(ContextError, match=r"^experience 7: "):
        ask(on(Vertices(3)), experience(7, [0.1, 0.2]))
    with pytest.raises(ContextError, match=r"^experience 7: "):
        ask(on(Vertices(3)), experience(7, [0.5, 0.2, 0.1]))
    with pytest.raises(ContextError, match=r"^experience 7 carries no context"):
        ask(on(Vertices(3)), experience(7))


def test_inferred_contexts_are_those_that_were_assigned() -> None:
    coordinates, manifold = Coordinates(InferredContext(), None), on(Fourier(1))
    assert walk(coordinates, manifold, [0.3]) == []
    manifold.atlas.assigned = {4: torch.tensor([0.4]), 2: torch.tensor([0.2])}
    assert float(coordinates.tested(manifold, experience(2))) == pytest.approx(0.2)
    # what was never trained is asked at the latest coordinate
    assert float(coordinates.tested(manifold, experience(3))) == pytest.approx(0.4)


@pytest.mark.parametrize("degrees", [[0, 90, 180], [0.3, 90, 180.0], [0.25, 3.25]])
def test_degrees_on_a_circle_of_period_one_are_warned_of_once(degrees: list[float]) -> None:
    coordinates, manifold = Coordinates(GivenContext(), None), on(Fourier(1))
    with pytest.warns(UserWarning, match=r"coincide on .*check the period and the unit") as told:
        walk(coordinates, manifold, degrees)
    assert len(told) == 1
    first, second = ([float(v)] for v in degrees[-2:])
    if degrees[0] == 0:
        first, second = [0.0], [90.0]
    assert f"contexts {first} and {second} of different" in str(told[0].message)


def test_returns_and_turns_are_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        walk(Coordinates(GivenContext(), None), on(Fourier(1)), [0.0, 1.0, 0.5, -0.5, 2.0, 0.0])
        walk(Coordinates(GivenContext(), None), on(Fourier(1, 360.0)), [0.0, 90.0, 360.0])
        walk(Coordinates(GivenContext(), None), on(Vertices(2)), [0, 1, 0])
        torus = on(TensorProduct(Fourier(1), Fourier(1)))
        walk(Coordinates(GivenContext(), None), torus, [[0.0, 5.0], [5.0, 0.0]])
        # a part of an experience, or the same one again, is no other one
        coordinates, circle = Coordinates(GivenContext(), None), on(Fourier(1))
        for _ in range(2):
            coordinates.trained(circle, experience(0, 90.0))


def test_a_topology_that_is_watched_gives_every_new_context_a_vertex() -> None:
    watch = TopologyWatch(follows=True)
    coordinates, manifold = Coordinates(ByExperience([0.3, 0.7, 0.3]), watch), on(Vertices(1))
    found = walk(coordinates, manifold, [None] * 3)
    assert [c.tolist() for c in found] == [[1], [0, 1], [1, 0]]
    assert manifold.basis.size == 2
    assert coordinates.told is not None
    assert coordinates.told.tolist() == [0.3]
    tested = coordinates.tested(manifold, experience(1))
    assert tested.tolist() == [0, 1]
    unseen = Coordinates(GivenContext(), watch).tested(manifold, experience(9, 0.9))
    assert unseen.tolist() == [0.5, 0.5]
    with pytest.raises(ContextError, match="experience 0 has no given context"):
        Coordinates(InferredContext(), watch).trained(manifold, experience(0))


def test_watched_contexts_of_several_numbers_get_vertices_too() -> None:
    places = [[0.1, 0.2], [0.1, 0.9], [0.1, 0.2]]
    coordinates = Coordinates(ByExperience(places), TopologyWatch(follows=True))
    found = walk(coordinates, on(Vertices(1)), [None] * 3)
    assert [c.tolist() for c in found] == [[1], [0, 1], [1, 0]]
