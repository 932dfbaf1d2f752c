"""Small networks and training loops that several tests share."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cl_manifold.manifold.layout import Layout, State
from cl_manifold.manifold.weight_manifold import WeightManifold


def small_mlp() -> Any:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def small_cnn() -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    )


def fit(net: nn.Module, x: Tensor, y: Tensor, steps: int = 20, rate: float = 0.05) -> None:
    """A few steps of Adam: any optimizer will do."""
    net.train()
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    net.eval()


def shake(manifold: WeightManifold, context: Tensor, information: Tensor | float) -> State:
    """Check out, move every weight at random, commit; returns what was committed."""
    manifold.check_out(context)
    with torch.no_grad():
        for tensor in manifold.layout.tensors(manifold.module).values():
            tensor += 0.3 * torch.rand_like(tensor)
    weights = manifold.layout.read(manifold.module)
    manifold.commit(information)
    return weights


def flat(layout: Layout, state: Mapping[str, Tensor]) -> Tensor:
    """All weights of a state as one vector, in the order of the layout; leading axes stay."""
    parts = [state[e.name] for e in layout.entries]
    pairs = zip(layout.entries, parts, strict=True)
    return torch.cat([t.reshape(*t.shape[: t.ndim - len(e.shape)], -1) for e, t in pairs], -1)


def spread(layout: Layout, values: Tensor) -> Tensor:
    """One number per weight from one number per block, (..., B) to (..., size)."""
    return values.repeat_interleave(layout.sizes().long(), -1)


def points_of(manifold: WeightManifold) -> Tensor:
    """All control points as one matrix, (K, size)."""
    points = manifold.points
    return flat(
        manifold.layout, {e.name: points.of(e.name).read() for e in manifold.layout.entries}
    )


def random_information(manifold: WeightManifold) -> Tensor:
    return torch.rand(manifold.layout.blocks) + 0.05
