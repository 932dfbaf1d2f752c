"""The protocols: ACC and BWT of the weight manifold in published settings, beside joint training.

    export CL_MANIFOLD_DATA_DIR=data
    python -m pytest -o addopts= -m benchmark tests/benchmark/test_protocols_benchmark.py -s

Mean of seeds 0–2; every row is `cl-manifold run` with the words in its first column. Takes about
an hour on one core, most of it for the 300,000 steps of each gpm-permuted-mnist. Settings that are
not published (strategy.price) were chosen with `--set stream.holdout=validation`, seed 0.
"""

import os
from pathlib import Path

import pytest

from tests.benchmark.test_main_job_benchmark import row

INFERRED = "--set contexts.test=inferred --set contexts.batch=64"
ROWS = (
    "mammoth-rotated-mnist",
    f"mammoth-rotated-mnist {INFERRED}",
    "mammoth-rotated-mnist --strategy joint",
    "split-mnist-task",
    "split-mnist-domain",
    "split-mnist-class",
    f"gpm-permuted-mnist {INFERRED}",
)


@pytest.mark.benchmark
@pytest.mark.parametrize("words", ROWS)
def test_protocol(words: str, tmp_path: Path) -> None:
    if "CL_MANIFOLD_DATA_DIR" not in os.environ:
        pytest.skip("set CL_MANIFOLD_DATA_DIR to a folder that holds MNIST/raw to run this")
    print("\n| `cl-manifold run …` | context at test | ACC | unseen | BWT | forgetting "
          "| stored ÷ model |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    print(row(words, tmp_path), flush=True)
