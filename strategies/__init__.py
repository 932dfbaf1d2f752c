"""Avalanche plugins and strategies; import them as `cl_manifold.strategies`."""

from .active_outputs import ActiveOutputs, ActiveOutputsPlugin
from .conditioned import (
    ConditionedTraining,
    conditioned_benchmark,
    conditioned_dataset,
    jointly,
    with_sample_contexts,
)
from .context_input import ContextFeatures, ContextInput, JointContextTraining, TellContext
from .given import with_contexts
from .loader import InMemoryLoaderPlugin
from .manifold.deciding import DecisionOptions
from .manifold.inference import InferredTesting
from .manifold.plugin import WeightManifoldPlugin
from .manifold.shaping import TopologyWatch
from .manifold.trace import TaskTrace
from .penalties import SummedPenalties
from .plugins import (
    AccuracyPlugin,
    FiniteLossPlugin,
    FreshOptimizerPlugin,
    LinearDecayPlugin,
    Progress,
    RandomGuess,
)
from .repairs import (
    AsymmetricReplay,
    AveragedGradients,
    DarkReplay,
    Distillation,
    GreedySampler,
    Replay,
    SynapticIntelligence,
)
from .separate import PackedTasks, SeparateNetworks
from .stored import Stored, context_at_test, stored
from .training import WeightManifoldTraining

__all__ = [
    "AccuracyPlugin",
    "ActiveOutputs",
    "ActiveOutputsPlugin",
    "AsymmetricReplay",
    "AveragedGradients",
    "ConditionedTraining",
    "ContextFeatures",
    "ContextInput",
    "DarkReplay",
    "DecisionOptions",
    "Distillation",
    "FiniteLossPlugin",
    "FreshOptimizerPlugin",
    "GreedySampler",
    "InMemoryLoaderPlugin",
    "InferredTesting",
    "JointContextTraining",
    "LinearDecayPlugin",
    "PackedTasks",
    "Progress",
    "RandomGuess",
    "Replay",
    "SeparateNetworks",
    "Stored",
    "SummedPenalties",
    "SynapticIntelligence",
    "TaskTrace",
    "TellContext",
    "TopologyWatch",
    "WeightManifoldPlugin",
    "WeightManifoldTraining",
    "conditioned_benchmark",
    "conditioned_dataset",
    "context_at_test",
    "jointly",
    "stored",
    "with_contexts",
    "with_sample_contexts",
]
