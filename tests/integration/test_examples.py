"""The examples run as scripts, as a reader would run them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SAYS = {
    "plug_into_avalanche.py": "Top1_Acc_Stream    0.9",
    "log_any_avalanche_script.py": "test/accuracy        0.",
    "unseen_contexts.py": "never seen",
    "context_per_sample.py": "held out",
    "condition_on_angle.py": "never seen",
    "regression.py": "protected exactly",
}


def test_every_example_is_run_here() -> None:
    assert {file.name for file in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_example(name: str, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_TRACKING")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", EXAMPLES / name],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert SAYS[name] in done.stdout
    assert "Warning" not in done.stderr
