"""The module of a vision transformer."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention


@final
class Layer(nn.Module):
    """One pre-norm layer: every token looks at all, then at itself.

    z ← z + W_o softmax(q kᵀ/√d) v,   (q, k, v) = W norm(z) in each head
    z ← z + W₂ gelu(W₁ norm(z))

    It is `nn.TransformerEncoderLayer` with norm_first, gelu and no dropout, made of linear layers
    alone: `nn.MultiheadAttention` holds its weights outside of any, so that with a context per
    sample it would run sample by sample, and say so.
    """

    def __init__(self, width: int, heads: int) -> None:
        """As wide as a token; four times as wide between W₁ and W₂."""
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inside = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, z: Float[Tensor, "B N width"]) -> Float[Tensor, "B N width"]:
        """The tokens afterwards."""
        parts = self.qkv(self.norm1(z)).unflatten(-1, (3, self.heads, -1))
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        z = z + self.out(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return z + self.inside(self.norm2(z))


@final
class VisionTransformer(nn.Module):
    """Patches, positions, pre-norm layers of attention, and a linear layer.

    z⁰ = [0, E x_1, …, E x_N] + p,   zˡ = layer(zˡ⁻¹),   y = W · norm(z^L)_0 + b

    The source adds a learned token to the first position; the token and its position are only ever
    added, so that they are one row of p here. Without a token, y reads the mean over the patches.
    Positions are an embedding, and so, like all that has weights here, a layer of torch that also
    runs with a context per sample.

    Sources: Dosovitskiy et al., An Image is Worth 16×16 Words (2021); weights start as in Touvron
    et al., Training data-efficient image transformers (2021).
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
        self.layers = nn.Sequential(*(Layer(width, heads) for heads in layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Embedding):
                nn.init.trunc_normal_(layer.weight, std=0.02)
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B outputs"]:
        """The outputs for each image."""
        z = self.patches(x).flatten(2).transpose(1, 2)
        rows = torch.arange(self.positions.num_embeddings, device=x.device)
        z = pad(z, (0, 0, int(self.token), 0)) + self.positions(rows.expand(len(x), -1))
        z = self.norm(self.layers(z))
        return self.head(z[:, 0] if self.token else z.mean(1))
