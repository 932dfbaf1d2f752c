"""Which context an experience has."""

from types import SimpleNamespace
from typing import Any

import pytest

from cl_manifold.contexts import (
    ByExperience,
    ByFunction,
    GivenContext,
    InferredContext,
    policy_of,
    position,
)
from cl_manifold.errors import ContextError


def experience(index: int, **more: Any) -> Any:
    return SimpleNamespace(current_experience=index, **more)


def part(whole: Any) -> Any:
    return experience(99, origin_experience=whole)


def test_the_position_of_a_part_is_that_of_the_whole() -> None:
    assert position(experience(3)) == 3
    assert position(experience(3, origin_experience=None)) == 3
    assert position(part(part(experience(4)))) == 4
    # training experiences show their position in their logging mode only
    hidden = SimpleNamespace(logging=lambda: part(experience(5)))
    assert position(hidden) == 5
    assert position(experience(6, logging=None)) == 6


def test_a_list_has_one_context_per_experience() -> None:
    policy = ByExperience((0.5, 0.25))
    assert [policy(experience(0)), policy(part(experience(1)))] == [0.5, 0.25]
    with pytest.raises(ContextError, match="experience 2 has no context: the list holds 2"):
        policy(experience(2))


def test_an_experience_may_carry_its_context() -> None:
    assert GivenContext()(experience(1, context=0)) == 0
    for without in (experience(1), experience(1, context=None)):
        with pytest.raises(ContextError, match="experience 1 carries no context"):
            GivenContext()(without)
    with pytest.raises(ContextError, match=r"experience \? carries no context"):
        GivenContext()(SimpleNamespace())


def test_a_function_gives_a_context_or_is_refused() -> None:
    policy = ByFunction(lambda e: e.current_experience / 4 or None)
    assert policy(experience(1)) == 0.25
    with pytest.raises(ContextError, match="returned None for experience 0"):
        policy(experience(0))


def test_anything_that_can_be_called_becomes_a_policy() -> None:
    given, inferred = ByExperience([0.5]), InferredContext()
    assert isinstance(policy_of(None), GivenContext)
    assert policy_of(given) is given
    assert policy_of(inferred) is inferred
    made = policy_of(lambda e: 0.125)
    assert (made.source, made(experience(0))) == ("given", 0.125)
    assert (inferred.source, inferred(experience(0, context=0.3))) == ("inferred", None)
    wrong: Any = [0.5]
    with pytest.raises(ContextError, match=r"contexts is a list, .* pass a list as ByExperience"):
        policy_of.__wrapped__(wrong)  # type: ignore[attr-defined]
