"""A trial that was put aside goes on bit for bit, whatever the strategy keeps."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cl_manifold.errors import DataError, IncompatibleError
from cl_manifold.experiments import snapshot
from cl_manifold.experiments.config import resolve
from cl_manifold.experiments.trial import Trial
from tests.fitting import OF_CONTEXTS, OF_TASKS

TINY = {
    "stream.name": "rotated-digits",
    "stream.contexts": 3,
    "stream.samples": 60,
    "stream.test_samples": 40,
    "training.epochs": 2,
    "network.hidden": (12,),
}
MEMORY = ("replay", "gdumb", "agem", "gem", "der", "der++", "er-ace")
AT_ONCE = ("joint", "joint-concat")
VARIANTS: dict[str, dict[str, Any]] = {
    "decided": {"stream.name": "recurring-digits", "stream.contexts": 5},
    "inferred": {
        "strategy.storage": "int8",
        "contexts.test": "inferred",
        "contexts.features": 50,
    },
    "exact": {"strategy.protection": "exact", "strategy.blocks": "weight"},
    "shaped": {"stream.name": "permuted-digits", "contexts.topology": "auto"},
    "grown": {"strategy.on_drift": "grow", "strategy.drift_limit": 0.01},
    "momentum": {"strategy.name": "naive", "training.optimizer": "sgd"},
}


def trial_of(**more: Any) -> Trial:
    """A trial, in a process that has drawn other random numbers before."""
    torch.manual_seed(torch.initial_seed() + 1)
    random.seed(1)
    return Trial(resolve([("test", TINY | more)]))


def compared(whole: Trial, resumed: Trial) -> None:
    """Everything but the time that it took is the same."""
    for name in ("matrix", "unseen", "initial"):
        mine, yours = getattr(whole.progress, name), getattr(resumed.progress, name)
        np.testing.assert_array_equal(mine, yours)
    assert whole.progress.stored == resumed.progress.stored
    kept, found = whole.strategy.model.state_dict(), resumed.strategy.model.state_dict()
    assert kept.keys() == found.keys()
    assert all(torch.equal(kept[name], found[name]) for name in kept)
    if whole.manifold is not None and resumed.manifold is not None:
        mine, yours = whole.manifold.manifold, resumed.manifold.manifold
        assert mine is not None
        assert yours is not None
        assert torch.equal(mine.belief.triangle, yours.belief.triangle)
        for here, there in zip(
            whole.manifold.coordinates(), resumed.manifold.coordinates(), strict=True
        ):
            assert torch.equal(here, there)
            states = zip(mine.state(here).values(), yours.state(there).values(), strict=True)
            assert all(torch.equal(a, b) for a, b in states)
        shown = [[r.decision, r.context, r.overshoot] for r in whole.progress.records]
        assert shown == [[r.decision, r.context, r.overshoot] for r in resumed.progress.records]


def put_aside_and_resumed(folder: Path, **more: Any) -> None:
    """A whole trial, beside one from the snapshot after each of its experiences but the last."""
    whole = trial_of(**more)
    snapshot.save(folder / "0", whole.freeze())
    for step in whole.steps():
        snapshot.save(folder / str(step + 1), whole.freeze())
    for done in range(whole.progress.done):
        resumed = trial_of(**more)
        resumed.thaw(snapshot.load(folder / str(done)))
        assert list(resumed.steps()) == list(range(done, whole.progress.done))
        compared(whole, resumed)


@pytest.mark.parametrize("strategy", [name for name in OF_TASKS if name not in AT_ONCE])
def test_every_strategy_goes_on_bit_for_bit(strategy: str, tmp_path: Path) -> None:
    more: dict[str, Any] = {"strategy.name": strategy}
    more |= {"strategy.replay_samples": 40} if strategy in MEMORY else {}
    put_aside_and_resumed(tmp_path, **more)


@pytest.mark.parametrize("strategy", OF_CONTEXTS)
def test_all_contexts_at_once_go_on_bit_for_bit(strategy: str, tmp_path: Path) -> None:
    values = {"stream.name": "rotation-noise", "training.steps": 4, "stream.test_samples": 10}
    values |= {"strategy.name": strategy, "network.hidden": (6,)}
    whole, stopped = (Trial(resolve([("test", values)])) for _ in range(2))
    snapshot.save(tmp_path / "0", whole.freeze())
    assert list(whole.steps()) == [26]
    snapshot.save(tmp_path / "1", whole.freeze())
    for file in ("0", "1"):
        stopped.thaw(snapshot.load(tmp_path / file))
        list(stopped.steps())
        compared(whole, stopped)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kind_of_manifold_goes_on_bit_for_bit(variant: str, tmp_path: Path) -> None:
    put_aside_and_resumed(tmp_path, **VARIANTS[variant])


@pytest.mark.parametrize("strategy", AT_ONCE)
def test_training_at_once_is_finished_or_begins_anew(strategy: str, tmp_path: Path) -> None:
    whole = trial_of(**{"strategy.name": strategy})
    snapshot.save(tmp_path / "begun", whole.freeze())
    assert list(whole.steps()) == [2]
    snapshot.save(tmp_path / "ended", whole.freeze())
    for name, steps in (("begun", [2]), ("ended", [])):
        resumed = trial_of(**{"strategy.name": strategy})
        resumed.thaw(snapshot.load(tmp_path / name))
        assert list(resumed.steps()) == steps
        compared(whole, resumed)


def test_a_snapshot_of_other_data_is_refused(tmp_path: Path) -> None:
    trial = trial_of()
    snapshot.save(tmp_path / "here", trial.freeze())
    tree = snapshot.load(tmp_path / "here")
    with pytest.raises(DataError, match=r"stream.samples = 60, but here it is 59; give the same"):
        trial_of(**{"stream.samples": 59}).thaw(tree)
    with pytest.raises(DataError, match="other data of rotated-digits; give the same data"):
        trial_of().thaw(tree | {"digest": "0"})


@pytest.mark.parametrize("name", ["cl_manifold", "avalanche", "torch", "torchvision", "numpy"])
def test_a_snapshot_of_another_version_is_refused(name: str) -> None:
    tree = trial_of().freeze()
    tree["versions"][name] = "0.0"
    with pytest.raises(DataError, match=rf"written with {name} 0.0, but here is .*; go on with"):
        trial_of().thaw(tree)


@pytest.mark.parametrize(
    "tree", [None, [], {}, {"versions": {}}, {"versions": {}, "settings": {}, "digest": 1}]
)
def test_another_tree_is_refused(tree: Any) -> None:
    with pytest.raises(DataError, match=r"the snapshot has no .*; it is not one of a trial"):
        trial_of().thaw(tree)


def test_a_snapshot_of_another_strategy_is_refused() -> None:
    tree = trial_of(**{"strategy.name": "packnet"}).freeze()
    with pytest.raises(DataError, match="start again"):
        trial_of(**{"strategy.name": "naive"}).thaw(tree)


def test_what_cannot_be_put_aside_is_said() -> None:
    trial = trial_of(**{"strategy.name": "naive"})
    trial.strategy.mine = iter([1, 2])
    with pytest.raises(IncompatibleError, match="mine is a list_iterator, which a snapshot cannot"):
        trial.freeze()
