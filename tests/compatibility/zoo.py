"""torchvision's families and some of Avalanche's networks in their smallest sizes."""

from collections.abc import Callable
from functools import partial
from typing import Any

from avalanche.models import CosineLinear, SlimResNet18
from torch import Tensor, nn
from torchvision import models as tv
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.efficientnet import MBConvConfig
from torchvision.models.mobilenetv3 import InvertedResidualConfig
from torchvision.models.regnet import BlockParams
from torchvision.models.resnet import BasicBlock

from .layers import CLASSES, DIM

Build = Callable[[], nn.Module]


class Pairs(nn.Module):
    """A bilinear form of the input with itself."""

    def __init__(self) -> None:
        super().__init__()
        self.form = nn.Bilinear(DIM, DIM, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.form(x, x)


def slim_resnet() -> nn.Module:
    return SlimResNet18(CLASSES, nf=4)


def cosine() -> nn.Module:
    return nn.Sequential(nn.Linear(DIM, 16), nn.ReLU(), CosineLinear(16, CLASSES))


def resnet() -> nn.Module:
    return tv.ResNet(BasicBlock, [2, 2, 2, 2], num_classes=CLASSES)


def mobilenet_v3() -> nn.Module:
    block = partial(InvertedResidualConfig, dilation=1, width_mult=1.0)
    blocks = [
        block(8, 3, 16, 8, True, "RE", 2), block(8, 3, 16, 8, True, "HS", 2),
    ]  # fmt: skip
    return tv.MobileNetV3(blocks, last_channel=32, num_classes=CLASSES)


def efficientnet() -> nn.Module:
    blocks = [MBConvConfig(1, 3, 1, 8, 8, 1, 1, 1), MBConvConfig(4, 3, 2, 8, 16, 1, 1, 1)]
    return tv.EfficientNet(blocks, dropout=0.2, last_channel=32, num_classes=CLASSES)


def densenet() -> nn.Module:
    return tv.DenseNet(4, (1, 1, 1, 1), 8, num_classes=CLASSES)


def regnet() -> nn.Module:
    blocks = BlockParams.from_init_params(depth=4, w_0=8, w_a=8.0, w_m=2.0, group_width=8)
    return tv.RegNet(blocks, num_classes=CLASSES, stem_width=8)


def convnext() -> nn.Module:
    return tv.ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=CLASSES)


def vision_transformer() -> nn.Module:
    return tv.VisionTransformer(32, 8, 1, 2, 16, 32, num_classes=CLASSES)


def swin() -> nn.Module:
    return tv.SwinTransformer([4, 4], 8, [1, 1], [2, 2], [2, 2], num_classes=CLASSES)


def googlenet() -> nn.Module:
    return tv.GoogLeNet(CLASSES, aux_logits=False, init_weights=False)


def googlenet_with_heads() -> nn.Module:
    return tv.GoogLeNet(CLASSES, aux_logits=True, init_weights=False)


def with_heads(outputs: Any, y: Tensor) -> Tensor:
    """Cross-entropy of the answer, and of auxiliary answers where there are any."""
    answers = [outputs] if isinstance(outputs, Tensor) else [o for o in outputs if o is not None]
    return sum((nn.functional.cross_entropy(o, y) for o in answers[1:]), _main(answers, y))


def _main(answers: list[Tensor], y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(answers[0], y)


TORCHVISION: dict[str, Build] = {
    "ResNet-18": resnet,
    "MobileNetV2": lambda: tv.MobileNetV2(CLASSES, width_mult=0.1),
    "MobileNetV3": mobilenet_v3,
    "ShuffleNetV2": lambda: tv.ShuffleNetV2([1, 1, 1], [8, 16, 32, 64, 64], num_classes=CLASSES),
    "SqueezeNet": lambda: tv.SqueezeNet("1_1", num_classes=CLASSES),
    "EfficientNet": efficientnet,
    "DenseNet": densenet,
    "RegNet": regnet,
    "MNASNet": lambda: tv.MNASNet(0.1, num_classes=CLASSES),
    "ConvNeXt": convnext,
    "ViT": vision_transformer,
    "Swin": swin,
    "GoogLeNet": googlenet,
}
