"""The group of commands, and how errors become sentences and exit codes."""

import sys

import click

from cl_manifold import __version__
from cl_manifold.cli.comparing import compare
from cl_manifold.cli.listing import settings, strategies, streams
from cl_manifold.cli.planning import plan
from cl_manifold.cli.predicting import predict
from cl_manifold.cli.resuming import mend, resume, sync
from cl_manifold.cli.running import run
from cl_manifold.cli.showing import show, ui
from cl_manifold.errors import ClManifoldError, ConfigError

EPILOG = """\b
Settings come from, later ones winning: defaults, --config FILE.toml, CL_MANIFOLD_* variables,
options and --set. Text goes to standard error, --json to standard output.
Exit codes: 0 done, 1 failed or stopped, 2 wrong usage."""


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True}, epilog=EPILOG
)
@click.version_option(__version__, "-V", "--version", prog_name="cl-manifold")
def cli() -> None:
    """Continual learning on weight manifolds.

    A network's weights are a smooth function of the task's context: it walks its manifold through
    a stream of tasks, and MLflow shows the walk.
    """


for command in (
    run,
    resume,
    compare,
    plan,
    streams,
    strategies,
    settings,
    show,
    predict,
    ui,
    sync,
    mend,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line; every foreseeable error ends in one sentence."""
    try:
        code = cli(standalone_mode=False)
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        code = 1
    except ClManifoldError as error:
        click.echo(f"Error: {error}", err=True)
        code = 2 if isinstance(error, ConfigError) else 1
    except BrokenPipeError:
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
