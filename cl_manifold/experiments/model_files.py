"""What of a finished trial goes into its model: plain files that MLflow loads, never pickle.

MLmodel, requirements.txt      MLflow's description of a python_function
data/manifold.safetensors      the control points; absent of a plain network
data/network.safetensors       what of the network is not on the manifold, or all of it
data/encoder.safetensors       where contexts are inferred with random features
data/network.json              the architecture
data/model.json                inputs, contexts, classes and scales
"""

import json
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType
from safetensors.torch import save_file

from cl_manifold.experiments.architecture import described
from cl_manifold.experiments.model import FORMAT
from cl_manifold.experiments.trial import Trial
from cl_manifold.manifold.saving import save_manifold

LOADER = "cl_manifold.experiments.model"
PARTS = ("cl-manifold", "torch", "numpy", "pandas", "safetensors")


def servable(trial: Trial) -> bool:
    """Whether what the trial learned is a manifold, or one network that knows no context.

    Left out: methods with networks of another kind, and streams where the task says which outputs
    count.
    """
    plugin, strategy = trial.manifold, trial.config.strategy
    if trial.stream.groups is not None:
        return False
    if plugin is not None:
        return plugin.manifold is not None and plugin.shaping is None
    return strategy.at_test == "not used" and type(trial.strategy.model) is type(trial.network)


def write_model(trial: Trial, folder: Path) -> None:
    """Write the model of a trial; nothing lies in the folder yet."""
    data = folder / "data"
    data.mkdir(parents=True)
    stream, plugin = trial.stream, trial.manifold
    manifold = plugin.manifold if plugin else None
    module = manifold.module if manifold else trial.strategy.model
    names = manifold.layout.names if manifold else frozenset()
    rest = {
        name: t.detach().cpu().contiguous().clone()
        for name, t in module.state_dict().items()
        if name not in names
    }
    save_file(rest, data / "network.safetensors")
    testing = plugin.testing if plugin else None
    if manifold is not None:
        save_manifold(manifold, data / "manifold.safetensors")
    encoder = testing.encoder if testing else None
    if encoder is not None:
        kept = {name: t.cpu().contiguous().clone() for name, t in encoder.state().items()}
        save_file(kept, data / "encoder.safetensors")
    network = described(trial.config.network, module, stream.input_shape, stream.outputs)
    _write_json(data / "network.json", network)
    facts = stream.facts
    given = trial.config.contexts.training == "given"
    description = {
        "format": FORMAT,
        "stream": stream.name,
        "digest": stream.digest,
        "metric": stream.metric,
        "input_shape": list(stream.input_shape),
        "outputs": stream.outputs,
        "preprocessing": facts.preprocessing and facts.preprocessing.as_dict(),
        "columns": facts.columns.as_dict() if facts.columns and given else None,
        "inferred": testing
        and {"batch": testing.batch, "features": testing.features} | {"seed": testing.seed},
    }
    _write_json(data / "model.json", description)
    needed = [f"{name}=={version(name).partition('+')[0]}" for name in PARTS]
    (folder / "requirements.txt").write_text("\n".join(needed) + "\n", encoding="utf-8")
    model = Model(signature=_signature(trial))
    model.add_flavor(
        "python_function",
        loader_module=LOADER,
        data="data",
        env="requirements.txt",
        python_version=python_version(),
    )
    model.save(str(folder / "MLmodel"))


def _signature(trial: Trial) -> ModelSignature:
    facts = trial.stream.facts
    params = ParamSchema(
        [
            ParamSpec("context", "double", [], shape=(-1,)),
            ParamSpec("raw", "boolean", False),
        ]
    )
    if facts.preprocessing is None:
        import numpy as np

        shape = (-1, *trial.stream.input_shape)
        return ModelSignature(Schema([TensorSpec(np.dtype("float32"), shape)]), None, params)
    # any: MLflow refuses whole numbers for a column of doubles
    columns: list[ColSpec | TensorSpec] = [
        ColSpec(AnyType(), name) for name in facts.preprocessing.columns
    ]
    where = facts.columns.names if facts.columns else ()
    columns += [
        ColSpec(AnyType(), name, required=False)
        for name in where
        if name not in facts.preprocessing.columns
    ]
    return ModelSignature(Schema(columns), None, params)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")
