"""Contexts: where they come from and what is decided with them."""

from cl_manifold.contexts.decisions import AlwaysGrow, ByEvidence, GainRule, NeverGrow, Rule
from cl_manifold.contexts.evidence import Decision, Evidence, evidence_from
from cl_manifold.contexts.policies import (
    ByExperience,
    ContextPolicy,
    GivenContext,
    InferredContext,
)
from cl_manifold.contexts.record import TaskRecord

__all__ = [
    "AlwaysGrow",
    "ByEvidence",
    "ByExperience",
    "ContextPolicy",
    "Decision",
    "Evidence",
    "GainRule",
    "GivenContext",
    "InferredContext",
    "NeverGrow",
    "Rule",
    "TaskRecord",
    "evidence_from",
]
