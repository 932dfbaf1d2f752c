"""A number to predict in a plain Avalanche script: the calibration of a sensor that drifts.

Six times a sensor is calibrated, each time at another phase of its cycle, and each calibration
overwrites the last one in a network that is simply trained on. On a weight manifold the phase is
the context, and all six stay.

    python examples/regression.py
"""

import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from cl_manifold import ByExperience, ExactInformation, Fourier
from cl_manifold.strategies import WeightManifoldPlugin

PHASES = [0.0, 0.5, 0.25, 0.75, 0.1, 0.6]  # parts of a cycle


def readings(phase: float, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """What the sensor shows, and what it should show."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 1, generator=generator) * 2 - 1
    angle = torch.tensor(2 * torch.pi * phase)
    y = torch.sin(3 * x + angle) + x * torch.cos(angle)
    return x, y + 0.02 * torch.randn(count, 1, generator=generator)


def experience(phase: float, count: int, seed: int) -> AvalancheDataset:
    """One calibration."""
    return AvalancheDataset([TensorDataset(*readings(phase, count, seed))])


def errors(strategy: Naive, plugin: WeightManifoldPlugin | None) -> list[float]:
    """Mean squared error at every phase, with the weights of that phase if there are any."""
    found: list[float] = []
    for phase in PHASES:
        x, y = readings(phase, 500, seed=1)
        if plugin is not None and plugin.manifold is not None:
            strategy.model.load_state_dict(plugin.manifold.state(torch.tensor([phase])))
        with torch.no_grad():
            found.append(float((strategy.model(x) - y).square().mean()))
    return found


def stream(plugins: list[SupervisedPlugin]) -> tuple[list[float], list[float]]:
    """Errors right after each calibration, and of all of them at the end."""
    torch.manual_seed(0)
    benchmark = benchmark_from_datasets(
        train=[experience(p, 500, seed=0) for p in PHASES],
        test=[experience(p, 500, seed=1) for p in PHASES],
    )
    net = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
    strategy = Naive(
        model=net,
        optimizer=torch.optim.Adam(net.parameters(), lr=1e-3),
        criterion=nn.MSELoss(),
        train_mb_size=25,
        train_epochs=40,
        plugins=plugins,
        evaluator=EvaluationPlugin(loggers=[]),
    )
    plugin = next((p for p in plugins if isinstance(p, WeightManifoldPlugin)), None)
    own: list[float] = []
    for step, train in enumerate(benchmark.streams["train"]):
        strategy.train(train)
        own.append(errors(strategy, plugin)[step])
    return own, errors(strategy, plugin)


def main() -> None:
    """Print the error of each calibration when it was made, and at the end."""
    torch.set_num_threads(1)
    contexts = ByExperience(PHASES)
    systems: dict[str, list[SupervisedPlugin]] = {
        "naive": [],
        "weight manifold": [WeightManifoldPlugin(Fourier(3), contexts=contexts)],
        "protected exactly": [
            WeightManifoldPlugin(Fourier(3), contexts=contexts, information=ExactInformation())
        ],
    }
    print("mean squared error        right after training     at the end      ratio")
    for name, plugins in systems.items():
        own, end = stream(plugins)
        ratio = sum(end) / sum(own)
        print(f"{name:<25} {sum(own) / 6:>20.5f} {sum(end) / 6:>14.5f} {ratio:>17.2f}")


if __name__ == "__main__":
    main()
