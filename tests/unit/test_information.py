"""What measuring information leaves alone, what it refuses, and how it is normalised."""

import random
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from cl_manifold.errors import ClManifoldError, IncompatibleError, InformationError
from cl_manifold.manifold.fisher import fisher_information
from cl_manifold.manifold.information import (
    SHARED,
    ExactInformation,
    FisherInformation,
    leaning,
    normalised,
)
from cl_manifold.manifold.layout import layout_of, tensors_of
from cl_manifold.manifold.likelihood import Categorical, Gaussian, Likelihood


def measured(
    net: nn.Module, *inputs: Tensor, likelihood: Likelihood | None = None, samples: int = 256
) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    measure = FisherInformation(samples)
    return measure(net, inputs, layout_of(net), likelihood or Categorical(), generator)


# -- what is left alone -------------------------------------------------------------------------


class Writing(nn.Module):
    """Writes parameters and buffers, rebinds a buffer and attributes, in every forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 3)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(5))
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf, torch.nan]))
        self.mask: Tensor
        self.centre = nn.Parameter(torch.ones(5))
        self.last: Tensor | None = None
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.count += 1
            self.centre.data.mul_(0.9)
            self.mask[0] += 1
            self.inner.weight.mul_(0.99)
        self.mean = self.mean + x.detach().mean(0)
        self.last = x
        self.calls += 1
        return self.inner(x - self.centre)


class Recurrent(nn.Module):
    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.body = kind(5, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x[:, None])[0][:, -1]


class Noisy(nn.Module):
    """Draws from every global stream, in evaluation too."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        noise = float(np.random.rand()) + random.random()  # noqa: NPY002
        return self.inner(nn.functional.dropout(x, 0.5)) * (1 + noise)


def mixed_modes() -> nn.Module:
    net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3))
    net.train()
    net[1].eval()
    net[0].weight.requires_grad_(False)
    return net


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mixed modes and flags": mixed_modes,
    "frozen": lambda: nn.Sequential(nn.Linear(5, 3)).requires_grad_(False),
    "writing": Writing,
    "LSTM": lambda: Recurrent(nn.LSTM),
    "GRU": lambda: Recurrent(nn.GRU),
    "noisy": Noisy,
    "max_norm": lambda: nn.Sequential(
        nn.Flatten(), Indexed(nn.Embedding(6, 4, max_norm=0.1)), nn.Linear(4, 3)
    ),
    "spectral_norm": lambda: parametrizations.spectral_norm(nn.Linear(5, 3)),
    "weight_norm of old": lambda: nn.utils.weight_norm(nn.Linear(5, 3)),
}


class Indexed(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.abs().long().clamp(max=5)).mean(1)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("grad", [True, False])
def test_the_network_is_left_as_it_was(name: str, grad: bool) -> None:
    net = NETWORKS[name]()
    tensors = tensors_of(net)
    bits = {n: t.detach().clone() for n, t in tensors.items()}
    flags = {n: t.requires_grad for n, t in tensors.items()}
    modes = {n: m.training for n, m in net.named_modules()}
    with torch.set_grad_enabled(grad):
        found = measured(net, torch.randn(6, 5))
    assert bool((found > 0).any())
    assert torch.is_grad_enabled()
    after = tensors_of(net)
    assert list(after) == list(tensors)
    for n, t in after.items():
        assert t is tensors[n], n
        torch.testing.assert_close(t.detach(), bits[n], rtol=0, atol=0, equal_nan=True)
        assert t.requires_grad == flags[n]
        assert t.grad is None
    assert {n: m.training for n, m in net.named_modules()} == modes
    assert not any(m._forward_hooks for m in net.modules())


def test_attributes_are_left_as_they_were() -> None:
    net = Writing()
    measured(net, torch.randn(6, 5))
    assert (net.last, net.calls) == (None, 0)


@pytest.mark.parametrize("name", ["LSTM", "GRU", "weight_norm of old", "writing"])
def test_the_network_can_be_copied_and_run_afterwards(name: str) -> None:
    net = NETWORKS[name]().eval()
    x = torch.randn(6, 5)
    if name == "weight_norm of old":
        with torch.no_grad():  # what a forward pass leaves behind cannot be copied either
            net(x)
    expected = deepcopy(net)(x)
    measured(net, x)
    torch.testing.assert_close(deepcopy(net)(x), expected)
    torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize("name", ["noisy", "GRU", "mixed modes and flags"])
def test_global_random_streams_go_on_as_if_nothing_was(name: str) -> None:
    net, x = NETWORKS[name](), torch.randn(6, 5)
    # Python's own stream is drawn from by the run-time checks of shapes, which only tests have
    torch_state, numpy_state = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    measured(net, x)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert str(np.random.get_state()) == numpy_state  # noqa: NPY002


def test_a_failure_leaves_no_trace() -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(5, 3).requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            self.inner(x)
            raise KeyError("no such thing")

    net = Failing().train()
    with pytest.raises(KeyError, match="no such thing"):
        measured(net, torch.randn(6, 5))
    assert net.training
    assert not net.inner.weight.requires_grad
    assert not net.inner._forward_hooks


def test_gradients_of_the_user_are_kept() -> None:
    net = nn.Linear(5, 3)
    net(torch.randn(2, 5)).sum().backward()
    assert net.weight.grad is not None
    before = net.weight.grad.clone()
    measured(net, torch.randn(6, 5))
    assert torch.equal(net.weight.grad, before)


@pytest.mark.parametrize("recurrent", [False, True])
def test_hooks_on_gradients_do_not_count(recurrent: bool) -> None:
    """A method may mask the gradients of its training; the loss cares all the same."""
    torch.manual_seed(0)
    net = Recurrent(nn.GRU) if recurrent else nn.Sequential(nn.Linear(5, 3))
    x = torch.randn(6, 5)
    expected = measured(net, x)
    for p in net.parameters():
        p.register_hook(lambda gradient: 0 * gradient)
    torch.testing.assert_close(measured(net, x), expected)


# -- evaluation mode, samples, devices -----------------------------------------------------------


def test_it_is_measured_in_evaluation_mode() -> None:
    net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3))
    x = torch.randn(6, 5)
    torch.testing.assert_close(measured(net.train(), x), measured(net.eval(), x))


def test_the_first_samples_are_used() -> None:
    net, x = nn.Linear(5, 3), torch.randn(9, 5)
    torch.testing.assert_close(measured(net, x, samples=4), measured(net, x[:4]))
    assert not torch.allclose(measured(net, x, samples=5), measured(net, x[:4]))
    with pytest.raises(ValueError, match="1 or more"):
        FisherInformation(0)
    assert FisherInformation(1).samples == 1
    assert FisherInformation().samples == 256


def test_the_generator_draws_the_targets() -> None:
    net, x, layout = nn.Linear(5, 3), torch.randn(9, 5), layout_of(nn.Linear(5, 3))
    generator = torch.Generator().manual_seed(1)
    first = FisherInformation()(net, (x,), layout, Categorical(), generator)
    second = FisherInformation()(net, (x,), layout, Categorical(), generator)
    again = FisherInformation()(net, (x,), layout, Categorical(), torch.Generator().manual_seed(1))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_what_is_off_the_manifold_is_not_measured() -> None:
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    x, generator = torch.randn(6, 5), torch.Generator().manual_seed(0)
    layout = layout_of(net, select=lambda name: name in ("0.weight", "2.bias"))
    found = FisherInformation()(net, (x,), layout, Categorical(), generator)
    everything = measured(net, x)
    torch.testing.assert_close(found[:4], everything[:4])
    torch.testing.assert_close(found[4:], everything[-1:])


def test_exact_information_is_infinite() -> None:
    net = nn.Linear(5, 3)
    layout, generator = layout_of(net), torch.Generator()
    found = ExactInformation()(net, (torch.randn(2, 5),), layout, Categorical(), generator)
    assert ExactInformation.samples == 0
    assert found.dtype == torch.float64
    assert found.tolist() == [torch.inf] * layout.blocks


def test_scripted_networks_are_measured() -> None:
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    x = torch.randn(6, 5)
    scripted = torch.jit.script(net)
    torch.testing.assert_close(measured(scripted, x), measured(net, x))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["mixed modes and flags", "GRU", "writing"])
def test_networks_on_a_gpu(name: str) -> None:
    net, x = NETWORKS[name](), torch.randn(6, 5)
    expected = measured(net, x, likelihood=Gaussian())
    found = measured(net.cuda(), x.cuda(), likelihood=Gaussian())
    assert found.device.type == "cpu"
    torch.testing.assert_close(found, expected, rtol=0.02, atol=1e-6)


# -- what is refused ----------------------------------------------------------------------------


class Answering(nn.Module):
    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 3)
        self.answer = answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(self.inner(x))


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (lambda o: (o, o), "tuple"),
        (lambda o: {"logits": o}, "dict"),
        (lambda o: o.mT, r"\(3, 6\)"),
        (lambda o: o.mean(), r"\(\)"),
    ],
)
def test_outputs_that_are_no_batch_are_refused(answer: Callable[[Tensor], Any], got: str) -> None:
    net = Answering(answer)
    with pytest.raises(IncompatibleError, match=f"returns {got} for 6 inputs.*axis 0"):
        measured(net, torch.randn(6, 5))


def test_outputs_that_are_not_numbers_are_refused() -> None:
    net = Answering(lambda o: o * torch.tensor([1.0, torch.nan, 1.0]))
    with pytest.raises(InformationError, match="not a number"):
        measured(net, torch.randn(6, 5), likelihood=Gaussian())


def test_no_samples_are_refused() -> None:
    with pytest.raises(InformationError, match="there are none"):
        measured(nn.Linear(5, 3), torch.randn(0, 5))


def test_a_network_that_fails_on_one_sample_is_refused() -> None:
    net = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3, track_running_stats=False))
    with pytest.raises(IncompatibleError, match=r"fails on a batch of one .*Expected more than 1"):
        measured(net, torch.randn(6, 5))


# -- leaning ------------------------------------------------------------------------------------


def test_blocks_lean_on_the_mean_of_their_tensor() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    layout = layout_of(net)
    f = torch.tensor([1.0, 0.0, 5.0, 7.0, 4.0, 8.0, 9.0]).double()
    rest, mean = 1 - SHARED, torch.tensor([2.0, 2.0, 2.0, 7.0, 6.0, 6.0, 9.0]).double()
    found = leaning(f, layout)
    torch.testing.assert_close(found, rest * f + SHARED * mean)
    torch.testing.assert_close(found[:3].mean(), f[:3].mean())
    assert f.tolist() == [1.0, 0.0, 5.0, 7.0, 4.0, 8.0, 9.0]
    assert 0 < SHARED < 1
    torch.testing.assert_close(leaning(f[:4], layout), found[:4])
    torch.testing.assert_close(leaning(f[:2], layout), f[:2])


# -- normalised ---------------------------------------------------------------------------------


def test_the_mean_over_weights_becomes_the_scale() -> None:
    f, sizes = torch.tensor([1.0, 0.0, 5.0]).double(), torch.tensor([3.0, 2.0, 1.0]).double()
    found = normalised(f, sizes, 0.2)
    assert float((found * sizes).sum() / sizes.sum()) == pytest.approx(0.2)
    torch.testing.assert_close(found, f * 0.2 / (8 / 6))


@pytest.mark.parametrize("power", [-200, 0, 200])
def test_only_the_ratios_remain(power: int) -> None:
    f, sizes = torch.rand(4).double(), torch.rand(4).double()
    found = normalised(f * 10.0**power, sizes, 3.0)
    torch.testing.assert_close(found, normalised(f, sizes, 3.0))


def test_infinite_information_stays_infinite() -> None:
    f = torch.full((3,), torch.inf).double()
    assert torch.equal(normalised(f, torch.ones(3).double(), 2.0), f)


@pytest.mark.parametrize(
    ("information", "reason"),
    [
        ([0.0, 0.0], "zero everywhere"),
        ([1.0, -1e-9], "negative"),
        ([1.0, torch.nan], "not a number"),
        ([torch.inf, torch.nan], "not a number"),
        ([1.0, torch.inf], "infinite in some blocks only"),
        ([torch.inf, -torch.inf], "negative"),
    ],
)
def test_information_that_cannot_be_used_is_refused(information: list[float], reason: str) -> None:
    with pytest.raises(InformationError, match=reason) as caught:
        normalised(torch.tensor(information).double(), torch.ones(2).double(), 1.0)
    assert isinstance(caught.value, ClManifoldError)
    assert isinstance(caught.value, ValueError)


def test_outputs_without_weights_have_no_information() -> None:
    net = Answering(lambda o: (0 * o).detach())
    found = measured(net, torch.randn(6, 5))
    assert float(found.abs().max()) == 0
    with pytest.raises(InformationError, match="do not depend on any weight"):
        normalised(found, torch.ones(len(found)).double(), 1.0)


def test_sure_predictions_are_measured_by_projections() -> None:
    net, x = nn.Linear(5, 1), torch.randn(6, 5)
    layout, generator = layout_of(net), torch.Generator().manual_seed(0)
    plain = fisher_information(net, (x,), layout, Categorical(), generator)
    assert plain.tolist() == [0.0, 0.0]
    many = torch.randn(2, 5).repeat(20_000, 1)
    found = measured(net, many, samples=len(many))
    torch.testing.assert_close(
        found, torch.tensor([many.square().mean(), 1.0]).double(), rtol=0.03, atol=0
    )


@pytest.mark.parametrize(("live", "alive"), [(2, False), (3, True)])
def test_outputs_that_react_to_a_twentieth_of_the_weights_have_none(live: int, alive: bool) -> None:
    """A weight has information where its input is not zero: 2 or 3 of 40."""
    net, x = nn.Linear(40, 1, bias=False), torch.zeros(6, 40)
    x[:, :live] = torch.randn(6, live)
    layout, generator = layout_of(net, "weight"), torch.Generator().manual_seed(0)
    plain = fisher_information(net, (x,), layout, Gaussian(), generator)
    assert int((plain > 0).sum()) == live
    found = FisherInformation()(net, (x,), layout, Gaussian(), generator)
    assert int((found > 0).sum()) == (live if alive else 0)
    assert found.dtype == torch.float64
