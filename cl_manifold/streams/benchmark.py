"""Task streams as Avalanche benchmarks whose experiences carry their contexts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from avalanche.benchmarks import CLScenario, DatasetExperience, EagerCLStream
from avalanche.benchmarks.utils import (
    AvalancheDataset,
    ConstantSequence,
    TaskLabels,
)
from avalanche.benchmarks.utils.classification_dataset import (
    TaskAwareSupervisedClassificationDataset,
)
from avalanche.benchmarks.utils.data_attribute import DataAttribute
from jaxtyping import Float, Float64
from torch import Tensor

from cl_manifold.errors import ContextError
from cl_manifold.geometry.topology import Topology
from cl_manifold.streams.datasets import Samples
from cl_manifold.streams.scoring import Metric, Regression, Score, right

HiddenKind = Literal["first", "related", "return"]
"""How an experience relates to the earlier ones of its stream.

return: its hidden task was visited before.
related: its hidden task is new, but made from an earlier one by a new background or new labels.
first: its hidden task is new, and nothing is said about its relation to earlier ones.
"""

Draw = Callable[[int, torch.Generator], tuple[Tensor, Tensor, Tensor]]
"""So many samples, drawn anew: normalised images, their classes, a context for each."""


@final
class ContextExperience(DatasetExperience[AvalancheDataset]):
    """An experience that knows where on the topology its task lies, or hides it.

    Copies in training, evaluation and logging mode keep all attributes. In a stream with hidden
    tasks there is no context, and the truth stands in `context_name`, `hidden_task` and
    `hidden_kind`: for tables and for scoring only. A method that reads them cheats.

    Attributes:
        context: the task's context, float64; exists only if the stream gives contexts.
        context_name: the context, or the hidden task, for people, for example "120°".
        classes_in_this_experience: the classes that occur, ascending; empty in regression.
        task_label: the position in the stream; exists only if the stream has task labels.
        task_labels: the list of just that label; exists only if the stream has task labels.
        hidden_task: number of the hidden task, equal for all its visits; None where nothing is
            hidden.
        hidden_kind: how the experience relates to earlier ones; None where nothing is hidden.
        draw: makes training samples, each at a context of its own; None where the samples are
            those of the data set.
    """

    context: Float64[Tensor, " dim"]
    task_label: int
    task_labels: list[int]

    def __init__(
        self,
        samples: Samples,
        context: Float64[Tensor, " dim"] | None,
        context_name: str,
        task_label: int | None = None,
        hidden_task: int | None = None,
        hidden_kind: HiddenKind | None = None,
        draw: Draw | None = None,
    ) -> None:
        super().__init__(dataset=_as_avalanche(samples, task_label))
        if context is not None:
            self.context = context
        self.context_name = context_name
        self.hidden_task, self.hidden_kind = hidden_task, hidden_kind
        self.draw = draw
        classes = [] if samples.targets.is_floating_point() else samples.targets.unique().tolist()
        self.classes_in_this_experience: list[int] = classes
        self.task_label = 0 if task_label is None else task_label
        self.task_labels = [self.task_label]

    @property
    def truth(self) -> Literal["first", "return"] | None:
        """Whether the hidden task was visited before, for scoring; None where nothing is hidden."""
        if self.hidden_kind is None:
            return None
        return "return" if self.hidden_kind == "return" else "first"


def _as_avalanche(samples: Samples, task_label: int | None) -> AvalancheDataset:
    """The dataset as Avalanche wants it, with a constant task label: 0 where none is told."""
    data: Any = samples
    targets: Any = samples.targets
    labels: Any = ConstantSequence(task_label or 0, len(samples))
    attributes = [DataAttribute(targets, "targets"), TaskLabels(labels)]
    return TaskAwareSupervisedClassificationDataset([data], data_attributes=attributes)


@final
@dataclass(frozen=True)
class StreamFacts:
    """What a stream is, apart from its data.

    Attributes:
        name: for example "rotated-mnist".
        description: one sentence.
        topology: the space of the stream's contexts; where tasks are hidden, the simplex with one
            vertex per hidden task: the space of the truth.
        outputs: size of a network's output: the number of classes, or of numbers to predict.
        input_shape: of one sample: channels, height and width of an image, or so many numbers.
        digest: short hash of the data the stream is made from.
        groups: the classes in groups, where of a sample only the outputs of its own group count,
            in training and in testing (the task is known); None where all outputs count.
        trained: for each coordinate of a context the range that training samples are drawn from,
            all at once; None where there is one experience per task.
        regression: what is predicted where it is numbers; None where it is classes.
        preprocessing: of a table, how rows become inputs; None of images.
        columns: of a table, how rows get their contexts; None of images.
    """

    name: str
    description: str
    topology: Topology
    outputs: int
    input_shape: tuple[int, ...]
    digest: str
    groups: tuple[tuple[int, ...], ...] | None = None
    trained: tuple[tuple[float, float], ...] | None = None
    regression: Regression | None = None
    preprocessing: Any = None
    columns: Any = None

    @property
    def metric(self) -> Metric:
        """What a score of this stream is."""
        return "accuracy" if self.regression is None else "R²"

    @property
    def score(self) -> Score:
        """Scores of samples; the score of an experience is their mean."""
        return right if self.regression is None else self.regression.explained


@final
class TaskStream(CLScenario[EagerCLStream[ContextExperience]]):
    """A benchmark of tasks with contexts.

    Args:
        facts: what the stream is; each fact is also an attribute of the stream.
        train: one experience per task, in the order they are learned; or a single one that draws
            from all contexts at once.
        test: the same tasks with test images; or some of those contexts.
        unseen: test images at contexts that no task has; may be empty.
    """

    train_stream: EagerCLStream[ContextExperience]
    test_stream: EagerCLStream[ContextExperience]
    unseen_stream: EagerCLStream[ContextExperience]

    def __init__(
        self,
        facts: StreamFacts,
        train: Sequence[ContextExperience],
        test: Sequence[ContextExperience],
        unseen: Sequence[ContextExperience] = (),
    ) -> None:
        parts = {"train": train, "test": test, "unseen": unseen}
        super().__init__([EagerCLStream(name, part) for name, part in parts.items()])
        self.facts = facts
        self.name, self.description = facts.name, facts.description
        self.topology, self.digest = facts.topology, facts.digest
        self.outputs, self.input_shape = facts.outputs, facts.input_shape
        self.groups, self.trained = facts.groups, facts.trained
        self.regression, self.score = facts.regression, facts.score
        self.metric: Metric = facts.metric

    @property
    def at_once(self) -> bool:
        """Whether there are no tasks, but all contexts are trained at once."""
        return self.trained is not None

    def contexts(self) -> Float[Tensor, "tasks dim"]:
        """The contexts that are tested: of the tasks, in the order they are learned (float64).

        Raises:
            ContextError: the stream hides its tasks.
        """
        if self.hidden_tasks() is not None:
            raise ContextError(
                f"the experiences of {self.name} carry no contexts; infer them, or choose a "
                "stream whose experiences carry theirs"
            )
        return torch.stack([experience.context for experience in self.test_stream])

    def hidden_tasks(self) -> list[int] | None:
        """The hidden task of every experience, for scoring only; None where nothing is hidden."""
        found = [e.hidden_task for e in self.train_stream if e.hidden_task is not None]
        return found or None
