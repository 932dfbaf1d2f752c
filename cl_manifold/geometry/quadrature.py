"""Nodes and weights for integrals over intervals and simplices. Numbers only."""

from collections.abc import Sequence
from itertools import combinations_with_replacement
from math import factorial, prod
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor


def gauss_legendre(count: int) -> tuple[Float[Tensor, " Q"], Float[Tensor, " Q"]]:
    """Nodes and weights on [0, 1] from the Jacobi matrix (Golub and Welsch 1969).

    >>> x, weight = gauss_legendre(2)
    >>> round(float((weight * x**3).sum()), 12)
    0.25
    """
    k = torch.arange(1, count, dtype=torch.float64)
    off = k / torch.sqrt(4 * k * k - 1)
    jacobi = torch.diag(off, 1) + torch.diag(off, -1)
    solved = torch.linalg.eigh(jacobi)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    nodes, vectors = cast(tuple[Tensor, Tensor], solved)
    return (nodes + 1) / 2, vectors[0].square()


def grundmann_moeller(
    vertices: int, order: int
) -> tuple[Float[Tensor, "Q {vertices}"], Float[Tensor, " Q"]]:
    """The rule of odd degree 2s + 1 on a simplex, for the uniform measure.

    ω_i = (−1)^i (d + n − 2i)^d n! / (4^s i! (d + n − i)!) at the nodes
    (2β + 1) / (d + n − 2i) with |β| = s − i, where n = vertices − 1 and d = 2s + 1.

    Source: Grundmann and Möller, SIAM J. Numer. Anal. 15 (1978), 282–290, eq. (4.1).
    """
    n, s = vertices - 1, order // 2
    degree = 2 * s + 1
    nodes: list[list[float]] = []
    weights: list[float] = []
    for i in range(s + 1):
        scale = degree + n - 2 * i
        weight = (-1) ** i * scale**degree * factorial(n)
        weight /= 4**s * factorial(i) * factorial(degree + n - i)
        for chosen in combinations_with_replacement(range(n + 1), s - i):
            beta = [chosen.count(vertex) for vertex in range(n + 1)]
            nodes.append([(2 * b + 1) / scale for b in beta])
            weights.append(weight)
    return (
        torch.tensor(nodes, dtype=torch.float64),
        torch.tensor(weights, dtype=torch.float64),
    )


def combined(parts: Sequence[Tensor]) -> Tensor:
    """All combinations of rows, one from each part, side by side."""
    index = torch.cartesian_prod(*(torch.arange(len(p)) for p in parts))
    index = index.reshape(prod(len(p) for p in parts), len(parts))
    return torch.cat([p[index[:, i]] for i, p in enumerate(parts)], dim=-1)
