"""`plan`: what topologies will leave free for the tasks of a stream, before any data."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cl_manifold.cli.options import resolve_options, run_options
from cl_manifold.errors import ConfigError

if TYPE_CHECKING:
    from cl_manifold.experiments.config import RunConfig
    from cl_manifold.experiments.settings import TopologyOptions
else:  # takes a moment to load, which `--help` need not wait for
    RunConfig = TopologyOptions = Any

USUAL = {
    "circle": ("circle:0", "circle:1", "circle:2", "circle:3", "circle:4", "circle:6"),
    "interval": ("interval:0", "interval:1", "interval:2", "interval:3", "interval:5"),
    "simplex": ("codes:1", "codes:3", "codes:5", "codes:8", "simplex"),
    "product": ("torus:0", "torus:1", "torus:2", "torus:3"),
}
"""What is compared where nothing is said, by the kind of space that the contexts live on."""
NUMBERS = {
    "circle": "harmonics",
    "torus": "harmonics",
    "interval": "degree",
    "spline": "size",
    "codes": "size",
}
"""What a number behind the kind means."""


@click.command()
@click.argument("stream", required=False)
@click.option(
    "--topologies",
    metavar="A,B:N,…",
    help="E.g. circle:3,circle:5,spline:9; the number is harmonics, degree or size. [by contexts]",
)
@click.option(
    "--figure",
    type=click.Path(path_type=Path, dir_okay=False),
    default="plan.png",
    help="Where the figure goes.",
)
@run_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def plan(
    topologies: str | None,
    figure: Path,
    as_json: bool,
    config: Path | None,
    assignments: tuple[str, ...],
    **options: Any,
) -> None:
    """Plasticity, overshoot and memory of STREAM under several topologies, before any data.

    Reads no images: only where the contexts lie and in which order they come. Tasks at
    neighbouring contexts are taken to be alike; whether they are only data can tell. `refused` is
    the part of what tells tasks apart that earlier tasks will not let them learn.

    \b
    Examples:
      cl-manifold plan rotated-mnist
      cl-manifold plan rotated-mnist --topologies circle:2,circle:3,spline:9
      cl-manifold plan permuted-mnist --set stream.contexts=20 --figure permuted.png
    """  # noqa: D301
    resolved = resolve_options(config, assignments, **options).config
    from cl_manifold.cli.display import console

    with console().status("loading torch and avalanche"):
        from cl_manifold.contexts.plan import recommend
        from cl_manifold.tracking.plan_figure import plan_figure

        plans = _plans(resolved, topologies)
    name, reason = recommend(plans)
    plan_figure(plans, name).savefig(_writable(figure), dpi=110)
    if as_json:
        result = {
            "stream": resolved.stream.name,
            "recommended": name,
            "reason": reason,
            "topologies": [_plain(p) for p in plans],
        }
        json.dump(result, sys.stdout)
        sys.stdout.write("\n")
    else:
        _print_table(resolved.stream.name, plans, name)
        click.echo(reason)
    click.echo(f"Figure: {figure}", err=True)


def _plans(config: RunConfig, topologies: str | None) -> list[Any]:
    """One plan per topology, on the contexts of the configured stream."""
    from cl_manifold.contexts.plan import plan as plan_topology
    from cl_manifold.experiments.architecture import built
    from cl_manifold.experiments.names import STREAMS, load, lookup
    from cl_manifold.experiments.settings import ContinuumSettings, FileSettings, PictureSettings
    from cl_manifold.experiments.topologies import build_basis
    from cl_manifold.manifold.layout import layout_of
    from cl_manifold.strategies.methods.weight_manifold import WeightManifoldMethod
    from cl_manifold.streams import StreamOptions
    from cl_manifold.streams.contexts import planned_stream

    chosen = config.stream
    if isinstance(chosen, ContinuumSettings):
        raise ConfigError(
            f"plan is about tasks that come one after the other, but {chosen.name} trains all "
            "contexts at once; choose a stream of tasks such as rotated-digits"
        )
    if isinstance(chosen, FileSettings | PictureSettings):
        raise ConfigError(f"plan reads no file yet, but stream is {chosen.name}; name a stream")
    stream = planned_stream(
        load(lookup("stream", STREAMS, chosen.name).target),
        StreamOptions(
            contexts=chosen.contexts, order=chosen.order, variant=chosen.variant, seed=config.seed
        ),
    )
    method = config.strategy
    if not isinstance(method, WeightManifoldMethod):
        raise ConfigError(
            f"plan is about weight manifolds, but strategy is {method.name}; leave --strategy out"
        )
    layout = layout_of(built(config.network, stream.input_shape, stream.outputs), method.blocks)
    names = _names(topologies) or USUAL[stream.topology.spec()["kind"]]
    return [
        plan_topology(
            stream.contexts,
            build_basis(_topology(config.topology, name), stream.topology, config.seed),
            name=name,
            space=stream.topology,
            strength=method.strength,
            model=(layout.size, layout.blocks),
        )
        for name in names
    ]


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(n.strip() for n in (text or "").split(",") if n.strip()))


def _topology(config: TopologyOptions, name: str) -> TopologyOptions:
    """The configured topology with the kind, and the number, of a name such as `circle:3`."""
    from cl_manifold.experiments.names import TOPOLOGIES, lookup
    from cl_manifold.experiments.settings import TopologyOptions as Options
    from cl_manifold.options import options_of

    kind, separator, number = name.partition(":")
    lookup("topology", TOPOLOGIES, kind)
    if not separator:
        return options_of(Options, {**dict(config), "kind": kind}, "topology")
    lowest = 1 if NUMBERS.get(kind) == "size" else 0
    if kind not in NUMBERS or not number.isdecimal() or int(number) < lowest:
        meaning = NUMBERS.get(kind)
        needs = f"{kind}:N with {meaning} N ≥ {lowest}" if meaning else f"{kind} without a number"
        raise ConfigError(f"--topologies got {name!r}, but needs {needs}")
    return options_of(
        Options, {**dict(config), "kind": kind, NUMBERS[kind]: int(number)}, "topology"
    )


def _writable(figure: Path) -> Path:
    if not figure.parent.is_dir():
        raise ConfigError(f"--figure is {figure}, but its folder does not exist; make it first")
    return figure


def _plain(item: Any) -> dict[str, Any]:
    keys = ("plasticity", "lowest_plasticity", "refused", "overshoot", "stored_ratio", "verdict")
    return {
        "topology": item.name,
        "control_points": item.control_points,
        "model_floats": item.model_floats,
        **{key: getattr(item, key) for key in keys},
        "tasks": [asdict(task) for task in item.tasks],
    }


def _print_table(stream: str, plans: list[Any], recommended: str) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False)
    count = len(plans[0].tasks)
    console.print(Text(f"{stream}:", "bold"), f"{count} tasks, planned without data")
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("topology", no_wrap=True)
    for column in ("K", "stored ÷ model", "refused", "plasticity", "lowest", "overshoot"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict")
    for item in plans:
        table.add_row(
            item.name,
            str(item.control_points),
            f"{item.stored_ratio:.2f}",
            f"{item.refused:.2f}",
            f"{item.plasticity:.3f}",
            f"{item.lowest_plasticity:.1e}",
            f"{item.overshoot:.1f}",
            item.verdict,
            style="bold" if item.name == recommended else "",
        )
    console.print(table)
