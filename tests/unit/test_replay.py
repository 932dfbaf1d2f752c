"""A log of decisions under another rule: which rules are made, and what each row says."""

from dataclasses import replace
from typing import Any

import pytest

from cl_manifold.contexts import AlwaysGrow, ByEvidence, GainRule, NeverGrow, Rule, TaskRecord
from cl_manifold.contexts.replay import changed_rule, replay, rule_named
from cl_manifold.errors import ConfigError

from .test_decisions import FIRST_LOOK, PROBED

SETTINGS = {"contexts.level": "0.02", "contexts.tolerance": 0.3, "contexts.drift": 0.4}
OWN = ByEvidence(0.02, 0.3, 0.4)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("evidence", ByEvidence(0.1, 0.2, 0.3)),
        ("always-grow", AlwaysGrow()),
        ("never-grow", NeverGrow()),
        ("csp", GainRule(0.1)),
    ],
)
def test_rules_have_names(name: str, rule: Rule) -> None:
    assert rule_named(name, 0.1, 0.2, 0.3) == rule


def test_both_rules_judge_every_logged_evidence() -> None:
    unvisited = replace(FIRST_LOOK, visited=False)
    logged = [None, PROBED.as_dict(), unvisited.as_dict(), {}]
    rows: Any = [
        {"experience": 3 + i, "name": f"{i}°", "evidence": e, "score": 0.5}
        for i, e in enumerate(logged)
    ]
    found = replay([*rows, {"experience": 9, "name": "x"}], NeverGrow(), ByEvidence(level=0.0005))
    assert [(r.experience, r.name, r.before, r.after) for r in found] == [
        (4, "1°", "place", "reuse"),
        (5, "2°", "place", None),
    ]


@pytest.mark.parametrize(
    ("name", "own"),
    [("auto", OWN), ("none", OWN), ("evidence", OWN), (None, OWN), ("never-grow", NeverGrow())],
)
def test_the_rule_of_a_run_and_the_same_with_some_settings_changed(
    name: str | None, own: Rule
) -> None:
    settings = SETTINGS if name is None else SETTINGS | {"contexts.rule": name}
    assert changed_rule(settings, {}) == (own, own)
    assert changed_rule(settings, {"rule": "csp"}) == (own, GainRule())
    changes = {"rule": "evidence", "level": "0.5", "tolerance": "0", "drift": "2"}
    assert changed_rule(settings, changes) == (own, ByEvidence(0.5, 0.0, 2.0))
    other = replace(OWN, drift=1.0) if isinstance(own, ByEvidence) else own
    assert changed_rule(settings, {"drift": "1"}) == (own, other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speed": "1"}, "got 'speed', but knows rule, level, tolerance and drift"),
        ({"level": "2"}, "level must lie between 0 and 1, got 2.0; choose another number"),
        ({"level": "much"}, "needs numbers for level, tolerance, drift"),
        ({"rule": "best"}, "unknown rule 'best'; choose one of evidence, always-grow"),
    ],
)
def test_what_cannot_be_replayed_says_why(changes: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        changed_rule(SETTINGS, changes)


def test_a_record_is_plain_values() -> None:
    record = TaskRecord(
        0, "0°", (0.0, 1.0), "given", "place", 1.0, 1.25, None, 0.1, 0.9, 1, 10, 0.5
    )
    plain = record.as_dict()
    assert (plain["context"], plain["evidence"], plain["topologies"]) == ([0.0, 1.0], None, {})
    assert (plain["experience"], plain["stored_floats"], plain["truth"]) == (0, 10, None)
    decided = replace(record, evidence=PROBED, topologies={"circle": 0.5}).as_dict()
    assert decided["evidence"] == PROBED.as_dict()
    assert decided["evidence"]["context"] == [1.0, 0.0]
    assert decided["topologies"] == {"circle": 0.5}
