"""A small vision transformer: its settings. The module is in `transformer`."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from cl_manifold.errors import ConfigError

from .network import Network, image_shape

if TYPE_CHECKING:
    from torch.nn import Module
else:  # torch takes a second to load
    Module = Any

Size = Annotated[int, Field(ge=1, le=10_000)]


class VitTiny(Network):
    """A vision transformer; DeiT-Ti is patch 16, width 192, depth 12, heads 3.

    The defaults are smaller than DeiT-Ti, for images of 28 to 32 pixels a side: 49 to 64 patches
    and 0.7 million weights instead of 196 patches and 5.7 million.

    Sources: Dosovitskiy et al., An Image is Worth 16×16 Words (2021); Touvron et al., Training
    data-efficient image transformers (2021).
    """

    patch: Size = 4
    """Side of a patch in pixels; divides both sides of the image."""
    width: Size = 96
    """Numbers per patch; a multiple of network.heads."""
    depth: Size = 6
    """Layers of attention."""
    heads: Size = 3
    """Heads of attention in each layer."""
    pooling: Literal["token", "mean"] = "token"
    """What is classified: a token of its own, or the mean over the patches."""

    def build(self, input_shape: tuple[int, ...], classes: int) -> Module:
        """See `VisionTransformer`.

        Raises:
            ConfigError: patches do not tile the image, or heads do not share the width.
        """
        from .transformer import VisionTransformer

        channels, height, width = image_shape("vit-tiny", input_shape)
        if height % self.patch or width % self.patch:
            fits = [
                str(n) for n in range(1, min(height, width) + 1) if not (height % n or width % n)
            ]
            raise ConfigError(
                f"network.patch is {self.patch}, but the images have {height} × {width} pixels; "
                f"give a patch that divides both sides: {', '.join(fits)}"
            )
        if self.width % self.heads:
            raise ConfigError(
                f"network.width is {self.width}, but the {self.heads} heads share it in equal "
                "parts; give a width that is a multiple of network.heads"
            )
        patches = (height // self.patch) * (width // self.patch)
        return VisionTransformer(
            channels=channels,
            patch=self.patch,
            patches=patches,
            width=self.width,
            layers=[self.heads] * self.depth,
            outputs=classes,
            token=self.pooling == "token",
        )
