"""Layers whose weights differ from sample to sample, without a weight matrix per sample.

Sample b has the weights W_b = Σ_k φ_bk W_k with φ_b = φ(c_b). A linear layer then needs one product
of the size of the K stacked control points, in either order:

    y_b = Σ_k φ_bk (x_b W_kᵀ)        the stack (K·out) first, then the sum over k
        = (φ_b ⊗ x_b) [W_1 … W_K]ᵀ   the samples (K·in) first; for convolutions with few channels in

That is K times the work of the plain layer. A convolution uses each weight at many positions, so
that the other way can be cheaper: where the kernels of all samples are fewer numbers than K copies
of the output, they are mixed, Σ_k φ_bk W_k, and run as groups of one convolution.

Axis 0 of every input is the batch. K control points of a tensor are stacked along its axis 0.

Source: Benjamin et al., Walking the Weight Manifold (arXiv 2505.22994), basis-point decomposition;
docs/mathematics.md, eq. (5).
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from math import prod

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

AT_ONCE = 64
"""Samples that a convolution on a CPU takes at once, so that K copies of its output stay small.

Peak memory and time both fall against whole batches of 256 (test_module_benchmark.py).
"""
CONVOLUTIONS = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}


@dataclass(frozen=True)
class Window:
    """How a convolution moves over its input; `padding` is a width per axis, or same or valid."""

    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    groups: int


def assemble(
    phi: Float[Tensor, "*batch K"], points: Float[Tensor, "K ..."]
) -> Float[Tensor, "..."]:
    """The weights Σ_k φ_k P_k of each context, shape (*batch, *shape); not subject to autocast."""
    kind = points.device.type
    with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
        mixed = phi.to(points.dtype) @ points.flatten(1)
    return mixed.view(phi.shape[:-1] + points.shape[1:])


def combine(
    phi: Float[Tensor, "B K"], each: Float[Tensor, "B *rest K n"]
) -> Float[Tensor, "B *rest n"]:
    """Σ_k φ_bk z_bk, in the dtype of z."""
    weight = phi.to(each.dtype).reshape(len(phi), *[1] * (each.ndim - 2), phi.shape[1])
    return (weight @ each).squeeze(-2)


def linear(
    x: Float[Tensor, "B *rest in"],
    phi: Float[Tensor, "B K"],
    weight: Float[Tensor, "K out in"],
    bias: Float[Tensor, "K out"] | None,
) -> Float[Tensor, "B *rest out"]:
    """y_b = Σ_k φ_bk (x_b W_kᵀ + β_k)."""
    each = F.linear(x, weight.flatten(0, 1), None if bias is None else bias.flatten())
    return combine(phi, each.unflatten(-1, weight.shape[:2]))


def convolution(
    x: Float[Tensor, "B in *size"],
    phi: Float[Tensor, "B K"],
    weight: Float[Tensor, "K out part *kernel"],
    bias: Float[Tensor, "K out"] | None,
    window: Window,
) -> Float[Tensor, "B out *size1"]:
    """y_b = Σ_k φ_bk (W_k ∗ x_b + β_k), in the order that costs least."""
    if _mixing_pays(x, weight, window):
        run = _kernels_first
    elif x.shape[1] * prod(window.stride) < weight.shape[1]:
        run = _samples_first
    else:
        run = _stack_first
    if x.device.type != "cpu" or len(x) <= AT_ONCE:
        return run(x, phi, weight, bias, window)
    parts = zip(x.split(AT_ONCE), phi.split(AT_ONCE), strict=True)
    return torch.cat([run(part, of_part, weight, bias, window) for part, of_part in parts])


def _mixing_pays(x: Tensor, weight: Tensor, window: Window) -> bool:
    """Whether kernels of each sample's own are faster, and small beside K copies of the output.

    On one core a weight of one sample costs as much to mix as to use at about 130 positions, and
    grouped convolutions take 1.5 times as long as plain ones: (K − 1.5) n > 190 for n positions
    (`tests/benchmark/test_module_benchmark.py`). On GPUs convolutions in many groups are slow.
    """
    size, positions = len(weight), prod(x.shape[2:]) / prod(window.stride)
    small = prod(weight.shape[2:]) <= size * positions
    return x.device.type == "cpu" and small and (size - 1.5) * positions > 190


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    function: Callable[..., Tensor] = CONVOLUTIONS[weight.ndim - 2]
    return function(x, weight, bias, window.stride, window.padding, window.dilation, window.groups)


def _stack_first(
    x: Tensor, phi: Tensor, weight: Tensor, bias: Tensor | None, window: Window
) -> Tensor:
    """One convolution onto K·out channels, in the order (group, k, channel)."""
    groups = window.groups
    stack = weight.unflatten(1, (groups, -1)).transpose(0, 1).flatten(0, 2)
    shift = None if bias is None else bias.unflatten(1, (groups, -1)).transpose(0, 1).flatten()
    each = _convolve(x, stack, shift, window)
    size = each.shape[2:]
    mixed = combine(phi, each.reshape(len(x), groups, weight.shape[0], -1))
    return mixed.reshape(len(x), weight.shape[1], *size)


def _samples_first(
    x: Tensor, phi: Tensor, weight: Tensor, bias: Tensor | None, window: Window
) -> Tensor:
    """One convolution from K·in channels, in the order (group, k, channel)."""
    parts = x.reshape(len(x), window.groups, 1, -1)
    wide = (phi.to(x.dtype)[:, None, :, None] * parts).reshape(len(x), -1, *x.shape[2:])
    y = _convolve(wide, weight.transpose(0, 1).flatten(1, 2), None, window)
    return y if bias is None else y + _along(assemble(phi, bias).to(y.dtype), y, 1)


def _kernels_first(
    x: Tensor, phi: Tensor, weight: Tensor, bias: Tensor | None, window: Window
) -> Tensor:
    """One convolution in which each sample is a group, or as many groups as the layer has."""
    count = len(x)
    kernels = assemble(phi, weight).flatten(0, 1)
    together = replace(window, groups=window.groups * count)
    y = _convolve(x.flatten(0, 1)[None], kernels, None, together)
    y = y.reshape(count, weight.shape[1], *y.shape[2:])
    return y if bias is None else y + _along(assemble(phi, bias).to(y.dtype), y, 1)


def embedding(
    index: Int[Tensor, "B ..."],
    phi: Float[Tensor, "B K"],
    weight: Float[Tensor, "K words n"],
    padding: int | None,
) -> Float[Tensor, "B *rest n"]:
    """y_b = Σ_k φ_bk W_k[index_b]; the word `padding` receives no gradient."""
    size, words, _ = weight.shape
    rows = index[..., None] + words * torch.arange(size, device=index.device)
    y = combine(phi, F.embedding(rows, weight.flatten(0, 1)))
    return y if padding is None else torch.where((index == padding)[..., None], y.detach(), y)


def affine(
    x: Float[Tensor, "B ..."],
    phi: Float[Tensor, "B K"],
    weight: Float[Tensor, "K ..."] | None,
    bias: Float[Tensor, "K ..."] | None,
    axis: int,
) -> Float[Tensor, "B ..."]:
    """y_b = w_b x_b + β_b, with the first axis of w_b along `axis` of x: what follows a norm."""
    if weight is not None:
        x = x * _along(assemble(phi, weight).to(x.dtype), x, axis)
    return x if bias is None else x + _along(assemble(phi, bias).to(x.dtype), x, axis)


def _along(values: Tensor, x: Tensor, axis: int) -> Tensor:
    """Values (B, *shape) with ones between and behind, so that *shape starts at `axis` of x."""
    shape = values.shape[1:]
    behind = x.ndim - axis - len(shape)
    return values.reshape(len(values), *[1] * (axis - 1), *shape, *[1] * behind)
