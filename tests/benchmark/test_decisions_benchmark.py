"""Decisions: what is reused, placed and grown for, on every stream that asks for it.

    python -m pytest -o addopts= -m benchmark tests/benchmark/test_decisions_benchmark.py -s

CL_MANIFOLD_SEEDS=0,1 runs fewer seeds. MNIST is looked for in CL_MANIFOLD_DATA_DIR.
"""

import os
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import pytest

from cl_manifold.experiments.config import Resolved, resolve
from cl_manifold.experiments.result import Result
from cl_manifold.experiments.running import run
from cl_manifold.experiments.trial import Trial

pytestmark = [pytest.mark.benchmark, pytest.mark.filterwarnings("ignore")]
SEEDS = tuple(int(seed) for seed in os.environ.get("CL_MANIFOLD_SEEDS", "0,1,2,3,4").split(","))
VARIANTS = ("minus", "plus", "in", "out", "pl", "long")
GROWING = {"topology.harmonics": 0, "contexts.rule": "evidence"}


def settings(stream: str, seed: int, folder: Path, **changes: Any) -> Resolved:
    own = {
        "stream.name": stream,
        "seed": seed,
        "data_dir": os.environ.get("CL_MANIFOLD_DATA_DIR"),
        "tracking_uri": f"sqlite:///{folder}/mlflow.db",
    }
    return resolve([("benchmark", own | changes)])


def alone(resolved: Resolved, experience: int) -> float:
    """Accuracy of a network of its own, trained on this experience only, on all its images."""
    naive = resolve([("benchmark", {"strategy.name": "naive"})]).config.strategy
    trial = Trial(replace(resolved, config=replace(resolved.config, strategy=naive)))
    stream = trial.stream
    trial.strategy.train(stream.train_stream[experience], eval_streams=[])
    return trial.scores.measure(trial.strategy, [stream.test_stream[experience]])[0]


def deciding_share(result: Result) -> float:
    """Median seconds of deciding ÷ median seconds of an experience that was trained."""
    spent = [d["evidence"]["seconds"] for d in result.decisions if d["evidence"]]
    trained = [d["seconds"] for d in result.decisions if d["decision"] != "reuse"]
    return median(spent) / median(trained)


def line(name: str, **values: float | str) -> None:
    cells = [f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items()]
    print(f"{name:<34} " + "   ".join(cells), flush=True)


@pytest.mark.parametrize("stream", ["recurring-digits", "recurring-mnist"])
def test_recurring(stream: str, tmp_path: Path) -> None:
    if "mnist" in stream and "CL_MANIFOLD_DATA_DIR" not in os.environ:
        pytest.skip("MNIST is not here: CL_MANIFOLD_DATA_DIR names no folder")
    rows: list[tuple[float, ...]] = []
    for seed in SEEDS:
        resolved = settings(stream, seed, tmp_path)
        found = run(resolved)
        firsts = [d["experience"] for d in found.decisions if d["truth"] == "first"]
        names = [d["name"] for d in found.decisions]
        own = {names[i]: alone(resolved, i) for i in firsts}
        separate = mean(own[name] for name in names)
        f1, points = found.decision_f1 or 0.0, float(found.control_points or 0)
        rows.append((f1, found.score, separate, points, deciding_share(found)))
        line(f"{stream}, seed {seed}", f1=f1, score=found.score, separate=separate, K=points)
    f1, acc, separate, points, share = (mean(column) for column in zip(*rows, strict=True))
    line(stream, f1=f1, score=acc, separate=separate, K=points, deciding=share)
    assert f1 >= 0.95
    assert acc >= separate - 0.01
    assert points <= 6


def test_false_growth_on_returns(tmp_path: Path) -> None:
    returns = false = missed = 0
    for seed in SEEDS:
        changes = {"stream.contexts": 55, "stream.samples": 400, "training.evaluate_every": 1000}
        found = run(settings("recurring-digits", seed, tmp_path, **changes))
        back = [d for d in found.decisions if d["truth"] == "return"]
        returns += len(back)
        false += sum(d["decision"] == "grow" for d in back)
        firsts = [d for d in found.decisions if d["truth"] == "first"]
        missed += sum(d["decision"] == "reuse" for d in firsts)
    line("recurring-digits, 55 visits", returns=str(returns), grown=str(false), missed=str(missed))
    assert false <= 0.05 * returns


@pytest.mark.parametrize("variant", VARIANTS)
def test_ctrl(variant: str, tmp_path: Path) -> None:
    scores: list[float] = []
    last: list[float] = []
    own: list[float] = []
    for seed in SEEDS:
        resolved = settings("ctrl-digits", seed, tmp_path, **{"stream.variant": variant})
        found = run(resolved)
        scores.append(found.decision_f1 or 0.0)
        last.append(found.decisions[-1]["final_score"] or 0.0)
        own.append(alone(resolved, len(found.decisions) - 1))
    line(f"ctrl-digits {variant}", f1=mean(scores), last=mean(last), alone=mean(own))
    assert mean(scores) >= 0.9
    if variant == "minus":
        assert mean(last) > mean(own)
    if variant == "plus":
        assert mean(last) >= mean(own) - 0.005


@pytest.mark.parametrize(("limit", "bar"), [(13, 0.954), (7, 0.950)])
def test_growing_from_one_control_point(limit: int, bar: float, tmp_path: Path) -> None:
    if "CL_MANIFOLD_DATA_DIR" not in os.environ:
        pytest.skip("MNIST is not here: CL_MANIFOLD_DATA_DIR names no folder")
    rows: list[tuple[float, ...]] = []
    for seed in SEEDS:
        changes = GROWING | {"contexts.max_control_points": limit}
        found = run(settings("rotated-mnist", seed, tmp_path, **changes))
        fixed = run(settings("rotated-mnist", seed, tmp_path))
        ratio = found.train_seconds / fixed.train_seconds
        points = float(found.control_points or 0)
        rows.append((found.score, found.unseen_score or 0.0, points, ratio, deciding_share(found)))
        line(f"rotated-mnist from K = 1, seed {seed}", score=found.score, K=points, time=ratio)
    acc, unseen, points, ratio, share = (mean(column) for column in zip(*rows, strict=True))
    line(
        f"rotated-mnist, K ≤ {limit}",
        score=acc,
        unseen=unseen,
        K=points,
        time=ratio,
        deciding=share,
    )
    assert acc >= bar
    assert unseen >= bar - 0.002


def test_uninformative_contexts_stay_at_one_control_point(tmp_path: Path) -> None:
    """The same task under ten coordinates: all images upright, contexts of a rotated stream."""
    import cl_manifold.streams.builders as builders

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builders, "rotate", lambda images, angle: images)
        sizes = [
            run(
                settings("rotated-digits", seed, tmp_path, **GROWING | {"stream.contexts": 10})
            ).control_points
            for seed in range(10)
        ]
    line("rotated-digits, all upright", K=str(sizes))
    assert sum(size == 1 for size in sizes) >= 9
