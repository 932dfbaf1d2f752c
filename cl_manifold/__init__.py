"""Continual learning on weight manifolds: w(c) = Σ_k φ_k(c) P_k.

`import cl_manifold` is cheap; each name below is loaded when it is first used, and the mathematics
needs nothing heavier than torch. Avalanche, MLflow and Click are imported only by
`cl_manifold.strategies`, `cl_manifold.streams`, `cl_manifold.tracking` and `cl_manifold.cli`.
"""

from typing import TYPE_CHECKING

from cl_manifold.lazy import names_of

if TYPE_CHECKING:
    from cl_manifold.contexts import (
        AlwaysGrow,
        ByEvidence,
        ByExperience,
        GainRule,
        GivenContext,
        InferredContext,
        NeverGrow,
    )
    from cl_manifold.contexts.learned import LearnedContexts
    from cl_manifold.geometry import (
        Bernstein,
        BSpline,
        Circle,
        Codes,
        Fourier,
        Interval,
        PeriodicBSpline,
        Simplex,
        TensorProduct,
        Vertices,
        random_codes,
        torus,
    )
    from cl_manifold.manifold.information import ExactInformation, FisherInformation
    from cl_manifold.manifold.module import ManifoldModule
    from cl_manifold.manifold.natural_step import NaturalStep, empirical_gram
    from cl_manifold.manifold.saving import load_manifold, save_manifold
    from cl_manifold.manifold.sharing import as_manifold, as_module
    from cl_manifold.manifold.weight_manifold import WeightManifold

__version__ = "0.1.0"

_HOMES = {
    "contexts": (
        "AlwaysGrow",
        "ByEvidence",
        "ByExperience",
        "GainRule",
        "GivenContext",
        "InferredContext",
        "NeverGrow",
    ),
    "contexts.learned": ("LearnedContexts",),
    "geometry": (
        "BSpline",
        "Bernstein",
        "Circle",
        "Codes",
        "Fourier",
        "Interval",
        "PeriodicBSpline",
        "Simplex",
        "TensorProduct",
        "Vertices",
        "random_codes",
        "torus",
    ),
    "manifold.information": ("ExactInformation", "FisherInformation"),
    "manifold.sharing": ("as_manifold", "as_module"),
    "manifold.weight_manifold": ("WeightManifold",),
    "manifold.module": ("ManifoldModule",),
    "manifold.natural_step": ("NaturalStep", "empirical_gram"),
    "manifold.saving": ("load_manifold", "save_manifold"),
}

__getattr__ = names_of(__name__, _HOMES)

__all__ = [
    "AlwaysGrow",
    "BSpline",
    "Bernstein",
    "ByEvidence",
    "ByExperience",
    "Circle",
    "Codes",
    "ExactInformation",
    "FisherInformation",
    "Fourier",
    "GainRule",
    "GivenContext",
    "InferredContext",
    "Interval",
    "LearnedContexts",
    "ManifoldModule",
    "NaturalStep",
    "NeverGrow",
    "PeriodicBSpline",
    "Simplex",
    "TensorProduct",
    "Vertices",
    "WeightManifold",
    "as_manifold",
    "as_module",
    "empirical_gram",
    "load_manifold",
    "random_codes",
    "save_manifold",
    "torus",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
