"""Fisher information: how much a task's loss cares about each block of weights.

    F = E_x E_{y ~ p(y|x, w)} (∂ log p(y|x, w)/∂w)²

is the diagonal of the Fisher information, averaged over each block. Targets are drawn from the
network's own predictions, so none is read.

Source: Kirkpatrick et al. 2017, eq. (3); targets from the model: Kunstner et al. 2019, sec. 2.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad, vjp, vmap

from cl_manifold.errors import IncompatibleError
from cl_manifold.manifold.layout import Entry, Inputs, Layout, State, tensors_of
from cl_manifold.manifold.likelihood import Likelihood
from cl_manifold.manifold.watching import watching

CHUNK_FLOATS = 1 << 20
"""Per-sample gradients held at once: so many floats, or one module where that is larger."""

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
"""What vmap raises where a network cannot be run on many samples at once."""


def fisher_information(
    module: nn.Module,
    inputs: Inputs,
    layout: Layout,
    likelihood: Likelihood,
    generator: torch.Generator,
) -> Float[Tensor, " B"]:
    """Block averages of F = (1/n) Σ_b g_b², g_b = −∂ log p(y_b|x_b, w)/∂w with y_b ~ p(·|x_b, w).

    One forward and one backward pass over all inputs give, for each layer, its inputs x_b and the
    gradients δ_b of its outputs. A linear layer then needs no gradient per sample, because
    g_b = δ_b x_bᵀ makes F = (1/n) (δ²)ᵀ x². Other common layers use `torch.func` on that layer
    alone. Parameters whose gradient is not the sum of what their layer so explains, because they
    are shared or used elsewhere, are measured through the whole network, all samples at once, or
    one by one where `vmap` refuses.

    Every parameter on the manifold is measured, frozen ones too. Buffers have no gradient: they
    count like the average weight. The module is measured in evaluation mode and left as it was.

    Args:
        module: the network.
        inputs: of n samples.
        layout: which blocks to average over.
        likelihood: what its outputs are.
        generator: draws the targets.

    Returns:
        F in float64, on the CPU.

    Raises:
        IncompatibleError: the network does not return one tensor with the batch along axis 0.
    """
    entries = {e.name: e for e in layout.trained}
    parameters = {n: p for n, p in module.named_parameters() if n in entries}
    count = len(inputs[0])
    with watching(module), _measurable(module, parameters), torch.enable_grad():
        calls, hooks = _listen(module, parameters)
        try:
            outputs = _outputs(module(*inputs), count)
            targets = likelihood.draw(outputs, generator)
            loss = likelihood.loss(outputs, targets)
            used = _gradients(loss, parameters)
        finally:
            for hook in hooks:
                hook.remove()
        squares = _layerwise(module, calls, used, entries, count)
        rest = {n: entries[n] for n in used if n not in squares}
        if rest:
            squares |= _networkwise(module, inputs, targets, likelihood, rest)
    return _assemble(layout, {n: s / count for n, s in squares.items()})


@final
class _Call:
    """One call of one layer: its input and, after the backward pass, its output's gradient."""

    def __init__(self, inputs: tuple[object, ...], output: object) -> None:
        self.x = inputs[0] if len(inputs) == 1 else None
        self.delta: Tensor | None = None
        if isinstance(output, Tensor) and output.requires_grad:
            # a hook set here sees the gradient before any later in-place operation on the output
            output.register_hook(self._receive)

    def _receive(self, gradient: Tensor) -> None:
        self.delta = gradient.detach().clone()


Calls = dict[nn.Module, list[_Call]]


@contextmanager
def _measurable(module: nn.Module, parameters: Mapping[str, Tensor]) -> Iterator[None]:
    """Parameters have gradients inside; afterwards every tensor and flag is what it was."""
    kept = {n: t.detach().clone() for n, t in tensors_of(module).items()}
    flags = {n: p.requires_grad for n, p in parameters.items()}
    for p in parameters.values():
        p.requires_grad_(True)
    try:
        yield
    finally:
        for n, p in parameters.items():
            p.requires_grad_(flags[n])
        with torch.no_grad():
            for n, t in tensors_of(module).items():
                if n in kept and not torch.equal(t, kept[n]) and not bool(t.isnan().any()):
                    t.copy_(kept[n])


def _listen(module: nn.Module, parameters: Mapping[str, Tensor]) -> tuple[Calls, list[Any]]:
    """Record what goes through the layers that own parameters."""
    calls: Calls = {}

    def record(layer: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        calls.setdefault(layer, []).append(_Call(inputs, output))

    wanted = {id(p) for p in parameters.values()}
    layers = [
        layer
        for layer in module.modules()
        if type(layer) in BATCHWISE
        and any(id(p) in wanted for p in layer.parameters(recurse=False))
    ]
    return calls, [layer.register_forward_hook(record) for layer in layers]


def _outputs(outputs: object, count: int) -> Tensor:
    if not isinstance(outputs, Tensor) or not outputs.ndim or len(outputs) != count:
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise IncompatibleError(
            f"the network returns {shape} for {count} inputs, but its information needs one tensor "
            "with the batch along axis 0; wrap the network so that it returns that"
        )
    return outputs


def _gradients(loss: Tensor, parameters: Mapping[str, Tensor]) -> State:
    """Of what the loss depends on."""
    if not loss.requires_grad:
        return {}
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {n: g for n, g in zip(parameters, found, strict=True) if g is not None}


def _layerwise(
    module: nn.Module, calls: Calls, used: State, entries: dict[str, Entry], count: int
) -> State:
    """Σ_b of the block means of g_b² of parameters whose layers explain their whole gradient."""
    budget = max(CHUNK_FLOATS, sum(entries[n].size for n in used))
    squares: State = {}
    for prefix, layer in module.named_modules():
        call = _only(calls.get(layer, []), count)
        names = {n: f"{prefix}.{n}".lstrip(".") for n, _ in layer.named_parameters(recurse=False)}
        local = {n: entries[full] for n, full in names.items() if full in used}
        if call is None or not local:
            continue
        x, delta = call
        if type(layer) is nn.Linear and x.ndim == 2:
            found, sums = _linear(x, delta, local)
        else:
            found, sums = _vmapped(layer, x, delta, local, budget)
        squares |= {names[n]: found[n] for n in local if _explains(sums[n], used[names[n]])}
    return squares


def _only(calls: list[_Call], count: int) -> tuple[Tensor, Tensor] | None:
    """Input and output gradient of a layer called once with all samples."""
    if len(calls) != 1 or not isinstance(calls[0].x, Tensor) or calls[0].delta is None:
        return None
    x, delta = calls[0].x.detach(), calls[0].delta
    fits = x.ndim > 0 and len(x) == count and len(delta) == count
    return (x, delta) if fits else None


def _explains(total: Tensor, gradient: Tensor) -> bool:
    """Whether the per-sample gradients of a layer add up to the gradient of its parameter."""
    a, b = total.double(), gradient.double()
    error = 1e-2 if gradient.dtype in (torch.half, torch.bfloat16) else 1e-4
    return float((a - b).norm()) <= error * float(b.norm()) + 1e-30


def _linear(x: Tensor, delta: Tensor, entries: dict[str, Entry]) -> tuple[State, State]:
    """F of y = W x + b from squared inputs and squared output gradients, and Σ_b g_b."""
    x, delta = _wide(x), _wide(delta)
    x2, delta2 = x.square(), delta.square()
    found: State = {}
    sums: State = {}
    for name, entry in entries.items():
        if name == "bias":
            found[name], sums[name] = _block_mean(entry, delta2.sum(0)), delta.sum(0)
            continue
        sums[name] = delta.mT @ x
        if entry.blocks == len(delta2.mT):
            found[name] = delta2.mT @ x2.mean(-1)
        elif entry.blocks == 1:
            found[name] = (delta2.mT @ x2.mean(-1)).mean(0, keepdim=True)
        else:
            found[name] = _block_mean(entry, delta2.mT @ x2)
    return found, sums


def _vmapped(
    layer: nn.Module, x: Tensor, delta: Tensor, entries: dict[str, Entry], budget: int
) -> tuple[State, State]:
    """F of one layer from its per-sample vector-Jacobian products, in chunks, and Σ_b g_b."""
    parameters = {n: p.detach() for n, p in layer.named_parameters(recurse=False) if n in entries}

    def gradients(xb: Tensor, db: Tensor) -> State:
        pullback = vjp(lambda p: functional_call(layer, p, (xb[None],)), parameters)[1]
        return pullback(db[None])[0]

    chunk = max(1, budget // sum(p.numel() for p in parameters.values()))
    total: State = {}
    sums: State = {n: torch.zeros_like(p) for n, p in parameters.items()}
    for xb, db in zip(x.split(chunk), delta.split(chunk), strict=True):
        found = vmap(gradients)(xb, db)
        _accumulate(total, found, entries)
        sums = {n: s + found[n].sum(0) for n, s in sums.items()}
    return total, sums


def _networkwise(
    module: nn.Module,
    inputs: Inputs,
    targets: Tensor,
    likelihood: Likelihood,
    entries: dict[str, Entry],
) -> State:
    """Σ_b of the block means of g_b² through the whole network."""
    parameters = {n: p for n, p in module.named_parameters() if n in entries}
    chunk = max(1, CHUNK_FLOATS // sum(p.numel() for p in parameters.values()))

    def loss(p: State, yb: Tensor, *sample: Tensor) -> Tensor:
        outputs = functional_call(module, p, tuple(column[None] for column in sample))
        return likelihood.loss(outputs, yb[None])

    parts = zip(targets.split(chunk), *(column.split(chunk) for column in inputs), strict=True)
    detached = {n: p.detach() for n, p in parameters.items()}
    total: State = {}
    try:
        for part in parts:
            dims = (None, *(0 for _ in part))
            _accumulate(total, vmap(grad(loss), in_dims=dims)(detached, *part), entries)
    except REFUSALS:
        return _one_by_one(module, inputs, targets, likelihood, entries)
    return total


def _one_by_one(
    module: nn.Module,
    inputs: Inputs,
    targets: Tensor,
    likelihood: Likelihood,
    entries: dict[str, Entry],
) -> State:
    """The same in a loop over samples, for what `vmap` refuses: GRU, max_norm, task labels."""
    parameters = {n: p for n, p in module.named_parameters() if n in entries}
    total: State = {}
    for b in range(len(targets)):
        outputs = module(*(column[b : b + 1] for column in inputs))
        found = _gradients(likelihood.loss(outputs, targets[b : b + 1]), parameters)
        _accumulate(total, {n: g[None] for n, g in found.items()}, entries)
    return total


def _accumulate(total: State, gradients: State, entries: dict[str, Entry]) -> None:
    """Adds block means of squares, which are never taken in place: gradients may share memory."""
    for name, g in gradients.items():
        mean = _block_mean(entries[name], _wide(g).square().sum(0))
        total[name] = total[name] + mean if name in total else mean


def _block_mean(entry: Entry, full: Tensor) -> Tensor:
    return full.reshape(entry.blocks, -1).mean(-1)


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(torch.float32, values.dtype))


def _assemble(layout: Layout, squares: State) -> Float[Tensor, " B"]:
    """One vector over all blocks: 0 for parameters that the task did not use."""
    information = torch.zeros(layout.blocks, dtype=torch.float64)
    weighted = 0.0
    for e in layout.trained:
        if e.name in squares:
            value = squares[e.name].detach().double().cpu()
            information[e.part] = value
            weighted += float(value.mean()) * e.size
    average = weighted / sum(e.size for e in layout.trained)
    for e in layout.entries:
        if not e.trained:
            information[e.part] = average
    return information
