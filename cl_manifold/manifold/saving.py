"""Saving and loading a weight manifold: one safetensors file with a JSON header, never pickle.

The JSON (basis, layout, settings, visited contexts) travels in the header of the safetensors file,
so that tensors and description can never disagree; a readable copy lies beside it.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cl_manifold.errors import LayoutError, StoreError
from cl_manifold.geometry import basis_from_spec
from cl_manifold.manifold.layout import layout_from_spec
from cl_manifold.manifold.weight_manifold import Visit, WeightManifold

FORMAT = "cl-manifold/1"


def save_manifold(manifold: WeightManifold, path: Path) -> None:
    """Write `path` (safetensors) and the same name with suffix `.json`, each atomically.

    A reader sees the old file or the new one, never half of one.
    """
    tensors = {"control_points": manifold.control_points, "covariance": manifold.covariance}
    if manifold.offset is not None:
        tensors["offset"] = manifold.offset
    for i, visit in enumerate(manifold.visits):
        if visit.information is not None:
            tensors[f"information.{i}"] = visit.information
    header = {
        "format": FORMAT,
        "basis": manifold.basis.spec(),
        "blocks": manifold.blocks,
        "strength": manifold.strength,
        "visits": [v.context.tolist() for v in manifold.visits],
        "layout": manifold.layout.spec(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(header)
    part = path.with_name(path.name + ".part")
    contiguous = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    save_file(contiguous, part, metadata={"cl_manifold": text})
    _publish(part, path)
    part.write_text(json.dumps(header, indent=1))
    _publish(part, path.with_suffix(".json"))


def load_manifold(path: Path, module: nn.Module) -> WeightManifold:
    """The saved manifold around a module of the same architecture.

    The module is left at the weights it has; check out a context to fill it.

    Raises:
        StoreError: the file is missing, incomplete or of another format.
        LayoutError: the module's architecture is another one.
    """
    header, tensors = _read(path)
    layout = layout_from_spec(header["layout"])
    names = {e.name for e in layout.entries}
    manifold = WeightManifold(
        module,
        basis_from_spec(header["basis"]),
        blocks=header["blocks"],
        strength=header["strength"],
        growable="offset" in tensors,
        select=lambda name: name in names,
    )
    if manifold.layout != layout:
        layout.tensors(module)
        raise LayoutError(
            f"the module's parameters differ from those in {path.name} in order or kind; "
            "build the same architecture as the one that was saved"
        )
    like = manifold.control_points
    manifold.control_points = tensors["control_points"].to(like)
    manifold.covariance = tensors["covariance"].to(manifold.prior)
    manifold.offset = tensors["offset"].to(like) if "offset" in tensors else None
    manifold.visits = [
        Visit(
            torch.tensor(context, dtype=torch.float64),
            tensors[f"information.{i}"].to(manifold.prior)
            if f"information.{i}" in tensors
            else None,
        )
        for i, context in enumerate(header["visits"])
    ]
    return manifold


def _publish(part: Path, path: Path) -> None:
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("cl_manifold")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"{path} is not a readable weight manifold ({error}); give the manifold.safetensors "
            "of a finished run"
        ) from error
    header = json.loads(text) if text else {}
    if header.get("format") != FORMAT:
        raise StoreError(
            f"{path} has format {header.get('format')!r}, but {FORMAT!r} is needed; "
            "it was written by another program or version"
        )
    return header, tensors
