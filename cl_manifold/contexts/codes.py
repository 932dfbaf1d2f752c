"""Context codes: what a regression onto contexts aims at, a vector e(c) for every context."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from cl_manifold.errors import ContextError
from cl_manifold.geometry import Topology


@final
class ContextCode:
    """One code per factor of the topology, multiplied.

    e(c) = e_1(c_1) ⊗ e_2(c_2) ⊗ …
    e_f(c)_j = exp(−d(c, c_j)²/2h²) with J grid points c_j a distance h apart; on a simplex c itself

    Differentiable in c.

    Attributes:
        sizes: length of each factor's code.
        has_pure_tasks: whether a factor is a simplex.
    """

    def __init__(self, topology: Topology, bumps: int = 16) -> None:
        """Codes for a topology.

        Args:
            topology: of the contexts.
            bumps: grid points of all factors other than simplices together, at least 4 each.
        """
        self.topology, self.bumps = topology, bumps
        self.factors = topology.factors
        self.has_pure_tasks = any(f.mixes for f in self.factors)
        smooth = sum(not f.mixes for f in self.factors)
        each = max(4, round(bumps / max(1, smooth)))
        self._centres = [f.grid(each) for f in self.factors]
        self.sizes = tuple(
            f.dim if f.mixes else len(grid)
            for f, grid in zip(self.factors, self._centres, strict=True)
        )

    def __call__(self, contexts: Float[Tensor, "n dim"]) -> Float[Tensor, "n J"]:
        """E(c) for each context, J the product of the sizes."""
        parts = self.topology.split(contexts)
        code = contexts.new_ones(len(contexts), 1)
        for factor, centres, part in zip(self.factors, self._centres, parts, strict=True):
            own = part if factor.mixes else _bumps(factor, centres, part)
            code = (code[:, :, None] * own[:, None, :]).flatten(1)
        return code

    def grown(self, topology: Topology) -> "ContextCode":
        """The code after growth of the basis; only simplices may have grown.

        Raises:
            ContextError: something else than a simplex changed.
        """
        new = ContextCode(topology, self.bumps)
        if [_fixed(f) for f in new.factors] != [_fixed(f) for f in self.factors]:
            raise ContextError(
                f"the encoder learned codes on {self.topology.spec()['kind']} and cannot continue "
                f"on {topology.spec()['kind']}; only a simplex may gain tasks: start a new encoder"
            )
        return new

    def padded(self, moments: Float[Tensor, "n J"], before: "ContextCode") -> Float[Tensor, "n J1"]:
        """Columns of the smaller code at their places in this one, zeros elsewhere."""
        if self.sizes == before.sizes:
            return moments
        larger = moments.new_zeros(len(moments), *self.sizes)
        place = (slice(None), *(slice(0, size) for size in before.sizes))
        larger[place] = moments.unflatten(1, before.sizes)
        return larger.flatten(1)

    def embedded(
        self, contexts: Float[Tensor, "n dim"], before: "ContextCode"
    ) -> Float[Tensor, "n dim1"]:
        """Contexts from before a simplex gained tasks: mixtures that have nothing of them."""
        parts = before.topology.split(contexts)
        pairs = zip(self.factors, parts, strict=True)
        return torch.cat([pad(part, (0, f.dim - part.shape[-1])) for f, part in pairs], dim=-1)


def _bumps(factor: Topology, centres: Tensor, part: Tensor) -> Tensor:
    shape = (len(part), len(centres), factor.dim)
    distance = factor.distance(part[:, None].expand(shape), centres.to(part)[None].expand(shape))
    width = factor.distance(centres[:1], centres[1:2]).to(part)
    return torch.exp(-distance.square() / (2 * width.square()))


def _fixed(factor: Topology) -> object:
    return "simplex" if factor.mixes else factor.spec()
