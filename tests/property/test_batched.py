"""Batched layers over shapes drawn by hypothesis; the samples' own weights are the oracle."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cl_manifold.geometry import Fourier
from cl_manifold.manifold.module import ManifoldModule

few = settings(max_examples=25, deadline=None)
small = st.integers(1, 4)
seeds = st.integers(0, 2**31)


def check(net: nn.Module, x: Tensor, harmonics: int) -> None:
    """Outputs and all gradients of a context per sample against plain copies at each context."""
    manifold = ManifoldModule(net, Fourier(harmonics))
    with torch.no_grad():
        for p in manifold.parameters():
            p += 0.3 * torch.randn_like(p)
    c = torch.rand(len(x), 1)
    y = manifold(x, c)
    target = torch.randn_like(y)
    y.backward(target)
    expected = [torch.zeros_like(p) for p in manifold.parameters()]
    for sample, context, row, goal in zip(x, c, y, target, strict=True):
        plain = manifold.materialise(context)
        alone = plain(sample[None])
        torch.testing.assert_close(row, alone[0], atol=1e-10, rtol=1e-10)
        alone.backward(goal[None])
        phi = manifold.basis(context)
        for total, p in zip(expected, plain.parameters(), strict=True):
            assert p.grad is not None
            total += torch.tensordot(phi, p.grad[None], 0).squeeze(1)
    for p, slope in zip(manifold.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, slope, atol=1e-10, rtol=1e-10)


@given(seeds, small, small, small, st.lists(small, max_size=2), st.integers(0, 2), st.booleans())
@few
def test_linear(
    seed: int, batch: int, inner: int, outer: int, rest: list[int], harmonics: int, bias: bool
) -> None:
    torch.manual_seed(seed)
    check(nn.Linear(inner, outer, bias), torch.randn(batch, *rest, inner), harmonics)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    axes, groups = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    torch.manual_seed(draw(seeds))

    def each(values: st.SearchStrategy[int]) -> tuple[int, ...]:
        return tuple(draw(st.lists(values, min_size=axes, max_size=axes)))

    kernel, dilation = each(st.integers(1, 3)), each(st.integers(1, 2))
    inner, outer = groups * draw(small), groups * draw(small)
    padding = draw(st.sampled_from(["valid", "zeros", "reflect", "circular", "replicate"]))
    width = "valid" if padding == "valid" else each(st.integers(0, 1))
    kind = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[axes]
    layer = kind(
        inner,
        outer,
        kernel,
        stride=each(st.integers(1, 2)),
        padding=width,
        dilation=dilation,
        groups=groups,
        bias=draw(st.booleans()),
        padding_mode="zeros" if padding == "valid" else padding,
    )
    return layer, torch.randn(draw(small), inner, *each(st.integers(5, 6)))


@given(convolutions(), st.integers(0, 2))
@few
def test_convolutions(drawn: tuple[nn.Module, Tensor], harmonics: int) -> None:
    check(*drawn, harmonics)


@given(seeds, small, small, small, st.lists(small, min_size=1, max_size=2))
@few
def test_norm_layers(seed: int, batch: int, groups: int, each: int, size: list[int]) -> None:
    torch.manual_seed(seed)
    x = torch.randn(batch, groups * each, *size, 2)
    check(nn.GroupNorm(groups, groups * each), x, 1)
    check(nn.LayerNorm([*size, 2]), x, 1)
    check(nn.LayerNorm(2), x, 1)


@given(seeds, small, small, small, st.lists(small, max_size=2), st.booleans())
@few
def test_embeddings(
    seed: int, batch: int, words: int, width: int, rest: list[int], padded: bool
) -> None:
    torch.manual_seed(seed)
    index = torch.randint(words, (batch, *rest))
    check(nn.Embedding(words, width, padding_idx=0 if padded else None), index, 1)
