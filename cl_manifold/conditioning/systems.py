"""Networks that are told a context, one way or another: `forward(x, context) -> logits`.

A context is one for the whole batch, shape (dim,), or one per sample, shape (B, dim).
"""

from collections.abc import Callable
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cl_manifold.conditioning.problems import Problem, bin_centres, embed

HIDDEN = 32
"""Width of the small networks that read a context."""


def per_sample(context: Float[Tensor, "*batch dim"], count: int) -> Float[Tensor, "count dim"]:
    """One context per sample."""
    return context.expand(count, -1)


def reader(inputs: int, outputs: int) -> nn.Sequential:
    """The small network that turns an embedded context into numbers."""
    return nn.Sequential(nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outputs))


@final
class OneForAll(nn.Module):
    """One network that is not told the context."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, x: Float[Tensor, "B C H W"], context: Float[Tensor, "*batch dim"]
    ) -> Float[Tensor, "B classes"]:
        """The network's answer."""
        return self.network(x)


@final
class Concatenated(nn.Module):
    """The embedded context is part of the input.

    For convolutions it comes as constant channels.

    Args:
        network: takes the joined input; flat (B, pixels + E) where `flat`.
        problem: gives the embedding.
        flat: whether the network takes flat inputs.
    """

    def __init__(self, network: nn.Module, problem: Problem, flat: bool) -> None:
        super().__init__()
        self.network, self.problem, self.flat = network, problem, flat

    def forward(
        self, x: Float[Tensor, "B C H W"], context: Float[Tensor, "*batch dim"]
    ) -> Float[Tensor, "B classes"]:
        """network((x, e(c)))."""
        told = per_sample(embed(self.problem.topology, context), len(x)).to(x.dtype)
        if self.flat:
            return self.network(torch.cat([x.flatten(1), told], 1))
        return self.network(torch.cat([x, told[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1))


@final
class Film(nn.Module):
    """Feature-wise linear modulation before every ReLU.

    h ← (1 + γ(c)) h + β(c),   (γ, β) from a small network of the embedded context

    The modulation starts as the identity.

    Source: Perez et al., FiLM (2018).
    """

    def __init__(self, network: nn.Sequential, problem: Problem) -> None:
        super().__init__()
        self.network, self.problem = network, problem
        self.features = _features(network)
        inputs = embed(problem.topology, bin_centres(problem)).shape[-1]
        self.reader = reader(inputs, 2 * sum(self.features))
        last: Any = self.reader[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(
        self, x: Float[Tensor, "B C H W"], context: Float[Tensor, "*batch dim"]
    ) -> Float[Tensor, "B classes"]:
        """The modulated network's answer."""
        told = self.reader(embed(self.problem.topology, context).to(x.dtype))
        parts = iter(per_sample(told, len(x)).split([2 * n for n in self.features], -1))
        for layer in self.network:
            if isinstance(layer, nn.ReLU):
                gain, shift = next(parts).reshape(len(x), -1, *(1,) * (x.ndim - 2)).chunk(2, 1)
                x = (1 + gain) * x + shift
            x = layer(x)
        return x


def _features(network: nn.Sequential) -> list[int]:
    """How many features each ReLU receives."""
    found: list[int] = []
    width = 0
    for layer in network:
        if isinstance(layer, nn.Linear):
            width = layer.out_features
        if isinstance(layer, nn.Conv2d):
            width = layer.out_channels
        if isinstance(layer, nn.ReLU):
            found.append(width)
    return found


@final
class Configured(nn.Module):
    """Weights mixed by numbers that a small network reads from the context.

    w(c) = Σ_k φ_k(z(c)) P_k,   z(c) = squash(reader(e(c)))

    With mixtures z (softmax) these are subspace-configurable networks; with free z (tanh) and
    φ(z) = (1, z) a hypernetwork whose last layer is P.

    Sources: Saukh et al., Representing Input Transformations by Low-Dimensional Parameter Subspaces
    (arXiv 2305.13536); Ha, Dai and Le, HyperNetworks (2017).
    """

    def __init__(
        self,
        manifold: nn.Module,
        outputs: int,
        squash: Callable[[Tensor], Tensor],
        problem: Problem,
    ) -> None:
        super().__init__()
        self.manifold, self.problem, self.squash = manifold, problem, squash
        inputs = embed(problem.topology, bin_centres(problem)).shape[-1]
        self.reader = reader(inputs, outputs)

    def forward(
        self, x: Float[Tensor, "B C H W"], context: Float[Tensor, "*batch dim"]
    ) -> Float[Tensor, "B classes"]:
        """The answer of the network with the mixed weights."""
        read = self.reader(embed(self.problem.topology, context).to(x.dtype))
        # in float64, so that a mixture sums to one as exactly as a simplex demands
        return self.manifold(x, self.squash(read.double()))


@final
class OnePerContext(nn.Module):
    """A network of its own for every bin of trained contexts; others take the nearest one's."""

    def __init__(self, build: Callable[[], nn.Module], problem: Problem) -> None:
        super().__init__()
        self.problem, self.centres = problem, bin_centres(problem)
        self.networks = nn.ModuleList(build() for _ in self.centres)

    def forward(
        self, x: Float[Tensor, "B C H W"], context: Float[Tensor, "*batch dim"]
    ) -> Float[Tensor, "B classes"]:
        """Each sample's answer from the network whose bin is nearest."""
        topology = self.problem.topology
        told = embed(topology, per_sample(context, len(x)).double())
        nearest = torch.cdist(told, embed(topology, self.centres)).argmin(-1)
        used = nearest.unique().tolist()
        rows = [(nearest == bin).nonzero().squeeze(-1) for bin in used]
        answers = [self.networks[bin](x[own]) for bin, own in zip(used, rows, strict=True)]
        return torch.cat(answers)[torch.cat(rows).argsort()]


@final
class Undone(nn.Module):
    """The oracle: takes the change back, then asks one network that is not told the context.

    Args:
        network: of unchanged images.
        problem: what is undone.
        moments: mean and standard deviation by which images are normalised.
    """

    def __init__(self, network: nn.Module, problem: Problem, moments: tuple[float, float]) -> None:
        super().__init__()
        self.network, self.problem, self.moments = network, problem, moments

    def forward(
        self, x: Float[Tensor, "B C H W"], context: Float[Tensor, "*batch dim"]
    ) -> Float[Tensor, "B classes"]:
        """The answer for the image as it was before, as far as that can be known."""
        mean, std = self.moments
        contexts = per_sample(context, len(x)).double()
        undone = self.problem.undo(x * std + mean, contexts)
        return self.network((undone - mean) / std)
