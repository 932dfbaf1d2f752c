"""Information: how much a finished task's loss cares about each block of weights.

    F = E_x E_{y ~ p(y|x, w)} (∂ log p(y|x, w)/∂w)²

is the diagonal of the Fisher information, averaged over each block. Labels are drawn from the model
itself, so no target is read.

Source: Kirkpatrick et al. 2017, eq. (3); labels from the model: Kunstner et al. 2019, sec. 2.
"""

from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, grad, vjp, vmap

from cl_manifold.errors import InformationError
from cl_manifold.manifold.layout import Entry, Layout

Forward = Callable[[Tensor], Tensor]
Blocks = dict[str, Tensor]

CHUNK_FLOATS = 1 << 20
"""Per-sample gradients held at once: so many floats, or one module where that is larger."""


@final
class FisherInformation:
    """Mean squared per-sample gradient on a random subset of the task's data.

    Args:
        samples: how many inputs are used at most.
    """

    def __init__(self, samples: int = 256) -> None:
        if samples < 1:
            raise ValueError(f"samples must be 1 or more, got {samples}")
        self.samples = samples

    def __call__(self, module, inputs, layout, likelihood, generator) -> Float[Tensor, " B"]:
        """F of every block of the layout, for a module in evaluation mode."""
        was = module.training
        module.eval()
        f = fisher_information(module, lambda x: module(*inputs), inputs[0], layout, generator)
        module.train(was)
        return f.cpu()


@final
class ExactInformation:
    """F = ∞: the finished task's weights must not move at all. Reads no data."""

    samples = 0

    def __call__(self, module, inputs, layout, likelihood, generator) -> Float[Tensor, " B"]:
        """∞ for every block."""
        return torch.full((layout.blocks,), torch.inf, dtype=torch.float64)


def fisher_information(
    module: nn.Module,
    forward: Forward,
    inputs: Float[Tensor, "n ..."],
    layout: Layout,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " B"]:
    """Block averages of F = (1/n) Σ_b g_b², g_b = ∂ log p(y_b|x_b, w)/∂w with y_b ~ p(·|x_b, w).

    One forward and one backward pass over all inputs give, for each layer, its inputs x_b and the
    gradients δ_b of its outputs. A linear layer then needs no gradient per sample, because
    g_b = δ_b x_bᵀ makes F = (1/n) (δ²)ᵀ x². Other layers use `torch.func` on that layer alone, in
    chunks no larger than the module. Where a parameter is shared, used outside its own layer or
    in a layer called more than once, `torch.func` runs on the whole network.
    Frozen parameters have no information. Buffers have no gradient: they are held as firmly as the
    average parameter.

    Args:
        module: the network, in evaluation mode.
        forward: from inputs to logits; for a plain network, the module itself.
        inputs: a batch.
        layout: which blocks to average over.
        generator: source of the labels; torch's global one if None.
    """
    owners = {
        f"{prefix}.{name}".lstrip("."): layer
        for prefix, layer in module.named_modules()
        for name, _ in layer.named_parameters(recurse=False)
    }
    calls: dict[nn.Module, list[_Call]] = {}
    trained = {e.name: e for e in layout.trained}
    parameters = {n: p for n, p in module.named_parameters() if n in trained and p.requires_grad}
    layers = {owners[name] for name in parameters}
    hooks = [layer.register_forward_hook(_recorder(calls)) for layer in layers]
    try:
        with torch.enable_grad():
            logits = forward(inputs)
            labels = draw_labels(logits, generator)
            loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
            used = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    finally:
        for hook in hooks:
            hook.remove()
    active = {n for n, g in zip(parameters, used, strict=True) if g is not None}
    del used
    if all(_separable(calls.get(owners[n]), len(inputs)) for n in active) and not _tied(module):
        squares = _layerwise(calls, active, owners, trained)
    else:
        squares = _networkwise(module, inputs, labels, {n: trained[n] for n in active})
    return _assemble(layout, {n: s / len(inputs) for n, s in squares.items()})


def draw_labels(
    logits: Float[Tensor, "n classes"], generator: torch.Generator | None = None
) -> Int[Tensor, " n"]:
    """One label per row from softmax(logits)."""
    probabilities = logits.detach().float().softmax(-1)
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)


class _Call:
    """One call of one layer: its input and, after the backward pass, its output's gradient."""

    def __init__(self, inputs: tuple[object, ...], output: object) -> None:
        self.x = inputs[0] if len(inputs) == 1 else None
        self.delta: Tensor | None = None
        if isinstance(output, Tensor) and output.requires_grad:
            # a hook set here sees the gradient before any later in-place operation on the output
            output.register_hook(self._receive)

    def _receive(self, gradient: Tensor) -> None:
        self.delta = gradient.detach()


def _recorder(calls: dict[nn.Module, list[_Call]]) -> Callable[..., None]:
    def record(layer: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        calls.setdefault(layer, []).append(_Call(inputs, output))

    return record


def _separable(calls: list[_Call] | None, count: int) -> bool:
    """Whether a layer was called once, with one tensor in and one out, both with all samples."""
    if calls is None or len(calls) != 1:
        return False
    call = calls[0]
    if not isinstance(call.x, Tensor) or call.delta is None or not call.x.ndim:
        return False
    return call.x.shape[0] == count and call.delta.shape[0] == count


def _tied(module: nn.Module) -> bool:
    every = [p for _, p in module.named_parameters(remove_duplicate=False)]
    return len(every) != len({id(p) for p in every})


def _layerwise(
    calls: dict[nn.Module, list[_Call]],
    active: set[str],
    owners: dict[str, nn.Module],
    entries: dict[str, Entry],
) -> Blocks:
    """Σ_b of the block means of g_b², layer by layer."""
    budget = max(CHUNK_FLOATS, sum(e.size for e in entries.values()))
    squares: Blocks = {}
    for layer in {owners[n] for n in active}:
        (call,) = calls[layer]
        x, delta = call.x, call.delta
        assert isinstance(x, Tensor)
        assert delta is not None
        local = {n.rpartition(".")[2]: entries[n] for n in active if owners[n] is layer}
        if type(layer) is nn.Linear and x.ndim == 2:
            found = _linear(x.detach().square(), delta.square(), local)
        else:
            found = _vmapped(layer, x.detach(), delta, local, budget)
        squares |= {local[name].name: value for name, value in found.items()}
    return squares


def _linear(x2: Tensor, delta2: Tensor, entries: dict[str, Entry]) -> Blocks:
    """F of y = W x + b from squared inputs and squared output gradients."""
    found: Blocks = {}
    for name, entry in entries.items():
        if name == "bias":
            found[name] = _block_mean(entry, delta2.sum(0))
        elif entry.blocks == entry.size:
            found[name] = (delta2.mT @ x2).reshape(-1)
        else:
            rows = delta2.mT @ x2.mean(-1)
            found[name] = rows if entry.blocks > 1 else rows.mean(0, keepdim=True)
    return found


def _vmapped(
    layer: nn.Module, x: Tensor, delta: Tensor, entries: dict[str, Entry], budget: int
) -> Blocks:
    """F of one layer from its per-sample vector-Jacobian products, in chunks."""
    parameters = {n: p.detach() for n, p in layer.named_parameters(recurse=False) if n in entries}

    def gradients(xb: Tensor, db: Tensor) -> dict[str, Tensor]:
        pullback = vjp(lambda p: functional_call(layer, p, (xb[None],)), parameters)[1]
        return pullback(db[None])[0]

    chunk = max(1, budget // sum(p.numel() for p in parameters.values()))
    total: Blocks = {}
    for xb, db in zip(x.split(chunk), delta.split(chunk), strict=True):
        _accumulate(total, vmap(gradients)(xb, db), entries)
    return total


def _networkwise(
    module: nn.Module, inputs: Tensor, labels: Tensor, entries: dict[str, Entry]
) -> Blocks:
    """Σ_b of the block means of g_b² of the whole network, in chunks."""
    parameters = {n: p.detach() for n, p in module.named_parameters() if n in entries}
    chunk = max(1, CHUNK_FLOATS // sum(p.numel() for p in parameters.values()))

    def loss(p: dict[str, Tensor], xb: Tensor, yb: Tensor) -> Tensor:
        logits = functional_call(module, p, (xb[None],))
        return nn.functional.cross_entropy(logits, yb[None])

    total: Blocks = {}
    for xb, yb in zip(inputs.split(chunk), labels.split(chunk), strict=True):
        gradients = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, xb, yb)
        _accumulate(total, gradients, entries)
    return total


def _accumulate(total: Blocks, gradients: dict[str, Tensor], entries: dict[str, Entry]) -> None:
    for name, g in gradients.items():
        mean = _block_mean(entries[name], g.square_().sum(0))
        total[name] = total[name] + mean if name in total else mean


def _block_mean(entry: Entry, full: Tensor) -> Tensor:
    return full.reshape(entry.blocks, -1).mean(-1)


def _assemble(layout: Layout, squares: Blocks) -> Float[Tensor, " B"]:
    """One vector over all blocks: 0 for parameters that the task did not use."""
    device = next((s.device for s in squares.values()), None)
    information = torch.zeros(layout.blocks, dtype=torch.float64, device=device)
    weighted = count = 0.0
    for e in layout.trained:
        if e.name in squares:
            value = squares[e.name].double()
            information[e.block_start : e.block_start + e.blocks] = value
            weighted += float(value.mean()) * e.size
        count += e.size
    for e in layout.entries:
        if not e.trained:
            information[e.block_start] = weighted / count
    return information


def normalised(
    information: Float[Tensor, " B"], sizes: Float[Tensor, " B"], scale: float
) -> Float[Tensor, " B"]:
    """F = scale · F / (Σ_b s_b F_b / Σ_b s_b); infinite information stays as it is.

    Args:
        information: F ≥ 0 per block.
        sizes: s, the number of weights of each block.
        scale: what the mean over weights becomes.

    Raises:
        InformationError: zero everywhere, negative, not a number, or infinite in places only.
    """
    if bool(information.isinf().all()) and bool((information > 0).all()):
        return information
    if not bool((information.isfinite() & (information >= 0)).all()):
        raise InformationError(
            "the information of a task must be 0 or more and finite in every block, or infinite "
            f"in all of them, but holds {information.min():g} to {information.max():g}; check the "
            "loss and the inputs for values that are not finite"
        )
    mean = (information * sizes).sum() / sizes.sum()
    if float(mean) <= 0:
        raise InformationError(
            "the information of the task is zero everywhere, so nothing would protect it: its "
            "outputs do not depend on the weights on the manifold; check the network's output"
        )
    return scale * information / mean
