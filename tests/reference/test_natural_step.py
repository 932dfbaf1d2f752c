"""The natural step: closed forms, and trajectories that do not depend on how a basis is written."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cl_manifold.geometry import Basis, Bernstein, Fourier, Growth, Topology, Vertices, random_codes
from cl_manifold.manifold.module import ManifoldModule
from cl_manifold.manifold.natural_step import NaturalStep, empirical_gram
from tests.networks import small_mlp


class Rewritten(Basis):
    """φ' = A φ: the same functions, written differently."""

    def __init__(self, basis: Basis, matrix: Tensor) -> None:
        self.basis, self.matrix = basis, matrix
        self.topology: Topology = basis.topology
        self.size = basis.size

    def __call__(self, context: Tensor) -> Tensor:
        return self.basis(context) @ self.matrix.mT

    def derivative(self, context: Tensor) -> Tensor:
        return self.basis.derivative(context) @ self.matrix.mT

    def gram(self) -> Tensor:
        return self.matrix @ self.basis.gram() @ self.matrix.mT

    def stiffness(self) -> Tensor:
        return self.matrix @ self.basis.stiffness() @ self.matrix.mT

    def constant(self) -> Tensor | None:
        one = self.basis.constant()
        return None if one is None else torch.linalg.solve(self.matrix.mT, one)

    def grown(self) -> Growth:
        raise NotImplementedError

    def spec(self) -> dict[str, Any]:
        raise NotImplementedError


def rewritten(basis: Basis) -> Rewritten:
    return Rewritten(basis, torch.eye(basis.size) + 0.4 * torch.randn(basis.size, basis.size))


MIDPOINT_AND_SLOPE = torch.tensor([[1, 1], [-0.5, 0.5]], dtype=torch.float64)
PAIRS: dict[str, Callable[[], tuple[Basis, Basis]]] = {
    "line": lambda: (Bernstein(1), Rewritten(Bernstein(1), MIDPOINT_AND_SLOPE)),
    "polynomials": lambda: (Bernstein(3), rewritten(Bernstein(3))),
    "ellipse": lambda: (Fourier(1, 360.0), rewritten(Fourier(1, 360.0))),
    "simplex": lambda: (Vertices(3), rewritten(Vertices(3))),
}
Make = Callable[[ManifoldModule], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda net: torch.optim.SGD(net.parameters(), lr=0.05),
    "momentum": lambda net: torch.optim.SGD(
        net.parameters(), lr=0.02, momentum=0.9, nesterov=True, weight_decay=0.01
    ),
}


def trajectory(net: nn.Module, basis: Basis, make: Make, natural: bool, uniform: bool) -> Tensor:
    """w(c) at ten contexts after each of twelve steps with the same data."""
    manifold = ManifoldModule(net, basis)
    optimizer = make(manifold)
    generator = torch.Generator().manual_seed(3)
    seen = basis.topology.sample(200, generator)
    if natural:
        gram = None if uniform else empirical_gram(basis, seen[:50], strength=1e-3)
        optimizer = NaturalStep(optimizer, manifold, gram)
    places = basis.topology.grid(10)
    path: list[Tensor] = []
    for step in range(12):
        c = seen[16 * step : 16 * step + 16]
        x = torch.randn(16, 6, generator=generator)
        y = torch.randint(3, (16,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(manifold(x, c), y).backward()
        optimizer.step()
        weights = manifold.weights(places).values()
        path.append(torch.cat([w.detach().flatten(1) for w in weights], dim=1))
    return torch.stack(path)


@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", PAIRS)
def test_natural_trajectories_do_not_depend_on_the_basis(
    name: str, optimizer: str, uniform: bool
) -> None:
    net, (one, other), make = small_mlp(), PAIRS[name](), OPTIMIZERS[optimizer]
    a = trajectory(net, one, make, natural=True, uniform=uniform)
    b = trajectory(net, other, make, natural=True, uniform=uniform)
    torch.testing.assert_close(a, b, atol=1e-10, rtol=0)
    assert (a[-1] - a[0]).abs().max() > 1e-3


@pytest.mark.parametrize("name", PAIRS)
def test_plain_trajectories_do(name: str) -> None:
    net, (one, other), make = small_mlp(), PAIRS[name](), OPTIMIZERS["sgd"]
    a = trajectory(net, one, make, natural=False, uniform=True)
    b = trajectory(net, other, make, natural=False, uniform=True)
    assert (a - b).abs().max() > 1e-3


@pytest.mark.parametrize("name", PAIRS)
def test_one_step_moves_weights_by_the_kernel(name: str) -> None:
    """Δw(c') = −η k(c', c) ∇_w ℓ(w(c)) for a single context, k(c', c) = φ(c')ᵀ G⁻¹ φ(c)."""
    net, (basis, _) = small_mlp(), PAIRS[name]()
    manifold, plain = ManifoldModule(net, basis), copy.deepcopy(net)
    c, places = (
        basis.topology.sample(1, torch.Generator().manual_seed(0))[0],
        basis.topology.grid(5),
    )
    x, y, rate = torch.randn(16, 6), torch.randint(3, (16,)), 0.1
    optimizer = NaturalStep(torch.optim.SGD(manifold.parameters(), lr=rate), manifold)
    before = manifold.weights(places)
    nn.functional.cross_entropy(manifold(x, c), y).backward()
    optimizer.step()
    after = manifold.weights(places)
    nn.functional.cross_entropy(plain(x), y).backward()
    kernel = basis(places) @ torch.linalg.solve(basis.gram(), basis(c))
    for parameter, (key, w) in zip(plain.parameters(), after.items(), strict=True):
        assert parameter.grad is not None
        expected = -rate * torch.tensordot(kernel, parameter.grad[None], 0).squeeze(1)
        torch.testing.assert_close(w - before[key], expected, atol=1e-12, rtol=1e-9)


def test_empirical_gram_is_the_mean_outer_product() -> None:
    basis, c = Fourier(2), torch.rand(40, 1) / 2
    expected = torch.stack([torch.outer(basis(one), basis(one)) for one in c]).mean(0)
    torch.testing.assert_close(empirical_gram(basis, c, strength=0.0), expected)
    regular = empirical_gram(basis, c[:1], strength=1e-2)
    assert torch.linalg.eigvalsh(regular)[0] > 1e-6
    torch.testing.assert_close(empirical_gram(basis, c), expected + 1e-4 * basis.prior())


def test_gram_of_many_uniform_contexts_is_the_basis_own() -> None:
    basis = Bernstein(2)
    c = basis.topology.grid(20_001)
    torch.testing.assert_close(empirical_gram(basis, c, 0.0), basis.gram(), atol=1e-4, rtol=0)


# -- as an optimizer -------------------------------------------------------------------------------


def one_loss(manifold: ManifoldModule) -> Tensor:
    return manifold(torch.ones(4, 6), torch.arange(4.0)[:, None] / 4).square().sum()


def test_gradients_are_left_as_they_were_and_other_parameters_alone() -> None:
    manifold, other = ManifoldModule(small_mlp(), Fourier(1)), nn.Parameter(torch.ones(3))
    optimizer = NaturalStep(torch.optim.SGD([*manifold.parameters(), other], lr=1.0), manifold)
    (one_loss(manifold) + (2 * other).sum()).backward()
    before = [p.grad.clone() for p in manifold.parameters() if p.grad is not None]
    points = manifold.control_points()[0].detach().clone()
    optimizer.step()
    torch.testing.assert_close(other.detach(), torch.full((3,), -1.0))
    for p, grad in zip(manifold.parameters(), before, strict=True):
        assert p.grad is not None
        assert torch.equal(p.grad, grad)
    moved = points - manifold.control_points()[0].detach()
    expected = torch.tensor([1.0, 2.0, 2.0])[:, None, None] * before[0]
    torch.testing.assert_close(moved, expected)


@pytest.mark.parametrize("inner", [torch.optim.SGD, torch.optim.Adam, torch.optim.LBFGS])
def test_a_closure_takes_the_same_natural_step(inner: Any) -> None:
    nets = [ManifoldModule(small_mlp(), Fourier(1)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    optimizers = [NaturalStep(inner(net.parameters(), lr=0.01), net) for net in nets]

    def closure() -> Tensor:
        optimizers[0].zero_grad()
        loss = one_loss(nets[0])
        loss.backward()
        return loss

    before = one_loss(nets[0]).item()
    assert optimizers[0].step(closure).item() == pytest.approx(before)
    assert one_loss(nets[0]).item() < before
    if inner is not torch.optim.LBFGS:
        one_loss(nets[1]).backward()
        optimizers[1].step()
        for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
            torch.testing.assert_close(a, b)


def test_schedulers_groups_and_state_are_those_of_the_inner_optimizer() -> None:
    manifold = ManifoldModule(small_mlp(), Fourier(1))
    inner = torch.optim.Adam(manifold.parameters(), lr=0.1)
    optimizer = NaturalStep(inner, manifold)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        one_loss(manifold).backward()
        optimizer.step()
        schedule.step()
    assert inner.param_groups[0]["lr"] == pytest.approx(0.025)
    state = copy.deepcopy(optimizer.state_dict())
    assert state["state"].keys() == inner.state_dict()["state"].keys()
    optimizer.param_groups[0]["lr"] = 9.0
    optimizer.load_state_dict(state)
    assert inner.param_groups[0]["lr"] == pytest.approx(0.025)
    assert optimizer.param_groups is inner.param_groups
    assert optimizer.state is inner.state
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], "lr": 0.3})
    assert inner.param_groups[1]["lr"] == pytest.approx(0.3)
    optimizer.zero_grad()
    assert all(p.grad is None for p in manifold.parameters())


@pytest.mark.parametrize(
    ("basis", "gram", "says"),
    [
        (Fourier(1), torch.eye(2), r"has shape \(2, 2\), but the basis has 3 functions"),
        (Fourier(1), torch.diag(torch.tensor([1.0, 1.0, 0.0])), "singular"),
        (Fourier(1), torch.diag(torch.tensor([1.0, 1.0, 1e-15])), "singular"),
        (Fourier(1), 1e12 * torch.diag(torch.tensor([1.0, 1.0, 1e-15])), "singular"),
        (random_codes(4, 2, seed=0), None, "empirical_gram"),
    ],
)
def test_a_gram_matrix_that_cannot_be_inverted(basis: Basis, gram: Any, says: str) -> None:
    manifold = ManifoldModule(small_mlp(), basis)
    with pytest.raises(ValueError, match=says):
        NaturalStep(torch.optim.SGD(manifold.parameters(), lr=0.1), manifold, gram)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_a_gram_matrix_is_singular_by_ratios_not_by_units(scale: float) -> None:
    """G of any scale is inverted, to 1e-13 of its largest eigenvalue."""
    manifold = ManifoldModule(small_mlp(), Fourier(1))
    gram = torch.tensor([1.0, 1.0, 1e-13])
    inner = torch.optim.SGD(manifold.parameters(), lr=1e-13 * scale)
    optimizer = NaturalStep(inner, manifold, scale * torch.diag(gram))
    before = manifold.control_points()[0].detach().clone()
    one_loss(manifold).backward()
    optimizer.step()
    moved = before - manifold.control_points()[0].detach()
    gradient = manifold.control_points()[0].grad
    assert gradient is not None
    torch.testing.assert_close(moved, 1e-13 / gram[:, None, None] * gradient, atol=1e-15, rtol=1e-7)
