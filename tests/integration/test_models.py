"""Models of runs: what is served is what the run itself answers."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch

from cl_manifold.experiments.config import resolve
from cl_manifold.experiments.model_files import write_model
from cl_manifold.experiments.trial import Trial

Call = Callable[..., tuple[int, str, str]]


def table(path: Path) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"hour": np.repeat(np.arange(6), 40), "a": rng.normal(size=240)})
    frame["y"] = frame["a"] * np.cos(frame["hour"]) + 3
    frame.to_csv(path, index=False)
    return frame


@pytest.mark.filterwarnings("ignore")
def test_the_model_answers_as_the_run_does_also_elsewhere(tmp_path: Path) -> None:
    frame = table(tmp_path / "t.csv")
    values = {"stream.name": str(tmp_path / "t.csv"), "data.context": "hour", "data.target": "y"}
    values |= {"training.epochs": "1"}
    trial = Trial(resolve([("test", values)]))
    for _ in trial.steps():
        pass
    write_model(trial, tmp_path / "model")
    (tmp_path / "model").rename(tmp_path / "moved")
    model = mlflow.pyfunc.load_model(str(tmp_path / "moved"))
    plugin = trial.manifold
    assert plugin is not None
    assert plugin.manifold is not None
    rows = frame[frame["hour"] == 3]
    plugin.manifold.write(plugin.manifold.state(torch.tensor([3.0], dtype=torch.float64)))
    trial.network.eval()
    with torch.no_grad():
        own = trial.network(trial.stream.facts.preprocessing.inputs(rows)).numpy()
    by_column = model.predict(rows, params={"raw": True}).to_numpy()
    told = model.predict(rows.drop(columns="hour"), params={"raw": True, "context": [3.0]})
    assert np.abs(by_column - own).max() <= 1e-6
    assert np.abs(told.to_numpy() - own).max() <= 1e-6
    with pytest.raises(Exception, match="which says the context, is missing"):
        model.predict(rows.drop(columns="hour"))


def finished(values: dict[str, Any]) -> Trial:
    trial = Trial(resolve([("test", {"training.epochs": "1", "network.hidden": "16", **values})]))
    for _ in trial.steps():
        pass
    return trial


FRESH = """
import json, sys
import mlflow, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
print(json.dumps(model.predict(pandas.read_csv(sys.argv[2])).to_dict("list")))
"""


@pytest.mark.filterwarnings("ignore")
def test_classes_are_answered_in_a_fresh_process_by_their_names(tmp_path: Path) -> None:
    frame = table(tmp_path / "t.csv")
    frame["y"] = np.where(frame["y"] > 3, "more", "less")
    frame.to_csv(tmp_path / "t.csv", index=False)
    path = str(tmp_path / "t.csv")
    trial = finished({"stream.name": path, "data.context": "hour", "data.target": "y"})
    write_model(trial, tmp_path / "model")
    words = [sys.executable, "-c", FRESH, str(tmp_path / "model"), path]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    answers = np.array(json.loads(done.stdout.splitlines()[-1])["y"])
    plugin = trial.manifold
    assert plugin is not None
    assert plugin.manifold is not None
    trial.network.eval()
    for hour in range(6):
        rows = frame[frame["hour"] == hour]
        plugin.manifold.write(plugin.manifold.state(torch.tensor([hour], dtype=torch.float64)))
        with torch.no_grad():
            own = trial.network(trial.stream.facts.preprocessing.inputs(rows)).argmax(-1)
        assert answers[rows.index].tolist() == [["less", "more"][c] for c in own]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("strategy", ["weight-manifold", "naive", "joint"])
def test_images_are_answered_as_the_run_does(tmp_path: Path, strategy: str) -> None:
    values = {"strategy.name": strategy, "stream.contexts": "3", "stream.samples": "60"}
    trial = finished({**values, "stream.test_samples": "30"})
    write_model(trial, tmp_path / "model")
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    for place, experience in enumerate(trial.stream.test_stream):
        x = torch.stack([item[0] for item in experience.dataset])
        y = torch.tensor([item[1] for item in experience.dataset])
        told = {"context": experience.context.tolist()} if strategy == "weight-manifold" else {}
        answers = model.predict(x.numpy(), params=told)["class"].to_numpy()
        right = float((answers == y.numpy()).mean())
        assert right == pytest.approx(trial.progress.matrix[-1, place], abs=1e-6)
    with pytest.raises(Exception, match="shape"):
        model.predict(np.zeros((2, 1, 5, 5), dtype=np.float32), params={"context": [0.0]})


@pytest.mark.filterwarnings("ignore")
def test_no_file_of_a_model_is_a_pickle(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    table(path)
    trial = finished({"stream.name": str(path), "data.context": "hour", "data.target": "y"})
    write_model(trial, tmp_path / "model")
    kinds = {file.suffix for file in (tmp_path / "model").rglob("*") if file.is_file()}
    assert kinds == {"", ".txt", ".json", ".safetensors"}


@pytest.mark.filterwarnings("ignore")
def test_a_run_leaves_a_model_and_predict_answers_the_rows_of_a_file(
    call: Call, tmp_path: Path
) -> None:
    frame = table(tmp_path / "t.csv")
    words = ("--set", "data.context=hour", "--set", "data.target=y", "--epochs", "2")
    code, out, err = call("run", "t.csv", *words, "--json")
    assert code == 0, err
    run_id = json.loads(out)["run_id"]
    code, _, err = call("predict", "last", "t.csv", "--out", "answers.csv")
    assert code == 0, err
    found = pd.read_csv(tmp_path / "answers.csv")
    assert len(found) == len(frame)
    model = mlflow.pyfunc.load_model(_model_folder(tmp_path, run_id))
    assert np.abs(found["y"] - model.predict(frame)["y"]).max() <= 1e-6
    code, _, err = call("predict", "last", "missing.csv")
    assert code == 1
    assert "there is no file missing.csv" in err


def _model_folder(folder: Path, run_id: str) -> str:
    [found] = folder.glob(f"mlruns/**/{run_id}/artifacts/model/MLmodel")
    return str(found.parent)
