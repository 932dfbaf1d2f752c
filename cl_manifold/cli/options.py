"""Options that several commands share, spelled once, and how they become a configuration."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from cl_manifold.experiments.config import Resolved, Values
else:  # takes a moment to load, which `--help` need not wait for
    Resolved = Values = Any

F = TypeVar("F", bound=Callable[..., Any])

SHORTCUTS = {
    "stream": "stream.name",
    "strategy": "strategy.name",
    "topology": "topology.kind",
    "epochs": "training.epochs",
    "seed": "seed",
    "data_dir": "data_dir",
    "tracking_uri": "tracking_uri",
    "experiment": "experiment",
}
"""Options with a name of their own, and the key that each of them sets."""


def store_options(command: F) -> F:
    """--tracking-uri and --experiment."""
    command = click.option("--experiment", metavar="NAME", help="MLflow experiment. [cl-manifold]")(
        command
    )
    return click.option(
        "--tracking-uri",
        metavar="URI",
        help="MLflow store. [MLFLOW_TRACKING_URI, else sqlite:///mlruns/mlflow.db]",
    )(command)


def run_options(command: F) -> F:
    """Everything that decides a run."""
    for option in reversed(
        [
            click.option("--strategy", metavar="NAME", help="Strategy. [the stream's usual one]"),
            click.option(
                "--topology",
                metavar="KIND",
                help="circle, interval, spline, torus, cylinder, simplex or codes. [the stream's]",
            ),
            click.option("--seed", type=int, help="Seed of everything random. [0]"),
            click.option("--epochs", type=int, help="Epochs per experience. [the stream's]"),
            click.option(
                "--data-dir",
                type=click.Path(path_type=Path),
                help="Folder with MNIST in torchvision's layout; digits need none.",
            ),
            click.option(
                "--config",
                type=click.Path(path_type=Path),
                metavar="FILE.toml",
                help="Settings by section: stream, topology, strategy, training, contexts.",
            ),
            click.option(
                "--set",
                "assignments",
                multiple=True,
                metavar="SECTION.KEY=VALUE",
                help="One setting, e.g. --set topology.harmonics=4. May be repeated.",
            ),
        ]
    ):
        command = option(command)
    return store_options(command)


def resolve_options(config: Path | None, assignments: tuple[str, ...], **options: Any) -> Resolved:
    """The configuration from file, environment and command line, later ones winning.

    Raises:
        ConfigError: an unknown key or a value that does not fit.
    """
    from cl_manifold.experiments.config import resolve

    return resolve(option_layers(config, assignments, **options))


def _of_described(path: Path) -> Values:
    """The values of a file that describes a stream; its stream.name is beside it.

    Raises:
        ConfigError: it cannot be read, or names no file.
    """
    from cl_manifold.data.paths import kind_of_path
    from cl_manifold.errors import ConfigError
    from cl_manifold.experiments.config import from_toml

    values = from_toml(path)
    name = str(values.get("stream.name", ""))
    if not name or kind_of_path(str(path.parent / name)) is None:
        raise ConfigError(
            f"{path} describes no file: give it a section [stream] with name, the path of a "
            ".csv, .parquet or .npz file or of a folder of images, and a section [data]"
        )
    return {**values, "stream.name": str(path.parent / name)}


def say_guesses(notes: Sequence[str]) -> None:
    """What was guessed of a file, on standard error."""
    for note in notes:
        click.echo(f"guessed: {note}", err=True)


def option_layers(
    config: Path | None, assignments: tuple[str, ...], **options: Any
) -> list[tuple[str, Values]]:
    """File, environment and command line as layers of (source, values), later ones winning.

    Raises:
        ConfigError: a file that cannot be read, or an assignment without a value.
    """
    from cl_manifold.experiments.config import from_assignments, from_environment, from_toml

    layers: list[tuple[str, Values]] = []
    if config is not None:
        layers.append((config.name, from_toml(config)))
    stream = options.get("stream")
    if stream is not None and stream.endswith(".toml"):
        layers.append((stream, _of_described(Path(stream))))
        del options["stream"]
    layers.append(("environment", from_environment(os.environ)))
    named = {SHORTCUTS[name]: value for name, value in options.items() if value is not None}
    layers.append(("command line", named | from_assignments(assignments)))
    return layers
