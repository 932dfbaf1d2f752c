"""WeightManifold: a module's weights as a smooth function of context.

Knows how control points, belief and atlas move together; nothing about data, losses or training.
"""

from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cl_manifold.errors import ContextError, LayoutError, context_text
from cl_manifold.geometry import Basis, Growth
from cl_manifold.manifold import belief as beliefs
from cl_manifold.manifold.atlas import Atlas, Task
from cl_manifold.manifold.belief import PRECISION, Belief
from cl_manifold.manifold.extending import continued, inherited
from cl_manifold.manifold.information import leaning, normalised
from cl_manifold.manifold.layout import (
    Extension,
    Granularity,
    State,
    everything,
    extension,
    layout_of,
    with_buffers,
)
from cl_manifold.manifold.points import Storage, points_through
from cl_manifold.manifold.visits import Commit, Visit, moved_buffers, outside

GRID = 257
"""Contexts at which the overshoot of a commit is looked for."""


@final
class WeightManifold:
    """w(c) = w₀ + Σ_k φ_k(c) P_k for the state of a module.

    Check out the weights at a context, train them with any optimizer, commit them back:

        visit = manifold.check_out(c)
        train(module)                            # with the price of the visit, or without
        manifold.commit(information)

    Attributes:
        module: the live network that holds the weights which were checked out last.
        basis: φ.
        layout: which weights are on the manifold and how they fall into blocks.
        points: P, and w₀ where it is needed.
        belief: Σ per block.
        atlas: the finished tasks.
        strength: ρ, the ratio of a task's information to the prior.
        visit: the open visit, or None.
    """

    def __init__(
        self,
        module: nn.Module,
        basis: Basis,
        *,
        blocks: Granularity = "row",
        strength: float | None = None,
        storage: Storage = "float32",
        growable: bool = False,
        select: Callable[[str], bool] = everything,
    ) -> None:
        """Lay a manifold through the module's current weights.

        Args:
            module: any module; its current weights are the prior mean at every context.
            basis: topology and functions.
            blocks: which weights share a covariance.
            strength: ρ > 0; the basis' own by default.
            storage: number format of the control points between check-outs.
            growable: keep the initial network, so that `grow_and_reembed` can be used.
            select: which parameters go onto the manifold.
        """
        self.strength = basis.strength if strength is None else strength
        if not 0 < self.strength < float("inf"):
            raise ValueError(f"strength must be positive and finite, got {strength}")
        self.module, self.basis, self.growable = module, basis, growable
        self.blocks: Granularity = blocks
        self.select = select
        self.layout = layout_of(module, blocks, select)
        self.points = points_through(
            self.layout,
            basis.size,
            basis.constant(),
            self.layout.read(module),
            storage,
            with_offset=growable,
        )
        self.belief = self._unvisited(basis)
        self.atlas = Atlas(basis.topology)
        self.visit: Visit | None = None
        self._grid = self._grid_of(basis)

    # -- weights at a context ----------------------------------------------------------------

    def phi(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch K"]:
        """φ(c) in float64, on the CPU."""
        return self.basis(context.to("cpu", torch.float64))

    def state(self, context: Float[Tensor, "*batch dim"]) -> State:
        """w(c) by name, each (*batch, *shape); differentiable in c."""
        return self.usable(self.points.at(self.phi(context)))

    def open(self, context: Float[Tensor, " dim"]) -> Visit:
        """Begin a visit, or go on with the open one; the module's weights stay as they are.

        A finished task that leaves no freedom at its own coordinate is let go of first: it has
        come back, and what is committed now takes its place.

        Raises:
            ContextError: the context is outside the topology, or other tasks leave no freedom.
        """
        context = self._canonical(context)
        if self.visit is not None and self.atlas.same(self.visit.context, context):
            return self.visit
        phi = self.phi(context)
        if self.atlas.visited(context) and self._fixed(phi):
            self.release(context)
        self.visit = self._visit(context, phi)
        return self.visit

    def look(self, context: Float[Tensor, " dim"]) -> Visit:
        """What a visit would be on top of all finished tasks; it is not opened.

        Raises:
            ContextError: the context is outside the topology, or finished tasks leave no freedom.
        """
        context = self._canonical(context)
        return self._visit(context, self.phi(context))

    def check_out(self, context: Float[Tensor, " dim"]) -> Visit:
        """Open a visit and write w(c) into the module, in place."""
        visit = self.open(context)
        self.write(self.usable(self.points.at(visit.step.phi)))
        return visit

    def write(self, state: State) -> None:
        """Write weights into the module, in place."""
        self.layout.write(self.module, state)

    # -- how free a context still is ---------------------------------------------------------

    def plasticity(self, context: Float[Tensor, " dim"]) -> float:
        """κ_rel averaged over weights: 1 = untouched, 0 = fixed by finished tasks."""
        return self.average(self.belief.step(self.phi(context)).freedom)

    def overshoot(self, context: Float[Tensor, " dim"]) -> float:
        """The largest |φ(c')ᵀ v κ| over a grid of the topology and over blocks."""
        return self.belief.step(self.phi(context)).overshoot(self._grid)

    def average(self, values: Float[Tensor, " B"]) -> float:
        """The mean over weights of one number per block."""
        return float((values * self.layout.sizes()).sum() / self.layout.size)

    # -- learning ----------------------------------------------------------------------------

    @torch.no_grad()
    def commit(self, information: Float[Tensor, " B"] | float, sharpness: float = 1.0) -> Commit:
        """Move the control points so that w(c) is what the module holds, then hold them there.

            P_k += v_k κ (w − w(c)) ;    Σ' = Σ − f/(1 + f q) v vᵀ

        with f = s ρ ε F / mean F, where the mean is over all weights.
        See docs/mathematics.md, eq. (9), and docs/mathematics.md, eq. (11).

        Args:
            information: F ≥ 0 per block, or one number for all; infinite for exact protection.
            sharpness: s ≥ 1, how much more than usual the task is worth (`Likelihood.sharpness`).

        Raises:
            ContextError: no visit is open.
            LayoutError: the module's weights are not finite, or its architecture changed.
            InformationError: the information is zero everywhere, negative or not a number.
        """
        visit = self.open_visit
        self.take_up_buffers()
        displacement = self._displacement()
        given = torch.as_tensor(information, dtype=torch.float64).detach().cpu()
        f = self._firmness(given, sharpness)
        report = Commit(self.average(visit.step.freedom), visit.step.overshoot(self._grid))
        self.points.move(visit.step, displacement)
        self.belief = visit.before.observe(visit.step.phi, f)
        self._record(visit, f)
        return report

    @torch.no_grad()
    def absorb(self) -> None:
        """Take what was written into the module since the last commit into that commit."""
        visit = self.visit
        if visit is not None and visit.committed:
            self.take_up_buffers()
            displacement = self._displacement()
            if any(bool(d.any()) for d in displacement.values()):
                self.points.move(visit.step, displacement)

    @torch.no_grad()
    def preview(self, context: Float[Tensor, " dim"], live: State) -> State:
        """The weights at a context if `live` were committed at the open visit now.

        w'(c_j) = w(c_j) + (φ_jᵀ v) κ (w − w(c)), block by block; docs/mathematics.md, eq. (12)
        """
        return self.preview_at(self.phi(context), live, self.open_visit)

    @torch.no_grad()
    def preview_at(self, phi: Float[Tensor, " K"], live: State, visit: Visit) -> State:
        """As `preview`, at φ of the context and for any visit."""
        share = visit.step.influence(phi[None])[0]
        there: State = {}
        for e in self.layout.entries:
            here = self.points.one_at(e, visit.step.phi)
            moved = (live[e.name] - here).to(here)
            part = e.broadcast(share[e.part]).to(moved)
            there[e.name] = self.points.one_at(e, phi).addcmul_(part, moved)
        return self.usable(there)

    def take_up_buffers(self) -> None:
        """Put buffers that training has moved since the visit began onto the manifold.

        Floating-point statistics, and how many batches they are of; masks and constants stay.
        Up to now they were the same in every context.
        """
        visit = self.open_visit
        moved = moved_buffers(self.module, visit.outside, self.select)
        if moved:
            self._extend(with_buffers(self.layout, moved), {n: t for n, (t, _) in moved.items()})
            visit.outside = {n: t for n, t in visit.outside.items() if n not in moved}
        self.layout = self.layout.signed(self.module)

    @torch.no_grad()
    def release(self, context: Float[Tensor, " dim"]) -> None:
        """Let go of the finished tasks at a context: weights stay, precision is withdrawn.

            Σ = (εG₀ + Σ_j f_j φ_jφ_jᵀ)⁻¹ over the tasks that remain

        Raises:
            LayoutError: the information of finished tasks was not kept.
        """
        self.atlas.tasks = self.atlas.without(context)
        self.belief = self._posterior(self.basis)
        self.visit = None

    @torch.no_grad()
    def grow(self, growth: Growth) -> None:
        """Function-preserving growth: P' = T P, so that no w(c) changes anywhere.

        Σ' is the covariance that the larger basis has after the same tasks.
        See docs/mathematics.md, eq. (13).

        Raises:
            LayoutError: the information of finished tasks was not kept.
        """
        self.atlas.information(self.layout.blocks)
        matrix = growth.matrix

        def change(entry: object, points: Tensor) -> Tensor:
            return torch.einsum("kl,lbn->kbn", matrix.to(points), points)

        self.points = self.points.transformed(change)
        self._adopt(growth)
        self.belief = self._posterior(growth.basis)

    @torch.no_grad()
    def grow_and_reembed(self, growth: Growth) -> None:
        """Growth by re-embedding: P' = M P, the posterior mean of the larger basis.

        Keeps w at every visited context up to its precision and re-localises everything between.
        See docs/mathematics.md, eq. (14).

        Raises:
            LayoutError: the manifold was not built with growable=True.
        """
        if self.points.offset is None:
            raise LayoutError(
                "re-embedding needs the initial network, which this manifold did not keep; "
                "build it with growable=True, or use grow, which keeps every w(c)"
            )
        smaller = self.atlas.phis(self.basis.size)
        information = self.atlas.information(self.layout.blocks)
        self._adopt(growth)
        larger = self.atlas.phis(growth.basis.size)
        start = self._unvisited(growth.basis)
        mapping, self.belief = beliefs.reembedding(start, larger, smaller, information)
        parts = {e.name: mapping[e.part] for e in self.layout.entries}
        self.points = self.points.transformed(
            lambda e, points: torch.einsum("bkl,lbn->kbn", parts[e.name].to(points), points)
        )

    @torch.no_grad()
    def extend(self) -> list[str]:
        """Take up parameters that the module gained and tensors that became wider.

        They start at their current values in every context. Finished tasks leave new tensors free,
        such as the head of a new task, and hold the new parts of wider ones, such as the rows of
        new classes, like the average weight: these take part in what the network answers there.
        What a task protects exactly it protects in whatever is new, too.

        Returns:
            The names that are new or wider.

        Raises:
            LayoutError: a tensor that is on the manifold became narrower or disappeared.
        """
        new = layout_of(self.module, self.blocks, self.select)
        found = extension(self.layout, new, dict(self.module.named_buffers()))
        if found is None:
            return []
        before = {e.name: e.shape for e in self.layout.entries}
        self._extend(found, {})
        return [e.name for e in self.layout.entries if before.get(e.name) != e.shape]

    def follow(self, module: nn.Module) -> None:
        """Go on with another module of the same architecture, such as a copy of the network.

        Raises:
            LayoutError: it has another architecture.
        """
        extension(self.layout, layout_of(module, self.blocks, self.select))
        self.module = module

    # -- bookkeeping -------------------------------------------------------------------------

    @property
    def stored_floats(self) -> int:
        """Everything kept between tasks, in units of 32 bits; the live module is not counted."""
        return (self.points.nbytes + self.belief.nbytes + self.atlas.nbytes) // 4

    def usable(self, state: State) -> State:
        """Weights as the module can hold them: its dtypes, whole counts, no negative variances."""
        state = self.layout.settled(state)
        for name, t in self.layout.tensors(self.module).items():
            value = state[name] if t.is_floating_point() else state[name].round()
            state[name] = value.to(t.dtype)
        return state

    @property
    def open_visit(self) -> Visit:
        """The open visit; an error where there is none."""
        if self.visit is None:
            raise ContextError("no context is checked out; call check_out(context) first")
        return self.visit

    def _canonical(self, context: Float[Tensor, " dim"]) -> Float[Tensor, " dim"]:
        return self.basis.topology.wrap(context.detach().to("cpu", torch.float64))

    def _visit(self, context: Float[Tensor, " dim"], phi: Float[Tensor, " K"]) -> Visit:
        if self._fixed(phi):
            raise ContextError(
                f"context {context_text(context)} cannot be learned: its {self.basis.size} control "
                f"points are fixed by {len(self.atlas)} finished tasks; grow the basis, "
                "or protect finished tasks by Fisher information instead of exactly"
            )
        anchor = {n: w.detach() for n, w in self.points.at(phi).items()}
        return Visit(
            context, self.belief.step(phi), anchor, self.belief, outside(self.module, self.layout)
        )

    def _fixed(self, phi: Float[Tensor, " K"]) -> bool:
        exact = [task.phi for task in self.atlas.tasks if task.exact]
        return beliefs.spanned(self.belief.prior, exact, phi)

    def _displacement(self) -> State:
        """W − w(c), in the dtype of the control points."""
        live = self.layout.tensors(self.module)
        for name, weights in live.items():
            if not bool(weights.isfinite().all()):
                raise LayoutError(
                    f"{name} holds weights that are not finite, so nothing was committed; "
                    "lower the learning rate, or check out an earlier context"
                )
        here = self.points.at(self.open_visit.step.phi)
        return {name: live[name].detach().to(w.dtype) - w for name, w in here.items()}

    def _firmness(self, information: Tensor, sharpness: float) -> Float[Tensor, " B"]:
        """F normalised to s ρ ε; buffers that joined since count like the average weight."""
        sizes, scale = self.layout.sizes(), sharpness * PRECISION * self.strength
        given = information.expand(len(sizes)) if information.ndim == 0 else information
        f = normalised(leaning(given, self.layout), sizes[: len(given)], scale)
        rest = torch.inf if bool(f.isinf().all()) else scale
        return torch.cat([f, f.new_full((len(sizes) - len(f),), rest)]).float()

    def _record(self, visit: Visit, f: Float[Tensor, " B"]) -> None:
        keeps = self.blocks != "weight" or self.growable or bool(f.isinf().all())
        same = bool((f == f[0]).all())
        kept = (f[:1].clone().expand(len(f)) if same else f) if keeps else None
        task = Task(visit.context, visit.step.phi, kept)
        earlier = self.atlas.tasks[:-1] if visit.committed else self.atlas.tasks
        self.atlas.tasks = (*earlier, task)
        visit.committed = True

    def _extend(self, found: Extension, start: State) -> None:
        """Move to a larger layout; new tensors start at `start`, or as the module holds them."""
        current = found.layout.read(self.module) | start
        firmness = PRECISION * self.strength
        information = [inherited(t.information, found, firmness) for t in self.atlas.tasks]
        self.points = self.points.extended(found.layout, self.basis.constant(), current)
        self.layout = found.layout
        self.atlas.reblock(information)
        self.belief = continued(self.belief, found, self.atlas.tasks)
        if self.visit is not None:
            tasks = self.atlas.tasks[:-1] if self.visit.committed else self.atlas.tasks
            self.visit.before = continued(self.visit.before, found, tasks)
            self.visit.step = self.visit.before.step(self.visit.step.phi)
            kept, here = self.visit.anchor, self.points.at(self.visit.step.phi)
            self.visit.anchor = {
                n: kept[n] if n in kept and kept[n].shape == w.shape else w.detach()
                for n, w in here.items()
            }

    def _posterior(self, basis: Basis) -> Belief:
        information = self.atlas.information(self.layout.blocks)
        return beliefs.posterior(self._unvisited(basis), self.atlas.phis(basis.size), information)

    def _unvisited(self, basis: Basis) -> Belief:
        dtype = torch.float32 if self.blocks == "weight" else torch.float64
        return beliefs.unvisited(basis.prior(), self.layout.blocks, dtype)

    def _adopt(self, growth: Growth) -> None:
        self.basis, self.visit = growth.basis, None
        self._grid = self._grid_of(growth.basis)
        self.atlas.move(growth)

    def _grid_of(self, basis: Basis) -> Tensor:
        return basis(basis.topology.grid(GRID))
