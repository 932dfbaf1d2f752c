"""What cannot work is said before anything is trained, and asking changes nothing."""

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.benchmarks.utils import AvalancheDataset
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from cl_manifold.errors import IncompatibleError
from cl_manifold.geometry import Fourier
from cl_manifold.manifold.information import ExactInformation, FisherInformation
from cl_manifold.manifold.weight_manifold import WeightManifold
from cl_manifold.strategies.manifold.dry_run import FEW, check_optimizer, dry_run
from tests.networks import small_cnn, small_mlp

INFORMATION: list[FisherInformation | ExactInformation] = [FisherInformation(4), ExactInformation()]


def strategy_of(
    net: nn.Module, x: Tensor | None = None, y: Tensor | None = None, criterion: Any = None
) -> Any:
    x = torch.randn(20, 6) if x is None else x
    y = torch.arange(len(x)) % 3 if y is None else y
    return SimpleNamespace(
        model=net,
        _criterion=criterion or nn.CrossEntropyLoss(),
        device=torch.device("cpu"),
        experience=SimpleNamespace(current_experience=0),
        adapted_dataset=AvalancheDataset([TensorDataset(x, y)]),
    )


def run(strategy: Any, information: Any = INFORMATION[0]) -> None:
    manifold = WeightManifold(strategy.model, Fourier(1))
    dry_run(strategy, manifold, information, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("information", INFORMATION)
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_nothing_changes_where_all_is_well(information: Any, kind: str) -> None:
    net = small_mlp() if kind == "mlp" else small_cnn()
    net.train()
    net[1].eval()
    net[0].bias.grad = torch.ones_like(net[0].bias)
    x = torch.randn(20, 6) if kind == "mlp" else torch.randn(20, 1, 6, 6)
    strategy = strategy_of(net, x)
    before, flags = copy.deepcopy(net.state_dict()), [m.training for m in net.modules()]
    torch.manual_seed(5)
    manifold = WeightManifold(net, Fourier(1))
    dry_run(strategy, manifold, information, torch.Generator())
    drawn = torch.rand(2)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(2))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert [m.training for m in net.modules()] == flags
    assert torch.equal(net[0].bias.grad, torch.ones_like(net[0].bias))
    assert net[0].weight.grad is None
    assert manifold.visit is None


def test_only_a_few_samples_are_read() -> None:
    seen: list[int] = []
    net = small_mlp()
    net.register_forward_hook(lambda m, i, o: seen.append(len(i[0])))
    run(strategy_of(net))
    assert max(seen) == FEW == 8


@pytest.mark.parametrize("optimizer", [None, "Adam", torch.optim.SGD])
def test_an_optimizer_must_be_one(optimizer: Any) -> None:
    with pytest.raises(IncompatibleError, match=r"optimizer is .*pass one, for example SGD"):
        check_optimizer(SimpleNamespace(optimizer=optimizer))
    good = torch.optim.Adam(small_mlp().parameters())
    check_optimizer(SimpleNamespace(optimizer=good))


class Answers(nn.Module):
    """An MLP whose answer is changed in some way."""

    def __init__(self, change: Callable[[Tensor], Any], outputs: int = 3) -> None:
        super().__init__()
        self.net = nn.Linear(6, outputs)
        self.change = change

    def forward(self, x: Tensor) -> Any:
        return self.change(self.net(x))


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(9, 6, sparse=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.words(x).mean(1))


def with_one(value: float) -> Tensor:
    x = torch.randn(20, 6)
    x[:, 2] = value
    return x


CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "infinite inputs": (
        lambda: strategy_of(small_mlp(), with_one(float("inf"))),
        "some inputs of the first experience are not finite",
    ),
    "inputs that are no numbers": (
        lambda: strategy_of(small_mlp(), with_one(float("nan"))),
        "some inputs of the first experience are not finite",
    ),
    "targets that are no numbers": (
        lambda: strategy_of(nn.Linear(6, 1), None, torch.full((20, 1), float("nan")), nn.MSELoss()),
        "some targets of the first experience are not finite",
    ),
    "inputs all the same": (
        lambda: strategy_of(small_mlp(), torch.ones(20, 6)),
        "8 random inputs of the first experience are all the same",
    ),
    "two inputs, both the same": (
        lambda: strategy_of(small_mlp(), torch.ones(2, 6)),
        "2 random inputs of the first experience are all the same",
    ),
    "a tuple": (
        lambda: strategy_of(Answers(lambda o: (o, o))),
        "returns a tuple, but .* as one tensor",
    ),
    "a sum over the batch": (
        lambda: strategy_of(Answers(lambda o: o.sum(0))),
        r"returns shape \(3,\) for 8 inputs; axis 0",
    ),
    "a number": (
        lambda: strategy_of(Answers(lambda o: o.sum())),
        r"returns shape \(\) for 8 inputs; axis 0",
    ),
    "one output under cross-entropy": (
        lambda: strategy_of(Answers(lambda o: o, 1), None, torch.zeros(20).long()),
        "cross-entropy over a single output is always zero",
    ),
    "sparse gradients": (
        lambda: strategy_of(Words(), torch.randint(9, (20, 4))),
        "sparse gradients, .* sparse=False",
    ),
    "labels out of range": (
        lambda: strategy_of(small_mlp(), None, torch.arange(20)),
        r"dry run of 8 samples through Sequential and its loss failed \(IndexError: .* out of",
    ),
    "targets of another kind": (
        lambda: strategy_of(small_mlp(), None, torch.rand(20)),
        "dry run of 8 samples through Sequential and its loss failed",
    ),
    "inputs of another shape": (
        lambda: strategy_of(small_mlp(), torch.randn(20, 5)),
        r"failed \(RuntimeError: .*; nothing was trained$",
    ),
}


@pytest.mark.parametrize("information", INFORMATION)
@pytest.mark.parametrize("name", CASES)
def test_what_cannot_work_is_one_sentence(name: str, information: Any) -> None:
    make, message = CASES[name]
    with pytest.raises(IncompatibleError, match=message) as caught:
        run(make(), information)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_fewer_targets_than_inputs() -> None:
    strategy = strategy_of(small_mlp())

    class Short(AvalancheDataset):
        def subset(self, indices: Any) -> Any:
            found: Any = super().subset(indices)
            found.collate_fn = lambda rows: [torch.randn(8, 6), torch.zeros(5).long()]
            return found

    strategy.adapted_dataset = Short([TensorDataset(torch.randn(20, 6), torch.zeros(20).long())])
    with pytest.raises(IncompatibleError, match="there are 5 targets for 8 inputs"):
        run(strategy)


def test_equal_whole_numbers_single_samples_and_frozen_networks_are_fine() -> None:
    words = Words()
    words.words.sparse = False
    run(strategy_of(words, torch.zeros(20, 4).long()))
    run(strategy_of(small_mlp(), torch.ones(1, 6)))
    frozen = small_mlp()
    frozen.requires_grad_(False)
    run(strategy_of(frozen))
    run(strategy_of(Answers(lambda o: o.detach())))  # trained by something else than gradients
    run(strategy_of(small_mlp(), criterion=nn.CrossEntropyLoss(reduction="none")))
    run(strategy_of(Answers(lambda o: o, 1), None, torch.rand(20, 1), nn.MSELoss()))
    idle = nn.ModuleDict({"used": nn.Linear(6, 3), "idle": nn.Linear(2, 2)})
    idle.forward = lambda x: idle["used"](x)
    run(strategy_of(idle))
