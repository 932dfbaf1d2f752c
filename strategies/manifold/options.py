"""What users of the plugin may choose by name."""

from collections.abc import Callable
from typing import TypedDict

from cl_manifold.manifold.layout import Granularity
from cl_manifold.manifold.points import Storage

from .drift import OnDrift


class ManifoldOptions(TypedDict, total=False):
    """What `WeightManifold` takes besides module and basis."""

    blocks: Granularity
    strength: float | None
    storage: Storage
    growable: bool
    select: Callable[[str], bool]


class PluginOptions(ManifoldOptions, total=False):
    """What the plugin takes besides."""

    on_drift: OnDrift
    drift_limit: float
