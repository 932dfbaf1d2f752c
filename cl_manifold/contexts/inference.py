"""Contexts that nobody gave, inferred at test time from unlabelled inputs.

For N inputs that share one context, over candidates c in the region that training visited,

    log p(c | x_1 … x_N) = log p(c) + Σ_i [log p(c | x_i) − β H_i(c)] + constant

with the encoder's log p(c | x_i), if there is one, and the entropy, or the energy, H_i(c) of the
network's prediction at c. The best candidate is refined by gradient descent.

Sources: entropy: SupSup, Wortsman et al. 2020, sec. 3.3; energy: Liu et al. 2020, eq. (4).
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import pi
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cl_manifold.contexts.encoder import RandomFeatureEncoder
from cl_manifold.contexts.region import Region, region_of
from cl_manifold.contexts.sweep import logits_at, logits_with, refine, spread
from cl_manifold.errors import ContextError
from cl_manifold.manifold.layout import Inputs, State
from cl_manifold.manifold.weight_manifold import WeightManifold

Score = Literal["entropy", "energy"]

CACHED_FLOATS = 1 << 26
"""Weights of candidates are kept while they are so few floats (256 MiB), else formed each time."""


def entropy(logits: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch"]:
    """H = −Σ_y p(y) log p(y) of p = softmax(logits)."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def energy(logits: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch"]:
    """E = −log Σ_y exp(logit_y)."""
    return -logits.logsumexp(-1)


SCORES: dict[str, Callable[[Tensor], Tensor]] = {"entropy": entropy, "energy": energy}


@dataclass(frozen=True)
class Inferred:
    """Contexts of inputs and the network's answers there.

    Attributes:
        contexts: shape (N, dim), float64.
        logits: shape (N, C), of each input at its context.
    """

    contexts: Tensor
    logits: Tensor


@dataclass(frozen=True)
class InferenceSettings:
    """How contexts are inferred.

    Attributes:
        score: what a prediction that fits has little of.
        weight: β ≥ 0, how much the score counts beside an encoder; without one it counts alone.
        grid: how many candidates lie on a grid of the topology, besides those visited.
        shortlist: how many candidates the encoder leaves for the network to judge.
        steps: of gradient descent from the best candidate of a batch; none for single inputs.
    """

    score: Score = "entropy"
    weight: float = 0.5
    grid: int = 72
    shortlist: int = 6
    steps: int = 4

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise ValueError(
                f"the score is {self.score!r}, but must be one of {', '.join(SCORES)}; "
                "choose one of them"
            )
        if self.weight < 0 or self.grid < 0 or self.shortlist < 1 or self.steps < 0:
            raise ValueError(
                f"weight, grid and steps must be 0 or more and shortlist 1 or more, got {self}"
            )


USUAL = InferenceSettings()


@final
class ContextInference:
    """Infers contexts on one state of a manifold; call `prepare` again after every commit.

        inference = ContextInference(encoder)
        inference.prepare(manifold)
        context = inference.batch((x,))           # one context for all of x
        found = inference.predict((x,), batch=64)    # one per 64 inputs, with the logits there

    Attributes:
        encoder: judges inputs without the network, or None.
        settings: see `InferenceSettings`.
        candidates: the contexts in question, shape (m, dim); all inside the visited region.
    """

    def __init__(
        self, encoder: RandomFeatureEncoder | None = None, settings: InferenceSettings = USUAL
    ) -> None:
        self.encoder, self.settings = encoder, settings
        self.candidates = torch.empty(0, 0, dtype=torch.float64)
        self._state: _State | None = None

    @torch.no_grad()
    def prepare(self, manifold: WeightManifold) -> None:
        """Choose the candidates for the manifold as it is now, and form their weights.

        On a simplex they are the visited contexts: mixtures of tasks measured worse, and no input
        of a stream of pure tasks needs one.

        Raises:
            ContextError: no task is finished.
        """
        region = region_of(manifold)
        pure = manifold.basis.topology.mixes
        found = spread(manifold, 0 if pure else self.settings.grid)
        steps = 0 if pure else self.settings.steps
        self.candidates = found[region.contains(found).cpu()]
        small = len(self.candidates) * manifold.layout.size <= CACHED_FLOATS
        states = manifold.state(self.candidates) if small else None
        self._state = _State(manifold, region, states, steps)

    @torch.no_grad()
    def batch(self, inputs: Inputs) -> Float[Tensor, " dim"]:
        """The one context of all inputs."""
        state, reading = self._ready(), self._read(inputs[0])
        short = torch.arange(len(self.candidates))
        found = self._encoded(inputs[0], reading).sum(0)
        if self.encoder is not None:
            short = found.topk(min(self.settings.shortlist, len(found))).indices
        logits = state.logits(self.candidates, short, inputs)
        total = found[short] - self._weight * self._score(logits).sum(-1)
        best = self.candidates[short[total.argmax()]]
        return self._refined(best, inputs, reading) if state.steps else best

    @torch.no_grad()
    def samples(self, inputs: Inputs) -> Float[Tensor, "N dim"]:
        """A context for every input on its own."""
        return self.predict(inputs, 1).contexts

    @torch.no_grad()
    def predict(self, inputs: Inputs, batch: int) -> Inferred:
        """Contexts for every `batch` consecutive inputs, and the logits there."""
        if batch < 1:
            raise ValueError(f"a batch must have 1 or more inputs, got {batch}")
        if batch == 1:
            return self._single(inputs)
        manifold = self._ready().manifold
        parts = list(zip(*(column.split(batch) for column in inputs), strict=True))
        contexts = [self.batch(part) for part in parts]
        logits = [
            logits_with(manifold, manifold.state(c[None]), part)[0]
            for c, part in zip(contexts, parts, strict=True)
        ]
        repeats = torch.tensor([len(part[0]) for part in parts])
        return Inferred(torch.stack(contexts).repeat_interleave(repeats, 0), torch.cat(logits))

    # -- helpers -----------------------------------------------------------------------------

    def _single(self, inputs: Inputs) -> Inferred:
        """Every candidate's weights meet all inputs that have it on their shortlist at once."""
        x, state = inputs[0], self._ready()
        found = self._encoded(x, self._read(x))
        count = len(self.candidates) if self.encoder is None else self.settings.shortlist
        short = found.topk(min(count, len(self.candidates)), dim=1).indices
        best = torch.full((len(x),), -torch.inf, dtype=torch.float64)
        where = torch.zeros(len(x), dtype=torch.int64)
        answers: Tensor | None = None
        for k in range(len(self.candidates)):
            rows = (short == k).any(1).nonzero()[:, 0]
            if not len(rows):
                continue
            asked = tuple(column[rows.to(column.device)] for column in inputs)
            logits = state.logits(self.candidates, torch.tensor([k]), asked)[0]
            total = found[rows, k] - self._weight * self._score(logits)
            better = total > best[rows]
            chosen = rows[better]
            best[chosen], where[chosen] = total[better], k
            if answers is None:
                answers = logits.new_zeros(len(x), logits.shape[-1])
            answers[chosen.to(x.device)] = logits[better.to(x.device)]
        assert answers is not None
        return Inferred(self.candidates[where], answers)

    def _ready(self) -> "_State":
        if self._state is None:
            raise ContextError(
                "no context can be inferred before the manifold is known; call prepare(manifold) "
                "first, and again after every commit"
            )
        return self._state

    @property
    def _weight(self) -> float:
        return 1.0 if self.encoder is None else self.settings.weight

    def _score(self, logits: Tensor) -> Tensor:
        return SCORES[self.settings.score](logits).double().cpu()

    def _read(self, x: Tensor) -> Tensor | None:
        return None if self.encoder is None else self.encoder.read(x)

    def _encoded(self, x: Tensor, reading: Tensor | None) -> Float[Tensor, "N m"]:
        """Log p(c | x_i) of the encoder, zero without one."""
        if self.encoder is None or reading is None:
            return torch.zeros(len(x), len(self.candidates), dtype=torch.float64)
        return self.encoder.log_likelihood(reading, self.candidates).double().cpu()

    def _refined(self, start: Tensor, inputs: Inputs, reading: Tensor | None) -> Tensor:
        state, weight, score = self._ready(), self._weight, SCORES[self.settings.score]

        def objective(logits: Tensor) -> Tensor:
            return weight * score(logits).mean()

        def penalty(context: Tensor) -> Tensor:
            outside = 0.0 if bool(state.region.contains(context.detach()[None])) else torch.inf
            if self.encoder is None or reading is None:
                return torch.tensor(outside)
            return outside - self.encoder.log_likelihood(reading, context[None]).mean()

        step = 1.0 / max(1, self.settings.grid)
        return refine(
            state.manifold,
            objective,
            start,
            inputs,
            steps=self.settings.steps,
            rate=pi * step,
            penalty=penalty,
        )


@final
@dataclass(frozen=True)
class _State:
    """The manifold as `prepare` found it."""

    manifold: WeightManifold
    region: Region
    states: State | None
    steps: int

    def logits(
        self, candidates: Float[Tensor, "m dim"], rows: Int[Tensor, " n"], inputs: Inputs
    ) -> Float[Tensor, "n N C"]:
        """At the candidates in `rows`."""
        if self.states is None:
            return logits_at(self.manifold, candidates[rows], inputs)
        chosen = {name: values[rows.to(values.device)] for name, values in self.states.items()}
        return logits_with(self.manifold, chosen, inputs)
