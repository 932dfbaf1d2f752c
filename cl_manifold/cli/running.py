"""`run`: one strategy on one stream."""

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import click

from cl_manifold.cli.options import resolve_options, run_options, say_guesses


@click.command()
@click.argument("stream", required=False)
@run_options
@click.option(
    "--resume", "resumed", is_flag=True, help="Go on with a stopped run of these settings."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def run(
    resumed: bool,
    as_json: bool,
    config: Path | None,
    assignments: tuple[str, ...],
    **options: Any,
) -> None:
    """Run one strategy on STREAM and record it in MLflow.

    Without arguments: the weight manifold on rotated-digits, which needs no data files.

    \b
    Examples:
      cl-manifold run
      cl-manifold run --strategy naive
      cl-manifold run rotated-mnist --data-dir data --set stream.contexts=20
    """  # noqa: D301
    resolved = resolve_options(config, assignments, **options)
    from cl_manifold.cli.display import console

    with console().status("loading torch, avalanche and mlflow"):
        from cl_manifold.experiments.leaving import run_or_resume
        from cl_manifold.experiments.running import run as run_anew
    say_guesses(resolved.notes)
    work = run_or_resume if resumed else run_anew
    show(lambda display: work(resolved, display), as_json)


def show(work: Callable[[Any], Any], as_json: bool) -> None:
    """Draw the work while it goes on and sum it up at its end.

    Raises:
        click.exceptions.Exit: the result could be written nowhere; this is its only appearance.
    """
    from cl_manifold.cli.display import Display

    signal.signal(signal.SIGTERM, _stop)
    with Display() as display:
        result = work(display)
    display.summary(result)
    if as_json:
        json.dump(result.as_dict(), sys.stdout)
        sys.stdout.write("\n")
    if not display.safe:
        raise click.exceptions.Exit(1)


def _stop(number: int, frame: FrameType | None) -> None:
    """SIGTERM stops a run as Ctrl-C does: finished tasks are kept, the run is marked KILLED."""
    raise KeyboardInterrupt
