"""Belief: how firmly finished tasks hold the control points, and nothing else.

The control points of each block of weights are a Gaussian belief with precision

    Λ = ε G₀ + Σ_j f_j φ_j φ_jᵀ ,   Σ = Λ⁻¹

where φ_j = φ(c_j) are the finished tasks and f_j is their information in that block. Infinite
information, f = ∞, means exact protection. The belief is one K×K matrix per block, on the CPU.

Source: the update is the Kalman filter's (Kalman 1960) with one observation per task; see
docs/mathematics.md, eq. (6).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

PRECISION = 1e-4
"""ε of the prior precision ε G₀. Prices and information are in units in which it is this number."""

CHUNK = 1 << 12
"""Blocks whose matrices are unpacked at once."""


@final
@dataclass(frozen=True, eq=False)
class Step:
    """How a displacement of the weights at one context moves the control points of each block.

        v = Σ φ ,   q = φᵀ v ,   κ = 1/q ,   κ_rel = q / (φᵀ Σ₀ φ)

    Attributes:
        phi: φ of the context, shape (K,).
        v: shape (B, K), stored as the belief is.
        q: how free the weights there still are, shape (B,).
        freedom: κ_rel in [0, 1], shape (B,): 1 = untouched, 0 = fixed by finished tasks.
        saturated: κ_rel below which a block counts as fixed: rounding, not freedom.
    """

    phi: Float[Tensor, " K"]
    v: Float[Tensor, "B K"]
    q: Float[Tensor, " B"]
    freedom: Float[Tensor, " B"]
    saturated: float

    @property
    def fixed(self) -> bool:
        """Whether some block has no freedom left, so that nothing can be learned here."""
        return bool((self.freedom <= self.saturated).any())

    @property
    def kappa(self) -> Float[Tensor, " B"]:
        """κ = 1/q, the price of moving the weights."""
        return 1 / self.q

    def coefficient(self, part: slice = slice(None)) -> Float[Tensor, "b K"]:
        """V κ of some blocks: how far each control point moves when w(c) moves by one."""
        return self.v[part].double() / self.q[part, None]

    def influence(self, others: Float[Tensor, "n K"]) -> Float[Tensor, "n B"]:
        """φ_jᵀ v κ: how far w(c_j) moves when w(c) is moved by one."""
        return others @ self.coefficient().mT

    def overshoot(self, grid: Float[Tensor, "n K"]) -> float:
        """Max over contexts and blocks of |φ(c)ᵀ v κ|: large before Runge-like swings."""
        parts = (grid @ self.coefficient(part).mT for part in _chunks(len(self.q)))
        return max(float(part.abs().max()) for part in parts)


@final
@dataclass(frozen=True, eq=False)
class Belief:
    """Σ of every block.

    Attributes:
        prior: Σ₀ = (ε G₀)⁻¹, the covariance before any task, shape (K, K), float64.
        triangle: the upper triangle of each Σ, row by row, shape (B, K(K + 1)/2). Computed in
            float64; stored in float32 where every weight is a block of its own.
    """

    prior: Float[Tensor, "K K"]
    triangle: Float[Tensor, "B N"]

    @property
    def blocks(self) -> int:
        """B."""
        return len(self.triangle)

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return self.triangle.nbytes + self.prior.nbytes

    def covariance(self, part: slice = slice(None)) -> Float[Tensor, "b K K"]:
        """Σ of some blocks, float64."""
        return unpacked(self.triangle[part].double(), len(self.prior))

    def step(self, phi: Float[Tensor, " K"]) -> Step:
        """Where a displacement at φ moves the control points, and how freely."""
        phi = phi.detach().cpu().double()
        v = self.triangle.new_empty(self.blocks, len(phi))
        q = torch.empty(self.blocks, dtype=torch.float64)
        rounding = torch.finfo(v.dtype).eps
        for part in _chunks(self.blocks):
            covariance = self.covariance(part)
            v[part] = covariance @ phi
            # q of v as it is stored, so that a commit lands on w(c) to rounding;
            # below what rounding leaves of terms that cancel, q may have either sign
            terms = covariance.abs() @ phi.abs() @ phi.abs()
            q[part] = torch.maximum(v[part].double() @ phi, rounding * terms)
        free = (q / (phi @ self.prior @ phi)).clamp(max=1)
        return Step(phi, v, q, free, 1e-12 if self.triangle.dtype == torch.float64 else 1e-5)

    def observe(self, phi: Float[Tensor, " K"], information: Float[Tensor, " B"]) -> "Belief":
        """The belief after a task with information f at φ.

            Σ' = Σ − f/(1 + f q) v vᵀ

        Equals (Σ⁻¹ + f φ φᵀ)⁻¹ (Sherman and Morrison 1950); for f = ∞ it is Σ − v vᵀ/q. See
        docs/mathematics.md, eq. (10).
        """
        phi = phi.detach().cpu().double()
        new = torch.empty_like(self.triangle)
        for part in _chunks(self.blocks):
            covariance = self.covariance(part)
            v = covariance @ phi
            gain = _gain(v @ phi, information[part].double())
            change = gain[:, None, None] * v[:, :, None] * v[:, None, :]
            new[part] = packed(covariance - change)
        return replace(self, triangle=new)

    def inherited(self, origin: Int[Tensor, " B1"]) -> "Belief":
        """The belief over other blocks: block b continues block origin[b], or is new where −1."""
        fresh = packed(self.prior[None]).to(self.triangle)
        rows = self.triangle[origin.clamp(min=0)]
        return replace(self, triangle=torch.where(origin[:, None] < 0, fresh, rows))


def prior_covariance(prior: Float[Tensor, "K K"]) -> Float[Tensor, "K K"]:
    """Σ₀ = (ε G₀)⁻¹ in float64."""
    return (PRECISION * prior.detach().cpu().double()).inverse()


def unvisited(
    prior: Float[Tensor, "K K"], blocks: int, dtype: torch.dtype = torch.float64
) -> Belief:
    """The belief before any task: Σ₀ in every block.

    Args:
        prior: G₀, the prior precision up to ε.
        blocks: B.
        dtype: that the triangles are stored in.
    """
    covariance = prior_covariance(prior)
    row = packed(covariance[None]).to(dtype)
    return Belief(covariance, row.expand(blocks, -1).clone())


def spanned(
    prior: Float[Tensor, "K K"], phis: Sequence[Float[Tensor, " K"]], phi: Float[Tensor, " K"]
) -> bool:
    """Whether φ is in the span of the φ_j, so that exact protection leaves it no freedom.

    Args:
        prior: Σ₀.
        phis: the φ_j.
        phi: φ.
    """
    belief = Belief(prior, packed(prior[None]))
    for known in phis:
        belief = belief.observe(known, torch.tensor([torch.inf]))
    return belief.step(phi).fixed


def posterior(
    start: Belief, phis: Float[Tensor, "T K"], information: Float[Tensor, "T B"]
) -> Belief:
    """The belief `start` after several tasks, one after the other."""
    for phi, f in zip(phis, information, strict=True):
        start = start.observe(phi, f)
    return start


def reembedding(
    start: Belief,
    larger: Float[Tensor, "T K1"],
    smaller: Float[Tensor, "T K"],
    information: Float[Tensor, "T B"],
) -> tuple[Float[Tensor, "B K1 K"], Belief]:
    """M and the belief that a larger basis would have had from the beginning.

        Λ' = εG₀' + Σ_j f_j φ'_jφ'_jᵀ ;   M = Λ'⁻¹ Σ_j f_j φ'_jφ_jᵀ
        P' − P̄' = M (P − P̄) ;             Σ' = Λ'⁻¹

    Computed task by task, with g = v f/(1 + f q) and M += g (φ_jᵀ − φ'_jᵀM): f_j may be infinite.

    Args:
        start: the larger basis' belief before any task.
        larger: φ'_j of the finished tasks.
        smaller: φ_j of the same tasks.
        information: f_j per task and block.
    """
    mapping = torch.zeros(start.blocks, larger.shape[1], smaller.shape[1], dtype=torch.float64)
    for phi1, phi, f in zip(larger, smaller, information, strict=True):
        step = start.step(phi1)
        known = (step.freedom > step.saturated) | f.isfinite()
        free = torch.where(known, step.q, 0.0)
        gain = _gain(free, f.double())[:, None] * step.v
        mapping += gain[:, :, None] * (phi - phi1 @ mapping)[:, None, :]
        start = start.observe(phi1, torch.where(free > 0, f.double(), 0.0))
    return mapping, start


def packed(matrices: Float[Tensor, "b K K"]) -> Float[Tensor, "b N"]:
    """The upper triangles, row by row."""
    rows, columns = torch.triu_indices(*matrices.shape[1:])
    return matrices[:, rows, columns]


def unpacked(triangles: Float[Tensor, "b N"], size: int) -> Float[Tensor, "b K K"]:
    """The symmetric matrices with these upper triangles."""
    rows, columns = torch.triu_indices(size, size)
    full = triangles.new_empty(len(triangles), size, size)
    full[:, rows, columns] = triangles
    full[:, columns, rows] = triangles
    return full


def _chunks(blocks: int) -> Iterator[slice]:
    return (slice(start, start + CHUNK) for start in range(0, blocks, CHUNK))


def _gain(q: Float[Tensor, " B"], information: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """f/(1 + f q) = 1/(1/f + q); 0 where nothing is free (q ≤ 0) or known (f = 0)."""
    gain = 1 / (1 / information + q)
    return torch.where((q > 0) & (information > 0), gain, torch.zeros_like(q))
