"""Squared per-sample gradients of single layers, from what went into them and what came back.

A layer with inputs x_b whose outputs have the gradients δ_b gives its own parameters the gradients
g_b = (∂ outputs_b/∂w)ᵀ δ_b. For y = W x + b these are δ_b x_bᵀ and δ_b, so that Σ_b g_b² is
(δ²)ᵀ x² and no gradient per sample is needed. Other layers use `torch.func` on themselves alone.

That holds where axis 0 is the batch, and where the layer explains the whole gradient of its
parameters: not if they are shared, or used outside it, or it is called twice. Both are tested on a
few samples.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call, vjp, vmap

from cl_manifold.manifold.layout import Entry, Inputs, State
from cl_manifold.manifold.likelihood import Likelihood

BATCHWISE = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.PReLU,
)
"""Layers that in evaluation treat every row of axis 0 alike and alone."""

REFUSALS = (RuntimeError, ValueError, NotImplementedError, TypeError, IndexError, AttributeError)
"""What a network raises that cannot be run on so many samples, or inside vmap."""

CHUNK_FLOATS = 1 << 20
"""Per-sample gradients held at once: so many floats, or one module where that is larger."""

Names = dict[nn.Module, dict[str, str]]
"""Of layers: their own names of their parameters, and the names in the network."""


class Call(NamedTuple):
    """One call of one layer: what went in, and where the gradient of what came out passes."""

    x: Tensor
    edge: GradientEdge
    rows: int


Calls = dict[nn.Module, list[Call | None]]


@final
class Explained(NamedTuple):
    """A layer that explains the gradients of some of its parameters."""

    layer: nn.Module
    call: Call
    names: dict[str, str]


def common_layers(module: nn.Module, parameters: Mapping[str, Tensor]) -> Names:
    """Layers of known kinds that own some of the parameters."""
    found: Names = {}
    for prefix, layer in module.named_modules():
        if type(layer) in BATCHWISE:
            own = {n: f"{prefix}.{n}".lstrip(".") for n, _ in layer.named_parameters()}
            found[layer] = {n: full for n, full in own.items() if full in parameters}
    return {layer: names for layer, names in found.items() if names}


@contextmanager
def listening(layers: Iterable[nn.Module]) -> Iterator[Calls]:
    """Every call of these layers inside; None for one that is not from one tensor to another."""
    calls: Calls = {}

    def record(layer: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        calls.setdefault(layer, []).append(_call(inputs, output))

    hooks = [layer.register_forward_hook(record) for layer in layers]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _call(inputs: tuple[object, ...], output: object) -> Call | None:
    if len(inputs) != 1 or not isinstance(output, Tensor) or not output.requires_grad:
        return None
    x = inputs[0]
    if not isinstance(x, Tensor) or not x.ndim or not output.ndim or len(x) != len(output):
        return None
    # the edge is that of the output before any later in-place operation on it
    return Call(x.detach(), get_gradient_edge(output), len(x))


def called_once(calls: Calls, names: Names, count: int) -> list[Explained]:
    """The layers that were called once, with that many rows."""
    found = [(layer, made[0]) for layer, made in calls.items() if len(made) == 1]
    return [Explained(ly, c, names[ly]) for ly, c in found if c is not None and c.rows == count]


def explained_names(
    module: nn.Module, parameters: Mapping[str, Tensor], inputs: Inputs, likelihood: Likelihood
) -> Names:
    """Layers with the batch along axis 0, and their parameters whose gradient they explain.

    Tested on two samples (three where the batch has two): a length that does not follow that of
    the batch is not the batch.
    """
    count = len(inputs[0])
    few = 3 if count == 2 else 2
    rows = [i % count for i in range(few)]
    names = common_layers(module, parameters)
    try:
        with listening(names) as calls:
            outputs = module(*(column[rows] for column in inputs))
            targets = likelihood.draw(outputs, torch.Generator().manual_seed(0))
            loss = likelihood.loss(outputs, targets)
        known = called_once(calls, names, few)
        own = {full: parameters[full] for k in known for full in k.names.values()}
        deltas, gradients = pulled_back(loss, known, own)
    except REFUSALS:
        return {}
    found = {
        layer: _explained(layer, call.x, delta, local, gradients)
        for (layer, call, local), delta in zip(known, deltas, strict=True)
        if delta is not None
    }
    return {layer: local for layer, local in found.items() if local}


def pulled_back(
    loss: Tensor, layers: list[Explained], parameters: Mapping[str, Tensor]
) -> tuple[list[Tensor | None], State]:
    """∂ loss/∂ outputs of the layers, and ∂ loss/∂w of the parameters that it depends on."""
    if not loss.requires_grad:
        return [None for _ in layers], {}
    places: list[Any] = [known.call.edge for known in layers]
    places += parameters.values()
    found = torch.autograd.grad(loss, places, allow_unused=True)
    gradients = zip(parameters, found[len(layers) :], strict=True)
    return list(found[: len(layers)]), {n: g for n, g in gradients if g is not None}


def _explained(
    layer: nn.Module, x: Tensor, delta: Tensor, names: dict[str, str], gradients: State
) -> dict[str, str]:
    """Names of the parameters with Σ_b g_b = ∂ loss/∂w, up to rounding."""
    used = {n: gradients[full] for n, full in names.items() if full in gradients}
    if _plain(layer, x):
        # along one random direction u: Σ_b (δ_b x_bᵀ) u = Σ_b δ_b (x_bᵀ u)
        u = torch.randn(x.shape[1], 1, generator=torch.Generator().manual_seed(0)).to(x)
        found = {"weight": delta * (x @ u), "bias": delta}
        used = {n: g @ u[:, 0] if n == "weight" else g for n, g in used.items()}
    else:
        try:
            found = _sample_gradients(layer, x, delta, used)
        except REFUSALS:  # the user's hooks, for example
            return {}
    return {n: names[n] for n, g in used.items() if _adds_up(found[n], g)}


def _adds_up(each: Tensor, total: Tensor) -> bool:
    """‖Σ_b g_b − g‖ is small beside ‖g_b‖ over all b."""
    error = 3e-2 if total.dtype in (torch.half, torch.bfloat16) else 2e-3
    each = wide(each)
    return bool((each.sum(0) - wide(total)).norm() <= error * each.norm())


def _sample_gradients(layer: nn.Module, x: Tensor, delta: Tensor, names: Iterable[str]) -> State:
    """g_b of the layer's parameters, with b along a new axis 0."""
    parameters = {n: p.detach() for n, p in layer.named_parameters() if n in names}

    def pulled(xb: Tensor, db: Tensor) -> State:
        pullback = vjp(lambda p: functional_call(layer, p, (xb[None],)), parameters)[1]
        return pullback(db[None])[0]

    return vmap(pulled)(x, delta)


def _plain(layer: nn.Module, x: Tensor) -> bool:
    """Whether it is y = W x + b on vectors."""
    own = {n for n, _ in layer.named_parameters()}
    return type(layer) is nn.Linear and x.ndim == 2 and own <= {"weight", "bias"}


def layer_squares(
    known: Explained, delta: Tensor, entries: Mapping[str, Entry], budget: int
) -> State:
    """Σ_b of the block means of g_b² of a layer, by the names in the network.

    Args:
        known: the layer.
        delta: the gradient of its output.
        entries: of the layout, by name.
        budget: how many numbers per-sample gradients may take.
    """
    layer, call, names = known
    if _plain(layer, call.x):
        x, delta2 = wide(call.x), wide(delta).square()
        return {full: _linear(entries[full], n, x, delta2) for n, full in names.items()}
    size = sum(entries[full].size for full in names.values())
    chunk = max(1, budget // size)
    squares: State = {}
    for xb, db in zip(call.x.split(chunk), delta.split(chunk), strict=True):
        found = _sample_gradients(layer, xb, db, names)
        accumulate(squares, {names[n]: g for n, g in found.items()}, entries)
    return squares


def _linear(entry: Entry, name: str, x: Tensor, delta2: Tensor) -> Tensor:
    """(δ²)ᵀ x² or Σ_b δ_b², averaged over blocks; over a row, x² is ‖x‖² / in."""
    if name == "bias":
        return block_mean(entry, delta2.sum(0))
    if entry.blocks in (1, delta2.shape[1]):
        x2 = torch.linalg.vector_norm(x, dim=1).square() / x.shape[1]
    else:
        x2 = x.square()
    return block_mean(entry, delta2.mT @ x2)


def accumulate(total: State, gradients: State, entries: Mapping[str, Entry]) -> None:
    """Add Σ_b of block means of g_b²; never in place, since gradients may share memory."""
    for name, each in gradients.items():
        mean = block_mean(entries[name], wide(each).square().sum(0))
        total[name] = total[name] + mean if name in total else mean


def block_mean(entry: Entry, full: Tensor) -> Tensor:
    """The mean of each block of a whole tensor, or of one mean per row."""
    return full.reshape(entry.blocks, -1).mean(-1)


def wide(values: Tensor) -> Tensor:
    """At least float32."""
    return values.to(torch.promote_types(torch.float32, values.dtype))
