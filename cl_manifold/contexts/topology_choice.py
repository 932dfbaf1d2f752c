"""Evidence of a topology: which kernel explains what the finished tasks did to the weights.

Each weight is a Gaussian process over contexts. In a block of n weights the rows of D (T×n), one
per finished task, then have the density

    log p(D) = −½ [n log det C + tr(C⁻¹ S) + n T log 2π],   S = D Dᵀ,   C = K + R

with the topology's kernel K and the noise R, so S and T×T algebra are all that is needed.

Trained weights are the wrong D for a stream: each task starts where earlier ones ended, follows the
prediction of the topology that is in place, and moves less the higher the price. The evidence of a
topology is therefore that of the drives: D_j = −∇ℓ_j at one and the same network for all tasks, the
initial one, where training would first go. They do not depend on order, price or current topology.

Source: MacKay 2003, Information Theory, Inference, and Learning Algorithms, ch. 28 (evidence), 45.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import log, pi
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from cl_manifold.errors import ContextError, context_text
from cl_manifold.geometry import (
    Basis,
    Bernstein,
    Fourier,
    Growth,
    Vertices,
)

NOISE = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
"""ν, the part of a drive that the same task would not repeat: at most half."""
SHARED = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""c, the part of the rest that all contexts share."""
MARGIN = 0.1
"""Nats per weight that a larger basis must be better by."""
STRENGTHS = tuple(10 ** (k / 4) for k in range(-48, 13))


# -- Gaussian processes over contexts --------------------------------------------------------------


def log_evidence(
    gram: Float[Tensor, "B T T"],
    sizes: Float[Tensor, " B"],
    kernel: Float[Tensor, "T T"],
    noise: Float[Tensor, "T B"],
) -> Float[Tensor, " B"]:
    """The log density of each block with C = K + diag(noise).

        log p(D) = −½ [n log det C + tr(C⁻¹ S) + n T log 2π]

    Args:
        gram: S = D Dᵀ of each block.
        sizes: n, the number of weights of each block.
        kernel: K, the variances and covariances of one weight at the visited contexts.
        noise: variance per task and block, positive where K is singular.
    """
    covariance = kernel + torch.diag_embed(noise.mT)
    per_weight = _log_density(covariance, gram / sizes[:, None, None])
    return sizes * (per_weight - len(kernel) / 2 * log(2 * pi))


def _log_density(
    covariance: Float[Tensor, "*batch T T"], moment: Float[Tensor, "*batch T T"]
) -> Float[Tensor, "*batch"]:
    """−½ [log det C + tr(C⁻¹ M)]: a centred Gaussian, averaged over data with second moment M."""
    root = torch.linalg.cholesky(covariance)
    half = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    trace = torch.cholesky_solve(moment, root).diagonal(dim1=-2, dim2=-1).sum(-1)
    return -half - trace / 2


@dataclass(frozen=True)
class Scale:
    """The scales under which a kernel explains best, per block.

    Attributes:
        strength: ε of the prior precision ε G₀, in units of information.
        variance: σ², by which the kernel is multiplied.
        evidence: log p(D) at these scales, in nats.
    """

    strength: Float[Tensor, " B"]
    variance: Float[Tensor, " B"]
    evidence: Float[Tensor, " B"]


def best_scale(
    gram: Float[Tensor, "B T T"],
    sizes: Float[Tensor, " B"],
    kernel: Float[Tensor, "T T"],
    information: Float[Tensor, "T B"],
) -> Scale:
    """The ε and σ² that maximise the evidence under C = σ² C̃, C̃ = K + ε diag(1/f).

        σ² = tr(C̃⁻¹ S) / (n T)
        log p(D) = −½ n T [log σ² + 1 + log 2π] − ½ n log det C̃

    A posterior with precision f/s per task and prior (a G₀)⁻¹ has this covariance, with σ² = 1/a
    and ε = a s: the ratio is the strength of `precision.prior_covariance`. ε is searched on a grid
    of four values per decade from 1e-12 to 1e3.

    Args:
        gram: S = D Dᵀ of each block, D relative to the prior mean.
        sizes: n of each block.
        kernel: K = Φ G₀⁻¹ Φᵀ.
        information: f of each task in each block, positive and finite.

    Raises:
        ValueError: an information is zero, negative or infinite.
    """
    if not bool(((information > 0) & information.isfinite()).all()):
        raise ValueError(
            "the scale of the prior needs positive and finite information of every task; "
            "use Fisher information, and leave out blocks that a task did not use"
        )
    tasks = len(kernel)
    moment = gram / sizes[:, None, None]
    rows: list[tuple[Tensor, Tensor]] = []
    for strength in STRENGTHS:
        root = torch.linalg.cholesky(kernel + strength * torch.diag_embed(1 / information.mT))
        solved = torch.cholesky_solve(moment, root)
        variance = solved.diagonal(dim1=-2, dim2=-1).sum(-1) / tasks
        half = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        rows.append((variance, -tasks / 2 * (variance.log() + 1 + log(2 * pi)) - half))
    variances, values = (torch.stack(part) for part in zip(*rows, strict=True))
    best = values.argmax(0)
    column = torch.arange(len(sizes))
    strengths = torch.tensor(STRENGTHS, dtype=gram.dtype)
    return Scale(strengths[best], variances[best, column], sizes * values[best, column])


# -- topologies against each other -----------------------------------------------------------------


@final
@dataclass(frozen=True, eq=False)
class Candidate:
    """A basis, and the contexts of the finished tasks in its coordinates, shape (T, dim)."""

    basis: Basis
    contexts: Float[Tensor, "T dim"]

    def kernel(self) -> Float[Tensor, "T T"]:
        """Correlations k(c_i, c_j) / √(k(c_i, c_i) k(c_j, c_j)), k = φᵀ G₀⁻¹ φ without the mean.

        The variance of what all contexts share is taken out (its precision is 10³ instead of 10⁻³)
        because `topology_evidence` has its own. On a simplex k = φᵀφ: pure tasks at different
        vertices are unrelated. Tasks at one context have correlation 1.
        """
        phi = self.basis(self.contexts.double())
        if self.basis.topology.mixes:
            k = phi @ phi.mT
        else:
            k = phi @ torch.linalg.solve(self.basis.prior(1e3), phi.mT)
        scale = k.diagonal().sqrt()
        return k / scale[:, None] / scale


def candidates(contexts: Float[Tensor, "T dim"], period: float = 1.0) -> dict[str, Candidate]:
    """A point, a line, an interval, an ellipse, a circle, and one code per distinct context.

    Contexts of more than one number have no line or circle: a point and codes are left.

    Args:
        contexts: of the finished tasks.
        period: of the circle; the interval spans as much, or what was visited.
    """
    vertex = AsVertex(contexts)
    codes = Candidate(Vertices(vertex.count), torch.stack([vertex(c) for c in contexts]))
    if contexts.shape[1] != 1:
        point = Candidate(Fourier(0), torch.zeros(len(contexts), 1, dtype=torch.float64))
        return {"point": point, "codes": codes}
    low, high = float(contexts.min()), float(contexts.max())
    ends = min(0.0, low), max(period, high)
    bases: dict[str, Basis] = {
        "point": Fourier(0, period),
        "line": Bernstein(1, *ends),
        "interval": Bernstein(3, *ends),
        "ellipse": Fourier(1, period),
        "circle": Fourier(3, period),
    }
    return {name: Candidate(basis, contexts) for name, basis in bases.items()} | {"codes": codes}


def topology_evidence(
    gram: Float[Tensor, "B T T"],
    sizes: Float[Tensor, " B"],
    candidates: Mapping[str, Candidate],
) -> dict[str, float]:
    """Nats per weight by which a topology explains the directions of drives better than chance.

        C = (1 − ν) (c 11ᵀ + (1 − c) K) + ν I        0: unrelated tasks, C = I
        evidence = Σ_blocks n max_{ν, c} −½ [log det C + tr(C⁻¹ R) − T] / Σ_blocks n

    R is S with unit diagonal. Noise ν is at most half. What all tasks share, (1 − ν) c, is at least
    half for a point, where c = 1, and at most half for everything else: this tells one task under
    many names from many tasks. A task that left a block alone does not count there.

    Args:
        gram: S = D Dᵀ of each block, D the drives at one network.
        sizes: n of each block.
        candidates: by name, with the contexts of the same T tasks.
    """
    families = {name: _family(candidate) for name, candidate in candidates.items()}
    total = dict.fromkeys(families, 0.0)
    for s, share in zip(gram.double(), (sizes / sizes.sum()).tolist(), strict=True):
        length = s.diagonal().sqrt()
        used = length > 0
        r = (s / length[:, None] / length)[used][:, used]
        for name, family in families.items():
            found = _log_density(family[:, used][:, :, used], r.expand(len(family), -1, -1))
            total[name] += share * (float(found.max()) + len(r) / 2)
    return total


def _family(candidate: Candidate) -> Float[Tensor, "F T T"]:
    """Every C of a candidate."""
    kernel = candidate.kernel()
    eye, one = torch.eye(len(kernel)).to(kernel), torch.ones_like(kernel)
    if candidate.basis.size == 1:
        return torch.stack([(1 - nu) * one + nu * eye for nu in NOISE])
    pairs = [(nu, c) for nu in NOISE for c in SHARED if (1 - nu) * c <= 0.5]
    return torch.stack([(1 - nu) * (c * one + (1 - c) * kernel) + nu * eye for nu, c in pairs])


def winner(
    evidence: Mapping[str, float], candidates: Mapping[str, Candidate], margin: float = MARGIN
) -> str:
    """The candidate with the fewest control points within `margin` nats per weight of the best."""
    enough = max(evidence.values()) - margin
    good = [name for name, value in evidence.items() if value >= enough]
    return min(good, key=lambda name: (candidates[name].basis.size, -evidence[name]))


# -- growing into the winner -----------------------------------------------------------------------


@final
class AsVertex:
    """Takes each of the known contexts to a vertex of its own."""

    def __init__(self, contexts: Float[Tensor, "T dim"]) -> None:
        self.known: list[Tensor] = []
        for context in contexts.double():
            if self._place(context) is None:
                self.known.append(context)

    @property
    def count(self) -> int:
        """How many different contexts there are."""
        return len(self.known)

    def __call__(self, context: Tensor) -> Tensor:
        """The vertex of a known context.

        Raises:
            ContextError: the context is none of them.
        """
        place = self._place(context)
        if place is None:
            raise ContextError(
                f"context {context_text(context)} has no vertex: it is none of the "
                f"{self.count} visited ones; grow a vertex for it"
            )
        return torch.eye(self.count, dtype=torch.float64)[place]

    def _place(self, context: Tensor) -> int | None:
        near = (torch.allclose(context.double(), c, rtol=0, atol=1e-9) for c in self.known)
        return next((i for i, same in enumerate(near) if same), None)


def into(
    old: Basis, new: Basis, contexts: Float[Tensor, "T dim"], embed: Callable[[Tensor], Tensor]
) -> Growth:
    """A change to any other basis, for `WeightManifold.grow_and_reembed`.

    T minimises Σ_j |φ'(e(c_j))ᵀT − φ(c_j)ᵀ|²: exact at the visited contexts where the new basis can
    tell them apart, so `WeightManifold.grow` with it is not function-preserving elsewhere.

    Args:
        old: φ.
        new: φ'.
        contexts: the visited ones.
        embed: e, from the old topology to the new one.
    """
    larger = torch.stack([new(embed(c.double())) for c in contexts])
    return Growth(new, torch.linalg.pinv(larger) @ old(contexts.double()), embed)
