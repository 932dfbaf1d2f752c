"""Networks for the named streams. Any `nn.Module` works on a weight manifold; these are plain."""

from itertools import pairwise
from math import gcd, prod

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


def cnn(input_shape: tuple[int, ...], channels: tuple[int, ...], classes: int) -> nn.Sequential:
    """3×3 convolutions with GroupNorm, ReLU and pooling by 2, then a linear layer.

    Groups have as many channels as leave up to 8 of equal size. There are no running statistics, so
    that every weight can lie on a manifold.

    >>> sum(p.numel() for p in cnn((3, 32, 32), (16, 32, 32), 10).parameters())
    19626
    """
    inputs, height, width = input_shape
    layers: list[nn.Module] = []
    for before, after in pairwise([inputs, *channels]):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(gcd(8, after), after)]
        layers += [nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
        height, width = -(-height // 2), -(-width // 2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * height * width, classes))
