"""Avalanche plugins and strategies; import them as `cl_manifold.strategies`."""

from .loader import InMemoryLoaderPlugin
from .manifold_plugin import WeightManifoldPlugin
from .plugins import (
    AccuracyPlugin,
    FiniteLossPlugin,
    FreshOptimizerPlugin,
    LinearDecayPlugin,
    Progress,
)
from .task import TaskTrace
from .training import WeightManifoldTraining

__all__ = [
    "AccuracyPlugin",
    "FiniteLossPlugin",
    "FreshOptimizerPlugin",
    "InMemoryLoaderPlugin",
    "LinearDecayPlugin",
    "Progress",
    "TaskTrace",
    "WeightManifoldPlugin",
    "WeightManifoldTraining",
]
