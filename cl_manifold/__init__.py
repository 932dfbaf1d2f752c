"""Continual learning on weight manifolds: w(c) = Σ_k φ_k(c) P_k.

`import cl_manifold` is cheap; each name below is loaded when it is first used, and the mathematics
needs nothing heavier than torch. Avalanche, MLflow and Click are imported only by
`cl_manifold.strategies`, `cl_manifold.streams`, `cl_manifold.tracking` and `cl_manifold.cli`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

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


def __getattr__(name: str) -> Any:
    """Load a public name from its home on first use (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'cl_manifold' has no attribute {name!r}")
    value = getattr(import_module(f"cl_manifold.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
