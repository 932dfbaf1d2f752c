"""`streams`, `strategies` and `settings`: what there is, with one line each."""

import json
from collections.abc import Mapping
from typing import Any

import click

from cl_manifold.experiments.names import NETWORKS, STRATEGIES, STREAMS, TOPOLOGIES, Item


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def streams(as_json: bool) -> None:
    """List the task streams and their own defaults."""
    _list({"streams": STREAMS}, as_json)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def strategies(as_json: bool) -> None:
    """List the strategies, and what a run is made of: topologies, networks."""
    _list({"strategies": STRATEGIES, "topologies": TOPOLOGIES, "networks": NETWORKS}, as_json)


@click.command()
@click.argument("stream", default="rotated-digits")
@click.option("--strategy", metavar="NAME", help="Strategy. [the stream's usual one]")
@click.option("--network", metavar="NAME", help="Network. [mlp]")
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="As in a run, also names."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def settings(
    stream: str,
    strategy: str | None,
    network: str | None,
    assignments: tuple[str, ...],
    as_json: bool,
) -> None:
    """List the settings that a run of STREAM has: key, default, range, meaning.

    Defaults are those in effect: the stream's, the strategy's on this stream, what is set here.
    """
    from cl_manifold.experiments.config import fields_of, from_assignments, names_of, resolve
    from cl_manifold.options import range_text

    named = {"stream.name": stream, "strategy.name": strategy, "network.name": network}
    layer = {key: name for key, name in named.items() if name} | from_assignments(assignments)
    values = {key: value for key, value, _ in resolve([("command line", layer)]).rows()}
    rows = [
        (key, values[key], range_text(field), field.description or "")
        for key, field in fields_of(**names_of([layer])).items()
    ]
    if as_json:
        columns = ("key", "default", "range", "meaning")
        found = [dict(zip(columns, row, strict=True)) for row in rows]
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    width, value = (max(len(row[column]) for row in rows) for column in (0, 1))
    for key, default, accepted, meaning in rows:
        click.echo(f"{key:<{width}}  {default:<{value}}  {meaning}")
        click.echo(f"{'':<{width}}  {'':<{value}}  {accepted}")


def _list(parts: Mapping[str, Mapping[str, Item]], as_json: bool) -> None:
    if as_json:
        plain = {part: {n: _plain(i) for n, i in items.items()} for part, items in parts.items()}
        click.echo(json.dumps(plain, indent=1, ensure_ascii=False))
        return
    from cl_manifold.options import value_text

    for part, items in parts.items():
        if len(parts) > 1:
            click.echo(f"{part}:")
        width = max(len(name) for name in items)
        for name, item in items.items():
            click.echo(f"  {name:<{width}}  {item.summary}")
            if item.defaults:
                pairs = (f"{key}={value_text(value)}" for key, value in item.defaults.items())
                click.echo(f"  {'':<{width}}  {' '.join(pairs)}")


def _plain(item: Item) -> dict[str, Any]:
    return {"summary": item.summary, "defaults": dict(item.defaults)}
