"""Figures of a comparison: accuracies with their spread, learning over the stream, memory.

Rows of one comparison come in and figures that belong to nobody else go out. Colour says whether a
strategy reads the context at test, in every figure that is not about time.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, Locator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox
from numpy import ndarray
from sklearn.isotonic import isotonic_regression

from cl_manifold.comparison.outcome import Outcome
from cl_manifold.comparison.rows import Row, learned_in_sequence, results_by_label
from cl_manifold.metrics import accuracy_so_far
from cl_manifold.tracking.style import (
    BLUE,
    INK,
    ORANGE,
    SOFT,
    as_is,
    hues,
    new_figure,
    score_floor,
    tidy,
)

CONTEXTS = {"given": BLUE, "inferred": ORANGE, "not used": SOFT}
"""Colours by what a strategy knows at test."""
_LINE_INCHES = 0.24
_DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)))
_TICKS = np.array([1, 1.5, 2, 3, 5, 7])
_ACCS = (
    0.0,
    0.2,
    0.4,
    0.6,
    0.7,
    0.8,
    0.85,
    0.9,
    0.93,
    0.95,
    0.97,
    0.98,
    0.99,
    0.995,
    0.998,
    0.999,
    1.0,
)
_LEAST_ERROR = 1e-4
_PLAIN = FuncFormatter(lambda value, _: f"{value:.4g}")
_OFFSETS = [(dx, sign * 12 * step) for step in range(16) for sign in (1, -1) for dx in (8, -8)]
Results = Mapping[str, Mapping[int, Mapping[str, Any]]]


def comparison_figures(outcomes: Sequence[Outcome], rows: Sequence[Row]) -> dict[str, Figure]:
    """Figures named "score", "learning" and "memory"; what has nothing to show is left out."""
    if not rows:
        return {}
    results = results_by_label(outcomes)
    figures = {"score": score_figure(results, rows)}
    if any(_curve(results[row.label].values()) is not None for row in rows):
        figures["learning"] = learning_figure(results, rows)
    if any(row.memory_ratio for row in rows):
        figures["memory"] = memory_figure(rows)
    return figures


def score_figure(results: Results, rows: Sequence[Row]) -> Figure:
    """Every seed's score as a dot, mean and standard deviation as a bar, best strategy on top."""
    first = rows[0]
    figure = new_figure(
        f"{first.measure} at the end: {first.label} first with {first.score:.3f}{_sd(first)}",
        1.7 + 0.34 * len(rows),
    )
    axes = figure.add_subplot()
    tidy(
        axes,
        f"{first.measure}, by the logarithm of the error "
        "(dots: seeds; bars: mean ± standard deviation)",
    )
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color="#E3E7EC", linewidth=0.9)
    everything: list[float] = []
    for place, row in enumerate(rows):
        colour = CONTEXTS.get(row.context, INK)
        accs = [float(result["score"]) for result in results[row.label].values()]
        spread = row.score_sd or 0.0
        everything += [*accs, row.score - spread, row.score + spread]
        axes.plot(
            [row.score - spread, row.score + spread], [place] * 2, color=colour, lw=7, alpha=0.25
        )
        axes.plot([row.score], [place], "|", color=colour, markersize=13, markeredgewidth=2.4)
        axes.plot(
            accs, [place] * len(accs), "o", color=colour, markersize=4.5, mec="white", mew=0.6
        )
    axes.set_yticks(range(len(rows)), [as_is(row.label) for row in rows])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xscale("function", functions=(_to_error, _from_error))
    ends, ticks = _error_axis(everything)
    axes.set_xlim(*ends)
    axes.xaxis.set_major_locator(ticks)
    axes.xaxis.set_major_formatter(_PLAIN)
    for place, row in enumerate(rows):
        text = axes.text(1.015, place, f"{row.score:.3f}{_sd(row)}", va="center", color=INK)
        text.set(transform=axes.get_yaxis_transform(), fontsize=9.5)
    _context_legend(figure, rows)
    return figure


def learning_figure(results: Results, rows: Sequence[Row]) -> Figure:
    """Mean score over the experiences seen so far, one line per strategy.

    A strategy that learns everything at once is a dashed horizontal line at its score.
    """
    curves = {row.label: _curve(results[row.label].values()) for row in rows}
    shown = {label: curve for label, curve in curves.items() if curve is not None}
    at_once = {
        label for label in shown if not any(map(learned_in_sequence, results[label].values()))
    }
    figure = new_figure(
        f"Mean {rows[0].metric} over the experiences seen so far",
        max(4.2, 1.2 + _LINE_INCHES * len(shown)),
    )
    axes = figure.add_subplot()
    tidy(axes, "experiences seen", rows[0].metric)
    wheel = hues(np.linspace(0, 1, max(2, len(shown))), cyclic=False).tolist()
    count, ends = 1, []
    for index, (label, curve) in enumerate(shown.items()):
        known = np.flatnonzero(np.isfinite(curve))
        count = max(count, len(curve))
        colour = INK if label in at_once else wheel[index]
        ends.append((label, float(curve[known[-1]]), colour))
        if label in at_once:
            axes.axhline(ends[-1][1], color=INK, linewidth=1.2, linestyle="--")
            continue
        (line,) = axes.plot(known + 1, curve[known], "o-", color=colour, linewidth=1.8)
        line.set(linestyle=_DASHES[index % 3], markersize=4 if len(curve) <= 40 else 0)
    low = score_floor([value for curve in shown.values() for value in curve.tolist()])
    axes.set_ylim(low, 1.01)
    axes.set_xlim(0.7, count + 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _end_labels(figure, axes, ends)
    return figure


def memory_figure(rows: Sequence[Row]) -> Figure:
    """Scores against what is kept between experiences, in units of the model, on a log axis."""
    shown = [(row, row.memory_ratio) for row in rows if row.memory_ratio]
    figure = new_figure(
        f"{rows[0].measure} against memory between experiences", 4.4 + 0.12 * len(shown)
    )
    axes = figure.add_subplot()
    absent = ", ".join(row.label for row in rows if not row.memory_ratio)
    note = f" (keeps nothing, not shown: {absent})" if absent else ""
    tidy(
        axes,
        f"stored floats ÷ floats of the model{note}",
        f"{rows[0].measure}, by the logarithm of the error",
    )
    sizes = [ratio for _, ratio in shown]
    accs = [row.score for row, _ in shown]
    for row, ratio in shown:
        colour = CONTEXTS.get(row.context, INK)
        axes.plot([ratio], [row.score], "o", color=colour, markersize=8, mec="white", mew=0.8)
    axes.set_xscale("log")
    axes.set_xlim(min(sizes) / 1.25, max(2 * min(sizes), max(sizes)) * 1.9)
    axes.set_yscale("function", functions=(_to_error, _from_error))
    ends, ticks = _error_axis(accs)
    axes.set_ylim(*ends)
    axes.yaxis.set_major_locator(ticks)
    axes.yaxis.set_major_formatter(_PLAIN)
    _ratio_ticks(axes)
    _context_legend(figure, rows)
    _place_labels(figure, axes, shown)
    return figure


def _curve(results: Iterable[Mapping[str, Any]]) -> Float[ndarray, " T"] | None:
    """Mean over seeds of the accuracy so far; NaN where a seed lacks an entry, None without any."""
    curves: list[Float[ndarray, " T"]] = []
    for result in results:
        matrix = np.array(result.get("score_matrix") or np.zeros((0, 0)), dtype=float)
        whole = [bool(np.isfinite(row[: i + 1]).all()) for i, row in enumerate(matrix)]
        curves.append(
            np.array([accuracy_so_far(matrix, i) if w else np.nan for i, w in enumerate(whole)])
        )
    mean = np.mean(curves, axis=0)
    return mean if np.isfinite(mean).any() else None


def _end_labels(figure: Figure, axes: Axes, ends: Sequence[tuple[str, float, Any]]) -> None:
    """Names to the right of the lines, as near to their ends as they can be without overlap.

    Places z solve min Σ (z_i − y_i)² with z_{i+1} − z_i ≥ gap, an isotonic regression of
    y_i − i·gap. Source: Barlow et al. 1972, Statistical inference under order restrictions.
    """
    low, high = axes.get_ylim()
    height = figure.get_figheight() - 1.2
    gap = min((high - low) * 0.21 / height, (high - low) / len(ends))
    ordered = sorted(ends, key=lambda end: end[1])
    steps = gap * np.arange(len(ordered))
    places = steps + isotonic_regression(
        np.array([value for _, value, _ in ordered]) - steps, y_min=low, y_max=high - steps[-1]
    )
    across = axes.get_yaxis_transform()
    for (label, value, colour), place in zip(ordered, places.tolist(), strict=True):
        axes.plot(
            [1.0, 1.035], [value, place], color=colour, lw=0.9, transform=across, clip_on=False
        )
        axes.text(
            1.04,
            place,
            as_is(f"{label}  {value:.3f}"),
            transform=across,
            va="center",
            fontsize=9.5,
            color=INK,
        )


def _to_error(score: Any) -> Any:
    """Where an accuracy stands: −log(1 − a + ε), so that 0.98 is as far from 0.96 as 0.6 from 0.2.

    ε keeps a perfect accuracy on the page.
    """
    return -np.log(np.maximum(1 + _LEAST_ERROR - np.asarray(score, dtype=float), 1e-12))


def _from_error(place: Any) -> Any:
    return 1 + _LEAST_ERROR - np.exp(-np.asarray(place, dtype=float))


def _error_axis(accs: Sequence[float]) -> tuple[tuple[float, float], Locator]:
    """Ends and ticks of an axis of accuracies; it reaches down to 0.99 at least."""
    low, high = float(_to_error(min(0.99, *accs))), float(_to_error(max(accs)))
    margin = max(0.06 * (high - low), 0.04)
    ends = float(_from_error(low - margin)), float(_from_error(high + margin))
    inside = [tick for tick in _ACCS if ends[0] <= tick <= ends[1]]
    return ends, FixedLocator(inside) if len(inside) > 3 else MaxNLocator(6)


def _ratio_ticks(axes: Axes) -> None:
    low, high = axes.get_xlim()
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    ticks = np.outer(decades, _TICKS).ravel()
    inside = ticks[(ticks >= low) & (ticks <= high)]
    axes.xaxis.set_major_locator(FixedLocator((inside if len(inside) < 11 else decades).tolist()))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} ×"))


def _place_labels(figure: Figure, axes: Axes, shown: Sequence[tuple[Row, float]]) -> None:
    """A name beside each point, at the first of many offsets where nothing else is.

    Boxes are measured in pixels after the layout is settled. A name that had to move far away is
    joined to its point by a line.
    """
    figure.draw_without_rendering()
    inside = axes.get_window_extent()
    unit = figure.dpi / 72
    points = axes.transData.transform([(ratio, row.score) for row, ratio in shown]).tolist()
    taken = [Bbox.from_extents(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    for (row, ratio), (x, y) in zip(shown, points, strict=True):
        text = axes.annotate(
            as_is(row.label),
            (ratio, row.score),
            (8, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
            color=INK,
            in_layout=False,
            arrowprops={"arrowstyle": "-", "color": SOFT, "lw": 0.6, "shrinkA": 1, "shrinkB": 4},
        )
        width, height = text.get_window_extent().width, 11 * unit
        for dx, dy in _OFFSETS:
            left = x + dx * unit - (width if dx < 0 else 0)
            box = Bbox.from_bounds(left, y + dy * unit - height / 2, width, height)
            clear = inside.x0 < box.x0 and box.x1 < inside.x1 and inside.y0 < box.y0
            if clear and box.y1 < inside.y1 and not any(box.overlaps(other) for other in taken):
                text.set(position=(dx, dy), ha="right" if dx < 0 else "left")
                taken.append(box)
                break
        if abs(text.get_position()[1]) < 12 and text.arrow_patch:
            text.arrow_patch.set_visible(False)


def _context_legend(figure: Figure, rows: Sequence[Row]) -> None:
    """What the colours mean, under the axes."""
    found = {row.context for row in rows}
    handles = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=f"context at test: {name}")
        for name, colour in CONTEXTS.items()
        if name in found
    ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=10,
        labelcolor=INK,
        handletextpad=0.4,
    )


def _sd(row: Row) -> str:
    return "" if row.score_sd is None else f" ± {row.score_sd:.3f}"
