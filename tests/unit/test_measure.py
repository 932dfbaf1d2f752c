"""The information of a visit, averaged over its parts; and the samples it is measured on."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.models import MultiTaskModule, NCMClassifier, TrainEvalModel
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from cl_manifold.errors import IncompatibleError
from cl_manifold.geometry import Fourier
from cl_manifold.manifold.information import ExactInformation, FisherInformation
from cl_manifold.manifold.weight_manifold import WeightManifold
from cl_manifold.strategies.manifold.measure import Measured, trained_head
from cl_manifold.strategies.manifold.samples import Samples, arguments, drawn, read
from tests.networks import small_mlp

GENERATOR = torch.Generator()


def given(
    monkeypatch: pytest.MonkeyPatch, samples: int, found: list[list[float]]
) -> tuple[FisherInformation, list[int]]:
    """Fisher information that is told what to find, and how many samples it was asked about."""
    asked: list[int] = []

    def find(self: Any, module: Any, inputs: Any, *_: Any) -> Tensor:
        asked.append(len(inputs[0]))
        return torch.tensor(found.pop(0))

    monkeypatch.setattr(FisherInformation, "__call__", find)
    return FisherInformation(samples), asked


def part(count: int) -> Samples:
    return Samples((torch.randn(count, 6),), torch.randint(3, (count,)))


def strategy_of(net: nn.Module, criterion: Any = None) -> Any:
    return SimpleNamespace(
        model=net,
        _criterion=criterion or nn.CrossEntropyLoss(),
        device=torch.device("cpu"),
        experience=SimpleNamespace(current_experience=0),
    )


def measured(measure: Any, counts: list[int]) -> Tensor:
    net = small_mlp()
    found, manifold = Measured(measure), WeightManifold(net, Fourier(0))
    for count in counts:
        found.add(strategy_of(net), manifold, part(count), GENERATOR)
    return found.information()


def test_parts_count_by_their_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    measure, asked = given(monkeypatch, 100, [[1.0, 0.0], [4.0, 9.0], [0.0, 2.0]])
    found = measured(measure, [30, 10, 20])
    torch.testing.assert_close(found, torch.tensor([70 / 60, 130 / 60]))
    assert asked == [30, 10, 20]


def test_only_the_latest_samples_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of at most 40: the second part leaves room for 25 of the first, the third for none."""
    measure, _ = given(monkeypatch, 40, [[1.0], [4.0]])
    found = measured(measure, [30, 15])
    torch.testing.assert_close(found, torch.tensor([(25 * 1.0 + 15 * 4.0) / 40]))
    measure, asked = given(monkeypatch, 40, [[1.0], [4.0], [7.0]])
    assert float(measured(measure, [30, 15, 60])) == 7.0
    assert asked == [30, 15, 40]


def test_more_blocks_than_before_start_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    measure, _ = given(monkeypatch, 100, [[1.0], [4.0, 5.0], [2.0, 1.0]])
    torch.testing.assert_close(measured(measure, [30, 10, 10]), torch.tensor([3.0, 3.0]))


def test_exact_information_reads_one_sample_and_stays_infinite(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, exact = list[int](), ExactInformation.__call__

    def counted(self: Any, module: Any, inputs: Any, *rest: Any) -> Tensor:
        asked.append(len(inputs[0]))
        return exact(self, module, inputs, *rest)

    monkeypatch.setattr(ExactInformation, "__call__", counted)
    found = measured(ExactInformation(), [30, 10])
    assert asked == [1, 1]
    assert found.shape == (13,)
    assert bool(found.isinf().all())


def test_sharpness_is_that_of_the_likelihood() -> None:
    """Var y / mean squared error, on all samples, and 1 for classes."""
    net = nn.Linear(6, 1)
    found, manifold = Measured(FisherInformation(4)), WeightManifold(net, Fourier(0))
    x = torch.randn(50, 6)
    with torch.no_grad():
        y = net(x) + 0.1 * torch.randn(50, 1)
        error = float((net(x) - y).square().mean())
    found.add(strategy_of(net, nn.MSELoss()), manifold, Samples((x,), y), GENERATOR)
    assert found.sharpness == pytest.approx(float(y.var(unbiased=False)) / error, rel=1e-4)
    net = small_mlp()
    found, manifold = Measured(FisherInformation(4)), WeightManifold(net, Fourier(0))
    found.add(strategy_of(net), manifold, part(9), GENERATOR)
    assert found.sharpness == 1.0


def test_measuring_leaves_modes_and_random_streams() -> None:
    net = nn.Sequential(nn.Linear(6, 3), nn.Dropout())
    net.train()
    found, manifold, some = Measured(FisherInformation(4)), WeightManifold(net, Fourier(0)), part(9)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    found.add(strategy_of(net), manifold, some, torch.Generator())
    assert torch.equal(torch.rand(2), expected)
    assert all(m.training for m in net.modules())


def test_inside_networks_answer_with_the_head_that_is_trained() -> None:
    net = TrainEvalModel(nn.Linear(6, 4), nn.Linear(4, 3), NCMClassifier())
    x = torch.randn(5, 6)
    net.eval()
    expected = net.train_classifier(net.feature_extractor(x))
    heads = net.eval_classifier
    with trained_head(net):
        torch.testing.assert_close(net(x), expected)
    assert net.eval_classifier is heads
    with pytest.raises(AssertionError):
        net(x)


# -- samples -------------------------------------------------------------------------------------


class Noisy(Dataset[Any]):
    """Draws from every global stream when it is read."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = float(torch.rand(())) + float(np.random.rand())  # noqa: NPY002
        return torch.full((6,), index + 0 * noise), index % 3


def with_data(dataset: Any, model: Any = None, **experience: Any) -> Any:
    strategy = strategy_of(model or small_mlp())
    strategy.adapted_dataset = dataset
    strategy.experience = SimpleNamespace(current_experience=0, **experience)
    return strategy


def test_samples_are_drawn_without_repetition_by_their_own_generator() -> None:
    strategy = with_data(AvalancheDataset([Noisy()]))
    # python's own stream is not compared: the type check of the tests draws from it

    def seeded() -> None:
        torch.manual_seed(3)
        np.random.seed(3)  # noqa: NPY002

    def draw() -> list[float]:
        return [float(torch.rand(())), float(np.random.rand())]  # noqa: NPY002

    seeded()
    expected = draw()
    seeded()
    some = drawn(strategy, 6, torch.Generator().manual_seed(0))
    again = drawn(strategy, 6, torch.Generator().manual_seed(0))
    other = drawn(strategy, 6, torch.Generator().manual_seed(1))
    assert draw() == expected
    rows = some.inputs[0][:, 0]
    assert len(some) == len(set(rows.tolist())) == 6
    assert torch.equal(some.targets, rows.long() % 3)
    assert torch.equal(again.inputs[0], some.inputs[0])
    assert not torch.equal(other.inputs[0], some.inputs[0])
    assert len(drawn(strategy, 99, torch.Generator())) == 10


class Labelled(MultiTaskModule):
    def forward(self, x: Tensor, task_labels: Tensor) -> Tensor:
        return x


def test_task_labels_are_given_to_networks_that_take_them_where_there_are_any() -> None:
    x, labels = torch.randn(4, 6), torch.tensor([1, 0, 1, 1])
    data = TensorDataset(x, torch.arange(4), labels)
    told = with_data(data, Labelled(), task_labels=[0, 1])
    found = read(told, data)
    assert torch.equal(found.inputs[1], labels)
    assert torch.equal(found.targets, torch.arange(4))
    for strategy in (
        with_data(data, Labelled()),
        with_data(data, Labelled(), task_labels=None),
        with_data(data, small_mlp(), task_labels=[0, 1]),
    ):
        assert len(read(strategy, data).inputs) == 1
    two = TensorDataset(x, torch.arange(4))
    assert len(read(told, two).inputs) == 1
    assert arguments(told, x, None) == (x,)


class Rows(Dataset[Any]):
    def __init__(self, row: Any) -> None:
        self.row = row

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        return self.row


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"x": torch.ones(2), "y": 1}, "a mini-batch is a dict of Tensor, but"),
        ((torch.ones(2), "name"), "is a list of Tensor, tuple, but|is a list of Tensor, list, but"),
        ((torch.ones(2),), "has inputs but no targets"),
    ],
)
def test_mini_batches_that_are_no_tensors_are_said(row: Any, message: str) -> None:
    strategy = with_data(Rows(row))
    with pytest.raises(IncompatibleError, match=message):
        read(strategy, strategy.adapted_dataset)


def test_a_data_set_s_own_collate_function_is_used() -> None:
    data: Any = Rows((torch.ones(2), 1))
    data.collate_fn = lambda rows: [torch.zeros(len(rows), 2), torch.tensor([5] * len(rows))]
    assert read(with_data(data), data).targets.tolist() == [5, 5, 5]
