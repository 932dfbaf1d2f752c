"""The module of a vision transformer."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad


@final
class VisionTransformer(nn.Module):
    """Patches, positions, pre-norm layers of attention, and a linear layer.

    z⁰ = [0, E x_1, …, E x_N] + p,   zˡ = layer(zˡ⁻¹),   y = W · norm(z^L)_0 + b

    The source adds a learned token to the first position; the token and its position are only ever
    added, so that they are one row of p here. Without a token, y reads the mean over the patches.
    Positions are an embedding, and so, like all that has weights here, a layer of torch that also
    runs with a context per sample.

    Source: Dosovitskiy et al., An Image is Worth 16×16 Words (2021).
    """

    def __init__(
        self,
        *,
        channels: int,
        patch: int,
        patches: int,
        width: int,
        layers: Sequence[int],
        outputs: int,
        token: bool,
    ) -> None:
        """Initialised by torch's seed.

        Args:
            channels: of the images.
            patch: side of a patch, in pixels.
            patches: how many an image has.
            width: of the layers; between them, layers are four times as wide.
            layers: for each layer, its heads.
            outputs: how many.
            token: whether a token of its own is classified, or the mean.
        """
        super().__init__()
        self.token = token
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.positions = nn.Embedding(patches + token, width)
        nn.init.trunc_normal_(self.positions.weight, std=0.02)
        self.layers = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    width, heads, 4 * width, 0.0, nn.GELU(), batch_first=True, norm_first=True
                )
                for heads in layers
            )
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B outputs"]:
        """The outputs for each image."""
        z = self.patches(x).flatten(2).transpose(1, 2)
        rows = torch.arange(self.positions.num_embeddings, device=x.device)
        z = pad(z, (0, 0, int(self.token), 0)) + self.positions(rows.expand(len(x), -1))
        z = self.norm(self.layers(z))
        return self.head(z[:, 0] if self.token else z.mean(1))
