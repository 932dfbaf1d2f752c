"""Bases: K smooth functions on a topology. Knows nothing about weights.

Every basis φ spans a space of functions; the weight manifold is w(c) = Σ_k φ_k(c) P_k.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cl_manifold.errors import ConfigError
from cl_manifold.geometry.named import address_of, arguments_of
from cl_manifold.geometry.space import Topology

NODES = 4096
"""Quadrature nodes of the integrals that a basis does not know in closed form."""


class Basis(ABC):
    """K smooth functions φ_k on a topology.

    A basis of one's own sets `topology` and `size` and evaluates its functions. Everything else
    follows by autograd and quadrature; what is known in closed form may replace it.

        class Bumps(Basis):
            def __init__(self, width: float = 0.1) -> None:
                self.width, self.topology, self.size = width, Circle(), 5

            def __call__(self, context):
                return bumps(self.topology.wrap(context), self.width)

    Attributes:
        topology: the space the functions live on.
        size: K, the number of functions and of control points.
        strength: ρ, the ratio of a task's information to the prior: 10 where tasks
            share control points.
        own_prior: whether `prior` is something else than an energy over the topology's measure;
            a product with such a factor multiplies the priors of its factors.
    """

    topology: Topology
    size: int
    strength: float = 10.0
    own_prior: bool = False

    @abstractmethod
    def __call__(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch K"]:
        """φ(c) for each context on its own, in the context's dtype.

        Raises:
            ContextError: a context lies outside the topology.
        """

    def derivative(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim K"]:
        """∂φ_k/∂c_i for each context, by autograd: as exact as φ itself, K passes backwards."""
        deeper = context.requires_grad and torch.is_grad_enabled()
        with torch.enable_grad():
            c = context if deeper else context.detach().requires_grad_()
            # a constant φ does not depend on c, and autograd wants a path
            phi = self(c) + 0 * c.sum(-1, keepdim=True)
            slopes = [
                torch.autograd.grad(phi[..., k].sum(), c, retain_graph=True, create_graph=deeper)[0]
                for k in range(self.size)
            ]
        return torch.stack(slopes, dim=-1)

    def gram(self) -> Float[Tensor, "K K"]:
        """G = ∫ φ φᵀ dμ over the uniform measure of the topology (float64).

        By about 4,000 quadrature nodes. On an interval or circle it is exact to rounding for smooth
        functions, and to about 1e-5 where slopes jump; on a product of d spaces the d-th root of
        the nodes is left for each; on a simplex it is exact for polynomials, of 15 vertices up to
        degree 7, of more than 90 up to degree 3 (φ φᵀ has twice the degree of φ).
        """
        return gram_by_quadrature(self, self.topology.order(NODES))

    def stiffness(self) -> Float[Tensor, "K K"]:
        """S = ∫ Σ_i ℓ_i² ∂_iφ ∂_iφᵀ dμ with the topology's lengths ℓ_i (float64).

        By quadrature, as exact as `gram`; to about 1e-3 where slopes jump.
        """
        return stiffness_by_quadrature(self, self.topology.order(NODES))

    def constant(self) -> Float[Tensor, " K"] | None:
        """Coefficients a with φ(c)ᵀa = 1 for all c, or None if constants are not in the span.

        The shortest least squares solution at quadrature nodes, if it is right there to 1e-9.
        """
        phi = self(self.topology.quadrature(self.topology.order(NODES))[0])
        a = torch.pinverse(phi) @ phi.new_ones(len(phi))
        return a if bool(((phi @ a - 1).abs() <= 1e-9).all()) else None

    def prior(self, mean: float = 1e-3) -> Float[Tensor, "K K"]:
        """G₀, the prior precision that lets what all contexts share vary most.

            PᵀG₀P = ∫ |w − w̄|² + Σ_i ℓ_i² |∂_i w|² dμ + mean · |w̄|²,   w̄ = ∫ w dμ
            G₀ = G + S − (1 − mean) m mᵀ,   m = ∫ φ dμ = G a

        For harmonics this is diag(mean, ½(1 + h²), …). A basis whose span lacks the constants has
        G₀ = G / tr G. See docs/mathematics.md, eq. (3).

        Args:
            mean: weight of the mean |w̄|²; small lets new contexts start from what all tasks share.
        """
        gram, one = self.gram(), self.constant()
        if one is None:
            return gram / gram.trace()
        m = gram @ one
        return gram + self.stiffness() - (1 - mean) * torch.outer(m, m)

    def grown(self) -> "Growth":
        """The next larger basis of the same family, whose span contains this one.

        Raises:
            ConfigError: this basis cannot grow.
        """
        raise ConfigError(
            f"a basis of {type(self).__name__} cannot grow, because it does not say how; give it a "
            "method grown() that returns a Growth, or start with as many functions as are needed"
        )

    def spec(self) -> dict[str, Any]:
        """Plain numbers and strings from which `basis_from_spec` builds an equal basis.

        `package.module:Class`, and every argument of the constructor from the attribute of the same
        name. A topology or a basis among them is described by its own spec.

        Raises:
            ConfigError: the class or an argument cannot be described so.
        """
        described = {name: self._plain(name, v) for name, v in arguments_of(self).items()}
        return {"kind": address_of(type(self)), **described}

    def _plain(self, name: str, value: Any) -> Any:
        if isinstance(value, Topology):
            return {"topology": value.spec()}
        if isinstance(value, Basis):
            return {"basis": value.spec()}
        if isinstance(value, list | tuple):
            parts: list[Any] = list(value)  # pyright: ignore[reportUnknownArgumentType]
            return [self._plain(name, part) for part in parts]
        if value is None or isinstance(value, int | float | str):
            return value
        raise ConfigError(
            f"{type(self).__name__}.{name} is a {type(value).__name__}, and a basis is saved as "
            "numbers and strings; keep it as a number, a string or a list, or write spec()"
        )


def gram_by_quadrature(basis: Basis, order: int) -> Float[Tensor, "K K"]:
    """G = Σ_q ω_q φ(c_q) φ(c_q)ᵀ, exact where all φ_k φ_l are polynomials up to `order`."""
    nodes, weights = basis.topology.quadrature(order)
    phi = basis(nodes)
    return phi.mT @ (weights[:, None] * phi)


def stiffness_by_quadrature(basis: Basis, order: int) -> Float[Tensor, "K K"]:
    """S = Σ_q ω_q ∂φ(c_q)ᵀ M ∂φ(c_q) with the topology's metric M."""
    nodes, weights = basis.topology.quadrature(order)
    slope = basis.derivative(nodes)
    return torch.einsum("q,qik,ij,qjl->kl", weights, slope, basis.topology.metric(), slope)


def same_context(context: Tensor) -> Tensor:
    """The identity: growth left the coordinates of contexts as they are."""
    return context


@dataclass(frozen=True)
class Growth:
    """A larger basis φ' and the matrix T with φ'(e(c))ᵀ T = φ(c)ᵀ for all c.

    Applied to the control points, P' = T P, it leaves every w(c) where it was.

    Attributes:
        basis: the larger basis, K' functions.
        matrix: T, shape (K', K), float64.
        embed: e, which takes an old context to its place on the larger basis' topology.
    """

    basis: Basis
    matrix: Float[Tensor, "K1 K"]
    embed: Callable[[Tensor], Tensor] = same_context
