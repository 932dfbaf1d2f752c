"""Plain stacks of layers: linear ones, or convolutions."""

from itertools import pairwise
from math import gcd, prod
from typing import TYPE_CHECKING, Any

from .network import Network, Width, image_shape

if TYPE_CHECKING:
    from torch.nn import Module, Sequential
else:  # torch takes a second to load
    Module = Sequential = Any


class Mlp(Network):
    """Flatten, then linear layers with ReLU between them."""

    hidden: tuple[Width, ...] = (256, 256)
    """Widths of the hidden layers."""

    def build(self, input_shape: tuple[int, ...], classes: int) -> Module:
        """See `mlp`."""
        return mlp(input_shape, self.hidden, classes)


class Cnn(Network):
    """3×3 convolutions with GroupNorm, ReLU and pooling by 2, then a linear layer."""

    channels: tuple[Width, ...] = (16, 32, 32)
    """Channels of the convolutions."""

    def build(self, input_shape: tuple[int, ...], classes: int) -> Module:
        """See `cnn`."""
        return cnn(input_shape, self.channels, classes)


def mlp(input_shape: tuple[int, ...], hidden: tuple[int, ...], classes: int) -> Sequential:
    """Flatten, then linear layers of the given widths with ReLU between them.

    >>> sum(p.numel() for p in mlp((1, 28, 28), (256, 256), 10).parameters())
    269322
    """
    from torch import nn

    widths = [prod(input_shape), *hidden]
    layers: list[Module] = [nn.Flatten()]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], classes))


def cnn(input_shape: tuple[int, ...], channels: tuple[int, ...], classes: int) -> Sequential:
    """3×3 convolutions with GroupNorm, ReLU and pooling by 2, then a linear layer.

    Groups have as many channels as leave up to 8 of equal size. There are no running statistics, so
    that every weight can lie on a manifold.

    >>> sum(p.numel() for p in cnn((3, 32, 32), (16, 32, 32), 10).parameters())
    19626
    """
    from torch import nn

    inputs, height, width = image_shape("cnn", input_shape)
    layers: list[Module] = []
    for before, after in pairwise([inputs, *channels]):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(gcd(8, after), after)]
        layers += [nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
        height, width = -(-height // 2), -(-width // 2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * height * width, classes))
