"""A comparison from order to result: several strategies and seeds on one stream, one table."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from typing import Any, final

from cl_manifold import __version__
from cl_manifold.comparison.entries import check_seeds, check_settings, resolve_entry
from cl_manifold.comparison.jobs import Facts, Filing, Job, Look, key_of
from cl_manifold.comparison.journal import (
    at_work,
    earlier_comparison,
    finished_results,
    retire,
)
from cl_manifold.comparison.lineup import CANDIDATE, Tuned, digest, main_jobs, tuning_jobs
from cl_manifold.comparison.order import (
    ComparisonOrder,
    ComparisonResult,
    Nobody,
    Outlook,
    Watcher,
)
from cl_manifold.comparison.outcome import Outcome
from cl_manifold.comparison.record import Recorder, Status, start_parent
from cl_manifold.comparison.tuning import best
from cl_manifold.comparison.workers import Ended, Failed, Lost, Told, Workers, workers
from cl_manifold.errors import ClManifoldError, ConfigError, StoreError
from cl_manifold.experiments.config import Resolved
from cl_manifold.tracking import Store, open_store, resolve_tracking_uri


def compare(order: ComparisonOrder, watcher: Watcher | None = None) -> ComparisonResult:
    """Run everything, several runs at once, and record it below one MLflow run.

    Names, settings, store and data are checked before that run exists. An unfinished comparison
    of the same settings is continued: finished runs are kept, only missing ones run. Runs that
    cannot be done become problems of the result; the others still run. In a script of your own
    call this under `if __name__ == "__main__":`, because it starts processes.

    Raises:
        ClManifoldError: anything that a user can correct.
    """
    check_seeds(order.seeds)
    check_settings(order.entries, order.layers)
    resolved = [resolve_entry(entry, order.seeds[0], order.layers) for entry in order.entries]
    with ExitStack() as stack:
        engine = stack.enter_context(closing(workers(order.engine, order.jobs)))
        config = resolved[0].config
        store = open_store(resolve_tracking_uri(config.tracking_uri), config.experiment)
        facts = _facts(engine, resolved[0])
        comparison = stack.enter_context(_opened(store, order, facts, watcher or Nobody()))
        return comparison.run(engine)


def _facts(engine: Workers, resolved: Resolved) -> Facts:
    """What the stream is, looked up where runs will run.

    Raises:
        ClManifoldError: the stream cannot be built.
    """
    problem = ""
    for event in engine.perform([Look(resolved)]):
        if isinstance(event, Ended):
            if isinstance(event.value, ClManifoldError):
                raise event.value
            return event.value
        if isinstance(event, Failed):
            problem = event.problem
    raise ClManifoldError(f"the stream cannot be built: {problem}")


@contextmanager
def _opened(
    store: Store, order: ComparisonOrder, facts: Facts, watcher: Watcher
) -> Iterator["_Comparison"]:
    """The comparison, new or continued, with nobody else at work on it.

    Raises:
        StoreError: the store refuses, or the comparison is under way in another process.
    """
    blank = Filing(store.uri, store.experiment, store.experiment_id, "")
    name = digest(order, blank, __version__)
    earlier = None if order.fresh else earlier_comparison(store, name)
    run_id = earlier or start_parent(store, order, facts, main_jobs(order, blank, {}), name).run_id
    with at_work(run_id):
        store.reopen_run(run_id)
        retire(store, run_id)
        known = finished_results(store, run_id)
        recorder = Recorder(store, run_id, order, facts, watcher.say)
        watcher.recording(recorder.run)
        filing = replace(blank, parent_run_id=run_id)
        comparison = _Comparison(store, order, filing, recorder, known, watcher)
        watcher.begin(comparison.outlook(facts.name, earlier is not None))
        yield comparison


@final
class _Comparison:
    """A comparison that has a run."""

    def __init__(
        self,
        store: Store,
        order: ComparisonOrder,
        filing: Filing,
        recorder: Recorder,
        known: Mapping[str, Mapping[str, Any]],
        watcher: Watcher,
    ) -> None:
        self._store, self._order, self._filing = store, order, filing
        self._recorder, self._known, self._watcher = recorder, known, watcher
        self._outcomes: dict[int, Outcome] = {}
        self._tuned: Tuned = {}

    def outlook(self, stream: str, resumed: bool) -> Outlook:
        """What is about to happen."""
        order = self._order
        tried = tuning_jobs(order, self._filing) if order.tune else {}
        return Outlook(
            stream=stream,
            labels=tuple(entry.label for entry in order.entries),
            seeds=order.seeds,
            jobs=order.jobs,
            total=len(order.entries) * len(order.seeds) + sum(map(len, tried.values())),
            present=len(self._known),
            resumed=resumed,
        )

    def run(self, engine: Workers) -> ComparisonResult:
        """Tune if asked to, run what is missing, write the reports.

        Stopped or broken off, it writes them over what is there.
        """
        try:
            if self._order.tune:
                self._tuned = self._tune(engine)
            jobs = main_jobs(self._order, self._filing, self._tuned)
            for index, outcome, earlier in self._perform(engine, jobs):
                self._outcomes[index] = outcome
                self._watcher.finished(outcome, earlier)
        except BaseException as error:
            engine.close()
            self._end("FAILED" if isinstance(error, Exception) else "KILLED")
            raise
        complete = not any(o.problem for o in self._outcomes.values())
        return self._end("FINISHED" if complete else "FAILED")

    def _tune(self, engine: Workers) -> Tuned:
        """The best candidate of every strategy that has some and can run."""
        tried = tuning_jobs(self._order, self._filing)
        jobs = [job for pairs in tried.values() for _, job in pairs]
        found: dict[int, Outcome] = {}
        for index, outcome, earlier in self._perform(engine, jobs):
            found[index] = outcome
            self._watcher.tried(outcome, jobs[index].tags[CANDIDATE], earlier)
        chosen: dict[str, Mapping[str, Any]] = {}
        begin = 0
        for label, pairs in tried.items():
            outcomes = [[found[begin + place]] for place in range(len(pairs))]
            begin += len(pairs)
            with suppress(ConfigError):  # none has a result: the main runs will say why
                chosen[label] = pairs[best(outcomes, self._order.tuned_by)][0]
                self._watcher.tuned(label, chosen[label], len(pairs))
        return chosen

    def _perform(self, engine: Workers, jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome, bool]]:
        """Numbers of jobs and what they came to, and whether an earlier start had done them."""
        keys = [key_of(job.label, job.resolved) for job in jobs]
        missing = [index for index, key in enumerate(keys) if key not in self._known]
        for index, (job, key) in enumerate(zip(jobs, keys, strict=True)):
            if key in self._known:
                yield index, Outcome(job.label, job.seed, self._known[key]), True
        for event in engine.perform([jobs[index] for index in missing]):
            index = missing[event.index]
            label, seed = jobs[index].label, jobs[index].seed
            if isinstance(event, Ended):
                yield index, event.value, False
            elif isinstance(event, Failed):
                yield index, Outcome(label, seed, problem=event.problem), False
            elif isinstance(event, Lost):
                self._watcher.lost(label, seed)
                with suppress(StoreError):
                    retire(self._store, self._filing.parent_run_id, keys[index])
            else:
                told = event.message if isinstance(event, Told) else None
                self._heard(label, seed, told)

    def _heard(self, label: str, seed: int, message: Any) -> None:
        """What a run says of itself: a sentence, or how far it is."""
        if isinstance(message, str):
            self._watcher.say(message)
        else:
            self._watcher.progress(label, seed, message)

    def _end(self, status: Status) -> ComparisonResult:
        outcomes = [self._outcomes[index] for index in sorted(self._outcomes)]
        return self._recorder.end(outcomes, self._tuned, status)
