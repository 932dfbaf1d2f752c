"""Networks that a configuration can name. Any `nn.Module` works on a weight manifold.

A network of your own is a class in a file of your own, named `module:Class` on the command line:
its fields are its settings, and `build` makes the module. See `Mlp`.
"""

from abc import abstractmethod
from itertools import pairwise
from math import gcd, prod
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from cl_manifold.options import Options

if TYPE_CHECKING:
    from torch.nn import Module, Sequential
else:  # torch takes a second to load
    Module = Sequential = Any

Width = Annotated[int, Field(ge=1, le=100_000)]


class Network(Options):
    """A kind of network. Its fields are its settings, `network.<field>` in a configuration."""

    name: str = "mlp"
    """The network: mlp, cnn, or `package.module:Class`."""

    @abstractmethod
    def build(self, input_shape: tuple[int, ...], classes: int) -> Module:
        """A module from inputs of that shape to as many outputs, initialised by torch's seed."""


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

    inputs, height, width = input_shape
    layers: list[Module] = []
    for before, after in pairwise([inputs, *channels]):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(gcd(8, after), after)]
        layers += [nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
        height, width = -(-height // 2), -(-width // 2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * height * width, classes))
