"""Samples of one experience, in memory: images as bytes, rows of a table as numbers."""

from typing import Any, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset


@final
class ImageDataset(Dataset[tuple[Tensor, int]]):
    """Images of one experience, stored as bytes and normalised when read.

        x = (byte / 255 − mean) / std

    Args:
        images: values 0..255.
        targets: one class per image.
        mean: mean pixel in [0, 1] of the set the images come from.
        std: standard deviation of its pixels.
    """

    def __init__(
        self,
        images: UInt8[Tensor, "N C H W"],
        targets: Int64[Tensor, " N"],
        mean: float = 0.0,
        std: float = 1.0,
    ) -> None:
        self.images, self.targets = images, targets
        self.mean, self.std = mean, std

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Float32[Tensor, "C H W"], int]:
        return self._normalised(self.images[index]), int(self.targets[index])

    @property
    def storage(self) -> tuple[Tensor, Tensor]:
        """The stored tensors: bytes and classes."""
        return self.images, self.targets

    def tensors(
        self, rows: Int64[Tensor, " n"] | None = None
    ) -> tuple[Float32[Tensor, "n C H W"], Int64[Tensor, " n"]]:
        """All items, or those in `rows`, exactly as `self[i]` returns them one by one."""
        if rows is None:
            return self._normalised(self.images), self.targets.clone()
        return self._normalised(self.images[rows]), self.targets[rows]

    def _normalised(self, images: Tensor) -> Tensor:
        return images.to(torch.float32).mul_(1 / (255 * self.std)).sub_(self.mean / self.std)


@final
class TableDataset(Dataset[tuple[Tensor, Tensor | int]]):
    """Rows of a table as a network takes them.

    Args:
        inputs: scaled features.
        targets: one class per row, or so many scaled numbers.
    """

    def __init__(
        self,
        inputs: Float32[Tensor, "N D"],
        targets: Int64[Tensor, " N"] | Float32[Tensor, "N T"],
    ) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Float32[Tensor, " D"], Tensor | int]:
        target = self.targets[index]
        return self.inputs[index], target if target.is_floating_point() else int(target)

    @property
    def storage(self) -> tuple[Tensor, Tensor]:
        """The stored tensors."""
        return self.inputs, self.targets

    def tensors(self, rows: Int64[Tensor, " n"] | None = None) -> tuple[Tensor, Tensor]:
        """All items, or those in `rows`, exactly as `self[i]` returns them one by one."""
        if rows is None:
            return self.inputs.clone(), self.targets.clone()
        return self.inputs[rows], self.targets[rows]


@runtime_checkable
class Samples(Protocol):
    """Samples of one experience."""

    targets: Tensor

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...
