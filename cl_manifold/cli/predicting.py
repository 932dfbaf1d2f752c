"""`predict`: what the model of a run answers to the rows of a file."""

import json
from pathlib import Path

import click

from cl_manifold.cli.options import store_options


@click.command()
@click.argument("run")
@click.argument("file", type=click.Path(path_type=Path))
@store_options
@click.option("--context", metavar="C", help="Of all rows, numbers with commas. [its columns]")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE.csv", help="Write it there.")
@click.option("--json", "as_json", is_flag=True, help="Print the predictions as one JSON object.")
def predict(
    run: str,
    file: Path,
    tracking_uri: str | None,
    experiment: str | None,
    context: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Predict the rows of FILE by the model of RUN: an id, its beginning, or `last`."""
    from cl_manifold.errors import ConfigError, DataError
    from cl_manifold.experiments.served import rows_of, served
    from cl_manifold.tracking import find_run, open_store, resolve_tracking_uri

    try:
        given = [float(part) for part in context.split(",")] if context else []
    except ValueError:
        raise ConfigError(f"--context is {context!r}, but needs numbers with commas") from None
    store = open_store(resolve_tracking_uri(tracking_uri), experiment or "cl-manifold")
    model = served(store, find_run(store, run))
    found = model.predict(rows_of(file, model), {"context": given})
    if as_json:
        click.echo(json.dumps(found.to_dict(orient="list")))
    elif out is None:
        click.echo(found.to_csv(index=False), nl=False)
    else:
        try:
            found.to_csv(out, index=False)
        except OSError as error:
            raise DataError(f"{out} cannot be written ({error}); choose another --out") from None
        click.echo(f"{len(found)} predictions in {out}", err=True)
