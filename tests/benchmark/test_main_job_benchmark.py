"""The main job's results as docs/results.md prints them: mean of seeds 0–2, one row per command.

    export CL_MANIFOLD_DATA_DIR=data
    python -m pytest -o addopts= -m benchmark tests/benchmark/test_main_job_benchmark.py -s

Takes a minute for digits and about twenty for MNIST on two cores. Every row is the same as running
`cl-manifold run` with the words in its first column and `--seed 0`, 1 and 2.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

SEEDS = (0, 1, 2)
DIGITS = (
    "rotated-digits",
    "rotated-digits --strategy joint",
    "rotated-digits --strategy online-ewc",
    "rotated-digits --strategy naive",
)
MNIST = (
    "rotated-mnist",
    "rotated-mnist --set stream.contexts=100 --set stream.samples=3000",
    "rotated-mnist --strategy joint",
    "rotated-mnist --strategy online-ewc",
    "rotated-mnist --strategy naive",
    "permuted-mnist --topology simplex",
    "permuted-mnist --topology codes --set topology.size=3",
    "split-mnist",
)


def result(words: str, seed: int, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "cl_manifold", "run", *words.split(), "--seed", str(seed)]
    said = subprocess.run(
        [*command, "--json"], cwd=folder, check=True, capture_output=True, text=True
    )
    return json.loads(said.stdout)


def row(words: str, folder: Path) -> str:
    found = [result(words, seed, folder) for seed in SEEDS]

    def cell(key: str, form: str = ".3f") -> str:
        values = [r[key] for r in found]
        return "–" if None in values else format(mean(values), form)

    stored = mean(r["stored_floats"] / r["model_floats"] for r in found)
    return (
        f"| `{words}` | {found[0]['context_at_test']} | {cell('acc')} | {cell('unseen_score')} | "
        f"{cell('bwt', '+.3f')} | {cell('forgetting')} | {stored:.2f} |"
    )


@pytest.mark.benchmark
@pytest.mark.parametrize("data", ["digits", "mnist"])
def test_main_job(data: str, tmp_path: Path) -> None:
    if data == "mnist" and "CL_MANIFOLD_DATA_DIR" not in os.environ:
        pytest.skip("set CL_MANIFOLD_DATA_DIR to a folder that holds MNIST/raw to run this part")
    print("\n| `cl-manifold run …` | context at test | ACC | unseen | BWT | forgetting "
          "| stored ÷ model |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for words in DIGITS if data == "digits" else MNIST:
        print(row(words, tmp_path), flush=True)
