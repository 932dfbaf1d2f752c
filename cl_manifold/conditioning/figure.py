"""The figure of an experiment on conditioning: accuracy against context, system by system."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from cl_manifold.conditioning.experiment import Row
from cl_manifold.conditioning.problems import Problem
from cl_manifold.tracking.style import BLUE, FAINT, GREEN, ORANGE, SOFT, new_figure, tidy

COLOURS = {"manifold": BLUE, "concat": ORANGE, "concat-wide": "#E69F00", "undo": GREEN}
DASHES = {"concat-wide": "--", "undo": ":"}
MARKS = "os^vD<>pXPh*"


def accuracy_figure(problem: Problem, rows: Sequence[Row]) -> Figure:
    """One panel per coordinate; the part of its range that training did not see is grey.

    In each panel accuracies are averaged over the trained part of the other coordinates.
    """
    figure = new_figure(_title(rows), 4.4 * len(problem.cells) + 0.8)
    panels: Any = figure.subplots(len(problem.cells), squeeze=False)[:, 0]
    for axis, panel in enumerate(panels):
        tidy(panel, problem.axes[axis], "accuracy")
        _held_out(panel, problem, axis)
        (low, high), count = problem.ranges[axis], problem.cells[axis]
        middles = low + (high - low) * (np.arange(count) + 0.5) / count
        for index, row in enumerate(rows):
            _line(panel, row, index, middles, along(problem, row.accuracy, axis))
        panel.set_xlim(low, high)
        panel.set_xticks(np.linspace(low, high, 9).tolist())
        panel.set_ylim(0, 1.01)
    panels[0].legend(
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
        fontsize=9,
        handlelength=1.8,
    )
    return figure


def along(problem: Problem, accuracy: Sequence[float], axis: int) -> Float[ndarray, " cells"]:
    """Accuracy along one coordinate, averaged over the trained cells of all others."""
    assert len(accuracy) == prod(problem.cells)
    cube = np.array(accuracy).reshape(problem.cells)
    for other in reversed(range(len(problem.cells))):
        if other == axis:
            continue
        (low, high), (first, last) = problem.ranges[other], problem.trained[other]
        middles = low + (high - low) * (np.arange(problem.cells[other]) + 0.5) / cube.shape[other]
        inside = (middles >= first) & (middles <= last)
        cube = cube.compress(inside, other).mean(other)
    return cube


def _title(rows: Sequence[Row]) -> str:
    known = {row.system: row for row in rows}
    shown = [known[n] for n in ("manifold", "concat") if n in known] or rows[:2]
    texts = [f"{row.system} {row.held_out:.3f}" for row in shown]
    return f"Accuracy by context; held out (grey): {', '.join(texts)}"


def _held_out(axes: Axes, problem: Problem, axis: int) -> None:
    (low, high), (first, last) = problem.ranges[axis], problem.trained[axis]
    for start, end in ((low, first), (last, high)):
        if end > start:
            axes.axvspan(start, end, color=FAINT, alpha=0.6, linewidth=0)


def _line(
    axes: Axes,
    row: Row,
    index: int,
    middles: Float[ndarray, " cells"],
    values: Float[ndarray, " cells"],
) -> None:
    """The systems that matter most in colour, the others thin with a mark of their own."""
    name = row.system
    if name in COLOURS:
        style = DASHES.get(name, "-")
        axes.plot(middles, values, style, color=COLOURS[name], linewidth=2.2, label=name, zorder=3)
        return
    colour = BLUE if name.startswith("manifold") else SOFT
    axes.plot(
        middles,
        values,
        marker=MARKS[index % len(MARKS)],
        color=colour,
        alpha=0.6,
        linewidth=0.8,
        markersize=4.5,
        markerfacecolor="white",
        label=name,
    )
