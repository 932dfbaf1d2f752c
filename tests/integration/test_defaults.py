"""The defaults of every stream in the catalogue fit its data."""

from pathlib import Path

import pytest
from avalanche.training.plugins import EvaluationPlugin

from cl_manifold.experiments.build import build_network, build_stream, setting_of
from cl_manifold.experiments.config import resolve
from cl_manifold.experiments.names import STREAMS
from cl_manifold.experiments.settings import StreamSettings
from cl_manifold.strategies.methods.weight_manifold import starting_basis


def check(name: str, data_dir: Path | None) -> None:
    config = resolve([("test", {"stream.name": name})]).config
    stream = build_stream(config.stream, data_dir, config.seed)
    network, evaluator = build_network(config, stream), EvaluationPlugin(loggers=[])
    basis = starting_basis(setting_of(config, stream, network, [], evaluator))
    assert len(stream.train_stream) == len(stream.test_stream)
    assert isinstance(config.stream, StreamSettings)
    assert config.stream.contexts in (None, len(stream.train_stream))
    for experience in stream.train_stream:
        assert experience.context_name
        if stream.hidden_tasks() is None:
            assert basis(experience.context).shape == (basis.size,)
    assert (config.contexts.training == "given") == (stream.hidden_tasks() is None)
    assert stream.name == name


@pytest.mark.parametrize("name", [n for n in STREAMS if "digits" in n])
def test_digits(name: str) -> None:
    check(name, None)


@pytest.mark.parametrize("name", [n for n in STREAMS if "mnist" in n])
def test_mnist(name: str, mnist_dir: Path) -> None:
    check(name, mnist_dir)
