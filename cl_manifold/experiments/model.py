"""A model out of its folder: what `mlflow.pyfunc.load_model` gives, and `cl-manifold predict`."""

import json
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cl_manifold.contexts.encoder import RandomFeatureEncoder
from cl_manifold.contexts.inference import ContextInference
from cl_manifold.contexts.sweep import logits_with, row
from cl_manifold.data.context_columns import ContextColumns, context_columns_from
from cl_manifold.data.preprocessing import Preprocessing, preprocessing_from
from cl_manifold.errors import ContextError, DataError
from cl_manifold.experiments.architecture import rebuilt
from cl_manifold.manifold.saving import load_manifold
from cl_manifold.manifold.watching import watching
from cl_manifold.manifold.weight_manifold import WeightManifold

FORMAT = "cl-manifold-model/1"
CHUNK = 64
"""Contexts whose weights are in memory at once."""


@final
class ContextModel:
    """Predicts from rows or arrays, each at its context.

    Attributes:
        module: the network; its weights are those of whatever context came last.
        manifold: None of a network that knows no context.
        preprocessing: of tables; None of images.
        columns: the columns that say the context; None where there are none.
    """

    def __init__(self, folder: Path) -> None:
        """Load what `model_files` wrote.

        Raises:
            ClManifoldError: a file is missing, damaged, or of another version.
        """
        self._description = _json(folder / "model.json")
        if self._description.get("format") != FORMAT:
            raise DataError(
                f"{folder} has format {self._description.get('format')!r}, but {FORMAT!r} is "
                "needed; use the version that wrote it"
            )
        self.module: nn.Module = rebuilt(_json(folder / "network.json"))
        _fill(self.module, _tensors(folder / "network.safetensors"))
        path = folder / "manifold.safetensors"
        self.manifold: WeightManifold | None = None
        if path.exists():
            self.manifold = load_manifold(path, self.module)
        found = self._description["preprocessing"]
        self.preprocessing: Preprocessing | None = preprocessing_from(found) if found else None
        found = self._description["columns"]
        self.columns: ContextColumns | None = context_columns_from(found) if found else None
        self._inference = self._inferring(folder)
        self._lock = Lock()

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> Any:
        """A frame with one row per input: the target's columns, or `class` of images.

        Args:
            model_input: a frame, or an array of shape (N, *input_shape) in the stream's units.
            params: "context", for all rows, before any column; "raw": the network's outputs.

        Raises:
            ClManifoldError: an input does not fit, or no context is known.
        """
        import pandas as pd

        values = dict(params or {})
        given = [float(c) for c in np.ravel(values.get("context") or [])]
        inputs = self.inputs(model_input)
        outputs = self.outputs(inputs, self._contexts(model_input, given, len(inputs)))
        if values.get("raw"):
            names = [f"output {i}" for i in range(outputs.shape[1])]
            return pd.DataFrame(outputs.numpy(), columns=names)
        if self.preprocessing is not None:
            return pd.DataFrame(self.preprocessing.predicted(outputs))
        return pd.DataFrame({"class": outputs.argmax(-1).numpy()})

    def inputs(self, given: Any) -> Float32[Tensor, "N ..."]:
        """What the network takes.

        Raises:
            DataError: a column is missing, or an array has another shape.
        """
        if self.preprocessing is not None:
            if not hasattr(given, "columns"):
                raise DataError(f"got a {type(given).__name__}, but the model needs a frame")
            return self.preprocessing.inputs(given)
        array, shape = np.asarray(given, dtype=np.float32), self._description["input_shape"]
        if list(array.shape[1:]) != shape:
            raise DataError(
                f"got an array of shape {array.shape}, but the model needs (N, "
                f"{', '.join(map(str, shape))}) in the units of {self._description['stream']}"
            )
        return torch.tensor(array)

    @torch.no_grad()
    def outputs(
        self, inputs: Float[Tensor, "N ..."], contexts: Float64[Tensor, "N dim"] | None
    ) -> Float[Tensor, "N C"]:
        """The network's outputs, each with the weights of its context.

        Raises:
            ContextError: a context lies outside the space, or none is known and none can be found.
        """
        with self._lock:
            if self.manifold is None:
                with watching(self.module):
                    return self.module(inputs)
            if contexts is not None:
                return _at(self.manifold, inputs, contexts)
            if self._inference is None:
                raise ContextError(
                    "no context is given; give one as params={'context': [...]} or --context, or "
                    "make the run with contexts.test=inferred"
                )
            batch = self._description["inferred"]["batch"]
            return self._inference.predict((inputs,), batch).logits

    def _contexts(self, frame: Any, given: list[float], count: int) -> Any:
        """One context per row; None where nobody says it."""
        if self.manifold is None:
            return None
        if given:
            topology = self.manifold.basis.topology
            value: Any = int(given[0]) if topology.mixes and len(given) == 1 else given
            return topology.wrap(topology.embed(value)).expand(count, -1)
        if self.columns is None:
            return None
        present = [name for name in self.columns.names if name in getattr(frame, "columns", ())]
        if not present and self._inference is not None:
            return None
        return self.manifold.basis.topology.wrap(self.columns.contexts(frame))

    def _inferring(self, folder: Path) -> ContextInference | None:
        settings = self._description["inferred"]
        if self.manifold is None or not settings:
            return None
        encoder, path = None, folder / "encoder.safetensors"
        if path.exists():
            topology = self.manifold.basis.topology
            encoder = RandomFeatureEncoder(
                topology, features=settings["features"], seed=settings["seed"]
            )
            encoder.restore(_tensors(path), topology)
        inference = ContextInference(encoder)
        inference.prepare(self.manifold)
        return inference


def _load_pyfunc(path: str) -> ContextModel:
    """MLflow's entry: see `loader_module` of a python_function."""
    return ContextModel(Path(path))


def _at(
    manifold: WeightManifold, inputs: Float[Tensor, "N ..."], contexts: Float64[Tensor, "N dim"]
) -> Float[Tensor, "N C"]:
    """Rows of equal contexts together, so that the weights of each are formed once."""
    places, of_row = torch.unique(contexts, dim=0, return_inverse=True)
    found: Tensor | None = None
    for first in range(0, len(places), CHUNK):
        states = manifold.state(places[first : first + CHUNK])
        for k in range(len(places[first : first + CHUNK])):
            rows = (of_row == first + k).nonzero()[:, 0]
            one = {name: values[None] for name, values in row(states, k).items()}
            answers = logits_with(manifold, one, (inputs[rows],))[0]
            found = answers.new_zeros(len(inputs), answers.shape[-1]) if found is None else found
            found[rows] = answers
    return torch.zeros(0, 1) if found is None else found


def _fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    unknown = module.load_state_dict(dict(tensors), strict=False).unexpected_keys
    if unknown:
        raise DataError(f"the network has no {unknown[0]}; use the code that the model was made by")


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); give the model of a run") from None


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read ({error}); give the model of a run") from None
