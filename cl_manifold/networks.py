"""Networks for the named streams. Any `nn.Module` works on a weight manifold; these are plain."""

from itertools import pairwise
from math import prod

from torch import nn


def mlp(input_shape: tuple[int, ...], hidden: tuple[int, ...], classes: int) -> nn.Sequential:
    """Flatten, then linear layers of the given widths with ReLU between them.

    >>> sum(p.numel() for p in mlp((1, 28, 28), (256, 256), 10).parameters())
    269322
    """
    widths = [prod(input_shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], classes))
