"""Models of runs: what is served is what the run itself answers."""

from collections.abc import Callable
from pathlib import Path

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
