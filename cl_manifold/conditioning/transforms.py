"""Image transforms with one parameter per image: pure functions of batches in memory.

The same transforms with one parameter per batch are in `cl_manifold.streams.transforms`.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def rotate_each(
    images: Float[Tensor, "B C H W"], degrees: Float[Tensor, " B"]
) -> Float[Tensor, "B C H W"]:
    """Rotate image b counter-clockwise about its centre by its own angle; zeros outside.

    out_b(x, y) = in_b(x cos α_b − y sin α_b, x sin α_b + y cos α_b), x to the right, y down
    """
    angle, stretch = degrees.to(images).deg2rad(), images.shape[-2] / images.shape[-1]
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    rows = [
        torch.stack([cos, -sin * stretch, zero], -1),
        torch.stack([sin / stretch, cos, zero], -1),
    ]
    grid = F.affine_grid(torch.stack(rows, -2), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def add_noise_each(
    images: Float[Tensor, "B C H W"], levels: Float[Tensor, " B"], generator: torch.Generator
) -> Float[Tensor, "B C H W"]:
    """X_b + σ_b·ε clipped to [0, 1], with ε ~ N(0, 1) per pixel and the image's own level σ_b."""
    noise = torch.randn(images.shape, generator=generator, dtype=images.dtype)
    scale = levels.to(images)[:, None, None, None]
    return (images + scale * noise.to(images.device)).clamp_(0, 1)
