"""`resume` and `sync`: what earlier commands left behind."""

from typing import Any

import click

from cl_manifold.cli.options import store_options


@click.command()
@click.argument("run", default="last")
@store_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def resume(run: str, tracking_uri: str | None, experiment: str | None, as_json: bool) -> None:
    """Go on with RUN, which was stopped: the start of its id, or "last".

    It goes on from its last finished experience, in the same MLflow run, and comes out as if it had
    not been stopped.

    \b
    Examples:
      cl-manifold resume
      cl-manifold resume 3f2a
    """  # noqa: D301
    from cl_manifold.cli.display import console
    from cl_manifold.cli.running import show

    with console().status("loading torch, avalanche and mlflow"):
        from cl_manifold.experiments.leaving import resume as resume_run

    def work(display: Any) -> Any:
        return resume_run(run, tracking_uri, experiment or "cl-manifold", display)

    show(work, as_json)


@click.command()
@store_options
def sync(tracking_uri: str | None, experiment: str | None) -> None:
    """Send to the store what earlier commands could not.

    Every command that opens the store does so by itself; this one says what became of it.
    """
    from cl_manifold.cli.display import console

    with console().status("opening the store"):
        from cl_manifold.tracking.keeping import sync as send_rest
        from cl_manifold.tracking.store import connect, resolve_tracking_uri

        store = connect(resolve_tracking_uri(tracking_uri), experiment or "cl-manifold")
        count = send_rest(store)
    console().print(_sent(count) if count else "nothing was left to send")


@click.command()
@store_options
def mend(tracking_uri: str | None, experiment: str | None) -> None:
    """Correct a store whose project folder was moved.

    MLflow notes where the files of runs lie as absolute paths. They are noted anew, after a copy of
    the database was made, and runs that waited to be sent are sent.
    """
    from cl_manifold.cli.display import console

    with console().status("opening the store"):
        from cl_manifold.tracking.keeping import sync as send_rest
        from cl_manifold.tracking.moving import mend as mend_store
        from cl_manifold.tracking.store import connect, resolve_tracking_uri

        uri, name = resolve_tracking_uri(tracking_uri), experiment or "cl-manifold"
        mended = mend_store(uri, name)
        count = send_rest(connect(uri, name)) if mended else 0
    if mended is None:
        console().print("nothing was moved: the files of all runs are where they are noted")
        return
    console().print(
        f"{mended.places} places are noted below {mended.new} instead of {mended.old}; "
        f"the database as it was is {mended.copy.name}",
        soft_wrap=True,
    )
    if count:
        console().print(_sent(count))


def _sent(count: int) -> str:
    return f"{count} run{'s' if count != 1 else ''} sent"
