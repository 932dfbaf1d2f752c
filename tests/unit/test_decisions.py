"""Rules decide by the evidence alone."""

from dataclasses import replace
from typing import Any

import pytest

from cl_manifold.contexts import (
    AlwaysGrow,
    ByEvidence,
    Evidence,
    GainRule,
    NeverGrow,
    evidence_from,
)

FIRST_LOOK = Evidence(
    samples=100,
    context=(1.0, 0.0),
    visited=True,
    zero_shot_loss=0.2,
    zero_shot_score=0.9,
    reference_loss=0.2,
    p_value=0.4,
    plasticity=0.5,
    overshoot=1.0,
)
PROBED = replace(
    FIRST_LOOK,
    p_value=0.001,
    constrained_loss=0.5,
    unconstrained_loss=0.5,
    unconstrained_acc=0.95,
    gain=0.3,
    shortfall=0.0,
    drift=0.02,
)


@pytest.mark.parametrize(
    ("change", "decision"),
    [
        ({"p_value": 0.4}, "reuse"),
        ({"p_value": 0.051}, "reuse"),
        ({"p_value": 0.05}, "place"),
        ({"p_value": 0.4, "visited": False}, "place"),
        ({"p_value": 0.4, "visited": False, "gain": -0.01}, "reuse"),
        ({"visited": False, "gain": -0.01}, "place"),
        ({"p_value": 0.4, "visited": False, "gain": -0.01, "zero_shot_loss": 0.21}, "place"),
        ({"p_value": 0.4, "visited": False, "drift": 0.9}, "place"),
        ({}, "place"),
        ({"shortfall": 0.11}, "grow"),
        ({"drift": 0.16}, "grow"),
        ({"commit_drift": 0.16}, "grow"),
        ({"commit_drift": 0.14}, "place"),
        ({"drift": 0.9, "can_grow": False}, "place"),
    ],
)
def test_by_evidence(change: dict[str, Any], decision: str) -> None:
    assert ByEvidence().decide(replace(PROBED, **change)) == decision


def test_by_evidence_asks_for_probes_only_where_they_can_matter() -> None:
    rule = ByEvidence()
    assert rule.decide(FIRST_LOOK) == "reuse"
    assert rule.decide(replace(FIRST_LOOK, visited=False)) is None
    assert rule.decide(replace(FIRST_LOOK, p_value=0.01)) is None


def test_limits_move_the_decision() -> None:
    drifting = replace(PROBED, drift=0.3)
    assert ByEvidence(drift=0.2).decide(drifting) == "grow"
    assert ByEvidence(drift=0.4).decide(drifting) == "place"
    assert ByEvidence(tolerance=0.5).decide(replace(PROBED, shortfall=0.4)) == "place"
    assert ByEvidence(level=0.0005).decide(PROBED) == "reuse"


@pytest.mark.parametrize(
    "values", [{"level": 0.0}, {"level": 1.0}, {"tolerance": -0.1}, {"drift": -1.0}]
)
def test_limits_out_of_range(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        ByEvidence(**values)


def test_reference_rules() -> None:
    assert AlwaysGrow().decide(FIRST_LOOK) == "grow"
    assert AlwaysGrow().decide(replace(FIRST_LOOK, can_grow=False)) == "place"
    assert NeverGrow().decide(PROBED) == "place"
    rule = GainRule(0.1)
    assert rule.decide(FIRST_LOOK) is None
    assert rule.decide(replace(PROBED, zero_shot_score=0.86, unconstrained_acc=0.95)) == "grow"
    assert rule.decide(replace(PROBED, zero_shot_score=0.87, unconstrained_acc=0.95)) == "reuse"


def test_evidence_survives_json() -> None:
    assert evidence_from(PROBED.as_dict() | {"unknown": 1}) == PROBED
