"""`compare`: several strategies and seeds on one stream."""

import json
import os
import shlex
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import click

from cl_manifold.cli.options import option_layers, say_guesses, store_options
from cl_manifold.errors import ConfigError, public


def whole_numbers(context: click.Context, option: click.Parameter, text: str) -> tuple[int, ...]:
    """`0,1,2` as numbers."""
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ConfigError(f"--seeds got {text!r}, but needs whole numbers such as 0,1,2") from None


def names(
    context: click.Context, option: click.Parameter, text: str | None
) -> tuple[str, ...] | None:
    """`a,b` as names; None where nothing was said."""
    if text is None:
        return None
    return tuple(part.strip() for part in text.split(",") if part.strip())


@click.command()
@click.argument("stream", required=False)
@click.option(
    "--strategies",
    callback=names,
    metavar="A,B,C",
    help="NAME, NAME:TOPOLOGY or NAME:inferred (contexts inferred at test). [by stream]",
)
@click.option(
    "--grid",
    multiple=True,
    metavar="SECTION.KEY=A,B",
    help="Every strategy with each of these values of a setting. May be repeated.",
)
@click.option("--seeds", default="0,1,2", callback=whole_numbers, metavar="0,1,2")
@click.option("--jobs", type=int, help="Runs at once. [2, or 1 on one core]")
@click.option(
    "--engine",
    type=click.Choice(["processes", "ray"]),
    default="processes",
    help="Ray: a local cluster, or the one at RAY_ADDRESS.",
)
@click.option("--tune", is_flag=True, help="First choose values from grids on validation data.")
@click.option(
    "--tune-grid",
    multiple=True,
    metavar="SECTION.KEY=A,B",
    help="Values of any setting to choose from; with --tune. May be repeated.",
)
@click.option(
    "--tune-by",
    type=click.Choice(["score", "unseen"]),
    default="score",
    help="Unseen: by contexts left out, for streams that have some.",
)
@click.option(
    "--tune-trials",
    type=click.IntRange(1),
    help="Candidates per strategy at most, drawn at random. [all]",
)
@click.option("--fresh", is_flag=True, help="Begin anew instead of continuing what was stopped.")
@click.option("--epochs", type=int, help="Epochs per experience. [the stream's]")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Folder with MNIST in torchvision's layout; digits need none.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    help="Settings of all runs by section.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="One setting of all runs. May be repeated.",
)
@store_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def compare(
    as_json: bool,
    strategies: tuple[str, ...] | None,
    grid: tuple[str, ...],
    seeds: tuple[int, ...],
    jobs: int | None,
    **options: Any,
) -> None:
    """Run several strategies with several seeds on STREAM and put them into one table.

    One MLflow run with a child per strategy and seed. Started again after it was stopped, the same
    command runs only what is missing. Without arguments: nine strategies on rotated-digits.

    \b
    Examples:
      cl-manifold compare
      cl-manifold compare permuted-digits --strategies weight-manifold,ewc,naive --seeds 0,1
      cl-manifold compare --strategies weight-manifold,weight-manifold:spline --tune
      cl-manifold compare --strategies weight-manifold --grid strategy.price=1,10,100
      cl-manifold compare rotation --set training.steps=1000
      cl-manifold compare rotated-mnist --data-dir data --jobs 4 --engine ray
    """  # noqa: D301
    how = {key: options.pop(key) for key in ("engine", "tune", "fresh")}
    tune_grid, trials, tune_by = (options.pop(f"tune_{key}") for key in ("grid", "trials", "by"))
    if (tune_grid or trials) and not how["tune"]:
        raise ConfigError("--tune-grid and --tune-trials are about tuning; add --tune")
    layers = option_layers(**options)
    from cl_manifold.cli.compare_display import CompareDisplay
    from cl_manifold.cli.display import console
    from cl_manifold.comparison.entries import crossed, parse_entries, parse_grid, resolve_entry
    from cl_manifold.comparison.workers import begin_loading
    from cl_manifold.experiments.config import names_of
    from cl_manifold.experiments.fitting import usual_strategies

    chosen = names_of([values for _, values in layers])["stream"]
    entries = parse_entries(usual_strategies(chosen) if strategies is None else strategies)
    entries = crossed(entries, parse_grid(grid), layers)
    say_guesses(resolve_entry(entries[0], next(iter(seeds), 0), layers).notes)
    signal.signal(signal.SIGTERM, _stop)
    if how["engine"] == "processes":
        begin_loading()
    with console().status("loading mlflow"):
        from cl_manifold.comparison import ComparisonOrder
        from cl_manifold.comparison import compare as run_comparison
    order = ComparisonOrder(
        entries=entries,
        seeds=seeds,
        layers=tuple(layers),
        jobs=min(2, _cores()) if jobs is None else jobs,
        tuned=parse_grid(tune_grid, "--tune-grid"),
        trials=trials,
        tuned_by="unseen_score" if tune_by == "unseen" else "score",
        command=public(f"cl-manifold {shlex.join(sys.argv[1:])}"),
        **how,
    )
    with CompareDisplay() as display:
        result = run_comparison(order, display)
    display.summary(result)
    if as_json:
        json.dump(result.as_dict(), sys.stdout)
        sys.stdout.write("\n")
    if result.problems:
        raise click.exceptions.Exit(1)


def _cores() -> int:
    """Cores that this process may use."""
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count() or 1


def _stop(number: int, frame: FrameType | None) -> None:
    """SIGTERM stops a comparison as Ctrl-C does: finished runs are kept."""
    raise KeyboardInterrupt
