"""The conditioning results as the README prints them: mean of seeds 0–2, one row per system.

    export CL_MANIFOLD_DATA_DIR=data
    python -m pytest -o addopts= -m benchmark tests/benchmark/test_condition_benchmark.py -s

Each table is one command, `cl-manifold condition` with the words above it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

WORDS = ("rotation", "noise", "rotation-noise", "rotation --data mnist")


def result(words: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "cl_manifold", "condition", *words.split(), "--json"]
    said = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(said.stdout)


def spread(row: dict[str, Any], key: str) -> str:
    return f"{row[key]:.3f} ± {row[f'{key}_sd']:.3f}"


def line(row: dict[str, Any]) -> str:
    return (
        f"| `{row['system']}` | {row['summary']} | {spread(row, 'in_range')} | "
        f"{spread(row, 'held_out')} | {row['wrong_context']:.3f} | {row['parameters']} | "
        f"{row['seconds']:.1f} |"
    )


@pytest.mark.benchmark
@pytest.mark.parametrize("words", WORDS)
def test_conditioning(words: str, tmp_path: Path) -> None:
    if "mnist" in words and "CL_MANIFOLD_DATA_DIR" not in os.environ:
        pytest.skip("set CL_MANIFOLD_DATA_DIR to a folder that holds MNIST/raw to run this part")
    found = result(words, tmp_path)
    seeds = ", ".join(map(str, found["seeds"]))
    print(f"\n`cl-manifold condition {words}`, {found['steps']} steps, seeds {seeds}\n")
    print("| system | what it is | in range | held out | told wrong | weights | seconds |")
    print("|---|---|---|---|---|---|---|")
    for row in found["systems"]:
        print(line(row))
    for sentence in found["findings"]:
        print(sentence)


@pytest.mark.benchmark
def test_the_ellipse_against_concatenation(mnist_dir: Path, tmp_path: Path) -> None:
    """What the manifold must reach on rotated MNIST, in points of accuracy."""
    words = f"rotation --data mnist --data-dir {mnist_dir} --systems manifold,concat,concat-wide"
    rows = {row["system"]: row for row in result(words, tmp_path)["systems"]}

    def ahead(other: str, key: str) -> float:
        return 100 * (rows["manifold"][key] - rows[other][key])

    for other in ("concat", "concat-wide"):
        inside, outside = ahead(other, "in_range"), ahead(other, "held_out")
        print(f"\nmanifold − {other}: {inside:+.1f} in range, {outside:+.1f} held out")
    assert ahead("concat", "in_range") >= 1
    assert ahead("concat", "held_out") >= 8
    assert ahead("concat-wide", "in_range") >= 0
    assert ahead("concat-wide", "held_out") >= 4
