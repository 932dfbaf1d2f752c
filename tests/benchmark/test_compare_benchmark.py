"""Seconds of a whole comparison with one job, with two, and with two on Ray.

    python -m pytest -o addopts= -m benchmark tests/benchmark/test_compare_benchmark.py -s

Takes about five minutes on two cores, which nothing else should use. Each line is one command from
start to exit: twelve runs on rotated-digits, everything loaded and recorded anew.
"""

import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

WORDS = (
    "compare", "rotated-digits", "--strategies", "weight-manifold,weight-manifold:spline,naive",
    "--seeds", "0,1,2,3",
)  # fmt: skip


def seconds(folder: Path, *how: str) -> float:
    """Of one comparison in a folder of its own."""
    folder.mkdir()
    dropped = ("CL_MANIFOLD_", "MLFLOW_TRACKING", "RAY_ADDRESS")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "cl_manifold", *WORDS, *how],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - start


@pytest.mark.benchmark
def test_seconds_of_a_comparison(tmp_path: Path) -> None:
    one = seconds(tmp_path / "one", "--jobs", "1")
    print(f"\n12 runs, 1 job:                {one:6.1f} s")
    two = seconds(tmp_path / "two", "--jobs", "2")
    print(f"12 runs, 2 jobs in processes:  {two:6.1f} s, {one / two:.2f} × the throughput of one")
    if find_spec("ray") is None:
        print("12 runs, 2 jobs on Ray:        install cl-manifold[ray] to measure this")
        return
    ray = seconds(tmp_path / "ray", "--jobs", "2", "--engine", "ray")
    print(f"12 runs, 2 jobs on Ray:        {ray:6.1f} s, {ray / two:.2f} × the time of processes")
