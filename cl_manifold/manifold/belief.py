"""Precision: how firmly finished tasks hold the control points. Pure functions of tensors.

The control points are a Gaussian belief with precision Λ = ε G₀ + Σ_j f_j φ_j φ_jᵀ in each block of
weights, where φ_j = φ(c_j) are the finished tasks and f_j is their information: the mean squared
gradient of one sample in that block. All functions work on the covariance Σ = Λ⁻¹, one K×K matrix
per block, stacked as (B, K, K). Infinite information, f = ∞, means exact protection.

Source: the update is the Kalman filter's (Kalman 1960) with one observation per task.
"""

import torch
from jaxtyping import Float
from torch import Tensor

SATURATED = 1e-12
"""Plasticity below which a context counts as fixed: rounding, not freedom."""


def prior_covariance(prior: Float[Tensor, "K K"], strength: float) -> Float[Tensor, "K K"]:
    """Σ₀ = (ε G₀)⁻¹ in float64."""
    return (strength * prior.double()).inverse()


def direction(
    covariance: Float[Tensor, "B K K"], phi: Float[Tensor, " K"]
) -> tuple[Float[Tensor, "B K"], Float[Tensor, " B"]]:
    """V = Σ φ and q = φᵀ v: where a displacement at φ moves the control points, and how freely."""
    v = covariance @ phi
    return v, v @ phi


def condition(
    covariance: Float[Tensor, "B K K"], phi: Float[Tensor, " K"], information: Float[Tensor, " B"]
) -> Float[Tensor, "B K K"]:
    """Σ' = Σ − f/(1 + f q) v vᵀ, the covariance after a task with information f at φ.

    Equals (Σ⁻¹ + f φ φᵀ)⁻¹ (Sherman and Morrison 1950); for f = ∞ it is Σ − v vᵀ/q.
    """
    v, q = direction(covariance, phi)
    gain = _gain(q, information)
    return covariance - gain[:, None, None] * v[:, :, None] * v[:, None, :]


def _gain(q: Float[Tensor, " B"], information: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """f/(1 + f q) = 1/(1/f + q); 0 where nothing is free (q ≤ 0) or known (f = 0)."""
    gain = 1 / (1 / information + q)
    return torch.where((q > 0) & (information > 0), gain, torch.zeros_like(q))


def plasticity(
    covariance: Float[Tensor, "B K K"], prior: Float[Tensor, "K K"], phi: Float[Tensor, " K"]
) -> Float[Tensor, " B"]:
    """κ_rel = (φᵀ Σ φ) / (φᵀ Σ₀ φ) in [0, 1]: 1 = untouched, 0 = fixed by earlier tasks.

    Args:
        covariance: Σ of each block.
        prior: Σ₀, the covariance before any task.
        phi: φ(c) of the context in question.
    """
    _, q = direction(covariance, phi)
    return (q / (phi @ prior @ phi)).clamp(0, 1)


def influence(
    covariance: Float[Tensor, "B K K"], phi: Float[Tensor, " K"], others: Float[Tensor, "n K"]
) -> Float[Tensor, "n B"]:
    """φ_jᵀ v κ with κ = 1/q: how far w(c_j) moves when w(c) is moved by one."""
    v, q = direction(covariance, phi)
    return others @ (v / q[:, None]).mT


def overshoot(
    covariance: Float[Tensor, "B K K"], phi: Float[Tensor, " K"], grid: Float[Tensor, "n K"]
) -> Float[Tensor, " B"]:
    """max_c |φ(c)ᵀ v κ| over a grid; 1 at the context itself, large before Runge-like swings."""
    return influence(covariance, phi, grid).abs().amax(0)


def reembedding(
    prior: Float[Tensor, "K1 K1"],
    larger: Float[Tensor, "T K1"],
    smaller: Float[Tensor, "T K"],
    information: Float[Tensor, "T B"],
) -> tuple[Float[Tensor, "B K1 K"], Float[Tensor, "B K1 K1"]]:
    """M and Σ' of the posterior that a larger basis would have had from the beginning.

    Λ' = εG₀' + Σ_j f_j φ'_jφ'_jᵀ ;   M = Λ'⁻¹ Σ_j f_j φ'_jφ_jᵀ
    P' − P̄' = M (P − P̄) ;             Σ' = Λ'⁻¹

    Computed task by task, with g = v f/(1 + f q) and M += g (φ_jᵀ − φ'_jᵀM): f_j may be infinite.

    Args:
        prior: Σ₀' = (εG₀')⁻¹ of the larger basis.
        larger: φ'_j of the finished tasks.
        smaller: φ_j of the same tasks.
        information: f_j per task and block.
    """
    blocks, size = information.shape[1], smaller.shape[1]
    covariance = prior.expand(blocks, -1, -1).clone()
    mapping = prior.new_zeros(blocks, len(prior), size)
    free = (larger @ prior * larger).sum(-1)
    for phi1, phi, f, q0 in zip(larger, smaller, information, free, strict=True):
        v, q = direction(covariance, phi1)
        gain = _gain(torch.where(q > SATURATED * q0, q, 0.0), f)[:, None] * v
        mapping += gain[:, :, None] * (phi - phi1 @ mapping)[:, None, :]
        covariance -= gain[:, :, None] * v[:, None, :]
    return mapping, covariance
