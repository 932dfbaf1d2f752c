"""Sketches of what tasks want: inner products of drives without keeping the drives."""

from math import sqrt
from typing import final
from zlib import crc32

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cl_manifold.manifold.layout import Layout, State


def drive(module: nn.Module, loss: Float[Tensor, ""], layout: Layout) -> State:
    """−∇ℓ of the weights that the module holds, by name; zero for what the loss ignores.

    Args:
        module: holds the network at which all tasks are compared: the initial one.
        loss: of a task's data, with its graph.
        layout: which weights are asked for.
    """
    parameters = dict(module.named_parameters())
    names = [e.name for e in layout.trained if parameters[e.name].requires_grad]
    found = torch.autograd.grad(loss, [parameters[n] for n in names], allow_unused=True)
    gradients = dict(zip(names, found, strict=True))
    drives: State = {}
    for e in layout.trained:
        gradient = gradients.get(e.name)
        drives[e.name] = torch.zeros(e.shape) if gradient is None else -gradient
    return drives


@final
class TaskGram:
    """Collects S = D Dᵀ of one vector per task without keeping the vectors.

    Keeps m numbers per task and tensor: the entries, shuffled and with random signs, dealt into m
    heaps, each heap summed and divided by √(its size). These are products with m orthonormal
    vectors, so they have exactly the covariance C of single weights: they are data, not an
    approximation. A tensor of at most m weights keeps all of them.

    Source: Charikar, Chen and Farach-Colton 2002 (count sketch).
    """

    def __init__(self, size: int = 1024, seed: int = 0) -> None:
        """Before the first task.

        Args:
            size: m ≥ 1.
            seed: of the shuffle and the signs.
        """
        if size < 1:
            raise ValueError(f"a sketch needs a size of 1 or more, got {size}")
        self.size, self.seed = size, seed
        self.tasks = 0
        self.sketches: dict[str, Tensor] = {}
        self._weights: dict[str, int] = {}

    @torch.no_grad()
    def add(self, drives: State) -> None:
        """Take in the drive of one more task.

        Earlier tasks have no part in tensors that are new, or were narrower.
        """
        for name, drive in drives.items():
            part = drive.detach().cpu().double().flatten()
            row = sketch(part, self.size, self.seed + crc32(name.encode())).float()
            known = self._weights.get(name) == len(part)
            earlier = self.sketches[name] if known else row.new_zeros(self.tasks, len(row))
            self.sketches[name] = torch.cat([earlier, row[None]])
            self._weights[name] = len(part)
        self.tasks += 1

    @property
    def gram(self) -> Float[Tensor, "B T T"]:
        """S of each tensor, estimated as n / m times that of the sketches."""
        grams: list[Tensor] = []
        for name, rows in self.sketches.items():
            d = rows.double()
            grams.append(self._weights[name] / d.shape[1] * (d @ d.mT))
        return torch.stack(grams)

    @property
    def sizes(self) -> Float[Tensor, " B"]:
        """How many weights each tensor has."""
        return torch.tensor(list(self._weights.values()), dtype=torch.float64)

    @property
    def stored_floats(self) -> int:
        """What is kept between tasks, in units of 32 bits."""
        return sum(rows.numel() for rows in self.sketches.values())


def sketch(values: Float[Tensor, " n"], size: int, seed: int) -> Float[Tensor, " m"]:
    """Products with m = min(size, n) orthonormal vectors of random signs on disjoint heaps."""
    count = len(values)
    size = min(size, count)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(count, generator=generator)
    sign = 2.0 * torch.randint(2, (count,), generator=generator) - 1
    layers = -(-count // size)
    dealt = torch.zeros(layers * size).to(values)
    dealt[:count] = values[order] * sign.to(values)
    full = count - (layers - 1) * size
    heap = torch.full((size,), sqrt(layers - 1)).to(values)
    heap[:full] = sqrt(layers)
    return dealt.reshape(layers, size).sum(0) / heap
