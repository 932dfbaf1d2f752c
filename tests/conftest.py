"""Settings of every test: one thread, a fixed seed, float64 where oracles are compared."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
EXACT = {"laws", "property", "reference"}


@pytest.fixture(autouse=True)
def _numerics(request: pytest.FixtureRequest) -> Iterator[None]:
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    if EXACT & set(request.path.parts):
        torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def mnist_dir() -> Path:
    """The folder with MNIST in torchvision's layout, or a skip with a sentence."""
    folder = os.environ.get("CL_MANIFOLD_DATA_DIR")
    if folder is None or not (Path(folder) / "MNIST" / "raw").is_dir():
        pytest.skip("set CL_MANIFOLD_DATA_DIR to a folder that holds MNIST/raw to run this test")
    return Path(folder)
