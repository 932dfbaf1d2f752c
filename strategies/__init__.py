"""Avalanche plugins and strategies; import them as `cl_manifold.strategies`."""

from .conditioned import (
    ConditionedTraining,
    conditioned_benchmark,
    conditioned_dataset,
    jointly,
    with_contexts,
)
from .deciding import DecisionOptions
from .inferring import InferredTesting
from .loader import InMemoryLoaderPlugin
from .manifold_plugin import WeightManifoldPlugin
from .plugins import (
    AccuracyPlugin,
    FiniteLossPlugin,
    FreshOptimizerPlugin,
    LinearDecayPlugin,
    Progress,
)
from .shaping import TopologyWatch
from .task import TaskTrace
from .training import WeightManifoldTraining

__all__ = [
    "AccuracyPlugin",
    "ConditionedTraining",
    "DecisionOptions",
    "FiniteLossPlugin",
    "FreshOptimizerPlugin",
    "InMemoryLoaderPlugin",
    "InferredTesting",
    "LinearDecayPlugin",
    "Progress",
    "TaskTrace",
    "TopologyWatch",
    "WeightManifoldPlugin",
    "WeightManifoldTraining",
    "conditioned_benchmark",
    "conditioned_dataset",
    "jointly",
    "with_contexts",
]
