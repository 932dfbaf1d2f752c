"""The topologies that every law is checked on. A new topology joins by one line."""

from collections.abc import Callable

import torch
from torch import Tensor

from cl_manifold.geometry import Circle, Interval, Product, Simplex, Topology, torus

TOPOLOGIES: dict[str, Callable[[], Topology]] = {
    "interval": lambda: Interval(),
    "interval-shifted": lambda: Interval(-2.0, 5.0),
    "circle": lambda: Circle(),
    "circle-degrees": lambda: Circle(360.0),
    "circle-odd-period": lambda: Circle(0.7),
    "torus": lambda: torus(2, 3.0),
    "cylinder": lambda: Product(Interval(1.0, 2.0), Circle(2.0)),
    "mixture-by-angle": lambda: Product(Simplex(3), Circle()),
    "nested": lambda: Product(torus(2), Interval()),
    "simplex-1": lambda: Simplex(1),
    "simplex-4": lambda: Simplex(4),
}


def draw(topology: Topology, count: int, seed: int = 0) -> Tensor:
    return topology.sample(count, torch.Generator().manual_seed(seed))
