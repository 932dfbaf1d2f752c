"""Contexts: where they come from and what was decided with them."""

from cl_manifold.contexts.policies import ByExperience, ContextPolicy, GivenContext
from cl_manifold.contexts.record import TaskRecord

__all__ = ["ByExperience", "ContextPolicy", "GivenContext", "TaskRecord"]
