"""Small networks and training loops that several tests share."""

from typing import Any

import torch
from torch import Tensor, nn

from cl_manifold.geometry import Basis
from cl_manifold.manifold.layout import Granularity, State
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


def move(manifold: WeightManifold) -> State:
    """Move every weight at random; returns what the module holds then."""
    with torch.no_grad():
        for tensor in manifold.layout.tensors(manifold.module).values():
            if tensor.is_floating_point():
                tensor += 0.3 * torch.rand_like(tensor)
    return manifold.layout.read(manifold.module)


def shake(
    manifold: WeightManifold, context: Tensor, information: Tensor | float, sharpness: float = 1.0
) -> State:
    """Check out, move every weight at random, commit; returns what was committed."""
    manifold.check_out(context)
    weights = move(manifold)
    manifold.commit(information, sharpness)
    return weights


def random_information(manifold: WeightManifold) -> Tensor:
    return torch.rand(manifold.layout.blocks) + 0.05


def flat(manifold: WeightManifold, state: State) -> Tensor:
    """All weights of a state side by side, (*batch, D)."""
    parts: list[Tensor] = []
    for e in manifold.layout.entries:
        values = state[e.name]
        parts.append(values.reshape(*values.shape[: values.ndim - len(e.shape)], e.size))
    return torch.cat(parts, dim=-1)


def weights_at(manifold: WeightManifold, context: Tensor) -> Tensor:
    """w(c), all weights side by side, (*batch, D)."""
    return flat(manifold, manifold.state(context))


def points_of(manifold: WeightManifold) -> Tensor:
    """P of all weights side by side, (K, D)."""
    named = {e.name: manifold.points.of(e.name).read() for e in manifold.layout.entries}
    return flat(manifold, named).detach().clone()


def at(*values: float) -> Tensor:
    """A context."""
    return torch.tensor(values, dtype=torch.float64)


def walked(
    basis: Basis,
    places: list[Tensor],
    blocks: Granularity = "row",
    information: float | None = None,
) -> WeightManifold:
    """A manifold after a task at each place, with random weights and information."""
    torch.manual_seed(0)
    manifold = WeightManifold(small_mlp().double(), basis, blocks=blocks, growable=True)
    for i, place in enumerate(places):
        generator = torch.Generator().manual_seed(round(1000 * float(place[0])) + i)
        f = torch.rand(manifold.layout.blocks, generator=generator) + 0.1
        shake(manifold, place, f if information is None else information)
    return manifold


def covariances(manifold: WeightManifold) -> Tensor:
    """Σ of every block."""
    return manifold.belief.covariance()
