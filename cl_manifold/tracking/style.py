"""The common look of the figures: dark on white, safe for the colour-blind, no pyplot state."""

from collections.abc import Sequence
from math import pi

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy import ndarray

INK, SOFT, FAINT, MISSING = "#1B1F24", "#5B6470", "#E3E7EC", "#DCDFE4"
BLUE, ORANGE, GREEN = "#0B6FB8", "#D55E00", "#00866B"
DECISIONS = {"place": BLUE, "grow": ORANGE, "reuse": GREEN, "train": SOFT}


def new_figure(title: str, height: float) -> Figure:
    """An empty figure, 9 inches wide, whose title states what it shows."""
    figure = Figure(
        figsize=(9, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1), facecolor="white"
    )
    figure.suptitle(
        title, x=0.015, ha="left", fontsize=13, fontweight="bold", color=INK, parse_math=False
    )
    return figure


def as_is(text: str) -> str:
    """Text that figures show as it is: a dollar sign begins no formula."""
    return text.replace("$", r"\$")


def tidy(axes: Axes, xlabel: str = "", ylabel: str = "") -> None:
    """Labels, quiet ticks, a faint horizontal grid and no box."""
    axes.set_xlabel(as_is(xlabel), fontsize=11, color=INK, labelpad=6)
    axes.set_ylabel(as_is(ylabel), fontsize=11, color=INK, labelpad=6)
    axes.tick_params(labelsize=10, colors=SOFT, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#B4BBC4")
    axes.grid(axis="y", color=FAINT, linewidth=0.9)
    axes.set_axisbelow(True)


def legend(axes: Axes, columns: int, below: float) -> None:
    """A frameless legend in one row, `below` (in heights of the axes) under the axes."""
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -below),
        ncols=columns,
        frameon=False,
        fontsize=10,
        labelcolor=INK,
        handletextpad=0.4,
    )


def signed(value: float) -> str:
    """Three decimals with a typographic sign.

    >>> signed(-0.004), signed(0.012), signed(-0.0001)
    ('−0.004', '+0.012', '0.000')
    """
    text = f"{value:+.3f}"
    return "0.000" if float(text) == 0 else text.replace("-", "−")


def hues(positions: Float[ndarray, " n"], cyclic: bool) -> Float[ndarray, "n 3"]:
    """RGB colours for positions in [0, 1], equally light; the ends meet if `cyclic`.

    Colours are OKLCH with fixed lightness and chroma: the whole wheel if `cyclic`, otherwise blue
    to orange.

    Source: B. Ottosson, A perceptual color space for image processing (2020), for the matrices.
    """
    start, turn = (250 * pi / 180, 2 * pi) if cyclic else (265 * pi / 180, -215 * pi / 180)
    angle = start + turn * positions
    lab = np.stack([np.full_like(angle, 0.66), 0.135 * np.cos(angle), 0.135 * np.sin(angle)], -1)
    to_cone = np.array([[1, 0.3963, 0.2158], [1, -0.1056, -0.0639], [1, -0.0895, -1.2915]])
    to_rgb = np.array(
        [[4.0767, -3.3077, 0.2310], [-1.2684, 2.6098, -0.3413], [-0.0042, -0.7034, 1.7076]]
    )
    linear = ((lab @ to_cone.T) ** 3 @ to_rgb.T).clip(0, 1)
    return np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)


def score_floor(values: Sequence[float]) -> float:
    """A round lower end for an axis of scores: 0 if any is below a half, down to −1 below 0."""
    lowest = min((value for value in values if np.isfinite(value)), default=0.0)
    if lowest < 0:
        return max(-1.0, float(np.floor(10 * lowest) / 10))
    return 0.0 if lowest < 0.5 else float(np.floor(20 * lowest - 0.4) / 20)
