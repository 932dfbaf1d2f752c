"""All contexts at once: one network for a known variable, beside the other ways to condition it."""

from cl_manifold.conditioning.experiment import Experiment, Order, Row, Watcher, prepare, rows_of
from cl_manifold.conditioning.lineup import System, lineup
from cl_manifold.conditioning.pictures import load_pictures
from cl_manifold.conditioning.problems import PROBLEMS, Problem
from cl_manifold.conditioning.record import ConditionResult, condition

__all__ = [
    "PROBLEMS",
    "ConditionResult",
    "Experiment",
    "Order",
    "Problem",
    "Row",
    "System",
    "Watcher",
    "condition",
    "lineup",
    "load_pictures",
    "prepare",
    "rows_of",
]
