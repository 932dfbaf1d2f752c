"""Deciding inside a real Avalanche strategy, on small digits."""

from typing import Any

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.benchmarks.utils.data_attribute import DataAttribute
from avalanche.training.plugins import ReplayPlugin
from torch import Tensor
from torch.utils.data import TensorDataset

from cl_manifold.contexts import (
    AlwaysGrow,
    ByEvidence,
    ByExperience,
    GainRule,
    GivenContext,
    InferredContext,
    NeverGrow,
    Rule,
)
from cl_manifold.contexts.sweep import logits_at
from cl_manifold.errors import ContextError
from cl_manifold.geometry import Basis, Fourier, Vertices
from cl_manifold.manifold.information import ExactInformation
from cl_manifold.networks import mlp
from cl_manifold.strategies import DecisionOptions, WeightManifoldPlugin, WeightManifoldTraining
from cl_manifold.streams import load_digits, permute_pixels, rotate
from tests.networks import points_of, weights_at

IMAGES = load_digits()
# in their own order the images come writer by writer
ORDER = torch.randperm(len(IMAGES.train_y), generator=torch.Generator().manual_seed(1))


def task(kind: int, start: int, count: int = 240) -> tuple[Tensor, Tensor]:
    """Images of a hidden task: upright, turned, or with permuted pixels; labels permuted by 3."""
    rows = ORDER[start : start + count]
    x, y = IMAGES.train_x[rows], IMAGES.train_y[rows]
    if kind == 1:
        x = rotate(x, 90.0)
    if kind == 2:
        x = permute_pixels(x, torch.randperm(256, generator=torch.Generator().manual_seed(5)))
    return x.float() / 255, (y + 3) % 10 if kind == 3 else y


def stream(*parts: tuple[Tensor, Tensor], contexts: list[float] | None = None) -> Any:
    datasets: list[Any] = []
    for x, y in parts:
        targets: Any = y.tolist()
        datasets.append(
            AvalancheDataset(
                [TensorDataset(x, y)], data_attributes=[DataAttribute(targets, "targets")]
            )
        )
    made = benchmark_from_datasets(train=datasets, test=datasets).streams["train"]
    for i, experience in enumerate(made):
        if contexts is not None:
            experience.context = torch.tensor([contexts[i]])
    return made


def strategy(
    rule: Rule | None,
    basis: Basis | None = None,
    contexts: Any = None,
    information: ExactInformation | None = None,
    **options: Any,
) -> WeightManifoldTraining:
    torch.manual_seed(0)
    net = mlp((1, 16, 16), (64,), 10)
    plugin = WeightManifoldPlugin(
        basis or Vertices(1),
        contexts=contexts or InferredContext(),
        deciding=None if rule is None else DecisionOptions(rule, 60, 0.1, **options),
        information=information,
    )
    return WeightManifoldTraining(
        model=net,
        optimizer=torch.optim.Adam(net.parameters(), 3e-3),
        manifold=plugin,
        train_mb_size=16,
        train_epochs=10,
    )


def decisions(trained: WeightManifoldTraining) -> list[str]:
    return [trace.decision for trace in trained.manifold_plugin.traces]


def answer(trained: WeightManifoldTraining, place: Tensor, x: Tensor) -> Tensor:
    assert trained.manifold is not None
    return logits_at(trained.manifold, place[None], (x,))[0].argmax(-1)


def test_new_tasks_grow_returns_are_reused_and_earlier_tasks_stay() -> None:
    parts = [task(0, 0), task(2, 240), task(0, 480), task(1, 720), task(2, 960, 200)]
    trained = strategy(ByEvidence())
    kept: list[Tensor] = []
    for experience in stream(*parts):
        trained.train(experience)
        assert trained.manifold is not None
        places = trained.manifold_plugin.coordinates()
        answers = [answer(trained, place, x) for place, (x, _) in zip(places, parts, strict=False)]
        for now, before in zip(answers, kept, strict=False):
            assert float((now != before).float().mean()) < 0.02
        kept = answers
    assert decisions(trained) == ["place", "grow", "reuse", "grow", "reuse"]
    assert trained.manifold is not None
    assert trained.manifold.basis.size == 3
    vertex = [int(c.argmax()) for c in trained.manifold_plugin.coordinates()]
    assert vertex == [0, 1, 0, 2, 1]
    traces = trained.manifold_plugin.traces
    assert traces[0].evidence is None
    grown, reused = traces[1].evidence, traces[2].evidence
    assert grown is not None
    assert grown.gain is not None
    assert grown.gain > 0, "training without a price helps a new task"
    assert grown.shortfall is not None
    assert grown is not None
    assert reused is not None
    assert grown.p_value <= 0.05 < reused.p_value
    assert grown.drift is not None
    assert grown.drift > 0.15
    assert reused.drift is None
    assert 0 < reused.seconds < grown.seconds
    references = trained.manifold.atlas.references
    assert [int(r.context.argmax()) for r in references] == [0, 1, 2]
    assert [r.trained for r in references] == [192, 192, 192]


def test_a_return_trains_nothing_and_one_with_more_data_refines() -> None:
    trained = strategy(ByEvidence())
    few, many = task(0, 0, 80), task(0, 100, 800)
    experiences = list(stream(few, many, task(0, 900, 200)))
    trained.train(experiences[0])
    plugin = trained.manifold_plugin
    assert trained.manifold is not None
    before = weights_at(trained.manifold, plugin.coordinates()[0])
    trained.train(experiences[1])
    refined = weights_at(trained.manifold, plugin.coordinates()[0])
    assert not torch.equal(before, refined)
    assert len(trained.manifold.atlas) == 1
    trained.train(experiences[2])
    assert torch.equal(weights_at(trained.manifold, plugin.coordinates()[0]), refined)
    assert decisions(trained) == ["place", "reuse", "reuse"]
    assert trained.manifold.basis.size == 1


def test_asking_lets_go_of_nothing_where_tasks_are_held_exactly() -> None:
    """What new tasks would do at the coordinates of finished ones is asked, not done."""
    trained = strategy(ByEvidence(), information=ExactInformation())
    kept: list[Tensor] = []
    for experience in stream(task(0, 0), task(2, 240), task(1, 480), task(3, 720)):
        trained.train(experience)
        assert trained.manifold is not None
        places = trained.manifold_plugin.coordinates()
        assert all(t.exact for t in trained.manifold.atlas.tasks)
        assert len(trained.manifold.atlas) == len(places)
        for place, before in zip(places, kept, strict=False):
            now = weights_at(trained.manifold, place)
            torch.testing.assert_close(now, before, rtol=0, atol=1e-5)
        kept = [weights_at(trained.manifold, place) for place in places]
    assert decisions(trained) == ["place", "grow", "grow", "grow"]


def test_a_task_that_is_trained_where_another_lies_pays_for_it() -> None:
    """Every decided experience is a task of its own, also right after the one at its place."""
    trained = strategy(NeverGrow())
    for experience in stream(task(0, 0), task(2, 240)):
        trained.train(experience)
    assert trained.manifold is not None
    assert len(trained.manifold.atlas) == 2
    assert trained.manifold_plugin.traces[1].plasticity < 1e-3


@pytest.mark.parametrize(
    ("rule", "expected", "size"),
    [
        (AlwaysGrow(), ["place", "grow", "grow"], 3),
        (NeverGrow(), ["place", "reuse", "reuse"], 1),
        (GainRule(), ["place", "grow", "reuse"], 2),
    ],
)
def test_reference_rules(rule: Rule, expected: list[str], size: int) -> None:
    trained = strategy(rule)
    for experience in stream(task(0, 0), task(2, 240), task(0, 480)):
        trained.train(experience)
    assert trained.manifold is not None
    assert (decisions(trained), trained.manifold.basis.size) == (expected, size)


def test_permuted_labels_are_another_task() -> None:
    trained = strategy(ByEvidence())
    for experience in stream(task(0, 0), task(3, 240)):
        trained.train(experience)
    assert decisions(trained) == ["place", "grow"]


def test_growth_stops_at_the_limit() -> None:
    trained = strategy(ByEvidence(), max_control_points=2)
    experiences = list(stream(task(0, 0), task(2, 240), task(1, 480)))
    for experience in experiences[:2]:
        trained.train(experience)
    with pytest.warns(UserWarning, match="experience 2 is trained at .* raise max_control_points"):
        trained.train(experiences[2])
    assert trained.manifold is not None
    assert trained.manifold.basis.size == 2
    evidence = trained.manifold_plugin.traces[-1].evidence
    assert evidence is not None
    assert not evidence.can_grow


def test_given_contexts_grow_harmonics_and_uninformative_ones_do_not() -> None:
    turns = [0.0, 0.5, 0.25]
    parts = [
        (rotate(task(0, 240 * i)[0], 360 * t), task(0, 240 * i)[1]) for i, t in enumerate(turns)
    ]
    trained = strategy(ByEvidence(), Fourier(0), GivenContext())
    for experience in stream(*parts, contexts=turns):
        trained.train(experience)
    assert trained.manifold is not None
    assert decisions(trained)[1] == "grow"
    assert trained.manifold.basis.size >= 3
    idle = strategy(ByEvidence(), Fourier(0), GivenContext())
    for experience in stream(task(0, 0), task(0, 240), task(0, 480), contexts=turns):
        idle.train(experience)
    assert idle.manifold is not None
    assert idle.manifold.basis.size == 1


def test_inferred_on_a_circle_takes_free_coordinates_before_it_grows() -> None:
    trained = strategy(ByEvidence(), Fourier(1))
    for experience in stream(task(0, 0), task(2, 240), task(0, 480)):
        trained.train(experience)
    first, second, third = trained.manifold_plugin.coordinates()
    assert trained.manifold is not None
    distance = trained.manifold.basis.topology.distance
    assert float(distance(first, second)) > 0.2
    assert decisions(trained)[2] == "reuse"
    assert float(distance(first, third)) < 0.05


def test_contradictory_labels_at_one_given_context_are_an_error() -> None:
    trained = strategy(ByEvidence(), Fourier(1), ByExperience([[0.2], [0.2]]))
    experiences = list(stream(task(0, 0), task(3, 240)))
    trained.train(experiences[0])
    assert trained.manifold is not None
    before = points_of(trained.manifold)
    with pytest.raises(
        ContextError, match=r"experience 1 was given the context 0.2 .* contradicts"
    ):
        trained.train(experiences[1])
    assert torch.equal(points_of(trained.manifold), before)


def test_a_support_smaller_than_its_classes_is_an_error() -> None:
    trained = strategy(ByEvidence())
    with pytest.raises(ContextError, match=r"brings 40 samples of 10 classes.*at least 50 samples"):
        trained.train(next(iter(stream(task(0, 0, 40)))))


def test_a_single_class_says_little() -> None:
    x, y = task(0, 0, 600)
    trained = strategy(ByEvidence())
    with pytest.warns(UserWarning, match="experience 0 has a single class"):
        trained.train(next(iter(stream((x[y == 3], y[y == 3])))))


def test_labels_that_are_no_classes_are_an_error() -> None:
    x, y = task(0, 0)
    trained = strategy(ByEvidence())
    with pytest.raises(ContextError, match="brings no class labels"):
        trained.train(next(iter(stream((x, y.float())))))


def test_inferred_contexts_need_a_rule() -> None:
    with pytest.raises(ValueError, match="pass deciding=DecisionOptions"):
        WeightManifoldPlugin(Vertices(1), contexts=InferredContext())


def test_missing_contexts_name_the_experience() -> None:
    trained = strategy(None, Fourier(1), GivenContext())
    experiences = list(stream(task(0, 0), task(0, 240)))
    experiences[0].context = torch.tensor([0.5])
    trained.train(experiences[0])
    with pytest.raises(ContextError, match="experience 1 carries no context"):
        trained.train(experiences[1])


def test_other_plugins_stay_beside_it() -> None:
    torch.manual_seed(0)
    net = mlp((1, 16, 16), (32,), 10)
    manifold = WeightManifoldPlugin(
        Vertices(1), contexts=InferredContext(), deciding=DecisionOptions()
    )
    trained = WeightManifoldTraining(
        model=net,
        optimizer=torch.optim.Adam(net.parameters(), 3e-3),
        manifold=manifold,
        plugins=[ReplayPlugin(mem_size=20)],
        train_mb_size=16,
        train_epochs=8,
    )
    for experience in stream(task(0, 0), task(0, 240), task(2, 480)):
        trained.train(experience)
    assert decisions(trained) == ["place", "reuse", "grow"]
