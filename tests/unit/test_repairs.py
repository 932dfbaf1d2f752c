"""Every fault of Avalanche that is worked around, shown in Avalanche itself, and its repair.

A test whose name begins with `test_avalanche` fails when the workaround is no longer needed.
"""

import random
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.models.packnet import PackNetModel, PackNetPlugin
from avalanche.training import ACECriterion
from avalanche.training.plugins import (
    AGEMPlugin,
    ReplayPlugin,
    SynapticIntelligencePlugin,
)
from avalanche.training.supervised import ER_ACE, Naive
from torch import Tensor, nn

from cl_manifold.networks import mlp
from cl_manifold.strategies import (
    AsymmetricReplay,
    AveragedGradients,
    DarkReplay,
    Distillation,
    GreedySampler,
    InMemoryLoaderPlugin,
    PackedTasks,
    Replay,
    SynapticIntelligence,
)
from cl_manifold.strategies.repairs import asymmetric_loss
from cl_manifold.streams import StreamOptions, rotated_digits

STREAM = rotated_digits(StreamOptions(contexts=3, samples=40, test_samples=20))


def template(*plugins: SupervisedPlugin, optimizer: Any = None, batch: int = 8) -> dict[str, Any]:
    torch.manual_seed(0)
    net = mlp(STREAM.input_shape, (8,), 10)
    make = optimizer or (lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    return {
        "model": net,
        "optimizer": make(net.parameters()),
        "criterion": nn.CrossEntropyLoss(),
        "train_mb_size": batch,
        "train_epochs": 3,
        "eval_mb_size": 20,
        "plugins": [InMemoryLoaderPlugin(), *plugins],
        "evaluator": None,
    }


def walk(strategy: Any) -> Any:
    for experience in STREAM.train_stream:
        strategy.train(experience, eval_streams=[])
    return strategy


def weights(strategy: Any) -> Tensor:
    return torch.cat([p.detach().flatten() for p in strategy.model.parameters()])


def trained(*plugins: SupervisedPlugin, **options: Any) -> Tensor:
    return weights(walk(Naive(**template(*plugins, **options))))


# -- penalties -----------------------------------------------------------------------------------


def test_avalanche_synaptic_intelligence_does_nothing_on_a_cpu() -> None:
    assert torch.equal(trained(SynapticIntelligencePlugin(si_lambda=1e4)), trained())


def test_synaptic_intelligence_differs_from_fine_tuning() -> None:
    assert not torch.allclose(trained(SynapticIntelligence(10.0, eps=0.1)), trained(), atol=1e-3)


def by_hand(penalty: float, damping: float, steps: int, rate: float) -> Tensor:
    """Synaptic intelligence on whole experiences, with plain tensors."""
    torch.manual_seed(0)
    net = mlp(STREAM.input_shape, (8,), 10)
    parameters = list(net.parameters())
    firm = [torch.zeros_like(p) for p in parameters]
    summed = [torch.zeros_like(p) for p in parameters]
    for experience in STREAM.train_stream:
        x, y = (torch.stack([torch.as_tensor(i[k]) for i in experience.dataset]) for k in (0, 1))
        anchors = [p.detach().clone() for p in parameters]
        work = [torch.zeros_like(p) for p in parameters]
        for _ in range(steps):
            loss = nn.functional.cross_entropy(net(x), y)
            for p, a, f in zip(parameters, anchors, firm, strict=True):
                loss = loss + penalty / 2 * (f * (p - a) ** 2).sum()
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                for p, g, w in zip(parameters, gradients, work, strict=True):
                    w += g * rate * g
                    p -= rate * g
        for p, a, w, s, f in zip(parameters, anchors, work, summed, firm, strict=True):
            s += w / ((p.detach() - a) ** 2 + damping)
            f.copy_(s.clamp(min=0))
    return torch.cat([p.detach().flatten() for p in parameters])


def test_synaptic_intelligence_is_the_published_one() -> None:
    found = trained(SynapticIntelligence(5.0, eps=0.1), batch=40)
    expected = by_hand(5.0, 0.1, steps=3, rate=0.1)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, by_hand(0.0, 0.1, steps=3, rate=0.1), atol=1e-4)


def test_distillation_differs_from_fine_tuning() -> None:
    assert not torch.equal(trained(Distillation(1.0, 2.0)), trained())


# -- memories ------------------------------------------------------------------------------------


def test_avalanche_er_ace_loses_its_loss() -> None:
    logits, labels = torch.tensor([[0.0, 200.0]]), torch.tensor([0])
    both = torch.tensor([0, 1])
    args = (logits.expand(2, -1), both, logits, labels)
    assert ACECriterion()(*args).isnan()
    assert asymmetric_loss(*args) == pytest.approx(150.0)


def test_the_asymmetric_loss_is_avalanches_where_that_is_finite() -> None:
    new, old = torch.randn(6, 5), torch.randn(4, 5)
    args = (new, torch.tensor([1, 3, 3, 1, 4, 3]), old, torch.tensor([0, 2, 3, 4]))
    assert torch.allclose(asymmetric_loss(*args), ACECriterion()(*args), atol=1e-6)


@pytest.mark.parametrize("strategy", [DarkReplay, AsymmetricReplay])
def test_der_and_er_ace_remember_and_differ_from_fine_tuning(strategy: Any) -> None:
    made = walk(strategy(**template(), mem_size=30, batch_size_mem=8))
    assert len(made.storage_policy.buffer) == 30
    assert not torch.equal(weights(made), trained())


def test_remembered_outputs_pull_the_network_back() -> None:
    def distance(alpha: float) -> float:
        made = DarkReplay(**template(), mem_size=40, batch_size_mem=8, alpha=alpha, beta=0.0)
        made.train(STREAM.train_stream[0], eval_streams=[])
        buffer: Any = made.storage_policy.buffer
        rows = [buffer[i] for i in range(len(buffer))]
        made.train(STREAM.train_stream[1], eval_streams=[])
        x, z = torch.stack([row[0] for row in rows]), torch.stack([row[-1] for row in rows])
        return float((made.model(x) - z).detach().square().mean())

    assert distance(0.1) < 0.5 * distance(0.0)


@pytest.mark.parametrize(
    "strategy",
    [
        lambda: Naive(**template(ReplayPlugin(30))),
        lambda: ER_ACE(**template(), mem_size=30, batch_size_mem=50),
    ],
)
def test_avalanche_buffers_are_loud(strategy: Callable[[], Any]) -> None:
    with warnings.catch_warnings(), pytest.warns(DeprecationWarning, match="pre_adapt"):
        walk(strategy())


@pytest.mark.parametrize(
    "strategy",
    [
        lambda: Naive(**template(Replay(30))),
        lambda: Naive(**template(GreedySampler(30))),
        lambda: Naive(**template(SynapticIntelligence(1.0, eps=0.1))),
        lambda: DarkReplay(**template(), mem_size=30),
        lambda: AsymmetricReplay(**template(), mem_size=30, batch_size_mem=8),
    ],
)
def test_ours_keep_quiet(strategy: Callable[[], Any], capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        walk(strategy())
    said = capsys.readouterr()
    assert not said.out + said.err


class Spy(SupervisedPlugin):
    """Keeps the mini-batches of every training experience."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, list[Tensor]] = {}

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        index = int(strategy.experience.current_experience)
        self.seen.setdefault(index, []).append(strategy.mb_x.clone())


def of_experience(index: int) -> set[bytes]:
    return {item[0].numpy().tobytes() for item in STREAM.train_stream[index].dataset}


def test_replay_mixes_as_many_old_samples_as_new_ones() -> None:
    spy = Spy()
    walk(Naive(**template(Replay(20), spy)))
    assert {len(x) for x in spy.seen[0]} == {8}
    old = of_experience(0) | of_experience(1)
    remembered: set[bytes] = set()
    for batch in spy.seen[2]:
        found = [row.numpy().tobytes() for row in batch]
        assert set(found[:8]) <= of_experience(2)
        assert set(found[8:]) <= old
        assert 4 <= len(found[8:]) <= 8
        remembered.update(found[8:])
    assert len(remembered) == 20
    assert len(spy.seen[2]) == 3 * 5


def test_avalanche_agem_ignores_torchs_seed_and_wants_many_samples() -> None:
    def memory(seed: int) -> list[int]:
        random.seed(seed)
        plugin = AGEMPlugin(5, 8)
        torch.manual_seed(0)
        plugin.update_memory(STREAM.train_stream[0].dataset)
        return [int(item[0].sum() * 1000) for item in plugin.buffers[0]]

    assert memory(0) != memory(1)
    with pytest.raises(ValueError, match="batch_size"):
        trained(AGEMPlugin(5, 1))


def test_agem_follows_torchs_seed_and_serves_any_number_of_experiences() -> None:
    random.seed(0)
    first = trained(AveragedGradients(5, 1))
    random.seed(1)
    assert torch.equal(first, trained(AveragedGradients(5, 1)))


def test_agem_projects_onto_the_half_space_of_the_memory() -> None:
    class Check(SupervisedPlugin):
        def __init__(self, memory: AveragedGradients) -> None:
            super().__init__()
            self.memory, self.products = memory, list[float]()

        def before_update(self, strategy: Any, **kwargs: Any) -> None:
            if len(self.memory.reference_gradients):
                g = torch.cat([p.grad.flatten() for p in strategy.model.parameters()])
                self.products.append(float(g @ self.memory.reference_gradients))

    memory = AveragedGradients(10, 20)
    check = Check(memory)
    trained(memory, check)
    assert len(check.products) == 2 * 3 * 5
    assert min(check.products) > -1e-4
    assert min(check.products) < 1e-4  # some steps were projected


# -- masks ---------------------------------------------------------------------------------------


def test_avalanche_packnet_cannot_rebuild_adamw() -> None:
    made = template(optimizer=torch.optim.AdamW)
    packed = PackNetModel(made["model"])
    made["model"] = packed
    strategy = Naive(**made)
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        PackNetPlugin(1, 0.5).before_training_exp(strategy)


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, None])
def test_what_packnet_has_learned_never_changes(optimizer: Any) -> None:
    made = template(optimizer=optimizer)
    packed = PackNetModel(made["model"])
    plugin = PackedTasks(packed, STREAM.topology, 1, 0.5)
    made["plugins"].append(plugin)
    strategy = Naive(**made)
    answers: list[Tensor] = []
    x = torch.stack([item[0] for item in STREAM.test_stream[0].dataset])
    for task, experience in enumerate(STREAM.train_stream):
        strategy.train(experience, eval_streams=[])
        packed.activate_task(task)
        answers.append(strategy.model(x).detach())
    for task, expected in enumerate(answers):
        packed.activate_task(task)
        assert torch.equal(strategy.model(x), expected)
    assert not torch.allclose(answers[0], answers[1])
