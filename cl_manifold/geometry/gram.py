"""Integrals over a topology: Gram matrix and stiffness by quadrature, and the prior made of them.

Bases know their own integrals in closed form; quadrature works for any basis and checks them.
"""

from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor

from cl_manifold.geometry.basis import Basis
from cl_manifold.geometry.product import factors_of
from cl_manifold.geometry.simplex import Codes
from cl_manifold.geometry.topology import Product, Simplex, Topology


def gram_by_quadrature(basis: Basis, order: int) -> Float[Tensor, "K K"]:
    """G = Σ_q ω_q φ(c_q) φ(c_q)ᵀ, exact where all φ_k φ_l are polynomials up to `order`."""
    nodes, weights = basis.topology.quadrature(order)
    phi = basis(nodes)
    return phi.mT @ (weights[:, None] * phi)


def stiffness_by_quadrature(basis: Basis, order: int) -> Float[Tensor, "K K"]:
    """S = Σ_q ω_q ∂φ(c_q)ᵀ M ∂φ(c_q) with the topology's metric M."""
    nodes, weights = basis.topology.quadrature(order)
    slope = basis.derivative(nodes)
    return torch.einsum("q,qik,ij,qjl->kl", weights, slope, _metric(basis.topology), slope)


def hierarchical_prior(basis: Basis, mean: float = 1e-3) -> Float[Tensor, "K K"]:
    """G₀, the prior precision that lets what all contexts share vary most.

    PᵀG₀P = ∫ |w − w̄|² + Σ_i ℓ_i² |∂_i w|² dμ + mean · |w̄|²,   w̄ = ∫ w dμ
    G₀ = G + S − (1 − mean) m mᵀ,   m = ∫ φ dμ = G a

    For harmonics this is diag(mean, ½(1 + h²), …). Codes are different: which tasks will come is
    not known, and over random unit codes the mean of φφᵀ is I / K, so that is their prior. A
    product with codes has the Kronecker product of its factors' priors. Any other basis whose span
    lacks the constants has G₀ = G / tr G.

    Args:
        basis: the basis φ.
        mean: weight of the mean |w̄|²; small lets new contexts start from what all tasks share.
    """
    factors = factors_of(basis)
    if isinstance(basis, Codes):
        return torch.eye(basis.size, dtype=torch.float64) / basis.size
    if any(isinstance(f, Codes) for f in factors):
        return reduce(torch.kron, [hierarchical_prior(f, mean) for f in factors])
    gram, one = basis.gram(), basis.constant()
    if one is None:
        return gram / gram.trace()
    m = gram @ one
    return gram + basis.stiffness() - (1 - mean) * torch.outer(m, m)


def _metric(topology: Topology) -> Float[Tensor, "dim dim"]:
    """diag(ℓ_i²); on a simplex without the direction that leads out of it."""
    metric = torch.tensor(topology.scale, dtype=torch.float64).square().diag()
    if isinstance(topology, Simplex):
        return metric - 1 / topology.dim
    start = 0
    for factor in topology.factors if isinstance(topology, Product) else ():
        block = slice(start, start + factor.dim)
        metric[block, block] = _metric(factor)
        start += factor.dim
    return metric
