"""RandomFeatureEncoder: which context an input comes from, learned in one pass without exemplars.

Ridge regression of context codes on random features ψ of the input, from streaming moments:

    A = Σ ψψᵀ,   B_y = Σ_{labels y} ψ e(c)ᵀ,   g_y(x) = B_yᵀ (A + ρ tr(A)/n I)⁻¹ ψ(x)
    log p(y, c | x) = τ (g_y(x)·e(c) − ½ ‖e(c)‖²) + constant

The code e(c) holds Gaussian bumps around a grid of the topology; on a simplex it is the mixture
itself. With pure tasks the label y is part of the target, because tasks may differ in nothing but
their classes; elsewhere all labels share one target, which measured as well at a tenth of the size.
"""

from math import exp, log
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cl_manifold.contexts.codes import ContextCode
from cl_manifold.contexts.features import RandomFeatures, add_moments, packed, unpacked
from cl_manifold.contexts.sweep import distinct
from cl_manifold.errors import ContextError
from cl_manifold.geometry import Topology

CHUNK = 2000
"""Inputs whose features are in memory at once."""

HELD_OUT = 256
"""Inputs of a task at most that calibrate the temperature before they are learned themselves."""

TEMPERATURES = tuple(2 ** (k / 2) for k in range(13))
"""Inverse temperatures τ to choose from: 1 … 64."""


@final
class RandomFeatureEncoder:
    """Log p(c | x) for candidate contexts c; stores moments, no samples.

    Attributes:
        code: e(c).
        triangle: A's upper triangle, row by row.
        moments: B_y by label, each (n, J); one entry, for label −1, where labels share one target.
        visited: the contexts learned so far, shape (V, dim).
    """

    def __init__(
        self,
        topology: Topology,
        *,
        features: int = 2000,
        samples: int = 5000,
        ridge: float = 1e-3,
        bumps: int = 16,
        seed: int = 0,
    ) -> None:
        """An encoder that has learned nothing.

        Args:
            topology: of the contexts.
            features: n; n(n + 1)/2 floats are stored for A.
            samples: at most so many inputs of a task are learned, drawn at random.
            ridge: ρ, relative to the mean square of a feature.
            bumps: J, how many grid points a code has.
            seed: of the features, which are drawn anew and not stored.
        """
        if not 0 < ridge < float("inf"):
            raise ValueError(f"ridge must be positive and finite, got {ridge}")
        self.features, self.samples, self.ridge = RandomFeatures(features, seed), samples, ridge
        self.code = ContextCode(topology, bumps)
        self.moments: dict[int, Tensor] = {}
        self.visited = torch.empty(0, topology.dim, dtype=torch.float64)
        self.triangle = torch.zeros(features * (features + 1) // 2)
        self.log_temperature, self.calibrations = log(8.0), 0
        self._readout: Tensor | None = None

    # -- learning ----------------------------------------------------------------------------

    @torch.no_grad()
    def learn(
        self,
        x: Float[Tensor, "N ..."],
        labels: Int[Tensor, " N"],
        context: Float[Tensor, " dim"],
        topology: Topology | None = None,
    ) -> None:
        """Add the inputs of a finished task; again for a task that comes back.

        Args:
            x: the task's inputs.
            labels: their classes.
            context: of the task.
            topology: the present one, where a simplex gained tasks since the last call.

        Raises:
            ContextError: anything else than a simplex changed, or x has another size than before.
        """
        self._follow(topology or self.code.topology)
        context = self.code.topology.wrap(context.detach().cpu().double())
        generator = torch.Generator().manual_seed(self.features.seed + len(self.visited))
        rows = torch.randperm(len(x), generator=generator)[: self.samples].to(x.device)
        flat, labels = x[rows].detach().flatten(1).to(self.triangle.dtype), labels[rows]
        self.features.adapt(flat)
        held_out = min(HELD_OUT, len(flat) // 10)
        self._accumulate(flat[held_out:], labels[held_out:], context)
        self.visited = distinct(self.code.topology, [*self.visited, context])
        if held_out and len(self.visited) > 1:
            self._calibrate(flat[:held_out], context)
        self._accumulate(flat[:held_out], labels[:held_out], context)

    def _follow(self, topology: Topology) -> None:
        """Make room for the tasks that a simplex gained."""
        code = self.code.grown(topology)
        self.moments = {y: code.padded(b, self.code) for y, b in self.moments.items()}
        self.visited = code.embedded(self.visited, self.code)
        self.code = code

    def _accumulate(self, flat: Tensor, labels: Tensor, context: Tensor) -> None:
        square = unpacked(self.triangle).to(flat.device)
        code = self.code(context[None])[0].to(flat)
        keys = labels if self.code.has_pure_tasks else torch.full_like(labels, -1)
        for part, own in zip(flat.split(CHUNK), keys.split(CHUNK), strict=True):
            psi = self.features(part)
            add_moments(square, psi)
            for y in own.unique().tolist():
                total = (psi[own == y].sum(0)[:, None] * code).cpu()
                self.moments[y] = self.moments[y] + total if y in self.moments else total
        self.triangle = packed(square).cpu()
        self._readout = None

    def _calibrate(self, flat: Tensor, context: Tensor) -> None:
        """Average in the log τ that predicts the task best on inputs that were not learned yet.

        A task counts by how many other contexts there were to confuse it with.
        """
        away = self.code.topology.distance(self.visited, context.expand_as(self.visited))
        evidence = self._joint(self.read(flat), self.visited)
        losses = [
            -(tau * evidence)
            .flatten(1)
            .log_softmax(1)
            .view_as(evidence)[..., away.argmin()]
            .logsumexp(1)
            .mean()
            for tau in TEMPERATURES
        ]
        weight = len(self.visited) - 1
        self.calibrations += weight
        best = log(TEMPERATURES[int(torch.stack(losses).argmin())])
        self.log_temperature += (best - self.log_temperature) * weight / self.calibrations

    # -- reading -----------------------------------------------------------------------------

    @torch.no_grad()
    def read(self, x: Float[Tensor, "N ..."]) -> Float[Tensor, "N L J"]:
        """The regression's answer g_y(x): L labels, one row each, or L = 1 shared by all.

        Raises:
            ContextError: nothing was learned yet, or x has another size than before.
        """
        if not self.moments:
            raise ContextError(
                "the encoder cannot tell contexts before it has learned a task; call learn first"
            )
        readout = self._solved().to(x.device)
        flat = x.flatten(1).to(self.triangle.dtype)
        parts = [self.features(part) @ readout for part in flat.split(CHUNK)]
        return torch.cat(parts).unflatten(1, (len(self.moments), -1))

    def log_likelihood(
        self, reading: Float[Tensor, "N L J"], contexts: Float[Tensor, "m dim"]
    ) -> Float[Tensor, "N m"]:
        """Log Σ_y p(y, c | x) of each input and context, up to a constant of the input.

        Differentiable in the contexts. Of a batch from one context, the rows add up.
        """
        return (self.temperature * self._joint(reading, contexts)).logsumexp(1)

    def _joint(
        self, reading: Float[Tensor, "N L J"], contexts: Float[Tensor, "m dim"]
    ) -> Float[Tensor, "N L m"]:
        """g_y(x)·e(c) − ½ ‖e(c)‖²."""
        code = self.code(contexts).to(reading)
        return reading @ code.mT - code.square().sum(-1) / 2

    def _solved(self) -> Float[Tensor, "n LJ"]:
        """(A + ρ tr(A)/n I)⁻¹ B in float64, kept until more is learned."""
        if self._readout is None:
            a = unpacked(self.triangle).double()
            a.diagonal().add_(self.ridge * a.trace() / len(a))
            b = torch.cat([self.moments[y] for y in sorted(self.moments)], dim=1)
            self._readout = torch.cholesky_solve(b.double(), torch.linalg.cholesky(a)).to(b)
        return self._readout

    # -- bookkeeping -------------------------------------------------------------------------

    @property
    def temperature(self) -> float:
        """Τ, measured on the training stream; 8 until two contexts are known."""
        return exp(self.log_temperature)

    @property
    def stored_floats(self) -> int:
        """A (its upper triangle), B, the visited contexts and two numbers, in units of 32 bits."""
        moments = sum(b.numel() for b in self.moments.values())
        return self.triangle.numel() + moments + 2 * self.visited.numel() + 2

    def state(self) -> dict[str, Tensor]:
        """What `restore` needs, apart from the arguments of the constructor."""
        labels = sorted(self.moments)
        numbers = [self.features.scale, self.log_temperature, float(self.calibrations)]
        return {
            "triangle": self.triangle,
            "labels": torch.tensor(labels, dtype=torch.int64),
            "moments": torch.stack([self.moments[y] for y in labels]) if labels else torch.empty(0),
            "visited": self.visited,
            "numbers": torch.tensor(numbers, dtype=torch.float64),
        }

    def restore(self, state: dict[str, Tensor], topology: Topology) -> None:
        """Continue from `state`, on the topology that it was taken on."""
        self.code = ContextCode(topology, self.code.bumps)
        self.triangle, self.visited = state["triangle"], state["visited"]
        pairs = zip(state["labels"].tolist(), state["moments"], strict=True)
        self.moments = dict(pairs)
        scale, self.log_temperature, calibrations = state["numbers"].tolist()
        self.features.restore(scale)
        self.calibrations, self._readout = int(calibrations), None
