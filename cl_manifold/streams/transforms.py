"""Image transforms: pure functions that know nothing about streams.

Those with one parameter per batch take images as uint8 with values 0..255 or as floating point
with values in [0, 1], and the result has the dtype of the input. Those with one parameter per
image, `…_each`, take floating point.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64, Shaped
from torch import Tensor

CHUNK = 256
"""Images that are transformed together; larger chunks leave the processor's cache."""


def rotate(images: Shaped[Tensor, "N C H W"], degrees: float) -> Shaped[Tensor, "N C H W"]:
    """Rotate counter-clockwise about the centre; bilinear, zeros outside.

    out(x, y) = in(x cos α − y sin α, x sin α + y cos α), x to the right, y down
    """
    angle, (height, width) = math.radians(degrees), images.shape[-2:]
    cos, sin = math.cos(angle), math.sin(angle)
    stretch = height / width
    rows = [[cos, -sin * stretch, 0.0], [sin / stretch, cos, 0.0]]
    real = images.dtype if images.is_floating_point() else torch.float32
    matrix = torch.tensor([rows], dtype=real, device=images.device)
    grid = F.affine_grid(matrix, [1, 1, height, width], align_corners=False)
    return _chunked(images, lambda chunk: _sample(chunk.to(real), grid))


def permute_pixels(
    images: Shaped[Tensor, "N C H W"], permutation: Int64[Tensor, " P"]
) -> Shaped[Tensor, "N C H W"]:
    """out(p) = in(π(p)) for the P = H·W pixels in row order, alike in every channel."""
    pixels = images.shape[-2] * images.shape[-1]
    if len(permutation) != pixels:
        raise ValueError(
            f"the permutation has {len(permutation)} entries, but the images have {pixels} pixels; "
            "draw it with torch.randperm(height * width)"
        )
    return images.flatten(2)[..., permutation].reshape(images.shape)


def add_noise(
    images: Shaped[Tensor, "N C H W"], level: float, generator: torch.Generator
) -> Shaped[Tensor, "N C H W"]:
    """X + level·ε clipped to [0, 1], with ε ~ N(0, 1) per pixel and level in [0, 1]."""
    if not 0 <= level <= 1:
        raise ValueError(f"the noise level is {level:g}, but must lie in [0, 1]; rescale it")
    top = 1.0 if images.is_floating_point() else 255.0
    real = images.dtype if images.is_floating_point() else torch.float32

    def noisy(chunk: Tensor) -> Tensor:
        noise = torch.randn(chunk.shape, generator=generator, dtype=real)
        return (chunk.to(real) + top * level * noise.to(chunk.device)).clamp_(0, top)

    return _chunked(images, noisy)


def add_background(
    images: Shaped[Tensor, "N C H W"], background: Float[Tensor, "H W"]
) -> Shaped[Tensor, "N C H W"]:
    """Put images in front of one background, which shows where they are dark.

    out = x + (1 − x)·b,   x and b in [0, 1]

    For a fixed background this is affine in x, pixel by pixel: a network can undo it in its first
    layer and keep all the others.
    """
    if not bool(((background >= 0) & (background <= 1)).all()):
        low, high = background.min().item(), background.max().item()
        raise ValueError(
            f"the background has values from {low:.4g} to {high:.4g}, but must lie in [0, 1]; "
            "rescale it"
        )
    top = 1.0 if images.is_floating_point() else 255.0
    real = images.dtype if images.is_floating_point() else torch.float32
    behind = background.to(images.device, real)

    def blended(chunk: Tensor) -> Tensor:
        front = chunk.to(real)
        return front + (top - front) * behind

    return _chunked(images, blended)


def texture(height: int, width: int, generator: torch.Generator) -> Float32[Tensor, "height width"]:
    """A random smooth background with values in [0, ¾].

    b = ¾·B(u): bilinear enlargement B of 5×5 uniform random numbers u, which lie on a regular
    grid from corner to corner
    """
    coarse = torch.rand(1, 1, 5, 5, generator=generator)
    size = (height, width)
    return 0.75 * F.interpolate(coarse, size, mode="bilinear", align_corners=True)[0, 0]


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
    """x_b + σ_b·ε clipped to [0, 1], with ε ~ N(0, 1) per pixel and the image's own level σ_b."""
    noise = torch.randn(images.shape, generator=generator, dtype=images.dtype)
    scale = levels.to(images)[:, None, None, None]
    return (images + scale * noise.to(images.device)).clamp_(0, 1)


def _sample(chunk: Tensor, grid: Tensor) -> Tensor:
    """One grid for all images: they go through `grid_sample` as channels of a single image."""
    stack = chunk.reshape(1, -1, *chunk.shape[-2:])
    return F.grid_sample(stack, grid, align_corners=False).reshape(chunk.shape)


def _chunked(images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply `change` chunk by chunk and store each result in the dtype of the input."""
    out = torch.empty_like(images, memory_format=torch.contiguous_format)
    for chunk, target in zip(images.split(CHUNK), out.split(CHUNK), strict=True):
        new = change(chunk)
        target.copy_(new if images.is_floating_point() else new.round_().clamp_(0, 255))
    return out
