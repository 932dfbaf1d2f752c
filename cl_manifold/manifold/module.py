"""ManifoldModule: a network that is run at contexts, one for the batch or one per sample.

Knows how to run a module whose weights are w(c) = Σ_k φ_k(c) P_k; the control points are ordinary
parameters that any optimizer trains. Knows nothing about tasks, losses or data.
"""

import copy
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy

from cl_manifold.errors import ContextError, LayoutError
from cl_manifold.geometry import Basis
from cl_manifold.manifold.batched import assemble
from cl_manifold.manifold.layers import Points, Run, attach, detach, off_limits, outside_graphs
from cl_manifold.manifold.layout import State


@final
class ManifoldModule(nn.Module):
    """A module with weights w(c) = Σ_k φ_k(c) P_k, run at one context or at a context per sample.

        net = ManifoldModule(network, Fourier(1))
        net(x, c)               # c of shape (dim,): assembles w(c) once
        net(x, contexts)        # contexts of shape (B, dim): sample b runs with w(c_b)

    With a context per sample no weight matrix is built per sample: linear and convolution layers,
    embeddings and norm layers run as in `batched`, wherever the module calls them; only
    kernels that are small beside the images they move over are mixed for each sample, on CPUs. A
    layer of another kind runs sample by sample in `torch.func.vmap`, with a warning that names it.
    Axis 0 must be the batch in the input of every layer that has weights; that is checked by its
    length alone.

    The control points replace the parameters of a copy of the module, under the names that the
    parameters had there; tied parameters stay tied. At first w(c) is the given network for every c.

    Buffers are shared by all contexts. So a BatchNorm layer that trains normalises over the batch,
    whatever contexts are in it, and its running statistics are those of all contexts together;
    only scale and shift depend on the context. Prefer GroupNorm or LayerNorm where one batch does
    not represent all contexts.

    Attributes:
        basis: φ.
        module: the copy of the network that holds the control points.
    """

    def __init__(self, module: nn.Module, basis: Basis) -> None:
        """Lay a manifold through the module's current weights; the module itself stays as it is.

        Args:
            module: any module whose input is one tensor with the batch along axis 0.
            basis: topology and functions.

        Raises:
            LayoutError: the module has no parameters, or some that cannot be interpolated.
        """
        super().__init__()
        _check_parameters(module)
        self.basis = basis
        one = basis.constant()
        start = torch.zeros(basis.size) if one is None else one
        memo: dict[int, Any] = {
            id(p): nn.Parameter(_outer(start, p.detach()), p.requires_grad)
            for p in module.parameters()
        }
        self.module = copy.deepcopy(module, memo)
        self.offsets = nn.Module()
        for name, p in module.named_parameters() if one is None else ():
            self.keep_offset(name, p.detach().clone())
        self.training = module.training
        self._run = Run()
        attach(self.module, self._run)

    def forward(self, x: Tensor, context: Float[Tensor, "*batch dim"]) -> Any:
        """What the module returns for x with the weights at the contexts.

        Args:
            x: the module's input, shape (B, ...).
            context: shape (dim,) for the whole batch or (B, dim), one for each sample.

        Raises:
            ContextError: a context is outside the topology, or their number is not that of x.
            LayoutError: the module uses weights in a way that a context per sample does not allow.
        """
        phi = self._phi(context)
        if phi.ndim == 1:
            self._run.phi = None
            return functional_call(self.module, self._weights(phi), (x,), tie_weights=False)
        if phi.ndim != 2 or len(phi) != len(x):
            raise ContextError(
                f"got contexts of shape {tuple(context.shape)} for {len(x)} samples; give one "
                f"of shape ({self.basis.topology.dim},) for all of them, or one per sample"
            )
        self._run.phi, self._run.points = self._augmented(phi)
        hidden = {name: off_limits(name, p) for name, p in self._run.points.items()}
        y = functional_call(self.module, hidden, (x,), tie_weights=False)
        self._run.phi, self._run.points = None, {}
        return y

    def weights(self, context: Float[Tensor, "*batch dim"]) -> dict[str, Tensor]:
        """w(c) by the names of the module's parameters, each of shape (*batch, *shape).

        Differentiable in the control points and in the contexts.
        """
        return self._weights(self._phi(context))

    def materialise(self, context: Float[Tensor, " dim"]) -> nn.Module:
        """A plain copy of the module with the weights w(c)."""
        with torch.no_grad():
            weights = self.weights(context)
        memo: dict[int, Any] = {
            id(points): nn.Parameter(weights[name], points.requires_grad)
            for name, points in self.module.named_parameters()
        }
        plain = copy.deepcopy(self.module, memo)
        detach(plain)
        return plain

    def control_points(self) -> list[Tensor]:
        """The control points, each (K, *shape): what `NaturalStep` acts on."""
        return list(self.module.parameters())

    def keep_offset(self, name: str, weights: Tensor) -> None:
        """Add w₀ of one parameter to what its control points give."""
        self.offsets.register_buffer(_plain(name), weights)

    def offset(self) -> State | None:
        """w₀ by the names of the parameters; None where it is zero."""
        kept = dict(self.offsets.named_buffers())
        names = [name for name, _ in self.module.named_parameters()]
        return {name: kept[_plain(name)] for name in names} if kept else None

    def extra_repr(self) -> str:
        """The basis and its size."""
        return f"{type(self.basis).__name__} basis, {self.basis.size} control points"

    def _phi(self, context: Tensor) -> Tensor:
        """φ(c) in float64; bases look at the values of contexts, which a graph cannot."""
        context = context.to(next(self.parameters()).device, torch.float64)
        return outside_graphs(self.basis)(context)

    def _weights(self, phi: Tensor) -> dict[str, Tensor]:
        phi, points = self._augmented(phi)
        of_dtype = {p.dtype: phi.to(p.dtype) for p in points.values()}
        made = {id(p): assemble(of_dtype[p.dtype], p) for p in points.values()}
        return {name: made[id(p)] for name, p in points.items()}

    def _augmented(self, phi: Tensor) -> tuple[Tensor, Points]:
        """φ and the control points; an offset is one point more, with φ = 1."""
        points = _by_owner(self.module)
        offsets = dict(self.offsets.named_buffers())
        if not offsets:
            return phi, points
        whole = {
            id(p): torch.cat([p, offsets[_plain(name)][None]])
            for name, p in self.module.named_parameters()
        }
        phi = torch.cat([phi, torch.ones_like(phi[..., :1])], dim=-1)
        return phi, {name: whole[id(p)] for name, p in points.items()}


def _by_owner(module: nn.Module) -> Points:
    """Parameters by name, tied ones once for each layer that holds them.

    `named_parameters` would either leave some of them out or name a layer twice that has two names.
    """
    return {
        f"{prefix}.{name}".lstrip("."): p
        for prefix, layer in module.named_modules()
        for name, p in layer._parameters.items()
        if p is not None
    }


def _outer(start: Tensor, weights: Tensor) -> Tensor:
    """Outer product start ⊗ weights, shape (K, *shape)."""
    return start.to(weights).reshape(-1, *[1] * weights.ndim) * weights


def _plain(name: str) -> str:
    """The name of a parameter as the name of a buffer, which must not have dots."""
    return name.replace(".", ":")


def _check_parameters(module: nn.Module) -> None:
    """Raise `LayoutError` unless all parameters can be interpolated."""
    named = list(module.named_parameters())
    if not named:
        raise LayoutError("a manifold needs weights, but the module has no parameters")
    for name, p in named:
        if is_lazy(p):
            raise LayoutError(f"{name} has no shape yet; run the lazy module once before")
        if not p.is_floating_point():
            raise LayoutError(
                f"{name} has dtype {p.dtype}, but only floating-point weights lie on a manifold; "
                "make it a buffer"
            )
