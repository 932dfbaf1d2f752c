"""The weight manifold as a method: its settings, and where contexts come from."""

from typing import Annotated, Any, Literal

from pydantic import Field

from cl_manifold.errors import ConfigError
from cl_manifold.options import Count, NotNegative, Options, Positive, Share

from .counting import network_and, plugin_of
from .method import AtTest, Method, Setting, Stored


class ContextOptions(Options):
    """Where contexts come from while training and testing, and what is decided with them."""

    training: Literal["given", "inferred"] = "given"
    """Whether experiences carry their context, or a rule finds it."""
    test: Literal["given", "inferred"] = "given"
    """Told at test time (or, where training inferred it, which experience it is), or inferred."""
    batch: Count = 64
    """Inputs in a row that share one context, where it is inferred at test time."""
    features: Annotated[int, Field(ge=0, le=100_000)] = 2000
    """Random features of an encoder that helps to infer the context; 0 is none."""
    rule: Literal["auto", "none", "evidence", "always-grow", "never-grow", "csp"] = "auto"
    """Decides between reuse, place and grow; auto: by evidence where contexts are inferred."""
    level: Share = 0.05
    """Error rate of the test whether a task has come back."""
    tolerance: NotNegative = 0.1
    """Shortfall of accuracy from which on the manifold grows."""
    drift: NotNegative = 0.15
    """Share of earlier predictions that may change before the manifold grows."""
    held_out: Count = 256
    """Samples of an experience that are kept from training for the decision, at most."""
    probe_share: Share = 0.04
    """Share of the training steps that trying out a decision may take."""
    max_control_points: Count | None = None
    """The manifold grows no further."""
    topology: Literal["fixed", "watched", "auto"] = "fixed"
    """Watched: topologies are compared after each task; auto: and the best one is taken."""


_FEW = {"contexts.features": 300}
_EXACT = {"strategy.protection": "exact"}


class WeightManifoldMethod(Method):
    """Weights are a smooth function of the context; finished tasks hold it in place."""

    reads = ("topology", "contexts")
    tried = {"price": (1.0, 3.0, 10.0, 30.0)}
    chosen = {
        "recurring-digits": {"contexts.features": 1000},
        "recurring-mnist": {"contexts.features": 1000},
        "gpm-permuted-mnist": _FEW,
        "mammoth-permuted-mnist": _FEW,
        "mammoth-rotated-mnist": {"strategy.price": 1.0, **_FEW},
        # 21 epochs end so confident that Fisher information is next to nothing
        "split-mnist-task": _EXACT,
        "split-mnist-domain": _EXACT,
        "split-mnist-class": _EXACT,
    }

    price: NotNegative = 10.0
    """λ of moving weights away from where the manifold has them."""
    strength: Positive | None = None
    """ρ, a task's information ÷ the prior's; auto: 10, on vertices 300."""
    blocks: Literal["tensor", "row", "weight"] = "row"
    """How finely a task is held: a precision per tensor, row or single weight."""
    storage: Literal["float32", "bfloat16", "int8"] = "float32"
    """Number format of the control points between tasks."""
    protection: Literal["fisher", "exact"] = "fisher"
    """Held by Fisher information, or not moved at all."""
    information_samples: Annotated[int, Field(ge=1, le=10**6)] = 256
    """Samples that Fisher information is measured on."""
    on_drift: Literal["warn", "grow", "refuse"] = "warn"
    """What happens if a commit would change more than drift_limit at an earlier context."""
    drift_limit: NotNegative = 0.8
    """Share of changed predictions."""

    def build(self, setting: Setting) -> Any:
        """Naive training between check-out and commit."""
        from avalanche.training.supervised import Naive

        return Naive(**setting.template(self._plugin(setting)))

    def _plugin(self, setting: Setting) -> Any:
        from cl_manifold.contexts import GivenContext, InferredContext
        from cl_manifold.manifold.information import ExactInformation, FisherInformation
        from cl_manifold.strategies.manifold.inference import InferredTesting
        from cl_manifold.strategies.manifold.plugin import WeightManifoldPlugin
        from cl_manifold.strategies.manifold.shaping import TopologyWatch

        contexts = setting.contexts
        exact = self.protection == "exact"
        return WeightManifoldPlugin(
            starting_basis(setting),
            contexts=InferredContext() if contexts.training == "inferred" else GivenContext(),
            deciding=deciding(contexts, setting.seed),
            testing=InferredTesting(contexts.batch, contexts.features, seed=setting.seed)
            if contexts.test == "inferred"
            else None,
            shaping=TopologyWatch(_period(setting), contexts.topology == "auto")
            if contexts.topology != "fixed"
            else None,
            price=self.price,
            information=ExactInformation()
            if exact
            else FisherInformation(self.information_samples),
            blocks=self.blocks,
            strength=self.strength,
            storage=self.storage,
            on_drift=self.on_drift,
            drift_limit=self.drift_limit,
        )

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored:
        """Control points, covariances, and where it infers or decides an encoder and losses."""
        from cl_manifold.strategies.manifold.plugin import WeightManifoldPlugin

        floats = plugin_of(strategy, WeightManifoldPlugin).stored_floats
        return Stored(floats) if floats else network_and(strategy, input_shape)

    def context_at_test(self, contexts: ContextOptions) -> AtTest:
        """As `contexts.test` says."""
        return contexts.test


def starting_basis(setting: Setting) -> Any:
    """The basis of the first task: where contexts are inferred, a simplex starts at one vertex.

    Raises:
        ConfigError: settings that cannot go together.
    """
    from cl_manifold.geometry import Circle, Simplex, Vertices

    contexts, kind = setting.contexts, setting.topology_kind
    given = contexts.training == "given"
    if contexts.topology != "fixed" and not given:
        raise ConfigError(
            f"contexts.topology is {contexts.topology}, which compares given contexts, but "
            "contexts.training is inferred; leave contexts.topology fixed"
        )
    if contexts.topology == "auto":
        if contexts.rule not in ("auto", "none"):
            raise ConfigError(
                f"contexts.topology is auto and contexts.rule is {contexts.rule}, but only "
                "one of them can change the basis; leave one out"
            )
        return Vertices(1)
    if given:
        return setting.basis_on(setting.stream.topology)
    if kind == "codes":
        raise ConfigError(
            "topology codes needs to know how many tasks there are, but contexts are inferred; "
            "choose --topology simplex, which grows a vertex per new task"
        )
    if kind == "simplex":
        return Vertices(1)
    space = setting.stream.topology
    return setting.basis_on(Circle() if isinstance(space, Simplex) else space)


def deciding(contexts: ContextOptions, seed: int) -> Any:
    """The rule of that name and its limits; "auto" decides only where contexts are inferred.

    Raises:
        ConfigError: contexts are inferred, but nothing decides.
    """
    from cl_manifold.contexts.replay import rule_named
    from cl_manifold.strategies.manifold.deciding import DecisionOptions

    inferred = contexts.training == "inferred"
    if inferred and contexts.rule == "none":
        raise ConfigError(
            "contexts.rule is none, but contexts.training is inferred, which needs a rule that "
            "tells returning tasks from new ones; choose evidence"
        )
    if contexts.rule == "none" or (contexts.rule == "auto" and not inferred):
        return None
    name = "evidence" if contexts.rule == "auto" else contexts.rule
    return DecisionOptions(
        rule_named(name, contexts.level, contexts.tolerance, contexts.drift),
        contexts.held_out,
        contexts.probe_share,
        contexts.max_control_points,
        seed,
    )


def _period(setting: Setting) -> float:
    """The length of the stream's circle or interval; 1 for other spaces."""
    from cl_manifold.geometry import Circle, Interval

    space = setting.stream.topology
    if isinstance(space, Circle):
        return space.period
    return space.high - space.low if isinstance(space, Interval) else 1.0
