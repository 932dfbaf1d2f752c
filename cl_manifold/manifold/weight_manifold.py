"""WeightManifold: a module's weights as a smooth function of context.

Knows the control points and how tasks move them; knows nothing about data, losses or training.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cl_manifold.errors import ContextError, LayoutError, context_text
from cl_manifold.geometry import Basis, Growth
from cl_manifold.manifold import belief as precision
from cl_manifold.manifold.layout import Granularity, layout_of


@dataclass(frozen=True)
class Visit:
    """A finished task.

    Attributes:
        context: shape (dim,), float64, on the CPU.
        information: f per block, shape (B,); None where growth cannot need it.
    """

    context: Tensor
    information: Tensor | None


@dataclass(frozen=True)
class Commit:
    """What a commit did, averaged (plasticity) or maximal (overshoot) over blocks."""

    plasticity: float
    overshoot: float


@final
class WeightManifold:
    """w(c) = w₀ + Σ_k φ_k(c) P_k for the state of a module.

    Check out the weights at a context, train them with any optimizer, commit them back:

        manifold.check_out(c)
        train(module)                                          # with the price, or without
        manifold.commit(c, information)

    The offset w₀ is stored only where it is needed: for a basis without constants, and for a
    manifold that is to grow by re-embedding. Otherwise it is zero and the control points start so
    that w(c) is the initial network for every c.

    Attributes:
        module: the live network that holds the weights which were checked out last.
        basis: φ.
        layout: which weights are on the manifold and how they fall into blocks.
        control_points: P, shape (K, D).
        offset: w₀, shape (D,), or None for zero.
        covariance: Σ per block, shape (B, K, K).
        prior: Σ₀, shape (K, K), the covariance before any task.
        strength: ε, the prior's precision.
        visits: the finished tasks, in order.
    """

    def __init__(
        self,
        module: nn.Module,
        basis: Basis,
        *,
        blocks: Granularity = "tensor",
        strength: float = 1e-4,
        growable: bool = False,
        select: Callable[[str], bool] = lambda name: True,
    ) -> None:
        """Lay a manifold through the module's current weights.

        Args:
            module: any module; its current weights are the prior mean at every context.
            basis: topology and functions.
            blocks: which weights share a covariance.
            strength: ε > 0 of the prior precision ε G₀ with the hierarchical G₀.
            growable: keep the initial network, so that `grow` can re-embed.
            select: which names of the state go onto the manifold.
        """
        if not 0 < strength < inf:
            raise ValueError(f"strength must be positive and finite, got {strength}")
        self.module, self.basis, self.strength = module, basis, strength
        self.blocks: Granularity = blocks
        self.select = select
        self.layout = layout_of(module, blocks, select)
        weights = self.layout.read(module)
        constant = basis.constant()
        if growable or constant is None:
            self.offset: Tensor | None = weights
            self.control_points = weights.new_zeros(basis.size, len(weights))
        else:
            self.offset = None
            self.control_points = constant.to(weights)[:, None] * weights
        # one covariance per weight is the only large one: it takes the weights' own dtype
        dtype = weights.dtype if blocks == "weight" else torch.float64
        prior = precision.prior_covariance(basis.prior(), strength)
        self.prior = prior.to(weights.device, dtype)
        self.covariance = self.prior.expand(self.layout.blocks, -1, -1).clone()
        self.visits: list[Visit] = []

    # -- weights at a context ----------------------------------------------------------------

    def phi(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch K"]:
        """φ(c), computed in float64, in the dtype of the covariance."""
        return self.basis(context.to(self.prior.device, torch.float64)).to(self.prior.dtype)

    def weights(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch D"]:
        """w(c) = w₀ + Σ_k φ_k(c) P_k."""
        weights = self.phi(context).to(self.control_points.dtype) @ self.control_points
        return weights if self.offset is None else weights.add_(self.offset)

    def state(self, context: Float[Tensor, " dim"]) -> dict[str, Tensor]:
        """w(c) by name, for `torch.func.functional_call` or `load_state_dict(strict=False)`."""
        return self.layout.split(self.weights(context))

    def check_out(self, context: Float[Tensor, " dim"]) -> None:
        """Write w(c) into the module, in place."""
        self.layout.write(self.module, self.weights(context))

    # -- how free a context still is ---------------------------------------------------------

    def plasticity(self, context: Float[Tensor, " dim"]) -> float:
        """κ_rel averaged over weights: 1 = untouched, 0 = fixed by earlier tasks."""
        free = precision.plasticity(self.covariance, self.prior, self.phi(context))
        return float((free * self._block_sizes()).sum() / self.layout.size)

    def overshoot(self, context: Float[Tensor, " dim"], grid: int = 257) -> float:
        """The largest |φ(c')ᵀ v κ| over a grid of the topology and over blocks."""
        others = self.phi(self.basis.topology.grid(grid))
        return float(precision.overshoot(self.covariance, self.phi(context), others).max())

    def influence(
        self, context: Float[Tensor, " dim"], others: Float[Tensor, "n dim"]
    ) -> Float[Tensor, "n B"]:
        """φ_jᵀ v κ: how far the weights at `others` move when those at `context` move by one."""
        return precision.influence(self.covariance, self.phi(context), self.phi(others))

    def price(self, context: Float[Tensor, " dim"]) -> list[Tensor]:
        """κ = 1/q of each parameter, shaped to broadcast against it, in the layout's order.

        Raises:
            ContextError: finished tasks leave no freedom at the context.
        """
        phi = self.phi(context)
        free = precision.plasticity(self.covariance, self.prior, phi)
        if bool((free <= precision.SATURATED).any()):
            raise ContextError(
                f"context {context_text(context)} cannot be learned: its {self.basis.size} control "
                f"points are fixed by {len(self.visits)} finished tasks; grow the basis, "
                "or protect finished tasks by Fisher information instead of exactly"
            )
        _, q = precision.direction(self.covariance, phi)
        kappa = (1 / q).to(self.control_points.dtype)
        return [_shaped(e.shape, kappa[e.block_start :][: e.blocks]) for e in self.layout.trained]

    # -- learning ----------------------------------------------------------------------------

    @torch.no_grad()
    def commit(
        self, context: Float[Tensor, " dim"], information: Float[Tensor, " B"] | float
    ) -> Commit:
        """Move the control points so that w(c) is what the module holds, then hold them there.

            P_k += v_k κ (w − w(c)) ;    Σ −= f/(1 + f q) v vᵀ

        Args:
            context: of the task that was just learned.
            information: f ≥ 0 per block, or one number for all; infinite for exact protection.

        Raises:
            ContextError: the context is outside the topology, or has no freedom left.
            LayoutError: the module's weights are not finite, or its architecture changed.
        """
        phi = self.phi(context)
        self.price(context)
        weights = self.layout.read(self.module)
        if not bool(weights.isfinite().all()):
            raise LayoutError(
                "the module holds weights that are not finite, so they were not committed; "
                "lower the learning rate, or check out an earlier context"
            )
        report = Commit(self.plasticity(context), self.overshoot(context))
        displacement = weights.sub_(self.weights(context))
        v, q = precision.direction(self.covariance, phi)
        self._move((v / q[:, None]).mT.to(weights.dtype), displacement)
        f = torch.as_tensor(information, dtype=self.prior.dtype, device=self.prior.device)
        f = f.expand(self.layout.blocks).clone()
        self.covariance = precision.condition(self.covariance, phi, f)
        kept = f if self.blocks != "weight" or self.offset is not None else None
        self.visits.append(Visit(context.detach().cpu().double().clone(), kept))
        return report

    def _move(self, coefficient: Float[Tensor, "K B"], displacement: Float[Tensor, " D"]) -> None:
        """P[:, d] += coefficient[:, block of d] · displacement[d], in place."""
        pairs = zip(
            self.layout.by_block(self.control_points),
            self.layout.by_block(displacement),
            strict=True,
        )
        for (index, points), (_, part) in pairs:
            points.addcmul_(coefficient[:, index, None], part[None])

    @torch.no_grad()
    def grow(self, growth: Growth) -> None:
        """Function-preserving growth: P' = T P, so that no w(c) changes anywhere.

        Σ' is the covariance that the larger basis has after the same tasks.

        Raises:
            LayoutError: the information of finished tasks was not kept.
        """
        _, self.covariance = self._reembedding(growth)
        self.control_points = growth.matrix.to(self.control_points) @ self.control_points
        self._adopt_basis(growth)

    @torch.no_grad()
    def grow_and_reembed(self, growth: Growth) -> None:
        """Growth by re-embedding: P' = M P, the posterior mean of the larger basis.

        Keeps w at every visited context up to its precision and re-localises everything between.

        Raises:
            LayoutError: the manifold was not built with growable=True.
        """
        if self.offset is None:
            raise LayoutError(
                "re-embedding needs the initial network, which this manifold did not keep; "
                "build it with growable=True, or use grow, which keeps every w(c)"
            )
        mapping, self.covariance = self._reembedding(growth)
        grown = self.control_points.new_empty(growth.basis.size, self.layout.size)
        pairs = zip(
            self.layout.by_block(grown), self.layout.by_block(self.control_points), strict=True
        )
        for (index, new), (_, old) in pairs:
            new.copy_(torch.einsum("bkl,lbn->kbn", mapping[index].to(old.dtype), old))
        self.control_points = grown
        self._adopt_basis(growth)

    def _reembedding(self, growth: Growth) -> tuple[Tensor, Tensor]:
        """M and Σ' over the finished tasks."""
        old = [v.context for v in self.visits]
        kept = [v.information for v in self.visits if v.information is not None]
        if len(kept) < len(old):
            raise LayoutError(
                "growth needs the information of finished tasks, which blocks='weight' does not "
                "keep by default; build the manifold with growable=True"
            )
        prior, size = self._prior_of(growth.basis), self.basis.size
        larger = [growth.basis(growth.embed(c)).to(self.prior) for c in old]
        return precision.reembedding(
            prior,
            torch.stack(larger) if larger else prior.new_zeros(0, growth.basis.size),
            torch.stack([self.phi(c) for c in old]) if old else prior.new_zeros(0, size),
            torch.stack(kept) if kept else prior.new_zeros(0, self.layout.blocks),
        )

    def _adopt_basis(self, growth: Growth) -> None:
        self.basis, self.prior = growth.basis, self._prior_of(growth.basis)
        self.visits = [Visit(growth.embed(v.context), v.information) for v in self.visits]

    def _prior_of(self, basis: Basis) -> Tensor:
        return precision.prior_covariance(basis.prior(), self.strength).to(self.prior)

    @torch.no_grad()
    def extend(self) -> list[str]:
        """Take up parameters and buffers that the module gained, such as the head of a new task.

        They start at their current values in every context, untouched by finished tasks.

        Returns:
            The names that are new.

        Raises:
            LayoutError: a tensor that is on the manifold changed its shape or disappeared.
        """
        layout = layout_of(self.module, self.blocks, self.select)
        if layout == self.layout:
            return []
        self.layout.tensors(self.module)
        weights = layout.read(self.module)
        known = {e.name: e for e in self.layout.entries}
        constant = self.basis.constant()
        points = weights.new_zeros(self.basis.size, layout.size)
        if self.offset is None:
            assert constant is not None
            points = constant.to(weights)[:, None] * weights
        covariance = self.prior.expand(layout.blocks, -1, -1).clone()
        kept = torch.zeros(len(self.visits), layout.blocks, dtype=torch.float64)
        kept = kept.to(self.prior)
        for new in layout.entries:
            if (old := known.get(new.name)) is None:
                continue
            to, of = slice(new.start, new.start + new.size), slice(old.start, old.start + old.size)
            points[:, to] = self.control_points[:, of]
            if self.offset is not None:
                weights[to] = self.offset[of]
            to = slice(new.block_start, new.block_start + new.blocks)
            of = slice(old.block_start, old.block_start + old.blocks)
            covariance[to] = self.covariance[of]
            for row, visit in zip(kept, self.visits, strict=True):
                if visit.information is not None:
                    row[to] = visit.information[of]
        self.visits = [
            Visit(v.context, None if v.information is None else row)
            for v, row in zip(self.visits, kept, strict=True)
        ]
        self.offset = None if self.offset is None else weights
        self.layout, self.control_points, self.covariance = layout, points, covariance
        return [e.name for e in layout.entries if e.name not in known]

    # -- bookkeeping -------------------------------------------------------------------------

    @property
    def stored_floats(self) -> int:
        """Everything kept between tasks, in units of 32 bits; the live module is not counted."""
        kept = [self.control_points, self.covariance, self.prior]
        kept += [v.context for v in self.visits]
        kept += [v.information for v in self.visits if v.information is not None]
        kept += [] if self.offset is None else [self.offset]
        return sum(t.numel() * t.element_size() for t in kept) // 4

    def _block_sizes(self) -> Float[Tensor, " B"]:
        sizes = [e.size // e.blocks for e in self.layout.entries for _ in range(e.blocks)]
        return torch.tensor(sizes, dtype=self.prior.dtype, device=self.prior.device)


def _shaped(shape: tuple[int, ...], kappa: Float[Tensor, " blocks"]) -> Tensor:
    """κ of one parameter's blocks as a tensor that broadcasts against the parameter."""
    if len(kappa) == 1:
        return kappa.reshape(())
    numel = torch.Size(shape).numel()
    return kappa.reshape(shape if len(kappa) == numel else (-1, *(1,) * (len(shape) - 1)))
