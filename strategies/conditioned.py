"""ConditionedTraining: Avalanche strategies for networks that are told a context per sample.

Contexts travel with the samples as the data attribute `contexts`, so that subsets, concatenations,
replay and loaders keep them together: a mini-batch is (x, y, contexts), with task labels at its
end where the benchmark has them.
"""

from collections.abc import Iterator, Sequence
from typing import Any, final

import torch
from avalanche.benchmarks import DatasetExperience, EagerCLStream, benchmark_from_datasets
from avalanche.benchmarks.utils import AvalancheDataset, ConstantSequence, TaskLabels
from avalanche.benchmarks.utils.data_attribute import DataAttribute
from avalanche.benchmarks.utils.utils import concat_datasets
from avalanche.core import SupervisedPlugin
from avalanche.training.templates import SupervisedTemplate
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import TensorDataset

from cl_manifold.errors import ContextError
from cl_manifold.manifold.natural_step import NaturalStep

from .loader import InMemoryLoaderPlugin

CONTEXTS = "contexts"
"""Name of the data attribute."""

Samples = tuple[Tensor, Tensor, Tensor]
"""Inputs, classes and contexts of as many samples."""


@final
class _Rows(Sequence[Tensor]):
    """The rows of a tensor: Avalanche would turn the tensor itself into lists."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Any:
        return self.values[index]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.values)


def with_sample_contexts(dataset: AvalancheDataset, contexts: Tensor) -> AvalancheDataset:
    """The same data set, whose mini-batches carry a context per sample.

    Args:
        dataset: n samples.
        contexts: shape (n, dim).

    Raises:
        ContextError: there is not one context for each sample.
    """
    if contexts.ndim != 2 or len(contexts) != len(dataset):
        raise ContextError(
            f"got contexts of shape {tuple(contexts.shape)} for {len(dataset)} samples; "
            "give a tensor of shape (samples, dim)"
        )
    if not bool(contexts.isfinite().all()):
        raise ContextError("a context of a sample is not a finite number; give finite contexts")
    rows: Any = _Rows(contexts.detach().cpu().double())
    attribute = DataAttribute(rows, CONTEXTS, use_in_getitem=True)
    kept = [a for a in dataset._data_attributes.values() if a.name != CONTEXTS]
    # Avalanche takes the last column for the task labels, so that contexts come before them
    labels = [a for a in kept if a.use_in_getitem]
    others = [a for a in kept if not a.use_in_getitem]
    return AvalancheDataset([_bare(dataset)], data_attributes=[*others, attribute, *labels])


def conditioned_dataset(
    x: Tensor,
    y: Int64[Tensor, " n"],
    contexts: Tensor,
    task_label: int | None = None,
) -> AvalancheDataset:
    """Samples in memory, each with its class and its context.

    Args:
        x: inputs, shape (n, ...).
        y: classes.
        contexts: one per sample, shape (n, dim).
        task_label: the same for all samples; without it Avalanche sees no task labels.
    """
    targets: Any = y
    data: Any = TensorDataset(x, y)
    attributes = [DataAttribute(targets, "targets")]
    if task_label is not None:
        labels: Any = ConstantSequence(task_label, len(x))
        attributes.append(TaskLabels(labels))
    return with_sample_contexts(AvalancheDataset([data], data_attributes=attributes), contexts)


def conditioned_benchmark(train: Sequence[Samples], test: Sequence[Samples]) -> Any:
    """An Avalanche benchmark with an experience per part; its streams are `train` and `test`.

    Raises:
        ContextError: a part has not one context for each sample.
    """
    return benchmark_from_datasets(
        train=[conditioned_dataset(*part) for part in train],
        test=[conditioned_dataset(*part) for part in test],
    )


def jointly(experiences: Sequence[Any]) -> DatasetExperience[AvalancheDataset]:
    """One experience with the samples of all, for training on everything at once."""
    joined = DatasetExperience(dataset=concat_datasets([e.dataset for e in experiences]))
    return EagerCLStream("train", [joined])[0]


class ConditionedTraining(SupervisedTemplate):
    """A supervised Avalanche strategy for a model `forward(x, context)`, such as ManifoldModule.

        optimizer = NaturalStep(Adam(net.parameters()), net)
        strategy = ConditionedTraining(model=net, optimizer=optimizer)
        strategy.train(jointly(benchmark.streams["train"]))    # all contexts at once
        strategy.eval(benchmark.streams["test"])

    The context of a mini-batch is the first there is of: one per sample (the data attribute
    `contexts`), the one that belongs to the task label (`task_contexts[label]`), and the
    experience's own attribute `context`, one for the whole batch.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: Optimizer,
        criterion: Any = None,
        task_contexts: Float[Tensor, "tasks dim"] | None = None,
        plugins: Sequence[SupervisedPlugin] = (),
        **template: Any,
    ) -> None:
        """A strategy.

        Args:
            model: called with a batch and its contexts.
            optimizer: of the model's parameters; may be a `NaturalStep`.
            criterion: the loss; cross-entropy by default.
            task_contexts: row t is the context of task label t.
            plugins: called after the in-memory loader.
            **template: of `SupervisedTemplate`: train_mb_size, train_epochs, eval_mb_size, device,
                evaluator, eval_every.
        """
        super().__init__(
            model=model,
            optimizer=optimizer,
            criterion=criterion or nn.CrossEntropyLoss(),
            plugins=[InMemoryLoaderPlugin(), *plugins],
            **template,
        )
        self.task_contexts = task_contexts

    @property
    def mb_contexts(self) -> Tensor:
        """The contexts of the mini-batch: (B, dim), or (dim,) where all samples share one.

        Raises:
            ContextError: the samples have no context, or their task label has none.
        """
        batch: Any = self.mbatch
        columns = _columns(self.adapted_dataset)
        if CONTEXTS in columns:
            return batch[2 + columns.index(CONTEXTS)]
        if self.task_contexts is not None and "targets_task_labels" in columns:
            return self._of_tasks(self.task_contexts, batch[-1])
        context = getattr(self.experience, "context", None)
        if context is None:
            index = getattr(self.experience, "current_experience", "?")
            raise ContextError(
                f"the samples of experience {index} carry no context; add them with "
                "with_sample_contexts(dataset, contexts), or pass task_contexts to map task labels"
            )
        return torch.as_tensor(context, dtype=torch.float64).reshape(-1).to(self.device)

    def _of_tasks(self, contexts: Tensor, labels: Tensor) -> Tensor:
        """The rows of `contexts` at the task labels."""
        highest = int(labels.max())
        if highest >= len(contexts):
            raise ContextError(
                f"task label {highest} has no context: task_contexts has {len(contexts)} rows; "
                "give one row per task label"
            )
        return contexts.to(self.device)[labels]

    def forward(self) -> Any:
        """The model's answer to the mini-batch at its contexts."""
        return self.model(self.mb_x, self.mb_contexts)

    def make_optimizer(
        self,
        reset_optimizer_state: bool = False,
        remove_params: bool = False,
        verbose_optimizer: bool = False,
        **kwargs: Any,
    ) -> None:
        """As Avalanche does it; a natural step goes on sharing its state with what it wraps."""
        super().make_optimizer(reset_optimizer_state, remove_params, verbose_optimizer, **kwargs)
        if isinstance(self.optimizer, NaturalStep):
            self.optimizer.optimizer.state = self.optimizer.state


def _columns(dataset: Any) -> list[str]:
    """What Avalanche appends to every item, in order."""
    return [a.name for a in dataset._data_attributes.values() if a.use_in_getitem]


def _bare(dataset: AvalancheDataset) -> Any:
    """The samples without the attributes, which are added anew in another order."""
    return dataset._flat_data
