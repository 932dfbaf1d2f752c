"""Small networks and training loops that several tests share."""

from typing import Any

import torch
from torch import Tensor, nn

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


def shake(manifold: WeightManifold, context: Tensor, information: Tensor | float) -> Tensor:
    """Check out, move every weight at random, commit; returns what was committed."""
    manifold.check_out(context)
    with torch.no_grad():
        for tensor in manifold.layout.tensors(manifold.module):
            tensor += 0.3 * torch.rand_like(tensor)
    weights = manifold.layout.read(manifold.module)
    manifold.commit(context, information)
    return weights


def random_information(manifold: WeightManifold) -> Tensor:
    return torch.rand(manifold.layout.blocks) + 0.05
