"""Runs that were left behind, found again and gone on with."""

from dataclasses import replace
from itertools import islice

from cl_manifold.errors import StoreError
from cl_manifold.experiments.config import Resolved, deciding, resolve
from cl_manifold.experiments.observing import Observer
from cl_manifold.experiments.recording import Place
from cl_manifold.experiments.result import Result
from cl_manifold.experiments.running import go_on, own_place, run
from cl_manifold.tracking import Store, keeping, open_store, resolve_tracking_uri
from cl_manifold.tracking.keeping import Left


def resume(
    text: str, tracking_uri: str | None, experiment: str, observer: Observer | None = None
) -> Result:
    """Go on with the run meant by the text, as if it had not been stopped.

    Args:
        text: the start of its id, or "last".
        tracking_uri: of its store; by default that of the project.
        experiment: it is filed under.
        observer: is told how far it is.

    Raises:
        ClManifoldError: there is no such run, or anything else that a user can correct.
    """
    store = open_store(resolve_tracking_uri(tracking_uri), experiment)
    left = find(store, text)
    return continued(store, left, observer)


def run_or_resume(resolved: Resolved, observer: Observer | None = None) -> Result:
    """Go on with the newest stopped run of this configuration; run it where there is none.

    Raises:
        ClManifoldError: anything that a user can correct.
    """
    place = own_place(resolved)
    settings = resolved.deciding()
    for left in keeping.left_behind(place.store):
        own = deciding(left.start.params)
        if own == settings and left.start.run_id is None and left.free:
            return continued(place.store, left, observer)
    return run(resolved, observer, place)


def continued(store: Store, left: Left, observer: Observer | None = None) -> Result:
    """Go on with a run that was left behind.

    Raises:
        ClManifoldError: anything that a user can correct.
    """
    resolved = resolved_of(left, store)
    title = left.start.name.rpartition(" · seed ")[0]
    return go_on(resolved, Place(store, title), left.path, observer)


def find(store: Store, text: str) -> Left:
    """The run that was left behind whose id or key starts so.

    "last" is the newest that no living process writes.

    Raises:
        StoreError: there is none, or several.
    """
    known = [left for left in keeping.left_behind(store) if left.start.run_id is None]
    if text == "last":
        fits = list(islice((left for left in known if left.free), 1))
    else:
        fits = [left for left in known if left.run_id.startswith(text) or left.path.name == text]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise StoreError(f"{len(fits)} runs start with {text!r}; give more characters of the id")
    if not known:
        raise StoreError(
            f"no run of {store.experiment!r} was stopped on this machine; there is nothing to go "
            "on with"
        )
    if text == "last":
        raise StoreError("no run was stopped here: those that are not finished are being written")
    waiting = ", ".join(left.run_id[:8] for left in known[:5])
    raise StoreError(f"no run {text!r} was stopped here; those that were are {waiting}")


def resolved_of(left: Left, store: Store) -> Resolved:
    """The configuration that a run was started with.

    Raises:
        ConfigError: a name or a setting that is not known any more.
    """
    places = {"tracking_uri": store.uri, "experiment": store.experiment}
    found = resolve([(f"run {left.run_id}", dict(left.start.params) | places)])
    return replace(found, sources=dict(found.sources) | left.start.sources)
