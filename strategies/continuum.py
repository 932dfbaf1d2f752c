"""Training on an experience that draws a context per sample, anew in every step."""

from collections.abc import Iterator
from typing import Any, final

import torch
from torch import Tensor

from cl_manifold.errors import ContextError
from cl_manifold.streams.benchmark import Draw

from .conditioned import ConditionedTraining


@final
class DrawingLoader:
    """Mini-batches drawn anew: images, classes, contexts, task labels 0.

    One pass is a round of ⌈steps / rounds⌉ mini-batches, the last one of what is left; random
    numbers go on from round to round.

    Args:
        draw: makes samples.
        batch_size: samples of a mini-batch.
        steps: mini-batches of all rounds.
        rounds: how many there are.
        seed: of everything random.
    """

    def __init__(self, draw: Draw, batch_size: int, steps: int, rounds: int, seed: int) -> None:
        self.draw, self.batch_size = draw, batch_size
        self._left, self._each = steps, -(-steps // rounds)
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self._each

    def __iter__(self) -> Iterator[list[Tensor]]:
        now = min(self._each, self._left)
        self._left -= now
        for _ in range(now):
            x, y, contexts = self.draw(self.batch_size, self._generator)
            yield [x, y, contexts, torch.zeros_like(y)]


@final
class ContinuumTraining(ConditionedTraining):
    """Trains a model `forward(x, context)` on all contexts at once.

        strategy = ContinuumTraining(model=net, optimizer=optimizer, steps=3000, train_epochs=20)
        strategy.train(stream.train_stream)
        strategy.eval(stream.test_stream)       # tells the context of each experience

    Mini-batches depend on the seed alone, so that all models see the same ones.
    """

    def __init__(self, *, steps: int, seed: int = 0, **template: Any) -> None:
        """A strategy.

        Args:
            steps: training steps in all; `train_epochs` says in how many rounds they are taken.
            seed: of the samples and their contexts.
            **template: of `ConditionedTraining`.
        """
        super().__init__(**template)
        self.steps, self.seed = steps, seed

    def make_train_dataloader(self, *args: Any, **kwargs: Any) -> None:
        """Draw instead of reading a data set.

        Raises:
            ContextError: the experience does not draw.
        """
        draw = getattr(self.experience, "draw", None)
        if draw is None:
            raise ContextError(
                "the experience holds samples of one context, but ContinuumTraining draws from all "
                "of them; train on a stream such as streams.rotation, or use ConditionedTraining"
            )
        self.dataloader = DrawingLoader(
            draw, self.train_mb_size, self.steps, self.train_epochs, self.seed
        )

    @property
    def mb_contexts(self) -> Tensor:
        """The contexts that were drawn, or that of the experience that is evaluated."""
        batch: Any = self.mbatch
        return batch[2] if self.is_training else super().mb_contexts
