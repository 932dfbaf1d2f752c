"""`streams` and `strategies`: what there is, with one line each."""

import json
from collections.abc import Mapping
from typing import Any

import click

from cl_manifold.catalog import STRATEGIES, STREAMS, TOPOLOGIES, Item
from cl_manifold.config import value_text


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def streams(as_json: bool) -> None:
    """List the task streams and their own defaults."""
    _list({"streams": STREAMS}, as_json)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def strategies(as_json: bool) -> None:
    """List the strategies, and the topologies of the weight manifold."""
    _list({"strategies": STRATEGIES, "topologies": TOPOLOGIES}, as_json)


def _list(parts: Mapping[str, Mapping[str, Item]], as_json: bool) -> None:
    if as_json:
        plain = {part: {n: _plain(i) for n, i in items.items()} for part, items in parts.items()}
        click.echo(json.dumps(plain, indent=1, ensure_ascii=False))
        return
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
