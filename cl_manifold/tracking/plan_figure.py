"""The picture of a plan: what each task of a stream will get, topology by topology."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cl_manifold.contexts.plan import TopologyPlan
from cl_manifold.tracking.style import as_is, hues, legend, new_figure, tidy


def plan_figure(plans: Sequence[TopologyPlan], recommended: str) -> Figure:
    """What is refused, and the plasticity, per task; the recommended topology is drawn heavier."""
    figure = new_figure(f"What each task will be refused: {recommended} is recommended", 5.4)
    panels = figure.subplots(1, 2)
    colours = hues(np.linspace(0, 1, len(plans)), cyclic=False)
    for axes, key, text in zip(
        panels,
        ("refused", "plasticity"),
        ("refused: part of what a task wants", "plasticity (relative, logarithmic)"),
        strict=True,
    ):
        tidy(axes, "task", text)
        for item, colour in zip(plans, colours, strict=True):
            values = [max(getattr(task, key), 1e-9) for task in item.tasks]
            axes.plot(
                range(1, len(values) + 1),
                values,
                "o-",
                color=colour,
                linewidth=3 if item.name == recommended else 1.4,
                markersize=5 if len(values) <= 30 else 2,
                label=as_is(f"{item.name} (K = {item.control_points})"),
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].set_ylim(bottom=-0.03)
    panels[1].set_yscale("log")
    legend(panels[0], 2, 0.2)
    return figure
