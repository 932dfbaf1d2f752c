"""The natural step on the control points of a ManifoldModule."""

from collections.abc import Callable
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from cl_manifold.geometry import Basis
from cl_manifold.manifold.module import ManifoldModule


def empirical_gram(
    basis: Basis, contexts: Float[Tensor, "n dim"], strength: float = 1e-4
) -> Float[Tensor, "K K"]:
    """G = (1/n) Σ_i φ(c_i) φ(c_i)ᵀ + ε G₀, for contexts that are not uniform (float64).

    Args:
        basis: φ.
        contexts: the contexts of the training data.
        strength: ε ≥ 0 of the prior precision G₀, which keeps G regular.
    """
    phi = basis(contexts.double())
    return phi.mT @ phi / len(phi) + strength * basis.prior().to(phi)


@final
class NaturalStep(torch.optim.Optimizer):
    """Any optimizer, on natural gradients of the control points.

    ΔP = −η G⁻¹ ∫ φ(c) ⊗ ∇_w ℓ(w(c)) dμ(c),   G = ∫ φ φᵀ dμ,   docs/mathematics.md, eq. (4)

    The gradient of every control point is replaced by G⁻¹∇ for the time of the step. With SGD, with
    or without momentum and weight decay, the step of w(c) is then the same for every basis of the
    same functions. Other parameters keep their gradients.

        optimizer = NaturalStep(torch.optim.SGD(net.parameters(), lr=0.1), net)

    It shares groups, state and defaults with the optimizer that it wraps, so that schedulers,
    `zero_grad` and `state_dict` work on either.

    Attributes:
        optimizer: the one that takes the step.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        module: ManifoldModule,
        gram: Float[Tensor, "K K"] | None = None,
    ) -> None:
        """Precondition the steps of `optimizer`.

        Args:
            optimizer: over the parameters of the module, and any others.
            module: whose control points take natural steps.
            gram: G of the measure that the contexts are drawn from; the basis' own, which is that
                of the uniform measure, by default.

        Raises:
            ValueError: G has the wrong shape or is singular.
        """
        super().__init__(optimizer.param_groups, dict(optimizer.defaults))
        self.optimizer = optimizer
        self._share()
        self._points = {id(p) for p in module.control_points()}
        self._inverse = _inverse(module.basis.gram() if gram is None else gram, module.basis.size)

    def _share(self) -> None:
        self.param_groups, self.state = self.optimizer.param_groups, self.optimizer.state

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the wrapped optimizer on G⁻¹∇; afterwards `.grad` is ∇ again."""
        plain: dict[Tensor, Tensor] = {}

        def natural() -> Any:
            loss = None if closure is None else closure()
            self._precondition(plain)
            return loss

        if closure is None:
            natural()
            loss = self.optimizer.step()
        else:
            loss = self.optimizer.step(natural)
        for p, gradient in plain.items():
            p.grad = gradient
        return loss

    @torch.no_grad()
    def _precondition(self, plain: dict[Tensor, Tensor]) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and id(p) in self._points:
                    plain[p] = p.grad
                    p.grad = (self._inverse.to(p) @ p.grad.flatten(1)).reshape(p.shape)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of the wrapped optimizer."""
        self.optimizer.load_state_dict(state_dict)
        self._share()


def _inverse(gram: Tensor, size: int) -> Tensor:
    """G⁻¹ by Cholesky in float64."""
    if gram.shape != (size, size):
        raise ValueError(
            f"the Gram matrix has shape {tuple(gram.shape)}, but the basis has {size} functions; "
            f"it must be ({size}, {size})"
        )
    factor, failed = torch.linalg.cholesky_ex(gram.double())
    diagonal = factor.diagonal()
    if bool(failed) or not bool(diagonal.min() > 1e-7 * diagonal.max()):
        raise ValueError(
            "the Gram matrix is singular: the contexts do not tell the basis functions apart; "
            "pass gram=empirical_gram(basis, contexts, strength) with a larger strength"
        )
    return torch.cholesky_inverse(factor)
