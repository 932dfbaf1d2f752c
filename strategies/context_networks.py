"""Networks that are told a context: f(x, c), with one context for a batch or one per sample.

Each is a module around plain networks; none knows tasks, losses or how it is trained.
"""

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from cl_manifold.errors import ConfigError
from cl_manifold.geometry import Topology

from .context_input import ContextFeatures, joined


def per_sample(values: Float[Tensor, "*batch n"], count: int) -> Float[Tensor, "count n"]:
    """One row per sample."""
    return values.expand(count, -1)


def reader(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """The small network that turns features of a context into numbers."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


@final
class Untold(nn.Module):
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
    """Features of the context are part of the input: f([x, φ(c)]).

    Flat inputs are lengthened by them; for convolutions they come as constant channels.
    """

    def __init__(self, network: nn.Module, features: ContextFeatures, flat: bool) -> None:
        """Around a network of inputs that are joined already.

        Args:
            network: of (B, pixels + F) where `flat`, else of (B, C + F, H, W).
            features: φ.
            flat: which of the two.
        """
        super().__init__()
        self.network, self.features, self.flat = network, features, flat

    def forward(
        self, x: Float[Tensor, "B C H W"], context: Float[Tensor, "*batch dim"]
    ) -> Float[Tensor, "B classes"]:
        """The network's answer at the contexts."""
        told = per_sample(self.features(context), len(x)).to(x)
        return self.network(joined(x, told, self.flat))


@final
class Film(nn.Module):
    """Feature-wise linear modulation before every ReLU.

    h ← (1 + γ(c)) h + β(c),   (γ, β) from a small network of φ(c)

    The modulation starts as the identity.

    Source: Perez et al., FiLM (2018).
    """

    def __init__(self, network: nn.Module, features: ContextFeatures, hidden: int) -> None:
        """Modulate the network.

        Raises:
            ConfigError: it is no sequence of layers with a ReLU among them.
        """
        super().__init__()
        self.widths = widths_of(network)
        if not self.widths:
            raise ConfigError(
                "film modulates what enters the ReLU layers of an nn.Sequential, but this network "
                f"is a {type(network).__name__} without such layers; choose network mlp or cnn"
            )
        self.layers, self.features = nn.ModuleList(network.children()), features
        self.reader = reader(features.size, hidden, 2 * sum(self.widths))
        last: Any = self.reader[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(
        self, x: Float[Tensor, "B C H W"], context: Float[Tensor, "*batch dim"]
    ) -> Float[Tensor, "B classes"]:
        """The modulated network's answer."""
        told = per_sample(self.reader(self.features(context).to(x)), len(x))
        parts = iter(told.split([2 * width for width in self.widths], -1))
        for layer in self.layers:
            if isinstance(layer, nn.ReLU):
                gain, shift = next(parts).reshape(len(x), -1, *(1,) * (x.ndim - 2)).chunk(2, 1)
                x = (1 + gain) * x + shift
            x = layer(x)
        return x


def widths_of(network: nn.Module) -> list[int]:
    """How many features each ReLU of a sequence of layers receives."""
    found: list[int] = []
    width = 0
    for layer in network if isinstance(network, nn.Sequential) else ():
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

    w(c) = Σ_k φ_k(z(c)) P_k,   z(c) = squash(reader(features(c)))

    With mixtures z (softmax) these are subspace-configurable networks; with free z (tanh) and
    φ(z) = (1, z) a hypernetwork whose last layer is P.

    Sources: Saukh et al., Representing Input Transformations by Low-Dimensional Parameter Subspaces
    (arXiv 2305.13536); Ha, Dai and Le, HyperNetworks (2017).
    """

    def __init__(
        self,
        manifold: nn.Module,
        features: ContextFeatures,
        read: nn.Module,
        squash: Callable[[Tensor], Tensor],
    ) -> None:
        """Configure a manifold.

        Args:
            manifold: a `ManifoldModule`; runs with the weights at z.
            features: of a context.
            read: makes as many numbers from them as z has.
            squash: of those numbers.
        """
        super().__init__()
        self.manifold, self.features, self.reader = manifold, features, read
        self.squash = squash

    def forward(
        self, x: Float[Tensor, "B C H W"], context: Float[Tensor, "*batch dim"]
    ) -> Float[Tensor, "B classes"]:
        """The answer of the network with the mixed weights."""
        read = self.reader(self.features(context).to(x))
        # in float64, so that a mixture sums to one as exactly as a simplex demands
        return self.manifold(x, self.squash(read.double()))


@final
class OnePerContext(nn.Module):
    """A network of its own at every centre; a context takes the nearest one's."""

    centres: Tensor

    def __init__(
        self, networks: Sequence[nn.Module], centres: Float64[Tensor, "n dim"], topology: Topology
    ) -> None:
        """As many networks as centres."""
        super().__init__()
        self.networks, self.topology = nn.ModuleList(networks), topology
        self.register_buffer("centres", centres)

    def forward(
        self, x: Float[Tensor, "B C H W"], context: Float[Tensor, "*batch dim"]
    ) -> Float[Tensor, "B classes"]:
        """Each sample's answer from the network whose centre is nearest."""
        told = per_sample(context, len(x)).to(self.centres)
        pairs = torch.broadcast_tensors(told[:, None], self.centres[None])
        nearest = self.topology.distance(*pairs).argmin(-1)
        used = nearest.unique().tolist()
        rows = [(nearest == centre).nonzero().squeeze(-1) for centre in used]
        answers = [self.networks[k](x[own]) for k, own in zip(used, rows, strict=True)]
        return torch.cat(answers)[torch.cat(rows).argsort()]
