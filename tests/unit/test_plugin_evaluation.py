"""WeightManifoldPlugin in evaluations: whose weights are written, and what is put back."""

import copy
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.supervised import JointTraining
from torch import Tensor, nn

from cl_manifold.contexts import ContextInference, InferenceSettings
from cl_manifold.geometry import Fourier
from cl_manifold.strategies import InferredTesting, WeightManifoldPlugin
from tests.networks import small_mlp, weights_at

from .test_plugin import CONTEXTS, Spy, benchmark, strategy_with, walk


def here(plugin: WeightManifoldPlugin, context: float) -> Tensor:
    assert plugin.manifold is not None
    return weights_at(plugin.manifold, torch.tensor([context]))


def test_nothing_is_stored_before_anything_was_trained() -> None:
    plugin = WeightManifoldPlugin(Fourier(1))
    strategy_with(plugin).eval(benchmark().streams["test"])
    assert plugin.manifold is None
    assert plugin.stored_floats == 0


def test_a_network_that_is_replaced_before_an_evaluation_is_followed() -> None:
    plugin, spy, made = WeightManifoldPlugin(Fourier(2)), Spy(), benchmark()
    strategy = strategy_with(plugin, spy)
    walk(strategy, made)
    assert plugin.manifold is not None
    strategy.model = copy.deepcopy(strategy.model)
    spy.seen.clear()
    strategy.eval(made.streams["test"])
    assert plugin.manifold.module is strategy.model
    for seen, c in zip(spy.seen, CONTEXTS, strict=True):
        assert torch.equal(seen, weights_at(plugin.manifold, torch.tensor([c])))


def test_an_evaluation_amid_training_shows_what_a_commit_would_make_of_every_context() -> None:
    """After the last epoch nothing is trained any more: the next evaluation shows the same."""
    plugin, spy, made = WeightManifoldPlugin(Fourier(2)), Spy(), benchmark()
    strategy = strategy_with(plugin, spy, eval_every=1)
    test, train = made.streams["test"], made.streams["train"]
    strategy.train(train[0], eval_streams=[])
    held = [here(plugin, c) for c in CONTEXTS]
    spy.seen.clear()
    strategy.train(train[1], eval_streams=[test])
    amid = spy.seen[-3:]
    for seen, before, c in zip(amid, held, CONTEXTS, strict=True):
        now = here(plugin, c)
        torch.testing.assert_close(seen, now, rtol=1e-5, atol=1e-6)
        assert float((seen - before).abs().max()) > 1e-4, "the commit moves this context"


class WritesLast(SupervisedPlugin):
    """Writes into the network after each experience, as consolidating strategies do."""

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        with torch.no_grad():
            for parameter in strategy.model.parameters():
                parameter.fill_(0.25)


def test_an_evaluation_at_the_end_of_an_experience_sees_what_was_written_last() -> None:
    plugin, spy, made = WeightManifoldPlugin(Fourier(2)), Spy(), benchmark()
    strategy = strategy_with(plugin, WritesLast(), spy, eval_every=0)
    first = made.streams["train"][0]
    strategy.train(first, eval_streams=[made.streams["test"][:1]])
    assert spy.seen
    torch.testing.assert_close(spy.seen[-1], torch.full_like(spy.seen[-1], 0.25))


def test_one_experience_is_joint_training_too() -> None:
    plugin, made = WeightManifoldPlugin(Fourier(2)), benchmark()
    net = small_mlp()
    nothing: Any = None
    strategy = JointTraining(
        model=net,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=8,
        plugins=[plugin],
        evaluator=nothing,
    )
    strategy.train(made.streams["train"][:1])
    assert len(plugin.traces) == 1


def test_the_trace_of_an_undisturbed_task() -> None:
    plugin, made = WeightManifoldPlugin(Fourier(2)), benchmark()
    walk(strategy_with(plugin), made)
    first = plugin.traces[0]
    assert (first.gate, first.drift, first.evidence) == ("passed", 0.0, None)
    assert first.overshoot > 0


class Widens(SupervisedPlugin):
    """Evaluates after the first epoch of the second experience, where the head becomes wider."""

    def __init__(self, plugin: WeightManifoldPlugin) -> None:
        super().__init__()
        self.plugin, self.trained, self.kept = plugin, {}, {}
        self.tested: Tensor = torch.empty(0)

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        clock = strategy.clock
        if (clock.train_exp_counter, clock.train_exp_epochs) != (1, 1):
            return
        net, experience = strategy.model, strategy.experience
        self.trained = state(net)
        self.plugin.before_eval(strategy)
        old, wide = net[-1], nn.Linear(net[-1].in_features, 5)
        with torch.no_grad():
            wide.weight[:3], wide.bias[:3] = old.weight, old.bias
        net[-1] = wide
        self.fresh = {"weight": wide.weight.detach().clone(), "bias": wide.bias.detach().clone()}
        strategy.experience = benchmark().streams["test"][0]
        self.plugin.before_eval_exp(strategy)
        self.tested = net[0].weight.detach().clone()
        strategy.experience = experience
        self.plugin.after_eval(strategy)
        self.kept = state(net)
        strategy.optimizer.param_groups[0]["params"] = list(net.parameters())


def state(net: nn.Module) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in net.named_parameters()}


def test_a_head_that_grows_in_an_evaluation_amid_training_keeps_what_was_trained() -> None:
    plugin, made = WeightManifoldPlugin(Fourier(2)), benchmark()
    net = small_mlp()
    widens = Widens(plugin)
    strategy = strategy_with(plugin, widens, model=net)
    walk(strategy, made)
    last = max(int(n.split(".")[0]) for n in widens.trained)
    assert not torch.equal(widens.tested, widens.trained["0.weight"]), "another context's weights"
    for name, before in widens.trained.items():
        now = widens.kept[name]
        if name.startswith(f"{last}."):
            assert torch.equal(now[3:], widens.fresh[name.split(".")[1]][3:])
            now = now[:3]
        else:
            assert torch.equal(now, before), name
    assert plugin.manifold is not None
    held = plugin.manifold.state(torch.tensor([CONTEXTS[1]], dtype=torch.float64))
    assert held[f"{last}.weight"].shape[0] == 5


class Answers(SupervisedPlugin):
    """Records inputs and answers of an evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def after_eval_iteration(self, strategy: Any, **kwargs: Any) -> None:
        self.seen.append((strategy.mb_x, strategy.mb_output.detach()))


def test_inferred_answers_are_those_of_the_inferred_contexts() -> None:
    settings, answers, made = InferenceSettings(grid=6), Answers(), benchmark()
    plugin = WeightManifoldPlugin(Fourier(2), testing=InferredTesting(4, settings=settings))
    strategy = strategy_with(plugin, answers)
    walk(strategy, made)
    assert plugin.manifold is not None
    strategy.eval(made.streams["test"])
    inference = ContextInference(settings=settings)
    inference.prepare(plugin.manifold)
    assert len(answers.seen) == 3
    for x, found in answers.seen:
        assert torch.equal(found, inference.predict((x,), 4).logits)
