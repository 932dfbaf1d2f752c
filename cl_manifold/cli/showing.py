"""`show` and `ui`: look at runs, in the terminal and in the browser."""

import json
import os
import socket
import sys
from typing import Any

import click

from cl_manifold.cli.options import store_options
from cl_manifold.errors import StoreError, public


@click.command()
@click.argument("run")
@store_options
@click.option(
    "--replay",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Ask which decisions another rule, level, tolerance or drift would have changed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def show(
    run: str,
    tracking_uri: str | None,
    experiment: str | None,
    changes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Print the result of RUN: an id, its beginning, or `last`.

    Of a run its accuracy matrix, contexts and decisions; of `compare` the table.
    """
    from cl_manifold.experiments.result import Result, Setting, parsed
    from cl_manifold.tracking import (
        find_run,
        open_store,
        read_artifact,
        read_result,
        resolve_tracking_uri,
    )

    store = open_store(resolve_tracking_uri(tracking_uri), experiment or "cl-manifold")
    run_id = find_run(store, run)
    if changes:
        found = parsed(Result, read_artifact(store, run_id, "result.json"), "result.json")
        text = read_artifact(store, run_id, "configuration.json")
        settings = parsed(dict[str, Setting], text, "configuration.json")
        values = {key: setting["value"] for key, setting in settings.items()}
        _replay(found, values, changes, as_json)
        return
    file, text = read_result(store, run_id)
    if as_json:
        click.echo(text)
        return
    from cl_manifold.cli.tables import PRINTERS

    kind, show_it = PRINTERS[file]
    show_it(parsed(kind, text, file))


def _replay(result: Any, values: dict[str, Any], changes: tuple[str, ...], as_json: bool) -> None:
    from dataclasses import asdict

    from cl_manifold.cli.tables import print_replay
    from cl_manifold.contexts.replay import changed_rule, replay
    from cl_manifold.experiments.config import from_assignments

    own, other = changed_rule(values, from_assignments(changes, "--replay key=value"))
    rows = replay(result.decisions, own, other)
    if not rows:
        raise StoreError(
            "this run holds no evidence to replay; run a stream with contexts.rule=evidence"
        )
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows]))
    else:
        print_replay(rows, other)


@click.command()
@store_options
@click.option("--host", default="127.0.0.1", help="Address to serve on.")
@click.option("--port", default=5000, type=click.IntRange(1, 65535), help="Port to serve on.")
def ui(tracking_uri: str | None, experiment: str | None, host: str, port: int) -> None:
    """Serve the MLflow UI on this project's store until Ctrl-C.

    The printed address lists the runs with accuracy, BWT, forgetting, unseen contexts, memory and
    context at test.
    """
    from cl_manifold.tracking import open_store, resolve_tracking_uri
    from cl_manifold.tracking.view import list_address

    uri = resolve_tracking_uri(tracking_uri)
    if uri.startswith(("http://", "https://")):
        raise StoreError(f"{public(uri)} is a server with a page of its own; open it in a browser")
    store = open_store(uri, experiment or "cl-manifold")
    _check_free(host, port)
    address = list_address(f"http://{host}:{port}", store.experiment_id)
    click.echo(f"{address}   (Ctrl-C stops)", err=True)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    # the job runner serves language-model features and doubles start-up time and memory
    environment: dict[str, Any] = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | os.environ
    os.execve(sys.executable, command, environment)


def _check_free(host: str, port: int) -> None:
    """MLflow's server ends with exit code 0 where its port is taken.

    Raises:
        StoreError: somebody listens there already, or the address is not of this machine.
    """
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise StoreError(
            f"cannot serve on {host}:{port} ({error.strerror or error}); choose another --port"
        ) from None
