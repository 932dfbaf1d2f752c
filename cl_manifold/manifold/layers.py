"""How each kind of layer runs with a context per sample. Knows nothing about whole networks."""

import copy
import warnings
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized
from torch.utils._pytree import tree_flatten, tree_unflatten

from cl_manifold.errors import LayoutError
from cl_manifold.manifold import batched
from cl_manifold.manifold.batched import Window

Points = dict[str, Tensor]
"""The control points of one layer by the names of its parameters, each (K, *shape)."""
Rule = Callable[[Any, Tensor, Tensor, Points], Tensor]
"""(layer, x, φ, control points) to what the layer returns with a context per sample."""


class Run:
    """What the layers of one network must know while it runs with a context per sample.

    Attributes:
        phi: φ, shape (B, K); None while layers run as they are.
        points: the control points by name, each (K, *shape).
    """

    def __init__(self) -> None:
        self.phi: Tensor | None = None
        self.points: Points = {}


@final
class SampledForward:
    """Stands in for the `forward` of a layer with weights, and runs it at a context per sample."""

    def __init__(self, name: str, layer: nn.Module, run: Run) -> None:
        self.name, self.layer, self.run = name, layer, run
        self.replaced: Callable[..., Any] | None = vars(layer).get("forward")
        self.rule = rule_of(layer)
        self.plain = without_weights(layer) if isinstance(layer, NORMS) else layer
        self.warned = False

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """The layer's own forward, its batched form, or vmap over samples."""
        phi = self.run.phi
        if phi is None:
            if self.replaced is not None:
                return self.replaced(*inputs, **options)
            return type(self.layer).forward(self.layer, *inputs, **options)
        prefix = f"{self.name}." if self.name else ""
        points = {
            n.removeprefix(prefix): p for n, p in self.run.points.items() if n.startswith(prefix)
        }
        if self.rule is not None:
            self.plain.training = self.layer.training
            (x,) = (*inputs, *options.values())
            return self.rule(self.plain, x, phi, points)
        self.run.phi = None
        y = outside_graphs(self._by_sample)(phi, points, inputs, options)
        self.run.phi = phi
        return y

    def _by_sample(
        self, phi: Tensor, points: Points, inputs: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        """The layer in vmap over samples, each with weights of its own."""
        self._warn()
        self._check(phi, inputs, options)
        dims = tuple(0 if isinstance(v, Tensor) else None for v in inputs)
        rest: list[Any] = []

        def one(weights: Points, *sample: Any) -> list[Tensor]:
            alone = [v[None] if isinstance(v, Tensor) else v for v in sample]
            leaves, spec = tree_flatten(functional_call(self.layer, weights, tuple(alone), options))
            kinds = [isinstance(v, Tensor) for v in leaves]
            rest[:] = [spec, [None if t else v for t, v in zip(kinds, leaves, strict=True)], kinds]
            return [v.squeeze(0) for v in leaves if isinstance(v, Tensor)]

        weights = {n: batched.assemble(phi, p) for n, p in points.items()}
        buffers = dict(self.layer.named_buffers())
        try:
            found = iter(vmap(one, in_dims=(0, *dims), randomness="different")(weights, *inputs))
        except (RuntimeError, ValueError) as error:
            raise self._impossible(str(error).splitlines()[0]) from error
        for name, buffer in self.layer.named_buffers():
            if buffer is not buffers.get(name):
                raise self._impossible(f"it replaced its buffer {name} by one for each sample")
        spec, others, kinds = rest
        leaves = [next(found) if t else v for t, v in zip(kinds, others, strict=True)]
        return tree_unflatten(leaves, spec)

    def _check(self, phi: Tensor, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Raise `LayoutError` unless it is plain which axes are the batch."""
        if any(isinstance(v, Tensor) for v in options.values()):
            raise self._impossible(
                "of tensors given by keyword it is not known if they are batches"
            )
        for layer in self.layer.modules():
            if getattr(layer, "batch_first", True) is False:
                raise self._impossible("its batch is not axis 0, which needs batch_first=True")
        for v in inputs:
            if isinstance(v, Tensor):
                check_batch(self.layer, v, phi, 1)

    def _impossible(self, reason: str) -> LayoutError:
        return LayoutError(
            f"{self._text} cannot run with a context per sample ({reason}); "
            "give the batch one context, or replace the layer"
        )

    def _warn(self) -> None:
        if not self.warned:
            self.warned = True
            warnings.warn(
                f"{self._text} has no batched form and runs sample by sample with weights of its "
                "own, which is slow; give the batch one context, or use linear, convolution, norm "
                "and embedding layers",
                stacklevel=2,
            )

    @property
    def _text(self) -> str:
        return f"layer {self.name or '(the module itself)'} of type {type(self.layer).__name__}"


def outside_graphs(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself; within torch.compile, what runs it outside of the graph."""
    return torch.compiler.disable(function) if torch.compiler.is_compiling() else function


class _OffLimits(Tensor):
    """Stands in for a weight while samples have weights of their own; it can only be looked at."""

    parameter: str

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Shape, device and dtype; an error for anything else.

        Raises:
            LayoutError: the weight was used.
        """
        if func in _LOOKS:
            return super().__torch_function__(func, types, args, kwargs)
        leaves, _ = tree_flatten((args, kwargs or {}))
        name = next(v.parameter for v in leaves if isinstance(v, cls))
        raise LayoutError(
            f"{name} was used outside the forward of its layer, where it has no value of its own "
            "for each sample; call the layer, or give the batch one context"
        )


_SEEN = ("shape", "device", "dtype", "ndim", "layout", "is_cuda", "requires_grad")
_LOOKS = {getattr(Tensor, name).__get__ for name in _SEEN} | {Tensor.size, Tensor.dim, Tensor.numel}


def off_limits(name: str, points: Tensor) -> Tensor:
    """A tensor in place of the weight with these control points, which raises where it is used.

    In a graph of torch.compile it is a plain tensor of NaN.
    """
    nan = torch.full((), torch.nan, device=points.device, dtype=points.dtype)
    nan = nan.expand(points.shape[1:])
    if torch.compiler.is_compiling():
        return nan
    hidden = nan.as_subclass(_OffLimits)
    hidden.parameter = name
    return hidden


def attach(module: nn.Module, run: Run) -> None:
    """Let every layer with weights look at `run` when it is called."""
    for name, layer in module.named_modules():
        if not isinstance(layer, _CONTAINERS) and _has_weights(layer):
            layer.forward = SampledForward(name, layer, run)


def detach(module: nn.Module) -> None:
    """The inverse of `attach`."""
    for layer in module.modules():
        ours = vars(layer).get("forward")
        if isinstance(ours, SampledForward):
            del layer.forward
            if ours.replaced is not None:
                layer.forward = ours.replaced


_CONTAINERS = (nn.ParameterList, nn.ParameterDict)


def _has_weights(layer: nn.Module) -> bool:
    """Whether the layer itself, not one of the layers in it, has parameters."""
    if any(p is not None for p in layer._parameters.values()) or is_parametrized(layer):
        return True
    return any(isinstance(child, _CONTAINERS) for child in layer.children())


def rule_of(layer: nn.Module) -> Rule | None:
    """The batched form of a layer, or None where there is none.

    A subclass counts as its base as long as it keeps the base's `forward` and parameters.

    Raises:
        LayoutError: the layer changes its own weights while it runs.
    """
    for base in type(layer).__mro__:
        if base in RULES and _runs_like(layer, base):
            return RULES[base]
    return None


def _runs_like(layer: Any, base: Any) -> bool:
    """Whether nothing about the layer differs from a plain `base`."""
    same = "forward" not in vars(layer) and type(layer).forward is base.forward
    if hasattr(base, "_conv_forward"):
        same = same and type(layer)._conv_forward is base._conv_forward
    if isinstance(layer, nn.Embedding):
        if layer.max_norm is not None or layer.sparse:
            raise LayoutError(
                "an Embedding with max_norm or sparse=True changes single rows of its weights, "
                "which control points cannot follow; build it without them"
            )
        same = same and not layer.scale_grad_by_freq
    return same and set(layer._parameters) <= {"weight", "bias"} and not list(layer.children())


def without_weights(layer: nn.Module) -> nn.Module:
    """The same norm layer, running statistics shared, that does not scale and shift."""
    bare = copy.copy(layer)
    vars(bare)["_parameters"] = dict.fromkeys(layer._parameters)
    return bare


def check_batch(layer: nn.Module, x: Tensor, phi: Tensor, axes: int) -> None:
    """Raise `LayoutError` unless axis 0 of a layer's input is the batch."""
    if x.ndim < axes or len(x) != len(phi):
        raise LayoutError(
            f"{type(layer).__name__} got an input of shape {tuple(x.shape)} beside {len(phi)} "
            "contexts; with a context per sample, axis 0 of every layer's input must be the batch"
        )


def _linear(layer: nn.Linear, x: Tensor, phi: Tensor, points: Points) -> Tensor:
    check_batch(layer, x, phi, 2)
    return batched.linear(x, phi, points["weight"], points.get("bias"))


def _convolution(layer: Any, x: Tensor, phi: Tensor, points: Points) -> Tensor:
    check_batch(layer, x, phi, points["weight"].ndim - 1)
    padding = layer.padding
    if layer.padding_mode != "zeros":
        x = F.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode)
        padding = (0,) * len(layer.kernel_size)
    window = Window(layer.stride, padding, layer.dilation, layer.groups)
    return batched.convolution(x, phi, points["weight"], points.get("bias"), window)


def _embedding(layer: nn.Embedding, index: Tensor, phi: Tensor, points: Points) -> Tensor:
    check_batch(layer, index, phi, 1)
    return batched.embedding(index, phi, points["weight"], layer.padding_idx)


def _norm(layer: Any, x: Tensor, phi: Tensor, points: Points) -> Tensor:
    """Weights of the last axes where the layer has a `normalized_shape`, else of the channels."""
    shape = getattr(layer, "normalized_shape", None)
    check_batch(layer, x, phi, 2 if shape is None else 1 + len(shape))
    axis = 1 if shape is None else x.ndim - len(shape)
    plain = type(layer).forward(layer, x)
    return batched.affine(plain, phi, points.get("weight"), points.get("bias"), axis)


NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.GroupNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.LayerNorm,
    nn.RMSNorm,
)
RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Conv3d: _convolution,
    nn.Embedding: _embedding,
    **dict.fromkeys(NORMS, _norm),
}
