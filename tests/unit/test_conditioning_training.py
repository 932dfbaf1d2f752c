"""Training and testing of one system, and what the table says."""

from dataclasses import replace
from math import nan
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cl_manifold.conditioning.experiment import Order, Row, prepare, ranges, rows_of
from cl_manifold.conditioning.figure import accuracy_figure, along
from cl_manifold.conditioning.findings import sentences
from cl_manifold.conditioning.lineup import System
from cl_manifold.conditioning.problems import PROBLEMS, evaluation_contexts, in_range
from cl_manifold.conditioning.training import accuracies, batches, evaluation_set, train
from cl_manifold.errors import ConfigError, TrainingError
from cl_manifold.streams import ImageSet, rotate

ROTATION = PROBLEMS["rotation"]


def pictures(count: int = 40) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (2 * count, 1, 6, 6), generator=generator, dtype=torch.uint8)
    y = torch.randint(0, 3, (2 * count,), generator=generator)
    return ImageSet("made", x[:count], y[:count], x[count:], y[count:])


class Silence:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.said: list[tuple[str, int, int]] = []
        self.rows: list[Row] = []

    def recording(self, run: object) -> None: ...

    def begin(self, experiment: object) -> None: ...

    def training(self, system: str, seed: int, step: int, steps: int) -> None:
        self.said.append((system, seed, step))

    def finished(self, row: Row) -> None:
        self.rows.append(row)


class Constant(nn.Module):
    """Answers class 1, or what the context says: class 2 from 180° on."""

    def __init__(self, told: bool) -> None:
        super().__init__()
        self.told = told
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        context = context.expand(len(x), -1)
        self.seen.append(context)
        answer = torch.where(context[:, 0] >= 180, 2, 1) if self.told else torch.ones(len(x)).long()
        return nn.functional.one_hot(answer, 3).float()


def test_the_seed_decides_the_batches() -> None:
    made = pictures()
    first, again, other = (list(batches(ROTATION, made, 3, 5, seed)) for seed in (1, 1, 2))
    for a, b, c in zip(first, again, other, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))
        assert not torch.equal(a[2], c[2])


def test_a_batch_is_turned_and_normalised_image_by_image() -> None:
    made = pictures()
    [(x, y, contexts)] = batches(ROTATION, made, 1, 6, 0)
    mean, std = made.moments
    for image, label, context in zip(x, y, contexts, strict=True):
        candidates = rotate(made.train_x.float() / 255, float(context))
        gap = ((candidates - mean) / std - image).flatten(1).abs().amax(1)
        nearest = int(gap.argmin())
        assert float(gap[nearest]) < 1e-4
        assert made.train_y[nearest] == label


def test_evaluation_images_are_those_of_the_context_and_wrong_contexts_are_wrong() -> None:
    made = pictures()
    test = evaluation_set(ROTATION, made, 15)
    assert test.images.shape == (24, 15, 1, 6, 6)
    cell = 7
    candidates = rotate(made.test_x.float() / 255, float(test.contexts[cell])) * 255
    for image, target in zip(test.images[cell], test.targets[cell], strict=True):
        gap = (candidates - image.float()).flatten(1).abs().amax(1)
        assert float(gap.min()) <= 0.51
        assert made.test_y[int(gap.argmin())] == target
    assert len({tuple(t.tolist()) for t in test.images[:3].flatten(0, 1).flatten(1)}) == 45
    assert bool(in_range(ROTATION, test.told.flatten(0, 1)).all())
    assert not bool((test.told == test.contexts[:, None])[test.seen].any())
    # every other trained context is told to somebody
    assert len(test.told[0].unique()) > 8
    full = evaluation_set(ROTATION, made, 500)
    assert full.targets.shape == (24, 40)


def test_accuracies_are_shares_of_right_answers() -> None:
    test = evaluation_set(ROTATION, pictures(), 40)
    at, wrong = accuracies(Constant(told=False), test)
    assert at == tuple(pytest.approx(float((t == 1).float().mean())) for t in test.targets)
    expected = torch.stack([(t == 1).float().mean() for t in test.targets[test.seen]]).mean()
    assert wrong == pytest.approx(float(expected))
    module = Constant(told=True)
    at, wrong = accuracies(module, test)
    assert at[0] == pytest.approx(float((test.targets[0] == 1).float().mean()))
    assert at[-1] == pytest.approx(float((test.targets[-1] == 2).float().mean()))
    told = torch.where(test.told[test.seen][..., 0] >= 180, 2, 1)
    share = (told == test.targets[test.seen]).float().mean()
    assert wrong == pytest.approx(float(share), abs=1e-6)


def test_training_stops_where_the_loss_is_not_finite() -> None:
    module = nn.Linear(1, 3)

    class Broken(nn.Module):
        def forward(self, x: Tensor, context: Tensor) -> Tensor:
            return module(x.flatten(1)[:, :1]) * nan

    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    stream = batches(ROTATION, pictures(), 3, 4, 0)
    with pytest.raises(TrainingError, match="the loss became nan at step 1"):
        train(Broken(), optimizer, stream, 3, lambda step: None)


def row(name: str, inside: float, outside: float, wrong: float = 0.4) -> Row:
    accuracy = tuple([inside] * 18 + [outside] * 6)
    return Row(name, "", inside, None, outside, None, wrong, 1, 1.0, accuracy)


def test_an_experiment_averages_over_seeds() -> None:
    built = prepare(Order(systems=("one-for-all", "concat"), seeds=(0, 3), steps=20))
    built = replace(built, size=replace(built.size, test_images=30))
    watcher = Silence()
    found: list[tuple[str, int, tuple[float, ...]]] = []

    def one(system: System, seed: int, result: object) -> None:
        found.append((system.name, seed, result.accuracy))  # pyright: ignore

    rows = list(rows_of(built, watcher, one))
    assert [r.system for r in rows] == ["one-for-all", "concat"]
    assert rows == watcher.rows
    assert [f[:2] for f in found] == [(s, k) for s in ("one-for-all", "concat") for k in (0, 3)]
    np.testing.assert_allclose(rows[0].accuracy, np.mean([f[2] for f in found[:2]], 0))
    inside = [float(np.mean(f[2][:18])) for f in found[:2]]
    assert rows[0].in_range == pytest.approx(float(np.mean(inside)))
    assert rows[0].in_range_sd == pytest.approx(float(np.std(inside, ddof=1)))
    assert rows[0].held_out == pytest.approx(float(np.mean([f[2][18:] for f in found[:2]])))
    assert rows[0].wrong_context == pytest.approx(rows[0].in_range)
    assert watcher.said[-1] == ("concat", 3, 20)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (Order(name="rotatoin"), "unknown experiment 'rotatoin'; did you mean rotation"),
        (Order(steps=0), "got 0 steps and seeds 0, 1, 2; give 1 step or more"),
        (Order(seeds=(1, 1)), "different seeds"),
        (Order(seeds=(-1,)), "seeds -1"),
    ],
)
def test_impossible_orders(order: Order, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(order)


def test_ranges() -> None:
    assert ranges([0.5, 0.7, 0.1], [True, True, False]) == (pytest.approx(0.6), 0.1)


def test_sentences_say_where_more_functions_hurt() -> None:
    built = prepare(Order(systems=("manifold", "manifold-K7", "manifold-K13", "concat")))
    base, concat = row("manifold", 0.9, 0.6), row("concat", 0.8, 0.5)
    first, larger, wrong = sentences(
        built, [base, row("manifold-K7", 0.9, 0.62), row("manifold-K13", 0.8, 0.3), concat]
    )
    assert first == (
        "rotation on digits, 3 seeds: manifold 0.900 in range and 0.600 held out; "
        "concat 0.800 in range and 0.500 held out"
    )
    assert "K = 7 0.620, K = 13 0.300: more functions hurt held-out contexts from K = 13" in larger
    assert "falls from 0.900 to 0.400" in wrong
    _, larger, _ = sentences(built, [base, row("manifold-K7", 0.9, 0.62)])
    assert "more functions do not hurt here" in larger
    [first] = sentences(built, [concat])
    assert "stopped after 1 of 4 systems" in first


def test_accuracy_along_one_coordinate_averages_over_the_trained_part_of_the_other() -> None:
    problem = PROBLEMS["rotation-noise"]
    contexts = evaluation_contexts(problem)
    # a product of a function of each coordinate, so that averages factor
    angle, level = contexts[:, 0] / 360, contexts[:, 1]
    accuracy = (angle * level).tolist()
    middles = (torch.arange(12) + 0.5) / 12
    np.testing.assert_allclose(along(problem, accuracy, 0), middles * level[level < 0.5].mean())
    middles = (torch.arange(6) + 0.5) / 6
    np.testing.assert_allclose(along(problem, accuracy, 1), middles * angle[angle < 0.75].mean())


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_figure_has_a_line_per_system_and_a_grey_part(name: str, tmp_path: Path) -> None:
    problem = PROBLEMS[name]
    cells = len(evaluation_contexts(problem))
    rows = [
        replace(row(system, 0.9, 0.5), accuracy=tuple(np.linspace(0.9, 0.5, cells).tolist()))
        for system in ("manifold", "concat", "film")
    ]
    figure = accuracy_figure(problem, rows)
    assert len(figure.axes) == len(problem.cells)
    for axes in figure.axes:
        assert [line.get_label() for line in axes.lines] == ["manifold", "concat", "film"]
        assert len(axes.patches) == 1
    figure.savefig(tmp_path / "figure.png")
    assert "manifold 0.500, concat 0.500" in figure.get_suptitle()
