"""The price of moving weights: what it adds to gradients, and when."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cl_manifold.geometry import Fourier, Vertices
from cl_manifold.manifold.layout import GRANULARITIES, Granularity
from cl_manifold.manifold.weight_manifold import WeightManifold
from cl_manifold.strategies.manifold.price import Price
from tests.networks import move, random_information, shake, small_mlp

C = torch.tensor([0.3])


def visited(blocks: Granularity = "row", **options: Any) -> WeightManifold:
    """With a finished task elsewhere, and weights away from the open visit's anchor."""
    manifold = WeightManifold(small_mlp(), Fourier(1), blocks=blocks, **options)
    shake(manifold, torch.tensor([0.1]), random_information(manifold))
    manifold.check_out(C)
    move(manifold)
    return manifold


def felt(manifold: WeightManifold) -> float:
    """λ that makes the pull about as large as a gradient of one."""
    return 4 * manifold.strength / 10 / float(manifold.open_visit.step.kappa.median())


def expected_pull(manifold: WeightManifold, weight: float, rate: float) -> dict[str, Tensor]:
    """min(λ κ 10/ρ, 1/η) (w − w(c)), weight by weight."""
    visit, found = manifold.open_visit, dict[str, Tensor]()
    for e in manifold.layout.trained:
        live = manifold.module.get_parameter(e.name).detach()
        kappa = visit.step.kappa[e.part].repeat_interleave(e.size // e.blocks)
        scale = weight * 10 / manifold.strength * kappa
        limited = torch.tensor([min(float(s), 1 / rate) if rate else float(s) for s in scale])
        found[e.name] = limited.reshape(e.shape) * (live - visit.anchor[e.name])
    return found


def gradients_of_one(net: nn.Module) -> None:
    for p in net.parameters():
        p.grad = torch.ones_like(p)


def check(manifold: WeightManifold, expected: dict[str, Tensor], scale: float = 1.0) -> None:
    for name, pull in expected.items():
        gradient = manifold.module.get_parameter(name).grad
        assert gradient is not None
        torch.testing.assert_close(gradient, 1 + scale * pull, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("blocks", GRANULARITIES)
@pytest.mark.parametrize("strength", [10.0, 300.0])
def test_the_pull_is_the_gradient_of_the_penalty(blocks: Granularity, strength: float) -> None:
    """∇ of (λ/2) (10/ρ) Σ κ ‖w − w(c)‖² by autograd."""
    manifold = visited(blocks, strength=strength)
    visit, penalty, weight = manifold.open_visit, torch.zeros(()), felt(manifold)
    for e in manifold.layout.trained:
        apart = e.by_block(manifold.module.get_parameter(e.name) - visit.anchor[e.name])
        kappa = visit.step.kappa[e.part].float()
        penalty = penalty + weight / 2 * 10 / strength * (kappa[:, None] * apart**2).sum()
    parameters = list(manifold.module.parameters())
    expected = torch.autograd.grad(penalty, parameters)
    gradients_of_one(manifold.module)
    Price(manifold, visit, weight).add(1e-6)
    for p, g in zip(parameters, expected, strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.grad, 1 + g)


@pytest.mark.parametrize("blocks", GRANULARITIES)
def test_the_pull_follows_a_rising_rate_and_never_exceeds_one_step(blocks: Granularity) -> None:
    manifold = visited(blocks)
    weight = felt(manifold)
    price, highest = Price(manifold, manifold.open_visit, weight), 0.0
    for rate in (0.0, 0.05, 0.5, 0.2):
        highest = max(highest, rate)
        gradients_of_one(manifold.module)
        price.add(torch.tensor(rate) if rate == 0.5 else rate)
        check(manifold, expected_pull(manifold, weight, highest))
        move(manifold)


def test_a_heavy_price_leads_back_in_one_step_of_plain_descent() -> None:
    manifold = visited()
    optimizer = torch.optim.SGD(manifold.module.parameters(), lr=0.25)
    Price(manifold, manifold.open_visit, 1e12).attach(optimizer)
    for p in manifold.module.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, weights in manifold.open_visit.anchor.items():
        torch.testing.assert_close(manifold.module.get_parameter(name).detach(), weights)


def test_parameters_without_gradients_and_off_the_manifold_are_left_alone() -> None:
    net: Any = small_mlp()
    manifold = WeightManifold(net, Fourier(1), select=lambda name: name != "2.bias")
    manifold.check_out(C)
    move(manifold)
    expected = expected_pull(manifold, felt(manifold), 0.1)
    gradients_of_one(net)
    net[0].bias.grad = None
    Price(manifold, manifold.open_visit, felt(manifold)).add(0.1)
    assert net[0].bias.grad is None
    assert torch.equal(net[2].bias.grad, torch.ones(3))
    del expected["0.bias"]
    check(manifold, expected)


def test_the_price_is_paid_once_per_step_however_many_backward_passes_came_before() -> None:
    manifold = visited()
    expected = expected_pull(manifold, felt(manifold), 0.1)
    optimizer = torch.optim.SGD(manifold.module.parameters(), lr=0.1)
    price = Price(manifold, manifold.open_visit, felt(manifold))
    price.attach(optimizer)
    price.attach(optimizer)
    for _ in range(4):
        sum(p.sum() for p in manifold.module.parameters()).backward()  # type: ignore[union-attr]
    before = {n: p.detach().clone() for n, p in manifold.module.named_parameters()}
    optimizer.step()
    for name, pull in expected.items():
        moved = before[name] - manifold.module.get_parameter(name).detach()
        torch.testing.assert_close(moved, 0.1 * (4 + pull), rtol=1e-4, atol=1e-6)


def test_a_detached_price_is_no_longer_paid_and_one_optimizer_pays_at_a_time() -> None:
    manifold = visited()
    parameters = list(manifold.module.parameters())
    first, second = (torch.optim.SGD(parameters, lr=0.1) for _ in range(2))
    price = Price(manifold, manifold.open_visit, felt(manifold))
    price.detach()

    def pays(optimizer: torch.optim.Optimizer) -> bool:
        before = [p.detach().clone() for p in parameters]
        for p in parameters:
            p.grad = torch.zeros_like(p)
        optimizer.step()
        moved = any(not torch.equal(p, b) for p, b in zip(parameters, before, strict=True))
        with torch.no_grad():
            for p, b in zip(parameters, before, strict=True):
                p.copy_(b)
        return moved

    assert not pays(first)
    price.attach(first)
    assert pays(first)
    price.attach(second)
    assert (pays(first), pays(second)) == (False, True)
    price.detach()
    assert not pays(second)
    price.attach(second)
    assert pays(second)


def test_the_highest_rate_of_all_groups_limits_the_pull() -> None:
    manifold = visited()
    parameters = list(manifold.module.parameters())
    groups: list[dict[str, Any]] = [
        {"params": parameters[:1], "lr": 0.5},
        {"params": parameters[1:], "lr": 0.01},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    price = Price(manifold, manifold.open_visit, 1e12)
    price.attach(optimizer)
    gradients_of_one(manifold.module)
    expected = expected_pull(manifold, 1e12, 0.5)
    optimizer.step()
    check(manifold, expected)


@pytest.mark.parametrize("blocks", GRANULARITIES)
def test_a_fused_optimizer_that_still_holds_the_scale_pays_a_scaled_price(
    blocks: Granularity,
) -> None:
    """It divides gradients by the scale of a GradScaler itself, after the hooks."""
    manifold = visited(blocks)
    optimizer: Any = torch.optim.SGD(manifold.module.parameters(), lr=0.1, fused=True)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(1024.0), torch.tensor(0.0)
    Price(manifold, manifold.open_visit, felt(manifold)).attach(optimizer)
    expected = expected_pull(manifold, felt(manifold), 0.1)
    before = {n: p.detach().clone() for n, p in manifold.module.named_parameters()}
    for p in manifold.module.parameters():
        p.grad = torch.full_like(p, 1024.0)
    optimizer.step()
    for name, pull in expected.items():
        moved = before[name] - manifold.module.get_parameter(name).detach()
        torch.testing.assert_close(moved, 0.1 * (1 + pull), rtol=1e-4, atol=1e-6)


def test_a_grad_scaler_does_not_cancel_the_price() -> None:
    """‖w − w(c)‖ is what it is without the scaler."""
    ends: list[list[Tensor]] = []
    x, y = torch.randn(16, 6), torch.randint(3, (16,))
    for scaled in (False, True):
        torch.manual_seed(0)
        manifold = visited()
        optimizer = torch.optim.SGD(manifold.module.parameters(), lr=0.05)
        Price(manifold, manifold.open_visit, 30.0).attach(optimizer)
        scaler = torch.amp.GradScaler("cpu", init_scale=65536.0, enabled=scaled)
        for _ in range(5):
            optimizer.zero_grad()
            scaler.scale(nn.functional.cross_entropy(manifold.module(x), y)).backward()
            scaler.step(optimizer)
            scaler.update()
        ends.append([p.detach().clone() for p in manifold.module.parameters()])
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("blocks", ["tensor", "row"])
def test_the_pull_has_the_parameter_s_dtype(dtype: torch.dtype, blocks: Granularity) -> None:
    manifold = WeightManifold(small_mlp().to(dtype), Vertices(2), blocks=blocks)
    manifold.check_out(torch.eye(2)[1])
    move(manifold)
    expected = expected_pull(manifold, felt(manifold), 0.5)
    gradients_of_one(manifold.module)
    Price(manifold, manifold.open_visit, felt(manifold)).add(0.5)
    for name, pull in expected.items():
        gradient = manifold.module.get_parameter(name).grad
        assert gradient is not None
        assert gradient.dtype == dtype
        near = 1e-9 if dtype == torch.float64 else 0.03
        torch.testing.assert_close(gradient.double(), 1 + pull.double(), rtol=near, atol=near)


def test_the_pull_is_of_the_anchor_even_after_a_commit_in_the_same_visit() -> None:
    manifold = visited()
    price = Price(manifold, manifold.open_visit, felt(manifold))
    manifold.commit(1.0)
    move(manifold)
    expected = expected_pull(manifold, felt(manifold), 0.1)
    gradients_of_one(manifold.module)
    price.add(0.1)
    check(manifold, expected)
    assert price.visit is manifold.open_visit
