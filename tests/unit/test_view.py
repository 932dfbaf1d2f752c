"""The columns of MLflow's list of runs."""

import json
import os
import sys
from typing import Any

import pytest

from cl_manifold.cli.main import main
from cl_manifold.tracking import Store, open_store
from cl_manifold.tracking.view import COLUMNS, TAG


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(f"sqlite:///{tmp_path_factory.mktemp('view')}/mlruns/mlflow.db", "digits")


def tag(store: Store) -> str:
    return store.client.get_experiment(store.experiment_id).tags[TAG]


def test_an_experiment_holds_the_view_as_new_and_as_old_versions_read_it(store: Store) -> None:
    assert TAG == "mlflow.sharedViewState.cl-manifold"
    view = json.loads(tag(store))
    assert json.loads(view["state"]) == {"selectedColumns": list(COLUMNS)}
    assert view["selectedColumns"] == list(COLUMNS)
    assert view["name"] == "Results"
    assert view["createdAt"] > 1.7e12


def test_an_experiment_that_has_none_gets_one_and_a_changed_one_stays(store: Store) -> None:
    store.client.delete_experiment_tag(store.experiment_id, TAG)
    open_store(store.uri, store.experiment)
    assert json.loads(tag(store))["selectedColumns"] == list(COLUMNS)
    store.client.set_experiment_tag(store.experiment_id, TAG, "{}")
    open_store(store.uri, store.experiment)
    assert tag(store) == "{}"


def test_ui_prints_the_address_of_the_view_and_serves_the_store(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served: list[Any] = []

    def serve(program: str, words: list[str], environment: Any) -> None:
        served.extend(words)

    monkeypatch.setattr(os, "execve", serve)
    words = ["ui", "--tracking-uri", store.uri, "--experiment", "digits", "--port", "5099"]
    monkeypatch.setattr(sys, "argv", ["cl-manifold", *words])
    with pytest.raises(SystemExit):
        main()
    assert served[served.index("--backend-store-uri") + 1] == store.uri
    page = f"http://127.0.0.1:5099/#/experiments/{store.experiment_id}/runs"
    view = "?workflowType=machine_learning&viewStateShareKey=cl-manifold"
    assert f"{page}{view} " in capsys.readouterr().err
