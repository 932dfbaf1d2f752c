"""What "right" means, recomputed from the recordings alone."""

import io
from typing import Any, final

import torch
from avalanche.logging import TextLogger
from mlflow import MlflowClient
from torch import Tensor

from cl_manifold.tracking.logger import MlflowLogger

from . import interface
from .recording import Run, Snapshot, State, perform, same

MARGIN = 0.1
"""How much accuracy an earlier task may lose under default information."""


def close(a: Tensor, b: Tensor, precision: float = 1e-5) -> bool:
    """Equal up to rounding, on the part that both have: a head may have grown in between."""
    if a.ndim != b.ndim:
        return False
    common = tuple(slice(min(m, n)) for m, n in zip(a.shape, b.shape, strict=True))
    a, b = a[common].detach(), b[common].detach()
    if not a.dtype.is_floating_point and not a.dtype.is_complex:
        return bool((a == b).all())
    precision = max(precision, 8 * torch.finfo(a.dtype).eps)
    wide = torch.complex128 if a.dtype.is_complex else torch.float64
    a, b = a.to(wide), b.to(wide)
    scale = float(a[a.isfinite()].abs().max()) if bool(a.isfinite().any()) else 0.0
    same = (a == b) | (a.isnan() & b.isnan())
    return bool((same | ((a - b).abs() <= precision * scale + 1e-9)).all())


def unlike(a: State, b: State, precision: float = 1e-5) -> list[str]:
    """Names of the tensors that differ, among those that both have."""
    return [n for n in a if n in b and not close(a[n], b[n], precision)]


def _told(names: list[str]) -> str:
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more


def moved_by_evaluation(bare: Run) -> set[str]:
    """What another's network itself changes when it is evaluated, such as which task is active."""
    return {
        name
        for count, (number, end) in enumerate(bare.recorder.trained, 1)
        if (used := bare.recorder.evaluated.get((count, number))) is not None
        for name in unlike(end.state, used.state)
    }


def trained_is_evaluated(run: Run, bare: Run, joint: bool) -> list[str]:
    """(a) The weights held and evaluated for a context are those that its training ended with."""
    faults: list[str] = []
    own = set() if joint else moved_by_evaluation(bare)
    for count, (number, end) in enumerate(run.recorder.trained, 1):
        held = run.held[count - 1][number]
        if missing := [n for n in end.weights if n not in held]:
            faults.append(f"after task {number}, {_told(missing)} are not on the manifold")
        if names := unlike(end.state, held):
            faults.append(
                f"the manifold at {number} does not hold what was trained: {_told(names)}"
            )
        targets = list(run.scenario.probes) if joint else [number]
        for target in targets:
            used = run.recorder.evaluated.get((count, target))
            faults += [] if used is None else _as_trained(run, (number, target), end, used, own)
    return faults


def nothing_added_late(run: Run, bare: Run) -> list[str]:
    """(a) After the last plugin's turn, ours does not write into the network any more."""
    names = sorted(run.recorder.late - bare.recorder.late)
    return [f"what other plugins left in {_told(names)} was overwritten"] if names else []


def _as_trained(
    run: Run, pair: tuple[Any, Any], end: Snapshot, used: Snapshot, own: set[str]
) -> list[str]:
    number, target = pair
    names = [n for n in unlike(end.state, used.state) if n not in own]
    if names:
        return [f"context {target} is evaluated with other weights than {number}: {_told(names)}"]
    alike = not run.whole or close(end.outputs, used.outputs, 1e-4)
    if number == target and not alike:
        return [f"context {target} answers other than when its training ended"]
    return []


def known(outputs: Tensor) -> Any:
    """An index of the outputs that were in use: a growing head masks the others by −1000."""
    if outputs.ndim != 2:
        return ...
    columns = (outputs > -999).any(0).nonzero().flatten()
    return (slice(None), columns)


def score_then(run: Run, number: interface.Number, then: Snapshot, now: Snapshot) -> float:
    """Today's score among the outputs that a head had when the context was trained."""
    index = known(then.outputs)
    if index is ... or len(index[1]) == now.outputs.shape[1]:
        return now.score
    narrowed = torch.full_like(now.outputs, -torch.inf)
    narrowed[index] = now.outputs[index]
    return run.recorder.score(narrowed, run.scenario.probes[number].y)


def earlier_stay(run: Run) -> list[str]:
    """(b) With exact information neither weights nor answers of earlier contexts move."""
    faults: list[str] = []
    ends: dict[Any, Snapshot] = {}
    precision = 1e-5 if run.scenario.separate else 1e-3
    for count, (number, end) in enumerate(run.recorder.trained, 1):
        for other, then in ends.items():
            if other == number:
                continue
            held = run.held[count - 1][other]
            if names := unlike({n: t for n, t in then.state.items() if n in held}, held, precision):
                faults.append(f"exact: training {number} moved {other}: {_told(names)}")
            used = run.recorder.evaluated.get((count, other))
            if used is None or not run.whole:
                continue
            before, after = then.score, score_then(run, other, then, used)
            columns = known(then.outputs)
            if not close(then.outputs[columns], used.outputs[columns], 100 * precision):
                faults.append(
                    f"exact: training {number} changed the answers of {other} "
                    f"({before:.3f} → {after:.3f})"
                )
        ends[number] = end
    return faults


def earlier_remembered(run: Run) -> list[str]:
    """(c) With default information on vertices earlier tasks keep their score."""
    if not (run.scenario.separate and run.whole):
        return []
    then = {number: end.score for number, end in run.recorder.trained}
    last = len(run.recorder.trained)
    ends = dict(run.recorder.trained)
    now = {n: score_then(run, n, ends[n], run.recorder.evaluated[last, n]) for n in then}
    return [
        f"Fisher: {n} falls from {then[n]:.3f} to {now[n]:.3f}"
        for n in then
        if not now[n] >= then[n] - max(MARGIN, 1.5 / len(run.scenario.probes[n].y))
    ]


def still_learns(run: Run, bare: Run) -> list[str]:
    """With the plugin a task is learned about as well as without it."""
    with_us = [end.score for _, end in run.recorder.trained]
    without = [end.score for _, end in bare.recorder.trained]
    ours, theirs = sum(with_us) / len(with_us), sum(without) / len(without)
    if ours >= theirs - 3 * MARGIN:
        return []
    return [f"tasks end at {ours:.3f} right after training, {theirs:.3f} without the plugin"]


@final
class Sent(MlflowClient):
    """Stands for MLflow's client and keeps what it is sent."""

    def __init__(self) -> None:
        self.values: list[tuple[str, int, float]] = []

    def log_batch(
        self, run_id: str, metrics: Any = (), params: Any = (), tags: Any = (),
        synchronous: bool | None = None,
    ) -> None:  # fmt: skip
        self.values += [(m.key, m.step, m.value) for m in metrics]


def logger_only_looks(cell: Any, bare: Run) -> list[str]:
    """(d) With the logger alone: the same weights to the bit, the values of the text logger."""
    page, sent = io.StringIO(), Sent()
    watched = perform(cell, None, [TextLogger(page), MlflowLogger("run", client=sent)])
    if watched.error is not None:
        return [f"with the logger: {type(watched.error).__name__}: {watched.error}"]
    before, after = interface.tensors(bare.model), interface.tensors(watched.model)
    faults = [f"the logger changes {n}" for n in before if not same(before[n], after[n])]
    lines = [line.split(" = ") for line in page.getvalue().splitlines() if line.startswith("\t")]
    printed = sorted(value for _, value in lines)
    logged = sorted(f"{value:.4f}" for _, _, value in sent.values)
    if printed != logged:
        faults.append(f"the text logger printed {len(printed)} values, {len(logged)} were sent")
    places = [(key, step) for key, step, _ in sent.values]
    if len(set(places)) < len(places):
        twice = sorted({p for p in places if places.count(p) > 1})
        faults.append(f"two values at {twice[0][0]}, step {twice[0][1]}")
    return faults
