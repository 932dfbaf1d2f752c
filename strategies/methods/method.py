"""What a method is: settings, how a strategy is built from them, what it stores and reads.

A method of your own is a class in a file of your own, named `module:Class` on the command line:

    from avalanche.training.supervised import Naive

    from cl_manifold.options import NotNegative
    from cl_manifold.strategies import Method, Setting

    class Towards(Method):
        \"\"\"Pull weights towards zero.\"\"\"

        pull: NotNegative = 0.1
        \"\"\"How strongly.\"\"\"

        def build(self, setting: Setting) -> Naive:
            return Naive(**setting.template(MyPlugin(self.pull)))
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

from cl_manifold.options import Options

if TYPE_CHECKING:
    from torch.nn import Module
    from torch.optim import Optimizer

    from cl_manifold.geometry import Basis, Topology
    from cl_manifold.streams import TaskStream

    from .weight_manifold import ContextOptions
else:  # names of things that take seconds to load
    Module = Optimizer = Basis = Topology = TaskStream = ContextOptions = Any

AtTest = Literal["given", "inferred", "not used", "not stated"]
"""Where the context comes from when a strategy is tested."""


@final
@dataclass(frozen=True)
class Stored:
    """What a strategy keeps between experiences.

    Values are counted that cannot be had again from others: an anchor that equals the network's
    present weights, or a copy of it, counts once. The weights at first come from the seed.

    Attributes:
        floats: everything, in units of 32 bits.
        samples: training samples among it.
    """

    floats: int
    samples: int = 0


@final
@dataclass(frozen=True)
class Setting:
    """What a strategy is built for, and what all strategies of a comparison share.

    Attributes:
        stream: what is learned.
        network: initialised from the seed.
        shared: of Avalanche's templates: model, optimizer, criterion, sizes, device, evaluator,
            plugins.
        seed: of everything random.
        steps: training steps in all, where all contexts are trained at once; None: epochs.
        network_for: a network of the same kind, from the same seed, for other shapes of inputs.
        another: a further network, initialised by torch's random numbers as they go on.
        optimizer_for: a new optimizer of a network, of the same kind and rate.
        basis_on: the basis that the settings name, on a topology.
        topology_kind: its name.
        contexts: where contexts come from.
    """

    stream: TaskStream
    network: Module
    shared: Mapping[str, Any]
    seed: int
    steps: int | None
    network_for: Callable[[tuple[int, ...]], Module]
    another: Callable[[], Module]
    optimizer_for: Callable[[Module], Optimizer]
    basis_on: Callable[[Topology], Basis]
    topology_kind: str
    contexts: ContextOptions

    def template(self, *plugins: Any, **other: Any) -> dict[str, Any]:
        """Arguments of an Avalanche strategy: what is shared, further plugins after the shared
        ones, and what `other` replaces or adds.
        """  # noqa: D205
        return {**self.shared, **other, "plugins": [*self.shared["plugins"], *plugins]}


class Method(Options):
    """A way to learn a stream. Its fields are its settings, `strategy.<field>` in a configuration.

    Attributes:
        name: as the configuration names it.
        source: where it was published, or whose code it is; empty where it is our own.
        learns: "tasks", one after the other or joined, "contexts", all at once, or both.
        numbers: whether it can learn numbers to predict, not only classes.
        at_once: whether tasks are all trained at once.
        reads: sections of the configuration that it reads beside its own.
        at_test: where the context comes from when it is tested.
        tried: values that `compare --tune` tries, by field.
        chosen: values by "section.key" that were chosen for a stream on validation data, by the
            stream's name.
    """

    name: str = ""
    """The method: one of `cl-manifold strategies`, or `package.module:Class`."""

    source: ClassVar[str] = ""
    learns: ClassVar[tuple[Literal["tasks", "contexts"], ...]] = ("tasks",)
    numbers: ClassVar[bool] = True
    at_once: ClassVar[bool] = False
    reads: ClassVar[tuple[str, ...]] = ()
    at_test: ClassVar[AtTest] = "not stated"
    tried: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    chosen: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @abstractmethod
    def build(self, setting: Setting) -> Any:
        """An Avalanche strategy, ready to be trained.

        Raises:
            ConfigError: the settings do not fit each other or the stream.
        """

    def stored(self, strategy: Any, input_shape: tuple[int, ...]) -> Stored | None:
        """What the strategy keeps between two experiences; None where that is not stated.

        The docstring says it in words, for docs/strategies.md.

        Args:
            strategy: as `build` made it.
            input_shape: of one sample.
        """
        return None

    def context_at_test(self, contexts: ContextOptions) -> AtTest:
        """Where the context comes from when the strategy is tested, with these settings."""
        return self.at_test
