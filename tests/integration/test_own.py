"""`docs/own`: a strategy, a network and a stream of one's own, each a short file in a folder."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from cl_manifold.cli import main
from cl_manifold.experiments.architecture import rebuilt
from cl_manifold.experiments.recording import Recorder

FILES = Path(__file__).parents[2] / "docs" / "own"
TINY = (
    "--epochs", "1", "--set", "stream.contexts=3", "--set", "stream.samples=48",
    "--set", "stream.test_samples=60", "--set", "network.name=my_network:Residual",
    "--set", "network.width=8",
)  # fmt: skip
Call = Callable[..., tuple[int, str]]


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Call]:
    """`call("run", ...)` -> exit code and standard output, in a folder with the three files."""
    for file in FILES.glob("*.py"):
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    for name in [n for n in os.environ if n.startswith(("CL_MANIFOLD_", "MLFLOW_TRACKING"))]:
        monkeypatch.delenv(name)

    def command(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["cl-manifold", *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, capsys.readouterr().out

    yield command
    for name in ("my_strategy", "my_network", "my_stream", "tower"):
        sys.modules.pop(name, None)


def test_each_is_short() -> None:
    files = list(FILES.glob("*.py"))
    assert len(files) == 3
    assert all(len(file.read_text().splitlines()) <= 40 for file in files)


def test_they_run(call: Call) -> None:
    words = ("--strategy", "my_strategy:Anchored", "--set", "strategy.pull=0.02", *TINY)
    code, text = call("run", "my_stream:Shifted", "--set", "stream.step=2", "--json", *words)
    result = json.loads(text)
    assert code == 0
    assert (result["stream"], result["strategy"]) == ("shifted-digits", "my_strategy:Anchored")
    assert [d["name"] for d in result["decisions"]] != []
    assert {d["name"] for d in result["decisions"]} == {"0 pixels", "2 pixels", "4 pixels"}
    assert result["stored_floats"] == 2 * result["model_floats"]
    assert result["model_floats"] == 256 * 8 + 8 + 2 * (8 * 8 + 8) + 8 * 10 + 10
    assert result["context_at_test"] == "not used"


def test_their_settings_are_listed_and_checked(call: Call) -> None:
    names = ("my_stream:Shifted", "--strategy", "my_strategy:Anchored")
    code, text = call("settings", *names, "--network", "my_network:Residual", "--json")
    rows = {row["key"]: row for row in json.loads(text)}
    assert code == 0
    assert rows["strategy.pull"]["default"] == "0.01"
    assert rows["strategy.memory"]["range"] == "a number between 0 and 1"
    assert rows["stream.step"]["meaning"] == "Pixels between two contexts."
    assert rows["network.blocks"]["default"] == "2"
    assert call("run", *names, "--set", "strategy.memory=2", *TINY)[0] == 2
    assert call("run", *names, "--set", "strategy.pul=2", *TINY)[0] == 2


TOWER = """
from math import prod
from torch import nn

class Tower(nn.Module):
    def __init__(self, input_shape, outputs, width: int = 4, deep: bool = False):
        super().__init__()
        inside = [nn.Linear(width, width), nn.ReLU()] if deep else []
        first = nn.Linear(prod(input_shape), width)
        self.layers = nn.Sequential(first, nn.ReLU(), *inside, nn.Linear(width, outputs))

    def forward(self, x):
        return self.layers(x.flatten(1))

def narrow(input_shape, outputs):
    return Tower(input_shape, outputs - 1)
"""


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (("network.name=my_network:plain", "network.width=7"), 256 * 7 + 7 + 7 * 10 + 10),
        (("network.name=tower:Tower", "network.deep=true"), 256 * 4 + 4 + 4 * 4 + 4 + 4 * 10 + 10),
    ],
)
def test_a_function_or_a_module_class_is_a_network(
    call: Call, tmp_path: Path, words: tuple[str, ...], count: int
) -> None:
    (tmp_path / "tower.py").write_text(TOWER)
    named = tuple(part for word in words for part in ("--set", word))
    code, text = call("run", *TINY[:8], *named, "--json")
    result = json.loads(text)
    assert code == 0
    assert result["model_floats"] == count
    [run] = runs_of(tmp_path)
    assert {
        f"{key}={run.data.params[key]}" for key in ("network.name", words[1].split("=")[0])
    } == {*words}
    found = json.loads(next(tmp_path.rglob("network.json")).read_text())
    assert found["name"] == words[0].removeprefix("network.name=")
    assert sum(p.numel() for p in rebuilt(found).parameters()) == found["parameters"] == count
    if "tower" in found["name"]:
        assert call("run", *TINY[:8], "--set", "network.name=tower:narrow")[0] == 2
        assert call("run", *TINY[:8], "--set", "network.name=tower:nn")[0] == 2
        assert len(runs_of(tmp_path)) == 1, "what does not fit is refused before a run begins"


def test_they_are_compared_and_tuned(call: Call) -> None:
    strategies = ("--strategies", "my_strategy:Anchored,naive", "--seeds", "0", "--jobs", "2")
    # a function's settings, which reach the processes of a comparison
    words = (*TINY, "--set", "network.name=my_network:plain")
    code, text = call("compare", "my_stream:Shifted", *strategies, "--tune", "--json", *words)
    result = json.loads(text)
    assert code == 0
    assert {row["label"] for row in result["rows"]} == {"my_strategy:Anchored", "naive"}
    assert result["tuned"]["my_strategy:Anchored"]["strategy.pull"] in (0.001, 0.01, 0.1)


def runs_of(folder: Path) -> list[Any]:
    return list(MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db").search_runs(["1"]))


def test_they_are_resumed(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("my_stream:Shifted", "--strategy", "my_strategy:Anchored", *TINY)
    code, text = call("run", *words, "--json")
    assert code == 0
    whole = json.loads(text)
    calls = []

    def stop(self: Any, trial: Any, step: int) -> None:
        calls.append(step)
        if step == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as stopping:
        stopping.setattr(Recorder, "task", stop)
        assert call("run", *words, "--seed", "0")[0] == 1
    assert calls[:2] == [0, 1]
    [folder] = (tmp_path / "mlruns" / ".runs").iterdir()
    kept = (folder / "snapshot.safetensors").read_bytes()
    (folder / "snapshot.safetensors").write_bytes(kept[:-1])
    assert call("resume")[0] == 1
    [run] = [r for r in runs_of(tmp_path) if r.info.run_id != whole["run_id"]]
    assert run.info.status == "KILLED", "what cannot be taken up does not count as running"
    (folder / "snapshot.safetensors").write_bytes(kept)
    code, text = call("resume", "--json")
    assert code == 0
    resumed = json.loads(text)
    for found in (whole, resumed):
        del found["run_id"], found["train_seconds"]
        for decision in found["decisions"]:
            del decision["seconds"]
    assert resumed == whole
    assert call("resume")[0] == 1
