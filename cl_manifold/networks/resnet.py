"""The residual network of 18 layers, for images of any size."""

from collections import OrderedDict
from itertools import pairwise
from math import gcd
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from .network import Network, image_shape

if TYPE_CHECKING:
    from torch.nn import GroupNorm, Module, Sequential
else:  # torch takes a second to load
    GroupNorm = Module = Sequential = Any

Stem = Literal["small", "imagenet"]
Norm = Literal["group", "batch"]


class Resnet18(Network):
    """Four stages of two residual blocks each, every stage twice as wide as the one before."""

    width: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Channels of the first stage."""
    stem: Stem = "small"
    """Small: a 3×3 convolution; imagenet: 7×7 with stride 2, then pooling by 2."""
    norm: Norm = "group"
    """Group: every weight lies on the manifold; batch: running statistics ride along."""

    def build(self, input_shape: tuple[int, ...], classes: int) -> Module:
        """See `resnet18`."""
        return resnet18(input_shape, classes, self.width, self.stem, self.norm)


def resnet18(
    input_shape: tuple[int, ...],
    classes: int,
    width: int = 64,
    stem: Stem = "small",
    norm: Norm = "group",
) -> Sequential:
    """A stem, four stages of two basic blocks, the mean over the image, a linear layer.

    The blocks are torchvision's. The small stem is that of the source's networks for CIFAR: 3×3,
    stride 1, no pooling. Convolutions start as in He et al., Delving Deep into Rectifiers (2015).
    With norm "batch", stem "imagenet" and width 64 it is torchvision's network.

    Source: He et al., Deep Residual Learning for Image Recognition (2016).

    >>> sum(p.numel() for p in resnet18((3, 32, 32), 10).parameters())
    11173962
    """
    from torch import nn

    channels, _, _ = image_shape("resnet18", input_shape)
    normed = group_norm if norm == "group" else nn.BatchNorm2d
    widths = [width, width, 2 * width, 4 * width, 8 * width]
    if stem == "small":
        first = [nn.Conv2d(channels, width, 3, padding=1, bias=False), normed(width), nn.ReLU()]
    else:
        first = [nn.Conv2d(channels, width, 7, 2, 3, bias=False), normed(width), nn.ReLU()]
        first.append(nn.MaxPool2d(3, 2, 1))
    stages = [_stage(before, after, normed) for before, after in pairwise(widths)]
    parts: dict[str, Module] = {"stem": nn.Sequential(*first)}
    parts |= {f"stage{number}": stage for number, stage in enumerate(stages, 1)}
    parts |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    parts |= {"head": nn.Linear(widths[-1], classes)}
    network = nn.Sequential(OrderedDict(parts))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return network


def group_norm(channels: int) -> GroupNorm:
    """Up to 8 groups of equal size, each a multiple of four channels where that divides them.

    Where images have shrunk to one pixel, a group of one channel would make zero of everything, and
    one of two channels would keep no more than which is larger.

    Source: Wu and He, Group Normalization (2018).

    >>> [group_norm(n).num_groups for n in (64, 16, 8, 2, 3)]
    [8, 4, 2, 1, 1]
    """
    from torch import nn

    return nn.GroupNorm(max(1, gcd(32, channels) // 4), channels)


def _stage(before: int, after: int, normed: Any) -> Sequential:
    """Two blocks; the first halves the image where it changes the width."""
    from torch import nn
    from torchvision.models.resnet import BasicBlock

    stride, shortcut = 1, None
    if before != after:
        stride = 2
        shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), normed(after))
    return nn.Sequential(
        BasicBlock(before, after, stride, shortcut, norm_layer=normed),
        BasicBlock(after, after, norm_layer=normed),
    )
