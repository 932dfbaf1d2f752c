"""Figures of accuracies: the matrix, by context, and over the stream.

Every function returns a matplotlib `Figure` that belongs to nobody else, so nothing has to be
closed. Titles state the finding.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from numpy import ndarray

from cl_manifold.geometry.topology import Circle, Interval, Topology
from cl_manifold.metrics import accuracy_so_far, average_accuracy, backward_transfer
from cl_manifold.tracking.style import (
    BLUE,
    INK,
    MISSING,
    ORANGE,
    SOFT,
    as_is,
    legend,
    new_figure,
    score_floor,
    signed,
    tidy,
)

_MOST_VALUES = 15
_MOST_NAMES = 40
_BLUES = LinearSegmentedColormap.from_list(
    "accuracy", ["#EDF5FC", "#C5DDF0", "#86BADC", "#3E8CC2", "#0F5E9C", "#083763"]
)


def score_matrix_figure(
    matrix: Float[ndarray, "T T"], names: Sequence[str], metric: str = "accuracy"
) -> Figure:
    """R[i, j] as a heat map: the score on context j (columns) after training on i (rows).

    Cells that were not measured are grey; the diagonal, right after training, is framed.
    """
    count = len(matrix)
    figure = new_figure(
        f"{metric.capitalize()} after each task{_outcome(matrix)}", 1.9 + min(6.0, 0.42 * count)
    )
    axes = figure.add_subplot()
    tidy(axes, "evaluated on", "after training on")
    axes.grid(visible=False)
    axes.set_facecolor(MISSING)
    axes.spines[:].set_visible(False)
    low = score_floor(matrix.ravel().tolist())
    high = max(1.0 if low == 0 else 0.0, float(np.nanmax(matrix, initial=low + 0.05)))
    edges = np.arange(count + 1) - 0.5
    cells = axes.pcolormesh(
        edges, edges, np.ma.masked_invalid(matrix), cmap=_BLUES, vmin=low, vmax=high
    )
    cells.set_rasterized(count > _MOST_NAMES)  # one picture, however many cells
    cells.set(edgecolor="white", linewidth=0.8 if count <= _MOST_NAMES else 0)
    axes.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5))
    _name_ticks(axes, names)
    if count <= _MOST_VALUES:
        _print_values(axes, matrix, (low + high) / 2)
    if count <= _MOST_NAMES:
        for i in range(count):
            axes.add_patch(Rectangle((i - 0.5, i - 0.5), 1, 1, fill=False, ec=INK, lw=0.9))
    bar = figure.colorbar(cells, ax=axes, fraction=0.03, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=9, colors=SOFT, length=0)
    return figure


def score_by_context_figure(
    contexts: Float[ndarray, "T dim"],
    names: Sequence[str],
    scores: tuple[Float[ndarray, " T"], Float[ndarray, " T"]],
    unseen_contexts: Float[ndarray, "U dim"],
    unseen_score: Float[ndarray, " U"],
    topology: Topology,
    metric: str = "accuracy",
) -> Figure:
    """Scores at the end of the stream against the context, with unseen contexts beside it.

    On a circle or an interval the axis is the coordinate; elsewhere there is one bar per context.

    Args:
        contexts: of the tasks.
        names: of the tasks.
        scores: at the end, and right after training.
        unseen_contexts: that were only tested.
        unseen_score: at each of them.
        topology: of the contexts.
        metric: what a score is.
    """
    final_score, after_training = scores
    title = f"{metric.capitalize()} by context at the end: {_range(final_score)}"
    if np.isfinite(unseen_score).any():
        title += f"; unseen contexts {np.nanmean(unseen_score):.3f} on average"
    figure = new_figure(title, 4.6)
    axes = figure.add_subplot()
    tidy(axes, "context", metric)
    everything = [*final_score.tolist(), *after_training.tolist(), *unseen_score.tolist()]
    if isinstance(topology, Circle | Interval):
        seen, unseen = _along(topology, contexts), _along(topology, unseen_contexts)
        low, inside = score_floor(everything), "none"
        _coordinate_axis(axes, topology)
        axes.vlines(seen, after_training, final_score, color=BLUE, alpha=0.35, linewidth=2)
        axes.plot(seen, final_score, "o", color=BLUE, markersize=8, label="seen, at the end")
    else:
        seen, unseen = np.arange(len(contexts)), len(contexts) + 0.5 + np.arange(len(unseen_score))
        low, inside = min(0.0, score_floor(everything)), "white"
        axes.bar(seen, final_score, color=BLUE, width=0.66, label="seen, at the end")
        _bar_names(axes, names)
    if np.isfinite(after_training).any():
        axes.plot(
            seen,
            after_training,
            "o",
            markerfacecolor=inside,
            markeredgecolor=INK,
            markersize=8,
            label="seen, right after training",
        )
    if len(unseen_score):
        axes.plot(unseen, unseen_score, "D", color=ORANGE, markersize=6, label="unseen contexts")
    axes.set_ylim(low, 1.0 + 0.03 * (1 - low))
    legend(axes, 3, 0.17)
    return figure


def learning_figure(matrix: Float[ndarray, "T T"], metric: str = "accuracy") -> Figure:
    """Average score over the experiences seen so far, after each experience."""
    count = len(matrix)
    average = np.array(
        [
            accuracy_so_far(matrix, i) if np.isfinite(matrix[i, : i + 1]).any() else np.nan
            for i in range(count)
        ]
    )
    title = f"Average {metric} over the experiences seen so far"
    known = average[np.isfinite(average)]
    if len(known):
        title += f": {known[0]:.3f} at first, {known[-1]:.3f} at the end"
    figure = new_figure(title, 4.2)
    axes = figure.add_subplot()
    tidy(axes, "experiences seen", metric)
    steps = np.arange(1, count + 1)
    diagonal = matrix.diagonal()
    size = 6 if count <= _MOST_NAMES else 3
    axes.plot(
        steps,
        diagonal,
        "o",
        markerfacecolor="white",
        markeredgecolor=SOFT,
        markersize=size,
        label="this experience, right after it",
    )
    axes.plot(
        steps,
        average,
        "o-",
        color=BLUE,
        linewidth=2,
        markersize=size,
        label="average over all seen",
    )
    axes.set_ylim(score_floor([*average.tolist(), *diagonal.tolist()]), 1.01)
    axes.set_xlim(0.5, count + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(axes, 2, 0.18)
    return figure


def _outcome(matrix: Float[ndarray, "T T"]) -> str:
    """The finding as the rest of a title; nothing while the stream is unfinished."""
    if not np.isfinite([*matrix[-1], *matrix.diagonal()]).all():
        return ""
    change = backward_transfer(matrix)
    text = f": {average_accuracy(matrix):.3f} at the end"
    if len(matrix) == 1:
        return text
    if change > -0.01:
        verdict = "nothing forgotten"
    else:
        verdict = "little forgotten" if change > -0.05 else "much forgotten"
    return f"{text}, {verdict} (BWT {signed(change)})"


def _range(values: Float[ndarray, " T"]) -> str:
    known = values[np.isfinite(values)]
    return f"{known.min():.3f} to {known.max():.3f}" if len(known) else "not measured"


def _name_ticks(axes: Axes, names: Sequence[str]) -> None:
    """Names on both axes, every n-th where there are many."""
    step = -(-len(names) // _MOST_NAMES)
    places = range(0, len(names), step)
    labels = [as_is(names[i]) for i in places]
    slanted = max(map(len, labels), default=0) * len(labels) > 90
    turn = 90 if slanted and len(labels) > 20 else 35 if slanted else 0
    axes.set_xticks(list(places), labels, rotation=turn, ha="right" if turn == 35 else "center")
    axes.set_yticks(list(places), labels)
    axes.tick_params(length=0, labelsize=10 if len(labels) <= 20 else 8)


def _print_values(axes: Axes, matrix: Float[ndarray, "T T"], middle: float) -> None:
    for (i, j), value in np.ndenumerate(matrix):
        if np.isfinite(value):
            color = "white" if value > middle else INK
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=9, color=color)


def _along(topology: Circle | Interval, contexts: Float[ndarray, "T dim"]) -> Float[ndarray, " T"]:
    """The coordinate on the axis."""
    values = contexts[:, 0]
    return values % topology.period if isinstance(topology, Circle) else values


def _coordinate_axis(axes: Axes, topology: Circle | Interval) -> None:
    """Ticks at quarters of a circle's period or wherever matplotlib likes on an interval."""
    if isinstance(topology, Interval):
        margin = 0.03 * (topology.high - topology.low)
        axes.set_xlim(topology.low - margin, topology.high + margin)
        return
    period = topology.period
    unit = "°" if period == 360 else ""
    axes.xaxis.set_major_locator(FixedLocator((np.arange(9) / 8 * period).tolist()))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{unit}"))
    axes.set_xlim(-0.03 * period, 1.03 * period)
    axes.set_xlabel("context (the right end is the left end again)")


def _bar_names(axes: Axes, names: Sequence[str]) -> None:
    many = len(names) > _MOST_NAMES
    long = max(map(len, names), default=0) * len(names) > 80
    labels = [""] * len(names) if many else list(map(as_is, names))
    axes.set_xticks(
        range(len(names)), labels, rotation=30 if long else 0, ha="right" if long else "center"
    )
