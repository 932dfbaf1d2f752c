"""Networks that are told a context: each against its formula in float64, sample by sample."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cl_manifold.errors import ConfigError
from cl_manifold.geometry import (
    Affine,
    Basis,
    Bernstein,
    Circle,
    Fourier,
    Orthonormal,
    Product,
    TensorProduct,
    Vertices,
    gram_by_quadrature,
    stiffness_by_quadrature,
)
from cl_manifold.manifold.module import ManifoldModule
from cl_manifold.manifold.natural_step import NaturalStep
from cl_manifold.networks import cnn, mlp
from cl_manifold.strategies.context_input import ContextFeatures
from cl_manifold.strategies.context_networks import (
    Concatenated,
    Configured,
    Film,
    OnePerContext,
    Untold,
    reader,
)

SHAPE, CLASSES = (1, 4, 4), 3
ELLIPSE = Fourier(1, 360.0)
LINE = Bernstein(1, 0.0, 1.0)
BOTH = TensorProduct(ELLIPSE, LINE)
BASES = {"rotation": ELLIPSE, "noise": LINE, "rotation-noise": BOTH}
CENTRES = torch.tensor([[15.0], [120.0], [250.0]], dtype=torch.float64)


def network() -> nn.Sequential:
    return mlp(SHAPE, (5, 4), CLASSES)


def angles(count: int) -> Tensor:
    return torch.linspace(3, 355, count, dtype=torch.float64)[:, None]


def features(degrees: float) -> Tensor:
    """(cos θ, sin θ), without the library."""
    theta = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([theta.cos(), theta.sin()])


def layers(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Weights and biases of linear layers, float64."""
    found = [m for m in model.modules() if isinstance(m, nn.Linear)]
    return [(m.weight.detach().double(), m.bias.detach().double()) for m in found]


def plain(pairs: list[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    """Linear layers with ReLU between them, on one flat sample."""
    for weight, bias in pairs[:-1]:
        x = torch.stack([weight[i] @ x + bias[i] for i in range(len(bias))]).clamp(min=0)
    return pairs[-1][0] @ x + pairs[-1][1]


def mixed(model: Any, amounts: Tensor, x: Tensor) -> Tensor:
    """The answer with the weights Σ_k a_k P_k."""
    points = [p.detach().double() for p in model.module.parameters()]
    made = [sum(a * p[k] for k, a in enumerate(amounts)) for p in points]
    return plain(list(zip(made[::2], made[1::2], strict=True)), x)  # pyright: ignore


def untold(model: Any, x: Tensor, degrees: float) -> Tensor:
    return plain(layers(model.network), x)


def concatenated(model: Any, x: Tensor, degrees: float) -> Tensor:
    return plain(layers(model.network), torch.cat([x, features(degrees)]))


def film(model: Any, x: Tensor, degrees: float) -> Tensor:
    told = plain(layers(model.reader), features(degrees))
    (w1, b1), (w2, b2), (w3, b3) = layers(model.layers)
    h = ((1 + told[:5]) * (w1 @ x + b1) + told[5:10]).clamp(min=0)
    h = ((1 + told[10:14]) * (w2 @ h + b2) + told[14:]).clamp(min=0)
    return w3 @ h + b3


def hypernetwork(model: Any, x: Tensor, degrees: float) -> Tensor:
    z = plain(layers(model.reader), features(degrees)).tanh()
    return mixed(model.manifold, torch.cat([torch.ones(1), z]), x)


def scn(model: Any, x: Tensor, degrees: float) -> Tensor:
    z = plain(layers(model.reader), features(degrees)).exp()
    return mixed(model.manifold, z / z.sum(), x)


def one_each(model: Any, x: Tensor, degrees: float) -> Tensor:
    gaps = [min((degrees - c) % 360, (c - degrees) % 360) for c in CENTRES.flatten().tolist()]
    return plain(layers(model.networks[gaps.index(min(gaps))]), x)


def manifold(model: Any, x: Tensor, degrees: float) -> Tensor:
    return mixed(model, torch.cat([torch.ones(1), features(degrees)]), x)


def told() -> ContextFeatures:
    return ContextFeatures(ELLIPSE)


Formula = Callable[[Any, Tensor, float], Tensor]
MODELS: dict[str, tuple[Callable[[], nn.Module], Formula]] = {
    "joint": (lambda: Untold(network()), untold),
    "joint-manifold": (lambda: ManifoldModule(network(), ELLIPSE), manifold),
    "concat": (lambda: Concatenated(mlp((18,), (5, 4), CLASSES), told(), True), concatenated),
    "film": (lambda: Film(network(), told(), 6), film),
    "hypernetwork": (
        lambda: Configured(
            ManifoldModule(network(), Affine(2)), told(), reader(2, 6, 2), torch.tanh
        ),
        hypernetwork,
    ),
    "scn": (
        lambda: Configured(
            ManifoldModule(network(), Vertices(3)),
            told(),
            reader(2, 6, 3),
            lambda z: torch.softmax(z, -1),
        ),
        scn,
    ),
    "one-per-context": (
        lambda: OnePerContext([network() for _ in CENTRES], CENTRES, ELLIPSE.topology),
        one_each,
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_forward_pass_is_its_formula(name: str) -> None:
    make, formula = MODELS[name]
    torch.manual_seed(0)
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
        x, contexts = torch.randn(9, *SHAPE), angles(9)
        found = model(x, contexts)
        shared = model(x, contexts[4])
    pairs = list(zip(x.flatten(1).double(), contexts.flatten().tolist(), strict=True))
    expected = torch.stack([formula(model, image, degrees) for image, degrees in pairs])
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
    at_one = torch.stack([formula(model, image, pairs[4][1]) for image, _ in pairs])
    torch.testing.assert_close(shared.double(), at_one, rtol=1e-4, atol=1e-5)


def test_contexts_come_to_convolutions_as_channels() -> None:
    inner = cnn((5, 4, 4), (4,), CLASSES)
    model = Concatenated(inner, told(), False)
    x, contexts = torch.randn(2, 3, 4, 4), angles(2)
    channels = [torch.ones(2, 4, 4) * features(float(c))[:, None, None] for c in contexts]
    expected = inner(torch.cat([x, torch.stack(channels).float()], 1))
    torch.testing.assert_close(model(x, contexts), expected)


def test_film_starts_as_the_network_and_goes_through_convolutions() -> None:
    torch.manual_seed(0)
    inner = cnn((3, 8, 8), (4, 8), CLASSES)
    model, x = Film(inner, told(), 6), torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(model(x, angles(5)), inner(x))
    with torch.no_grad():
        nn.init.constant_(list(model.reader.parameters())[-1], 0.3)
        layers_of = list(inner)
        h = layers_of[1](layers_of[0](x))
        h = layers_of[3]((1.3 * h + 0.3).relu())
        h = layers_of[5](layers_of[4](h))
        expected = layers_of[9](layers_of[8](layers_of[7]((1.3 * h + 0.3).relu())))
    torch.testing.assert_close(model(x, angles(5)), expected)


@pytest.mark.parametrize("strange", [nn.Linear(4, 2), nn.Sequential(nn.Linear(4, 2), nn.Tanh())])
def test_film_needs_relus_in_a_sequence(strange: nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"film modulates .*; choose network mlp or cnn"):
        Film(strange, told(), 6)


def test_the_nearest_centre_counts_around_the_circle_and_along_each_coordinate() -> None:
    def constant(value: float) -> nn.Module:
        layer = nn.Linear(1, 2)
        nn.init.zeros_(layer.weight)
        nn.init.constant_(layer.bias, value)
        return nn.Sequential(nn.Flatten(), layer)

    centres = torch.tensor([[15.0], [255.0]], dtype=torch.float64)
    model = OnePerContext([constant(0.0), constant(1.0)], centres, Circle(360.0))
    degrees = torch.tensor([[350.0], [130.0], [140.0], [300.0], [320.0]])
    answers = model(torch.zeros(5, 1, 1, 1), degrees.double())
    assert answers[:, 0].tolist() == [0, 0, 1, 1, 0]
    space = Product(Circle(360.0), LINE.topology)
    grid = torch.tensor([[0.0, 0.0], [0.0, 1.0], [180.0, 0.0], [180.0, 1.0]], dtype=torch.float64)
    model = OnePerContext([constant(float(k)) for k in range(4)], grid, space)
    asked = torch.tensor([[80.0, 0.4], [280.0, 0.6], [100.0, 0.4], [100.0, 0.6]]).double()
    assert model(torch.zeros(4, 1, 1, 1), asked)[:, 0].tolist() == [0, 1, 2, 3]


def test_affine_integrals_agree_with_quadrature() -> None:
    basis = Affine(2)
    torch.testing.assert_close(basis.gram(), gram_by_quadrature(basis, 2))
    torch.testing.assert_close(basis.stiffness(), stiffness_by_quadrature(basis, 2))
    z = torch.rand(4, 2, dtype=torch.float64)
    slope = torch.autograd.functional.jacobian(lambda c: basis(c), z[0])
    torch.testing.assert_close(basis.derivative(z)[0], slope.T)
    growth = basis.grown()
    torch.testing.assert_close(growth.basis(growth.embed(z)) @ growth.matrix, basis(z))
    torch.testing.assert_close(basis(z) @ basis.constant(), torch.ones(4, dtype=torch.float64))


EVERY_BASIS = [*BASES.values(), Fourier(3, 360.0), Bernstein(6, 0.0, 1.0), Bernstein(1, 0.0, 360.0)]


@pytest.mark.parametrize("basis", EVERY_BASIS, ids=lambda b: f"{b.spec()['kind']}-{b.size}")
def test_an_orthonormal_basis_has_the_same_span_and_the_identity_as_gram(basis: Basis) -> None:
    same = Orthonormal(basis)
    torch.testing.assert_close(gram_by_quadrature(same, 2 * basis.size), same.gram())
    torch.testing.assert_close(stiffness_by_quadrature(same, 2 * basis.size), same.stiffness())
    contexts = basis.topology.sample(9, torch.Generator().manual_seed(0))
    mix = torch.linalg.lstsq(basis(contexts.repeat(9, 1)), same(contexts.repeat(9, 1))).solution
    torch.testing.assert_close(basis(contexts) @ mix, same(contexts))
    one = same.constant()
    assert one is not None
    torch.testing.assert_close(same(contexts) @ one, torch.ones(9, dtype=torch.float64))
    growth = same.grown()
    torch.testing.assert_close(growth.basis(growth.embed(contexts)) @ growth.matrix, same(contexts))


@pytest.mark.parametrize("name", BASES)
def test_in_an_orthonormal_basis_plain_steps_are_natural_steps(name: str) -> None:
    basis = BASES[name]
    contexts = basis.topology.sample(20, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    inner = mlp((4,), (5,), 3).double()
    x, y = torch.randn(20, 4, dtype=torch.float64), torch.arange(20) % 3
    written, rewritten = (ManifoldModule(inner, b) for b in (basis, Orthonormal(basis)))
    sgd = [torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9) for net in (written, rewritten)]
    for net, step in ((written, NaturalStep(sgd[0], written)), (rewritten, sgd[1])):
        for _ in range(15):
            step.zero_grad()
            nn.functional.cross_entropy(net(x, contexts), y).backward()
            step.step()
    torch.testing.assert_close(written(x, contexts), rewritten(x, contexts), rtol=0, atol=1e-10)
    moved = (written(x, contexts) - inner(x)).abs().max()
    assert float(moved.detach()) > 0.1
