"""Laws of what a basis need not write itself: every closed form agrees with the defaults."""

import json
from itertools import product

import pytest
import torch
from torch import Tensor

from cl_manifold.errors import ConfigError
from cl_manifold.geometry import (
    Basis,
    Bernstein,
    BSpline,
    Circle,
    Fourier,
    Growth,
    Interval,
    Orthonormal,
    Product,
    TensorProduct,
    Vertices,
    basis_from_spec,
    gram_by_quadrature,
    random_codes,
    stiffness_by_quadrature,
    times,
)
from tests.laws.bases import (
    BASES,
    GROWING,
    OWN,
    STEPS,
    Bumps,
    Pairs,
    Plain,
    Powers,
    draw,
    fewer_tasks_than_codes,
    growths,
    pieces,
)


@pytest.fixture(params=BASES)
def basis(request: pytest.FixtureRequest) -> Basis:
    return BASES[request.param]()


def test_slopes_are_autograds(basis: Basis) -> None:
    c = draw(basis, 12, seed=3).reshape(3, 4, -1)
    torch.testing.assert_close(
        basis.derivative(c), Plain(basis).derivative(c), rtol=1e-11, atol=1e-11
    )


def test_integrals_are_those_of_quadrature(basis: Basis) -> None:
    plain, dim = Plain(basis), basis.topology.dim
    gaps = {1: (1e-5, 2e-3), 2: (1e-4, 1e-2)}[dim] if pieces(basis) else (1e-11, 1e-11)
    torch.testing.assert_close(basis.gram(), plain.gram(), rtol=gaps[0], atol=gaps[0])
    torch.testing.assert_close(basis.stiffness(), plain.stiffness(), rtol=gaps[1], atol=gaps[1])


def test_the_order_of_quadrature_is_what_was_asked_for(basis: Basis) -> None:
    if not pieces(basis) and not isinstance(basis, Bumps):
        gram, stiffness = gram_by_quadrature(basis, 10), stiffness_by_quadrature(basis, 10)
        torch.testing.assert_close(basis.gram(), gram, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(basis.stiffness(), stiffness, rtol=1e-11, atol=1e-11)


def test_constants_are_those_of_least_squares(basis: Basis) -> None:
    one, found = basis.constant(), Plain(basis).constant()
    if one is None or found is None:
        assert one is found
    else:
        torch.testing.assert_close(found, one, rtol=1e-9, atol=1e-9)


def test_priors_are_those_of_the_defaults(basis: Basis) -> None:
    if basis.own_prior:
        pytest.skip("codes have a prior of their own")
    gap = 1e-2 if pieces(basis) else 1e-10
    for mean in (1e-3, 0.4):
        torch.testing.assert_close(basis.prior(mean), Plain(basis).prior(mean), rtol=gap, atol=gap)


def test_defaults_keep_dtype_and_shape(basis: Basis) -> None:
    plain, c = Plain(basis), draw(basis, 3)
    assert plain.derivative(c.float()).dtype == torch.float32
    assert plain.derivative(c[0]).shape == (basis.topology.dim, basis.size)
    assert {m.dtype for m in (plain.gram(), plain.stiffness(), plain.prior())} == {torch.float64}


def test_default_slopes_leave_gradients_alone(basis: Basis) -> None:
    c = draw(basis, 3)
    with torch.no_grad():
        slope = Plain(basis).derivative(c)
    assert not slope.requires_grad
    assert not c.requires_grad
    assert not Plain(basis).derivative(c).requires_grad


def test_default_slopes_can_be_differentiated_again() -> None:
    """∂²cos θ = −ω² cos θ."""
    c = torch.tensor([[0.1], [0.4]], requires_grad=True)
    wave, omega = Fourier(1), 2 * torch.pi
    slope = Plain(wave).derivative(c)
    (bend,) = torch.autograd.grad(slope[..., 1].sum(), c)
    torch.testing.assert_close(bend, -(omega**2) * wave(c.detach())[:, 1:2])
    with torch.no_grad():
        assert not Plain(wave).derivative(c).requires_grad


# -- strength and prior ----------------------------------------------------------------------------


def test_strengths() -> None:
    codes = random_codes(2, 3, seed=0)
    shared = [Fourier(1), Bernstein(2), BSpline(), Pairs(2), Orthonormal(Fourier(1)), codes]
    assert {b.strength for b in shared} == {10.0}
    assert Vertices(2).strength == 300.0
    assert TensorProduct(Fourier(1), Vertices(2), Fourier(1)).strength == 300.0
    assert TensorProduct(Fourier(1), Bernstein(1)).strength == 10.0
    assert Orthonormal(Vertices(3)).strength == 300.0


def test_only_codes_have_a_prior_of_their_own() -> None:
    codes = random_codes(2, 3, seed=0)
    assert codes.own_prior
    assert TensorProduct(Fourier(1), codes).own_prior
    assert Orthonormal(codes).own_prior
    assert not any(b().own_prior for b in OWN.values())
    assert not TensorProduct(Fourier(1), Vertices(2)).own_prior


@pytest.mark.parametrize("other", [Fourier(2, 4.0), Vertices(3), random_codes(2, 3, seed=0)])
def test_a_rewritten_basis_has_the_same_belief(other: Basis) -> None:
    """Weights of variance wᵀ G₀⁻¹ w do not depend on how the functions are written."""
    c, same = draw(other, 6), Orthonormal(other)
    before = other(c) @ torch.linalg.solve(other.prior(0.3), other(c).mT)
    after = same(c) @ torch.linalg.solve(same.prior(0.3), same(c).mT)
    torch.testing.assert_close(after, before)


def test_a_span_without_constants_has_the_gram_as_prior() -> None:
    gram = Bumps(4).gram()
    torch.testing.assert_close(Bumps(4).prior(), gram / gram.trace())
    assert not torch.allclose(Bumps(4).prior(), gram)


# -- own bases -------------------------------------------------------------------------------------


def test_gram_of_powers_is_hilberts() -> None:
    """∫ x^{i+j} over [0, 1] = 1 / (i + j + 1), stiffness (ij / π²) / (i + j − 1)."""
    basis, powers = Powers(Interval(), [0, 1, 2, 5]), [0, 1, 2, 5]
    gram = [[1 / (i + j + 1) for j in powers] for i in powers]
    slope = [[i * j / torch.pi**2 / max(i + j - 1, 1) for j in powers] for i in powers]
    torch.testing.assert_close(basis.gram(), torch.tensor(gram), rtol=0, atol=1e-12)
    torch.testing.assert_close(basis.stiffness(), torch.tensor(slope), rtol=0, atol=1e-12)


def test_an_own_basis_times_another() -> None:
    step = times(Bumps(3), Powers(Interval(), [0, 1]))
    c = draw(step.basis, 5)
    parts = c.split(1, dim=-1)
    expected = [
        a * b for x, y in zip(*parts, strict=True) for a, b in product(Bumps(3)(x), [1.0, float(y)])
    ]
    torch.testing.assert_close(step.basis(c).flatten(), torch.stack(expected))


@pytest.mark.parametrize("name", OWN)
def test_an_own_basis_says_that_it_cannot_grow(name: str) -> None:
    own = OWN[name]()
    with pytest.raises(ConfigError, match=rf"{type(own).__name__} cannot grow.*grown\(\).*or"):
        own.grown()


# -- spec ------------------------------------------------------------------------------------------


def test_spec_round_trip_through_json(basis: Basis) -> None:
    grows = any(type(basis) is type(make()) for make in GROWING.values())
    larger: list[Growth] = growths(basis, STEPS) if grows else []
    for one in [basis, *(step.basis for step in larger)]:
        torch.set_default_dtype(torch.float32)
        again = basis_from_spec(json.loads(json.dumps(one.spec())))
        torch.set_default_dtype(torch.float64)
        c = draw(one, 20)
        assert type(again) is type(one)
        assert again.spec() == one.spec()
        assert again.topology.spec() == one.topology.spec()
        assert torch.equal(again(c), one(c))
        assert torch.equal(again.gram(), one.gram())


def test_spec_of_an_own_basis_names_class_and_arguments() -> None:
    assert Bumps(3, period=2.0).spec() == {
        "kind": "tests.laws.bases:Bumps",
        "count": 3,
        "width": 0.6,
        "period": 2.0,
    }
    powers = Powers(Product(Interval(), Circle()), [1, 2]).spec()
    assert powers["space"]["topology"]["kind"] == "product"
    assert powers["powers"] == [1, 2]
    assert Plain(Fourier(1)).spec()["basis"] == {"basis": Fourier(1).spec()}


def test_specs_in_lists_are_restored() -> None:
    both = Several((Fourier(1), Bumps(2)), None)
    again = basis_from_spec(json.loads(json.dumps(both.spec())))
    assert isinstance(again, Several)
    assert [b.spec() for b in again.bases] == [b.spec() for b in both.bases]
    assert again.note is None


class Several(Basis):
    def __init__(self, bases: tuple[Basis, ...], note: str | None) -> None:
        self.bases, self.note = tuple(bases), note
        self.topology, self.size = bases[0].topology, sum(b.size for b in bases)

    def __call__(self, context: Tensor) -> Tensor:
        return torch.cat([b(context) for b in self.bases], dim=-1)


class Forgetful(Basis):
    def __init__(self, count: int) -> None:
        self.topology, self.size = Circle(), count

    def __call__(self, context: Tensor) -> Tensor:
        return context.expand(*context.shape[:-1], self.size)


class Variadic(Forgetful):
    def __init__(self, *counts: int) -> None:
        self.counts = counts
        self.topology, self.size = Circle(), 1


class Holding(Forgetful):
    def __init__(self, count: Tensor) -> None:
        self.count, self.topology, self.size = count, Circle(), 1


def test_what_cannot_be_saved_says_so() -> None:
    class Local(Bumps):
        pass

    with pytest.raises(ConfigError, match=r"Local cannot be found by its name; define"):
        Local(2).spec()
    with pytest.raises(ConfigError, match=r"Forgetful.*argument count.*set self\.count"):
        Forgetful(2).spec()
    with pytest.raises(ConfigError, match=r"Variadic.*argument counts"):
        Variadic(2).spec()
    with pytest.raises(ConfigError, match=r"Holding\.count is a Tensor.*or write spec\(\)"):
        Holding(torch.ones(1)).spec()


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("no-such-kind", r"no basis of kind 'no-such-kind'; choose one of fourier,.*orthonormal"),
        (None, "no basis of kind None"),
        ("no.such.module:Bumps", r"module of 'no.such.module:Bumps' cannot be imported"),
        (":Bumps", "cannot be imported"),
        (".bases:Bumps", "cannot be imported"),
        ("tests.laws.bases:Missing", "'tests.laws.bases:Missing' is no Basis"),
        ("tests.laws.bases:Growth", "'tests.laws.bases:Growth' is no Basis"),
        ("tests.laws.bases:draw", "'tests.laws.bases:draw' is no Basis"),
        ("os:system", "'os:system' is no Basis"),
        ("tests.laws.bases:Bumps", "Bumps cannot be built from {}.*count"),
        ("fourier", r"kind fourier cannot be built from .*odd"),
    ],
)
def test_specs_that_name_no_basis(kind: str | None, says: str) -> None:
    values = {"odd": 1} if kind == "fourier" else {}
    with pytest.raises(ConfigError, match=says):
        basis_from_spec({"kind": kind, **values})


def test_more_functions_than_tasks_leave_the_shortest_constant() -> None:
    wide = BASES["codes-wide"]()
    assert fewer_tasks_than_codes(wide)
    one = Plain(wide).constant()
    assert one is not None
    assert (
        float(one.norm())
        <= float(torch.linalg.lstsq(wide(torch.eye(2)), torch.ones(2)).solution.norm()) + 1e-9
    )
