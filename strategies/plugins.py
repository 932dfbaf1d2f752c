"""Small plugins: learning-rate decay, guards, progress and scores for all; chance."""

from collections.abc import Iterable
from typing import Any, Protocol, final, runtime_checkable

import torch
from avalanche.core import SupervisedPlugin

from cl_manifold.errors import TrainingError
from cl_manifold.streams.scoring import Score, right


@runtime_checkable
class Progress(Protocol):
    """What a run tells its observer while it works."""

    def epoch(self, experience: int, epoch: int, loss: float) -> None:
        """An epoch (from 0) of an experience has ended with this loss on its last mini-batch."""
        ...


@final
class LinearDecayPlugin(SupervisedPlugin, supports_distributed=True):
    """Learning rate falling linearly to zero within each experience: η_s = η (1 − s/S)."""

    def __init__(self) -> None:
        super().__init__()
        self._rates: list[float] = []
        self._step = 0
        self._steps = 1

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Start again at the optimizer's own rate."""
        self._rates = [group["lr"] for group in strategy.optimizer.param_groups]
        self._step, self._steps = 0, max(1, strategy.train_epochs * len(strategy.dataloader))

    def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Set the rate of this step."""
        share = max(0.0, 1 - self._step / self._steps)
        for group, rate in zip(strategy.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * share
        self._step += 1

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Leave the optimizer as it was."""
        for group, rate in zip(strategy.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate


@final
class FreshOptimizerPlugin(SupervisedPlugin, supports_distributed=True):
    """Forget momentum at the start of each experience, as the weight manifold does."""

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Drop the optimizer's state."""
        strategy.optimizer.state.clear()


@final
class FiniteLossPlugin(SupervisedPlugin, supports_distributed=True):
    """Stop a run whose loss is not finite before anything is committed; report each epoch."""

    def __init__(self, progress: Progress | None = None) -> None:
        super().__init__()
        self._progress = progress

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Look at the last mini-batch: a loss that became NaN stays NaN."""
        loss = float(strategy.loss.detach())
        experience = int(strategy.experience.current_experience)
        epoch = int(strategy.clock.train_exp_epochs)
        if not torch.isfinite(torch.tensor(loss)):
            raise TrainingError(
                f"the loss became {loss} in experience {experience}, epoch {epoch}; "
                "lower training.learning_rate (finished tasks are kept)"
            )
        if self._progress is not None:
            self._progress.epoch(experience, epoch, loss)


@final
class ScorePlugin(SupervisedPlugin, supports_distributed=False):
    """Score of every evaluated experience: the mean over its samples; accuracy by default.

    Args:
        score: of outputs (N, …) and targets (N, …), one number per sample.
    """

    def __init__(self, score: Score = right) -> None:
        super().__init__()
        self._score = score
        self._scores: list[float] = []
        self._sum = torch.tensor(0.0, dtype=torch.float64)
        self._count = 0

    def measure(self, strategy: Any, experiences: Iterable[Any]) -> list[float]:
        """Evaluate the experiences with a strategy that has this plugin."""
        self._scores = []
        strategy.eval(list(experiences))
        return self._scores

    def before_eval_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Start counting."""
        self._sum = torch.tensor(0.0, dtype=torch.float64, device=strategy.device)
        self._count = 0

    def after_eval_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Count one mini-batch."""
        self._sum += self._score(strategy.mb_output, strategy.mb_y).double().sum()
        self._count += len(strategy.mb_y)

    def after_eval_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Keep the mean."""
        self._scores.append(float(self._sum) / max(1, self._count))


@final
class RandomGuess(SupervisedPlugin, supports_distributed=True):
    """Train nothing and answer by chance: each class is as likely as any other."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Leave the network as it is."""
        strategy.stop_training()

    def after_eval_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Replace the outputs by noise."""
        shape = strategy.mb_output.shape
        strategy.mb_output = torch.rand(shape, generator=self._generator).to(strategy.device)
