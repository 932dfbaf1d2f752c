"""`condition`: all contexts at once, system by system."""

import json
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import click

from cl_manifold.cli.comparing import names, whole_numbers
from cl_manifold.cli.options import resolve_options, store_options


@click.command()
@click.argument("name", default="rotation")
@click.option(
    "--data", default="digits", metavar="DATA", help="digits, mnist, cifar10 or images:DIR."
)
@click.option("--seeds", default="", callback=whole_numbers, help="E.g. 0,1,2. [the data's]")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Folder with MNIST or CIFAR-10 in torchvision's layout; digits need none.",
)
@click.option("--systems", default="", callback=names, help="E.g. manifold,concat. [all]")
@click.option("--steps", type=int, help="Training steps of every system. [the data's]")
@click.option("--holdout", default="test", metavar="PART", help="test, or validation: for tuning.")
@store_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def condition(as_json: bool, **options: Any) -> None:
    """Train networks on all contexts of NAME at once, and test beyond them.

    NAME is rotation, noise or rotation-noise. Part of the contexts is held out. Every system gets
    the same batches; the table shows the weight manifold beside input concatenation, FiLM,
    hypernetworks, mixtures of networks and others. One MLflow run with a child per system.

    \b
    Examples:
      cl-manifold condition
      cl-manifold condition noise --systems manifold,concat --seeds 0
      cl-manifold condition rotation --data mnist --data-dir data
      cl-manifold condition rotation --data images:photos
    """  # noqa: D301
    place = {key: options.pop(key) for key in ("data_dir", "tracking_uri", "experiment")}
    config = resolve_options(None, (), **place).config
    from cl_manifold.cli.condition_display import ConditionDisplay
    from cl_manifold.cli.display import console

    signal.signal(signal.SIGTERM, _stop)
    with console().status("loading torch and mlflow"):
        from cl_manifold.conditioning import Order
        from cl_manifold.conditioning import condition as run_experiment
    order = Order(data_dir=config.data_dir, **options)
    with ConditionDisplay() as display:
        result = run_experiment(order, display, config.tracking_uri, config.experiment)
    display.summary(result)
    if as_json:
        json.dump(result.as_dict(), sys.stdout)
        sys.stdout.write("\n")


def _stop(number: int, frame: FrameType | None) -> None:
    """SIGTERM stops an experiment as Ctrl-C does: finished systems are kept."""
    raise KeyboardInterrupt
