"""The picture of a weight manifold: contexts on their topology, and the weights they lead to."""

from collections import Counter
from collections.abc import Sequence
from math import pi

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy import ndarray

from cl_manifold.contexts.record import TaskRecord
from cl_manifold.geometry.basis import Basis
from cl_manifold.geometry.topology import Circle, Interval, Product, Simplex, Topology
from cl_manifold.tracking.projection import WeightProjection
from cl_manifold.tracking.style import DECISIONS, FAINT, INK, SOFT, as_is, hues, new_figure

_MOST_LABELS, _MOST_DOTS = 30, 500
_DONE = {"place": "placed", "grow": "grown", "reuse": "reused", "train": "trained"}


def manifold_figure(
    topology: Topology,
    basis: Basis,
    records: Sequence[TaskRecord],
    projection: WeightProjection | None = None,
) -> Figure:
    """Visited contexts on their topology, numbered by experience and coloured by decision.

    With a `projection` the weights themselves are drawn beside it, in the same colours.

    Raises:
        ValueError: a record's context does not fit the topology.
    """
    contexts = np.array([record.context for record in records], dtype=float)
    if contexts.ndim != 2 or contexts.shape[1] != topology.dim:
        raise ValueError(
            f"every record needs a context of {topology.dim} numbers to be drawn on "
            f"{topology.spec()['kind']}, got {[len(record.context) for record in records]}; "
            "leave this figure out for strategies without contexts"
        )
    counts = Counter(record.decision for record in records)
    done = ", ".join(f"{n} {_DONE.get(word, word)}" for word, n in counts.most_common())
    title = f"{len(records)} contexts on the {_kind(topology)}: {done}; K = {basis.size}"
    wide = isinstance(topology, Interval) and projection is None
    figure = new_figure(title, 2.1 if wide else 5.3)
    panels = figure.subplots(1, 1 if projection is None else 2, squeeze=False)[0]
    _draw_topology(panels[0], topology)
    places = _places(topology, contexts)
    _draw_visits(panels[0], _beside(topology, places), records)
    _draw_names(panels[0], topology, places, records)
    if projection is not None:
        _draw_weights(panels[1], topology, projection)
        _draw_visits(panels[1], projection.visited, records)
    _decision_legend(figure, list(counts))
    return figure


def _draw_topology(axes: Axes, topology: Topology) -> None:
    axes.set_aspect("equal")
    axes.axis("off")
    axes.margins(0.16)
    axes.set_title("contexts, numbered by experience", fontsize=11, color=SOFT, pad=10)
    if isinstance(topology, Circle | Interval):
        along = np.linspace(0, 1, 361)
        coordinate = _from_unit(topology, along)
        _coloured_line(axes, _places(topology, coordinate), topology, width=9.0)
    elif isinstance(topology, Simplex):
        corners = _places(topology, np.eye(topology.vertices))
        pairs = np.stack(np.triu_indices(len(corners), 1), axis=-1)
        edges = LineCollection(list(corners[pairs]), colors="#C3CAD3", linewidths=1.0)
        edges.set_rasterized(len(corners) > _MOST_LABELS)  # one picture, however many edges
        axes.add_collection(edges)
        axes.update_datalim(corners)
    else:
        axes.set_aspect("auto")
        axes.set_box_aspect(1)
        axes.axis("on")
        axes.tick_params(labelsize=10, colors=SOFT)
        axes.spines[:].set_color("#B4BBC4")
        axes.grid(color=FAINT)
        _chart_limits(axes, topology)


def _places(topology: Topology, contexts: Float[ndarray, "T dim"]) -> Float[ndarray, "T 2"]:
    """Where contexts are drawn: on a ring, a line, in a polygon, or by their first two numbers."""
    if isinstance(topology, Circle):
        angle = 2 * pi * contexts[:, 0] / topology.period
        return np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    if isinstance(topology, Interval):
        unit = (contexts[:, 0] - topology.low) / (topology.high - topology.low)
        return np.stack([2.4 * unit, np.zeros_like(unit)], axis=-1)
    if isinstance(topology, Simplex):
        angle = pi / 2 - 2 * pi * np.arange(topology.vertices) / topology.vertices
        return contexts @ np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return np.stack([contexts[:, 0], contexts[:, min(1, contexts.shape[1] - 1)]], axis=-1)


def _beside(topology: Topology, places: Float[ndarray, "T 2"]) -> Float[ndarray, "T 2"]:
    """The places, with second and later visits of one context moved off the ring or line."""
    before: Counter[tuple[float, ...]] = Counter()
    moved = places.copy()
    for place in moved:
        spot = tuple(place.round(6).tolist())
        if isinstance(topology, Circle | Simplex):
            place *= 1 - 0.17 * before[spot]
        else:
            place[1] += 0.17 * before[spot] if isinstance(topology, Interval) else 0.0
        before[spot] += 1
    return moved


def _kind(topology: Topology) -> str:
    if isinstance(topology, Product) and all(isinstance(f, Circle) for f in topology.factors):
        return "torus"
    return topology.spec()["kind"]


def _from_unit(topology: Circle | Interval, unit: Float[ndarray, " n"]) -> Float[ndarray, "n 1"]:
    if isinstance(topology, Circle):
        return (topology.period * unit)[:, None]
    return (topology.low + (topology.high - topology.low) * unit)[:, None]


def _coloured_line(
    axes: Axes, points: Float[ndarray, "n 2"], topology: Topology, width: float
) -> None:
    """A line whose colour tells the context."""
    pieces = np.stack([points[:-1], points[1:]], axis=1)
    middles = (np.arange(len(pieces)) + 0.5) / len(pieces)
    colors = hues(middles, cyclic=isinstance(topology, Circle))
    line = LineCollection(
        list(pieces), colors=list(colors), linewidths=width, capstyle="round", zorder=1
    )
    axes.add_collection(line)
    axes.update_datalim(points)


def _draw_weights(axes: Axes, topology: Topology, projection: WeightProjection) -> None:
    """The weights along the topology: a curve if it has one dimension, otherwise points."""
    axes.set_aspect("equal")
    axes.axis("off")
    axes.margins(0.12)
    share = sum(projection.shares)
    axes.set_title(
        f"their weights, two main directions ({share:.0%})",
        fontsize=11,
        color=SOFT,
        pad=10,
    )
    points = projection.grid
    if isinstance(topology, Circle):
        points = np.concatenate([points, points[:1]])
    if isinstance(topology, Circle | Interval):
        _coloured_line(axes, points, topology, width=4.0)
    else:
        (dots,) = axes.plot(*points.T, "o", color="#C3CAD3", markersize=4, zorder=1)
        dots.set_rasterized(len(points) > _MOST_DOTS)
    # a curve along one line, or a single point, still needs an area to be drawn in
    middle, extent = (points.max(0) + points.min(0)) / 2, 0.25 * max(np.ptp(points), 1e-12)
    axes.update_datalim([middle - extent, middle + extent])


def _draw_visits(axes: Axes, places: Float[ndarray, "T 2"], records: Sequence[TaskRecord]) -> None:
    """A dot for each visit: its edge tells the decision, its number, among few, the experience."""
    colors = [DECISIONS.get(record.decision, INK) for record in records]
    if len(records) > _MOST_LABELS:
        axes.scatter(*places.T, s=30, c="white", edgecolors=colors, linewidths=2, zorder=3)
        return
    for order, ((x, y), record, color) in enumerate(zip(places, records, colors, strict=True)):
        layer = 3 + order / len(records)
        axes.scatter(x, y, s=250, c="white", edgecolors=color, linewidths=2, zorder=layer)
        axes.annotate(
            str(record.experience),
            (float(x), float(y)),
            ha="center",
            va="center",
            fontsize=9.5,
            fontweight="bold",
            color=INK,
            zorder=layer,
        )


def _draw_names(
    axes: Axes,
    topology: Topology,
    places: Float[ndarray, "T 2"],
    records: Sequence[TaskRecord],
) -> None:
    """Names of contexts beside their dots, once for each place."""
    if len(records) > _MOST_LABELS:
        return
    named: set[tuple[float, ...]] = set()
    for place, record in zip(places, records, strict=True):
        if record.context in named:
            continue
        named.add(record.context)
        outward = place / max(float(np.hypot(*place)), 1e-9)
        shift = outward * 21 if isinstance(topology, Circle | Simplex) else np.array([0.0, -21.0])
        axes.annotate(
            as_is(record.name),
            (float(place[0]), float(place[1])),
            xytext=(float(shift[0]), float(shift[1])),
            textcoords="offset points",
            ha="center" if abs(shift[0]) < 12 else "left" if shift[0] > 0 else "right",
            va="center",
            fontsize=9.5,
            color=SOFT,
        )


def _chart_limits(axes: Axes, topology: Topology) -> None:
    """The whole chart of a product of one-dimensional factors, even where nothing was visited."""
    if not isinstance(topology, Product):
        return
    ends = [
        (0.0, factor.period) if isinstance(factor, Circle) else (factor.low, factor.high)
        for factor in topology.factors
        if isinstance(factor, Circle | Interval)
    ]
    if len(ends) == len(topology.factors) >= 2:
        axes.update_datalim(np.array(ends[:2]).T)
        axes.margins(0.06)


def _decision_legend(figure: Figure, decisions: Sequence[str]) -> None:
    handles = [
        Line2D(
            [],
            [],
            linestyle="",
            marker="o",
            markersize=10,
            markerfacecolor="white",
            markeredgewidth=2,
            markeredgecolor=DECISIONS.get(word, INK),
            label=as_is(word),
        )
        for word in decisions
    ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        frameon=False,
        fontsize=10,
        labelcolor=INK,
    )
