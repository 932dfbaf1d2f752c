"""Systems: what each does with a context, against loops and hand-made weights."""

import pytest
import torch
from torch import Tensor, nn

from cl_manifold.conditioning.lineup import Setting, chosen, lineup, parameters_of
from cl_manifold.conditioning.problems import PROBLEMS, Problem, bin_centres, draw, embed
from cl_manifold.conditioning.systems import Concatenated, Film, OnePerContext
from cl_manifold.errors import ConfigError
from cl_manifold.geometry import (
    Affine,
    Basis,
    Orthonormal,
    gram_by_quadrature,
    stiffness_by_quadrature,
)
from cl_manifold.manifold.module import ManifoldModule
from cl_manifold.manifold.natural_step import NaturalStep
from cl_manifold.networks import cnn, mlp

ROTATION = PROBLEMS["rotation"]


def setting(problem: Problem = ROTATION, conv: bool = False) -> Setting:
    if conv:
        return Setting(problem, cnn, (3, 8, 8), (4, 8), 5, (0.4, 0.3), 1e-3, 0.1, 0.1)
    return Setting(problem, mlp, (1, 6, 6), (16, 12), 5, (0.4, 0.3), 1e-3, 0.1, 0.1)


def inputs(given: Setting, count: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(count, *given.input_shape, generator=generator)
    return x, draw(given.problem, count, generator)


@pytest.mark.parametrize("conv", [False, True], ids=["mlp", "cnn"])
@pytest.mark.parametrize(
    ("problem", "name"), [(p, name) for p in PROBLEMS.values() for name in lineup(p)]
)
def test_a_context_per_sample_is_a_loop_over_samples(
    problem: Problem, name: str, conv: bool
) -> None:
    given = setting(problem, conv)
    torch.manual_seed(0)
    module = lineup(problem)[name].make(given)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        x, contexts = inputs(given)
        together = module(x, contexts)
        one_by_one = torch.cat([module(x[i : i + 1], contexts[i]) for i in range(len(x))])
        shared = module(x, contexts[0])
        repeated = module(x, contexts[:1].expand(len(x), -1))
    assert together.shape == (7, 5)
    torch.testing.assert_close(together, one_by_one, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shared, repeated, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_every_system_learns_all_its_parameters(problem: Problem) -> None:
    given = setting(problem)
    for system in lineup(problem).values():
        torch.manual_seed(0)
        module = system.make(given)
        optimizer = system.optimizer(module, given)
        before = {name: p.detach().clone() for name, p in module.named_parameters()}
        # a batch that reaches every bin of one-per-context
        contexts = bin_centres(problem).repeat(8, 1)
        x = torch.randn(len(contexts), *given.input_shape)
        for _ in range(2):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(module(x, contexts), torch.arange(len(x)) % 5)
            loss.backward()
            optimizer.step()
        stuck = [n for n, p in module.named_parameters() if torch.equal(p, before[n])]
        assert stuck == [], system.name


def test_the_systems_of_the_source_are_there() -> None:
    promised = {
        "manifold", "manifold-sgd", "manifold-adam", "concat", "concat-wide", "film",
        "hypernetwork", "scn", "one-for-all", "one-per-context",
    }  # fmt: skip
    for problem in PROBLEMS.values():
        assert promised <= set(lineup(problem))
    assert {"manifold-line", "manifold-K7", "manifold-K13", "undo"} <= set(lineup(ROTATION))
    assert "undo" not in lineup(PROBLEMS["noise"])


@pytest.mark.parametrize("conv", [False, True], ids=["mlp", "cnn"])
@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_equal_numbers_of_parameters(problem: Problem, conv: bool) -> None:
    given = setting(problem, conv)
    count = {name: parameters_of(s.make(given)) for name, s in lineup(problem).items()}
    plain = parameters_of(given.network())
    assert count["manifold"] == problem.bases["manifold"].size * plain
    # one unit more or less of width is what can be chosen
    assert count["concat-wide"] == pytest.approx(count["manifold"], rel=0.15)
    readers = 32 * 6 + 300
    assert 0 <= count["hypernetwork"] - count["manifold"] < readers
    assert 0 <= count["scn"] - 3 * plain < readers
    assert count["one-per-context"] == len(bin_centres(problem)) * plain


def test_wide_is_the_prototypes_width_on_mnist() -> None:
    given = Setting(ROTATION, mlp, (1, 28, 28), (128, 128), 10, (0.1, 0.3), 1e-3, 0.1, 0.1)
    module = lineup(ROTATION)["concat-wide"].make(given)
    assert isinstance(module, Concatenated)
    assert parameters_of(module) == pytest.approx(3 * parameters_of(given.network()), rel=0.005)


def test_all_systems_start_from_the_same_network() -> None:
    given = setting()
    x, contexts = inputs(given)
    answers: dict[str, Tensor] = {}
    for name in ("one-for-all", "manifold", "manifold-K7", "film", "hypernetwork"):
        torch.manual_seed(5)
        answers[name] = lineup(ROTATION)[name].make(given)(x, contexts).detach()
    for answer in answers.values():
        torch.testing.assert_close(answer, answers["one-for-all"], rtol=1e-4, atol=1e-5)


def test_concatenation_appends_the_embedding() -> None:
    given = setting()
    x, contexts = inputs(given)
    module = lineup(ROTATION)["concat"].make(given)
    assert isinstance(module, Concatenated)
    told = embed(ROTATION.topology, contexts).float()
    expected = module.network(torch.cat([x.flatten(1), told], 1))
    torch.testing.assert_close(module(x, contexts), expected)


def test_film_scales_and_shifts_what_enters_each_relu() -> None:
    given = setting()
    module = lineup(ROTATION)["film"].make(given)
    assert isinstance(module, Film)
    with torch.no_grad():
        module.reader[-1].bias.copy_(torch.linspace(-1, 1, 2 * 28))  # pyright: ignore
    x, contexts = inputs(given)
    signal = torch.linspace(-1, 1, 56)
    first, _, second, _, head = list(module.network)[1:]
    h = first(x.flatten(1)) * (1 + signal[:16]) + signal[16:32]
    h = second(h.relu()) * (1 + signal[32:44]) + signal[44:]
    torch.testing.assert_close(module(x, contexts), head(h.relu()))


def test_one_per_context_asks_the_nearest_network() -> None:
    module = OnePerContext(lambda: nn.Sequential(nn.Flatten(), nn.Linear(1, 2)), ROTATION)
    with torch.no_grad():
        for index, network in enumerate(module.networks):
            network[1].weight.zero_()  # pyright: ignore
            network[1].bias.fill_(float(index))  # pyright: ignore
    degrees = torch.tensor([[0.0], [31.0], [269.0], [300.0], [330.0]])
    answers = module(torch.zeros(5, 1, 1, 1), degrees)
    assert answers[:, 0].tolist() == [0, 1, 8, 8, 0]


def test_scn_mixes_networks_that_started_apart() -> None:
    module = lineup(ROTATION)["scn"].make(setting())
    [weight] = [p.detach() for n, p in module.named_parameters() if n.endswith("1.weight")][:1]
    assert not torch.equal(weight[0], weight[1])
    assert float(weight[0].std()) == pytest.approx(float(weight[2].std()), rel=0.2)


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


def test_unknown_and_repeated_systems() -> None:
    with pytest.raises(ConfigError, match="did you mean manifold"):
        chosen(ROTATION, ("manifol",))
    with pytest.raises(ConfigError, match=r"unknown system 'undo'.*for noise"):
        chosen(PROBLEMS["noise"], ("undo",))
    with pytest.raises(ConfigError, match="'concat' is named 2 times"):
        chosen(ROTATION, ("concat", "concat"))
    assert [s.name for s in chosen(ROTATION, ("undo", "film"))] == ["undo", "film"]


EVERY_BASIS = [basis for problem in PROBLEMS.values() for basis in problem.bases.values()]


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


@pytest.mark.parametrize("name", ["rotation", "noise", "rotation-noise"])
def test_in_an_orthonormal_basis_plain_steps_are_natural_steps(name: str) -> None:
    problem = PROBLEMS[name]
    basis, contexts = problem.bases["manifold"], draw(problem, 20, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    network = mlp((4,), (5,), 3).double()
    x, y = torch.randn(20, 4, dtype=torch.float64), torch.arange(20) % 3
    written, rewritten = (ManifoldModule(network, b) for b in (basis, Orthonormal(basis)))
    sgd = [torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9) for net in (written, rewritten)]
    for net, step in ((written, NaturalStep(sgd[0], written)), (rewritten, sgd[1])):
        for _ in range(15):
            step.zero_grad()
            nn.functional.cross_entropy(net(x, contexts), y).backward()
            step.step()
    torch.testing.assert_close(written(x, contexts), rewritten(x, contexts), rtol=0, atol=1e-10)
    moved = (written(x, contexts) - network(x)).abs().max()
    assert float(moved.detach()) > 0.1
