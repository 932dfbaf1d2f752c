"""Fisher information: how much a task's loss cares about each block of weights.

    F = E_x E_{y ~ p(y|x, w)} (∂ log p(y|x, w)/∂w)²

is the diagonal of the Fisher information, averaged over each block. Targets are drawn from the
network's own predictions, so none is read.

Source: Kirkpatrick et al. 2017, eq. (3); targets from the model: Kunstner et al. 2019, sec. 2.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from warnings import catch_warnings, filterwarnings

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from cl_manifold.errors import IncompatibleError, InformationError
from cl_manifold.manifold.layerwise import (
    CHUNK_FLOATS,
    REFUSALS,
    accumulate,
    called_once,
    explained_names,
    layer_squares,
    listening,
    pulled_back,
)
from cl_manifold.manifold.layout import Entry, Inputs, Layout, State, tensors_of
from cl_manifold.manifold.likelihood import Likelihood
from cl_manifold.manifold.watching import watching

SampleLoss = Callable[..., Tensor]
"""From parameters, a target and one sample of each input to −log p."""


def fisher_information(
    module: nn.Module,
    inputs: Inputs,
    layout: Layout,
    likelihood: Likelihood,
    generator: torch.Generator,
) -> Float[Tensor, " B"]:
    """Block averages of F = (1/n) Σ_b g_b², g_b = −∂ log p(y_b|x_b, w)/∂w with y_b ~ p(·|x_b, w).

    One forward and one backward pass over all inputs give, for each common layer, what went in and
    the gradient that came back, and so its parameters' squared gradients (`layerwise`). Parameters
    that this does not explain, because they are shared or used elsewhere, are measured through the
    whole network, all samples at once, or one by one where `vmap` refuses.

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
        IncompatibleError: the network does not return one tensor with the batch along axis 0, or
            cannot be run on one sample.
        InformationError: there are no inputs, or the outputs are not numbers.
    """
    entries = {e.name: e for e in layout.trained}
    parameters = {n: t for n, t in layout.tensors(module).items() if n in entries}
    count = len(inputs[0])
    if count == 0:
        raise InformationError("information is measured on samples, and there are none; give some")
    with watching(module), _restored(module), _measurable(parameters), catch_warnings():
        filterwarnings("ignore", "There is a performance drop")  # vmap loops over an operation
        names = explained_names(module, parameters, inputs, likelihood)
        with listening(names) as calls:
            outputs = _outputs(module(*inputs), count)
        targets = likelihood.draw(outputs, generator)
        known = called_once(calls, names, count)
        inside = {full for k in known for full in k.names.values()}
        rest = {n: p for n, p in parameters.items() if n not in inside}
        deltas, used = pulled_back(likelihood.loss(outputs, targets), known, rest)
        squares: State = {}
        budget = max(CHUNK_FLOATS, sum(p.numel() for p in parameters.values()))
        for k, delta in zip(known, deltas, strict=True):
            if delta is not None:
                squares |= layer_squares(k, delta, entries, budget)
        if used:
            needed, columns = {n: rest[n] for n in used}, (targets, *inputs)
            squares |= _networkwise(module, likelihood, outputs, columns, needed, entries)
    return _assemble(layout, {n: s / count for n, s in squares.items()})


@contextmanager
def _measurable(parameters: Mapping[str, Tensor]) -> Iterator[None]:
    """All of them have gradients inside, whatever the caller switched off."""
    flags = [(p, p.requires_grad) for p in parameters.values()]
    try:
        for p, _ in flags:
            p.requires_grad_(True)
        with torch.enable_grad():
            yield
    finally:
        for p, flag in flags:
            p.requires_grad_(flag)


@contextmanager
def _restored(module: nn.Module) -> Iterator[None]:
    """Afterwards every tensor and attribute of the module is the one it was, with equal bits."""
    owners = [m for m in module.modules() if not isinstance(m, torch.jit.ScriptModule)]
    places: list[dict[str, Any]] = [d for m in owners for d in (vars(m), m._parameters, m._buffers)]
    before = [dict(place) for place in places]
    kept = [(t, t.detach().clone()) for t in tensors_of(module).values()]
    try:
        yield
    finally:
        for place, values in zip(places, before, strict=True):
            place.clear()
            place.update(values)
        with torch.no_grad():
            for t, values in kept:
                if not torch.equal(t, values) and not _equal_nan(t, values):
                    t.copy_(values)


def _equal_nan(a: Tensor, b: Tensor) -> bool:
    return bool(((a == b) | (a.isnan() & b.isnan())).all())


def _outputs(outputs: object, count: int) -> Tensor:
    if not isinstance(outputs, Tensor) or not outputs.ndim or len(outputs) != count:
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise IncompatibleError(
            f"the network returns {shape} for {count} inputs, but its information needs one tensor "
            "with the batch along axis 0; wrap the network so that it returns that"
        )
    if bool(outputs.isnan().any()):
        raise InformationError(
            "the network's outputs hold values that are not a number, so nothing can be said about "
            "its weights; lower the learning rate, or clean the data"
        )
    return outputs


def _networkwise(
    module: nn.Module,
    likelihood: Likelihood,
    outputs: Tensor,
    columns: Inputs,
    parameters: State,
    entries: Mapping[str, Entry],
) -> State:
    """Σ_b of the block means of g_b² through the whole network.

    Args:
        module: the network.
        likelihood: what its outputs are.
        outputs: of all samples, for their shape: networks may drop an axis of length one.
        columns: targets and inputs.
        parameters: to measure.
        entries: of the layout, by name.
    """
    shape = outputs.shape[1:]

    def loss(weights: State, target: Tensor, *sample: Tensor) -> Tensor:
        run = functional_call(module, weights, tuple(column[None] for column in sample))
        return likelihood.loss(run.reshape(1, *shape), target[None])

    def scripted_loss(weights: State, target: Tensor, *sample: Tensor) -> Tensor:
        run = module(*(column[None] for column in sample))
        return likelihood.loss(run.reshape(1, *shape), target[None])

    if any(isinstance(m, torch.jit.ScriptModule) for m in module.modules()):
        return _one_by_one(scripted_loss, columns, parameters, entries)
    # not the parameters themselves: a method may have put hooks on their gradients
    leaves = {n: p.detach().requires_grad_() for n, p in parameters.items()}
    try:
        return _all_at_once(loss, columns, leaves, entries)
    except REFUSALS:
        return _one_by_one(loss, columns, leaves, entries)


def _all_at_once(
    loss: SampleLoss, columns: Inputs, parameters: State, entries: Mapping[str, Entry]
) -> State:
    """By `vmap`, in chunks."""
    detached = {n: p.detach() for n, p in parameters.items()}
    chunk = max(1, CHUNK_FLOATS // sum(p.numel() for p in parameters.values()))
    each = vmap(grad(loss), in_dims=(None, *(0 for _ in columns)))
    total: State = {}
    for part in zip(*(column.split(chunk) for column in columns), strict=True):
        accumulate(total, each(detached, *part), entries)
    return total


def _one_by_one(
    loss: SampleLoss, columns: Inputs, parameters: State, entries: Mapping[str, Entry]
) -> State:
    """In a loop over samples, for what `vmap` refuses: GRU, max_norm, task labels."""
    total: State = {}
    for sample in zip(*columns, strict=True):
        try:
            _, found = pulled_back(loss(parameters, *sample), [], parameters)
        except REFUSALS as error:
            raise IncompatibleError(
                "the information of some weights is measured sample by sample, and the network "
                f"fails on a batch of one ({' '.join(str(error).split())[:200]}); make its forward "
                "pass accept one sample"
            ) from error
        accumulate(total, {n: g[None] for n, g in found.items()}, entries)
    return total


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
