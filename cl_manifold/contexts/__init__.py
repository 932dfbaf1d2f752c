"""Contexts: where they come from and what is decided with them."""

from cl_manifold.contexts.decisions import AlwaysGrow, ByEvidence, GainRule, NeverGrow, Rule
from cl_manifold.contexts.detectron import Detectron
from cl_manifold.contexts.encoder import RandomFeatureEncoder
from cl_manifold.contexts.evidence import Decision, Evidence, evidence_from
from cl_manifold.contexts.inference import ContextInference, InferenceSettings
from cl_manifold.contexts.policies import (
    ByExperience,
    ByFunction,
    ContextPolicy,
    GivenContext,
    InferredContext,
    policy_of,
    position,
)
from cl_manifold.contexts.record import TaskRecord

__all__ = [
    "AlwaysGrow",
    "ByEvidence",
    "ByExperience",
    "ByFunction",
    "ContextInference",
    "ContextPolicy",
    "Decision",
    "Detectron",
    "Evidence",
    "GainRule",
    "GivenContext",
    "InferenceSettings",
    "InferredContext",
    "NeverGrow",
    "RandomFeatureEncoder",
    "Rule",
    "TaskRecord",
    "evidence_from",
    "policy_of",
    "position",
]
