"""Jobs: one run of a comparison each, ready to be sent to another process."""

import gc
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from cl_manifold.comparison.outcome import Outcome
from cl_manifold.errors import ClManifoldError
from cl_manifold.experiments.config import Resolved
from cl_manifold.experiments.observing import Observer

PARENT = "mlflow.parentRunId"
KEY = "comparison.job"


@final
@dataclass(frozen=True)
class Filing:
    """Where the runs of a comparison are recorded.

    Attributes:
        uri: of the store, which is open already.
        experiment: name of the experiment.
        experiment_id: its id.
        parent_run_id: the run of the comparison.
    """

    uri: str
    experiment: str
    experiment_id: str
    parent_run_id: str


@final
@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        share: of the training, in [0, 1].
        score: over the experiences so far; None before the first is learned.
    """

    share: float
    score: float | None


@final
@dataclass(frozen=True)
class Job:
    """One run: what it is called, its configuration, where it is recorded.

    Attributes:
        tags: beside label, seed, key and parent.
    """

    label: str
    seed: int
    resolved: Resolved
    filing: Filing
    tags: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, tell: Callable[[Any], None]) -> Outcome:
        """Run it, here and now."""
        return execute(self, tell)


@final
@dataclass(frozen=True)
class Facts:
    """What a comparison needs to know of its stream."""

    name: str
    description: str
    digest: str


@final
@dataclass(frozen=True)
class Look:
    """Builds the stream of a configuration and says what it is, or what is wrong with it."""

    resolved: Resolved

    def __call__(self, tell: Callable[[Any], None]) -> Facts | ClManifoldError:
        """Build it, here and now."""
        from cl_manifold.experiments.build import build_stream

        config = self.resolved.config
        try:
            stream = build_stream(config.stream, config.data_dir, config.seed, config.data)
        except ClManifoldError as error:
            return error
        return Facts(stream.name, stream.description, stream.digest)


def key_of(label: str, resolved: Resolved) -> str:
    """What identifies a run within its comparison: its label and every setting of its result."""
    return digest_of([label, sorted(resolved.deciding().items())])


def digest_of(value: Any) -> str:
    """SHA-256 of plain values, as hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def execute(job: Job, tell: Callable[[Any], None]) -> Outcome:
    """Train, evaluate and record, or go on with it where it was stopped here.

    What a user can correct becomes the outcome's problem.
    """
    from mlflow import MlflowClient

    from cl_manifold.comparison.journal import left_here
    from cl_manifold.experiments.leaving import continued
    from cl_manifold.experiments.recording import Place
    from cl_manifold.experiments.running import run
    from cl_manifold.tracking import Store

    filing = job.filing
    client = MlflowClient(filing.uri)
    store = Store(client, filing.uri, filing.experiment, filing.experiment_id)
    tags, watcher = tags_of(job), Narrator(tell)
    try:
        stopped = left_here(store, filing.parent_run_id).get(tags[KEY])
        if stopped is None:
            found = run(job.resolved, watcher, Place(store, job.label, tags))
        else:
            found = continued(store, stopped, watcher)
    except ClManifoldError as error:
        return Outcome(job.label, job.seed, problem=str(error))
    finally:
        # strategies refer to themselves: without this a worker keeps the data of several runs
        gc.collect()
    return Outcome(job.label, job.seed, found.as_dict())


def tags_of(job: Job) -> dict[str, str]:
    """Tags by which a run is found again."""
    own = {PARENT: job.filing.parent_run_id, KEY: key_of(job.label, job.resolved)}
    return {**job.tags, **own, "label": job.label, "seed": str(job.seed)}


@final
class Narrator(Observer):
    """An observer of a run that tells `Progress`, at most a few times a second."""

    def __init__(self, tell: Callable[[Any], None], pause: float = 0.25) -> None:
        self._tell, self._pause = tell, pause
        self._last = 0.0
        self._experiences = self._epochs = 1
        self._score: float | None = None

    def begin(self, stream: Any, config: Any) -> None:
        """Remember how much there is to do."""
        self._experiences, self._epochs = len(stream.train_stream), config.training.epochs

    def epoch(self, experience: int, epoch: int, loss: float) -> None:
        """Tell how far it is."""
        now = time.monotonic()
        if now - self._last >= self._pause:
            self._last = now
            done = experience * self._epochs + epoch + 1
            share = min(1.0, done / (self._experiences * self._epochs))
            self._tell(Progress(share, self._score))

    def learned(self, record: Any, score_so_far: float) -> None:
        """Remember the score."""
        self._score = float(score_so_far)

    def say(self, sentence: str) -> None:
        """Pass it on."""
        self._tell(sentence)


def common_settings(jobs: Sequence[Job]) -> dict[str, str]:
    """The settings that all runs of a comparison share, as text."""
    first, *others = [job.resolved.deciding() for job in jobs]
    return {
        key: value
        for key, value in first.items()
        if key != "seed" and all(o.get(key) == value for o in others)
    }
