"""One experiment on conditioning: systems × seeds, from images to rows of a table.

Knows images, problems and systems; knows no store and no terminal.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Protocol, final, runtime_checkable

import torch

from cl_manifold.conditioning.lineup import Build, Setting, System, chosen, parameters_of
from cl_manifold.conditioning.pictures import load_pictures
from cl_manifold.conditioning.problems import PROBLEMS, Problem
from cl_manifold.conditioning.training import (
    EvaluationSet,
    Found,
    accuracies,
    batches,
    evaluation_set,
    train,
)
from cl_manifold.errors import ConfigError
from cl_manifold.experiments.names import unknown
from cl_manifold.networks import cnn, mlp
from cl_manifold.streams import ImageSet


@final
@dataclass(frozen=True)
class Size:
    """How large an experiment on some data is when nobody says otherwise.

    Attributes:
        build: the kind of network.
        widths: of its hidden layers.
        steps: training steps of every system.
        batch_size: images in each of them.
        test_images: test images at every tested context.
        adam_rate: learning rate of Adam.
        sgd_rate: learning rate of SGD with momentum 0.9 on plain gradients.
        natural_rate: learning rate of SGD with momentum 0.9 on natural gradients.
        seeds: of network and batches.
    """

    build: Build
    widths: tuple[int, ...]
    steps: int
    batch_size: int
    test_images: int
    adam_rate: float
    sgd_rate: float
    natural_rate: float
    seeds: tuple[int, ...] = (0, 1, 2)


SIZES: Mapping[str, Size] = {
    "digits": Size(mlp, (128, 128), 400, 64, 450, 1e-3, 0.03, 0.03),
    "mnist": Size(mlp, (128, 128), 3000, 128, 2000, 1e-3, 0.03, 0.03),
    "cifar10": Size(cnn, (16, 32, 64, 64), 700, 64, 500, 1e-3, 0.03, 0.03, (0,)),
}
"""By data; a folder of images is treated like CIFAR-10."""


@final
@dataclass(frozen=True)
class Order:
    """What was asked for.

    Attributes:
        name: of the problem.
        data: as for `load_pictures`.
        data_dir: the folder with the data.
        seeds: empty for the usual ones.
        systems: names; empty for all.
        steps: of training; None for the usual number.
        holdout: "test" or "validation".
    """

    name: str = "rotation"
    data: str = "digits"
    data_dir: Path | None = None
    seeds: tuple[int, ...] = ()
    systems: tuple[str, ...] = ()
    steps: int | None = None
    holdout: str = "test"


@final
@dataclass(frozen=True, eq=False)
class Experiment:
    """Everything that is built before training starts."""

    order: Order
    problem: Problem
    pictures: ImageSet
    size: Size
    setting: Setting
    systems: Sequence[System]
    seeds: tuple[int, ...]
    steps: int


@final
@dataclass(frozen=True)
class Row:
    """One system, averaged over seeds; accuracies in [0, 1].

    Attributes:
        system: its name.
        summary: what it is.
        in_range: mean accuracy over contexts where training is.
        in_range_sd: standard deviation over seeds; None for one seed.
        held_out: mean accuracy over all other contexts.
        held_out_sd: likewise.
        wrong_context: accuracy in range when told another context.
        parameters: numbers that training may change.
        seconds: training time of one seed, mean; batches are made outside.
        accuracy: at every tested context, mean over seeds.
    """

    system: str
    summary: str
    in_range: float
    in_range_sd: float | None
    held_out: float
    held_out_sd: float | None
    wrong_context: float
    parameters: int
    seconds: float
    accuracy: tuple[float, ...]


@runtime_checkable
class Watcher(Protocol):
    """Who watches an experiment; the command line draws it."""

    def recording(self, run: Any) -> None:
        """The MLflow run of the experiment, a `TrackedRun`, exists."""
        ...

    def begin(self, experiment: Experiment) -> None:
        """Everything is built, training starts."""
        ...

    def training(self, system: str, seed: int, step: int, steps: int) -> None:
        """A system has taken so many steps."""
        ...

    def finished(self, row: Row) -> None:
        """A system is trained and tested with all seeds."""
        ...


def prepare(order: Order) -> Experiment:
    """Load the images and check every name, before anything is trained or recorded.

    Raises:
        ConfigError: an unknown name, or a number out of range.
        DataError: the images cannot be read.
    """
    if order.name not in PROBLEMS:
        raise ConfigError(unknown("experiment", order.name, PROBLEMS))
    problem = PROBLEMS[order.name]
    systems = chosen(problem, order.systems)
    kind = order.data.partition(":")[0]
    size = SIZES.get(kind, SIZES["cifar10"])
    seeds, steps = order.seeds or size.seeds, size.steps if order.steps is None else order.steps
    if steps < 1 or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ConfigError(
            f"got {steps} steps and seeds {', '.join(map(str, seeds))}; "
            "give 1 step or more and different seeds from 0 on"
        )
    pictures = load_pictures(order.data, order.data_dir, order.holdout)
    setting = Setting(
        problem,
        size.build,
        pictures.input_shape,
        size.widths,
        pictures.classes,
        pictures.moments,
        size.adam_rate,
        size.sgd_rate,
        size.natural_rate,
    )
    return Experiment(order, problem, pictures, size, setting, systems, seeds, steps)


def rows_of(
    experiment: Experiment, watcher: Watcher, one: Callable[[System, int, Found], None]
) -> Iterator[Row]:
    """Train and test system by system; yields a row after the last seed of each.

    The watcher hears of a row after whoever asked for it has dealt with it.

    Args:
        experiment: from `prepare`.
        watcher: is told how far it is.
        one: is called with every system, seed and what was found.
    """
    watcher.begin(experiment)
    test = evaluation_set(experiment.problem, experiment.pictures, experiment.size.test_images)
    for system in experiment.systems:
        found: list[Found] = []
        parameters = 0
        for seed in experiment.seeds:
            torch.manual_seed(seed)
            module = system.make(experiment.setting)
            parameters = parameters_of(module)
            found.append(_result(experiment, system, module, test, seed, watcher))
            one(system, seed, found[-1])
        row = _row(system, parameters, found, test)
        yield row
        watcher.finished(row)


def _result(
    experiment: Experiment,
    system: System,
    module: torch.nn.Module,
    test: EvaluationSet,
    seed: int,
    watcher: Watcher,
) -> Found:
    steps = experiment.steps
    stream = batches(
        experiment.problem, experiment.pictures, steps, experiment.size.batch_size, seed
    )
    seconds = train(
        module,
        system.optimizer(module, experiment.setting),
        stream,
        steps,
        lambda step: watcher.training(system.name, seed, step, steps),
    )
    at, wrong = accuracies(module, test)
    return Found(at, wrong, seconds)


def ranges(values: Sequence[float], test_seen: Sequence[bool]) -> tuple[float, float]:
    """Mean accuracy where training is and mean accuracy elsewhere."""
    pairs = list(zip(values, test_seen, strict=True))
    return mean(a for a, known in pairs if known), mean(a for a, known in pairs if not known)


def _row(system: System, parameters: int, found: Sequence[Found], test: EvaluationSet) -> Row:
    seen = [bool(known) for known in test.seen]
    inside, outside = zip(*(ranges(f.accuracy, seen) for f in found), strict=True)
    return Row(
        system=system.name,
        summary=system.summary,
        in_range=mean(inside),
        in_range_sd=stdev(inside) if len(found) > 1 else None,
        held_out=mean(outside),
        held_out_sd=stdev(outside) if len(found) > 1 else None,
        wrong_context=mean(f.wrong_context for f in found),
        parameters=parameters,
        seconds=mean(f.seconds for f in found),
        accuracy=tuple(mean(values) for values in zip(*(f.accuracy for f in found), strict=True)),
    )
