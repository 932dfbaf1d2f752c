"""Avalanche plugins and strategies; import them as `cl_manifold.strategies`.

Names are loaded when they are first used: settings of strategies can be read without Avalanche.
"""

from typing import TYPE_CHECKING

from cl_manifold.lazy import names_of

if TYPE_CHECKING:
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
    from .methods.method import Method, Setting, Stored
    from .penalties import SummedPenalties
    from .plugins import (
        FiniteLossPlugin,
        FreshOptimizerPlugin,
        LinearDecayPlugin,
        Progress,
        RandomGuess,
        ScorePlugin,
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
    from .training import WeightManifoldTraining

__getattr__ = names_of(
    __name__,
    {
        "active_outputs": (
            "ActiveOutputs",
            "ActiveOutputsPlugin",
        ),
        "conditioned": (
            "ConditionedTraining",
            "conditioned_benchmark",
            "conditioned_dataset",
            "jointly",
            "with_sample_contexts",
        ),
        "context_input": (
            "ContextFeatures",
            "ContextInput",
            "JointContextTraining",
            "TellContext",
        ),
        "given": ("with_contexts",),
        "loader": ("InMemoryLoaderPlugin",),
        "manifold.deciding": ("DecisionOptions",),
        "manifold.inference": ("InferredTesting",),
        "manifold.plugin": ("WeightManifoldPlugin",),
        "manifold.shaping": ("TopologyWatch",),
        "manifold.trace": ("TaskTrace",),
        "methods.method": (
            "Method",
            "Setting",
            "Stored",
        ),
        "penalties": ("SummedPenalties",),
        "plugins": (
            "ScorePlugin",
            "FiniteLossPlugin",
            "FreshOptimizerPlugin",
            "LinearDecayPlugin",
            "Progress",
            "RandomGuess",
        ),
        "repairs": (
            "AsymmetricReplay",
            "AveragedGradients",
            "DarkReplay",
            "Distillation",
            "GreedySampler",
            "Replay",
            "SynapticIntelligence",
        ),
        "separate": (
            "PackedTasks",
            "SeparateNetworks",
        ),
        "training": ("WeightManifoldTraining",),
    },
)

__all__ = [
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
    "Method",
    "PackedTasks",
    "Progress",
    "RandomGuess",
    "Replay",
    "ScorePlugin",
    "SeparateNetworks",
    "Setting",
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
    "jointly",
    "with_contexts",
    "with_sample_contexts",
]
