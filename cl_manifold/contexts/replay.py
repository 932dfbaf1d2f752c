"""Replaying a log of decisions under another rule, offline."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cl_manifold.contexts.decisions import AlwaysGrow, ByEvidence, GainRule, NeverGrow, Rule
from cl_manifold.contexts.evidence import evidence_from
from cl_manifold.errors import ConfigError, DataError

LIMITS = ("level", "tolerance", "drift")
RULES = ("evidence", "always-grow", "never-grow", "csp")


@dataclass(frozen=True)
class Replayed:
    """One experience under two rules.

    Attributes:
        experience: position in the stream.
        name: its context or hidden task, for people.
        before: what the run's own rule says to the logged evidence.
        after: what the other rule says; None where it would have needed a probe that was not made.
    """

    experience: int
    name: str
    before: str | None
    after: str | None


def rule_named(name: str, level: float, tolerance: float, drift: float) -> Rule:
    """The rule of that name; the numbers are those of `ByEvidence`.

    Raises:
        ConfigError: there is no such rule, or a number is out of range.
    """
    try:
        rules: dict[str, Rule] = {
            "evidence": ByEvidence(level, tolerance, drift),
            "always-grow": AlwaysGrow(),
            "never-grow": NeverGrow(),
            "csp": GainRule(),
        }
        return rules[name]
    except KeyError:
        raise ConfigError(f"unknown rule {name!r}; choose one of {', '.join(RULES)}") from None
    except ValueError as error:
        raise ConfigError(f"{error}; choose another number") from None


def replay(decisions: Iterable[Mapping[str, Any]], own: Rule, other: Rule) -> list[Replayed]:
    """Both rules on the evidence of each decision that has one.

    Every experience is judged by the evidence that was logged. Had an earlier decision been
    another one, later evidence would be different, too: this is a first answer, not a second run.
    """
    rows: list[Replayed] = []
    for d in decisions:
        if d.get("evidence"):
            try:
                evidence = evidence_from(d["evidence"])
            except (TypeError, KeyError, ValueError) as error:
                raise DataError(
                    f"the evidence of {d['name']!r} is damaged ({error}); run it again"
                ) from error
            rows.append(
                Replayed(d["experience"], d["name"], own.decide(evidence), other.decide(evidence))
            )
    return rows


def changed_rule(settings: Mapping[str, Any], changes: Mapping[str, str]) -> tuple[Rule, Rule]:
    """The rule of a run, and the same with some settings changed.

    Args:
        settings: "contexts.rule", "contexts.level" and so on, as in a run's `configuration.json`.
        changes: new text values by `rule`, `level`, `tolerance` or `drift`.

    Raises:
        ConfigError: a key or value is unknown.
    """
    for key in changes:
        if key not in (*LIMITS, "rule"):
            raise ConfigError(
                f"--replay got {key!r}, but knows rule, level, tolerance and drift; "
                "give for example --replay tolerance=0.2"
            )
    name = str(settings.get("contexts.rule", "auto"))
    values: dict[str, Any] = {k: settings[f"contexts.{k}"] for k in LIMITS}
    values["rule"] = "evidence" if name in ("auto", "none") else name

    def made(values: Mapping[str, Any]) -> Rule:
        try:
            numbers = [float(values[key]) for key in LIMITS]
        except ValueError:
            raise ConfigError(f"--replay needs numbers for {', '.join(LIMITS)}") from None
        return rule_named(values["rule"], *numbers)

    return made(values), made(values | dict(changes))
