"""A network of your own: `cl-manifold run --set network.name=my_network:Residual`."""

from math import prod

import torch
from torch import nn

from cl_manifold.networks import Network
from cl_manifold.options import Count


class Residual(Network):
    """A layer, blocks that add to it, and a layer."""

    width: Count = 64
    """Of every layer."""
    blocks: Count = 2
    """How many layers add to the first."""

    def build(self, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        first = nn.Sequential(nn.Flatten(), nn.Linear(prod(input_shape), self.width))
        blocks = [Block(self.width) for _ in range(self.blocks)]
        return nn.Sequential(first, *blocks, nn.Linear(self.width, classes))


def plain(input_shape: tuple[int, ...], classes: int, width: int = 64) -> nn.Sequential:
    """A function does as well: `network.name=my_network:plain`; `width` is a setting."""
    first = nn.Linear(prod(input_shape), width)
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Linear(width, classes))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layer(x).relu()
