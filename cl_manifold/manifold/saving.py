"""Saving and loading a weight manifold: one safetensors file with a JSON header, never pickle.

The JSON (basis, layout, settings, finished tasks) travels in the header of the safetensors file,
so that tensors and description can never disagree; a readable copy lies beside it.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from cl_manifold.errors import LayoutError, StoreError
from cl_manifold.files import fingerprint, publish
from cl_manifold.geometry import basis_from_spec
from cl_manifold.manifold.atlas import Task
from cl_manifold.manifold.belief import Belief
from cl_manifold.manifold.layout import Layout, layout_from_spec
from cl_manifold.manifold.points import ControlPoints, Dense, Int8, Stored, computed_in
from cl_manifold.manifold.weight_manifold import WeightManifold

FORMAT = "cl-manifold/2"

KEYS = {"basis", "blocks", "strength", "storage", "growable", "visits", "layout"}

Tensors = dict[str, Tensor]


def save_manifold(manifold: WeightManifold, path: Path) -> None:
    """Write `path` (safetensors) and the same name with suffix `.json`, each atomically.

    A reader sees the old file or the new one, never half of one.
    """
    content, text = saved(manifold)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    publish(part, path)
    part.write_text(text)
    publish(part, path.with_suffix(".json"))


def saved(manifold: WeightManifold) -> tuple[bytes, str]:
    """The safetensors file of a manifold, and the JSON of its header for people."""
    tensors = {"belief": manifold.belief.triangle, "prior": manifold.belief.prior}
    for entry in manifold.layout.entries:
        kept = manifold.points.of(entry.name).tensors()
        tensors |= {f"points.{kind}.{entry.name}": t for kind, t in kept.items()}
    for name, w in (manifold.points.offset or {}).items():
        tensors[f"offset.{name}"] = w
    for i, task in enumerate(manifold.atlas.tasks):
        tensors |= {f"context.{i}": task.context, f"phi.{i}": task.phi}
        if task.information is not None:
            tensors[f"information.{i}"] = task.information
    kept = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    header = {
        "format": FORMAT,
        "basis": manifold.basis.spec(),
        "blocks": manifold.blocks,
        "strength": manifold.strength,
        "storage": manifold.points.storage,
        "growable": manifold.growable,
        "visits": [task.context.tolist() for task in manifold.atlas.tasks],
        "layout": manifold.layout.spec(),
    }
    header["checksum"] = checksum(header, kept)
    content = save(kept, metadata={"cl_manifold": json.dumps(header)})
    return content, json.dumps(header, indent=1)


def load_manifold(path: Path, module: nn.Module) -> WeightManifold:
    """The saved manifold around a module of the same architecture.

    The module is left at the weights it has; check out a context to fill it.

    Raises:
        StoreError: the file is missing, damaged or of another format.
        LayoutError: the module's architecture is another one.
    """
    header, tensors = _read(path)
    layout = layout_from_spec(header["layout"])
    layout.tensors(module)
    names = layout.names
    missing = [n for n, p in module.named_parameters() if p.is_floating_point() and n not in names]
    found = WeightManifold(
        module,
        basis_from_spec(header["basis"]),
        blocks=header["blocks"],
        strength=header["strength"],
        growable=header["growable"],
        select=Selection(frozenset(missing)),
    )
    order = [e.name for e in found.layout.entries]
    if order != [e.name for e in layout.trained]:
        raise LayoutError(
            f"the module's parameters differ from those in {path.name} in order or kind; "
            "build the same architecture as the one that was saved"
        )
    found.layout = layout
    found.points = _points(layout, header, tensors, layout.tensors(module))
    found.belief = Belief(tensors["prior"], tensors["belief"])
    found.atlas.tasks = tuple(
        Task(tensors[f"context.{i}"], tensors[f"phi.{i}"], tensors.get(f"information.{i}"))
        for i in range(len(header["visits"]))
    )
    return found


class Selection:
    """All parameters but some."""

    def __init__(self, without: frozenset[str]) -> None:
        self.without = without

    def __call__(self, name: str) -> bool:
        """Whether the parameter is on the manifold."""
        return name not in self.without


def checksum(header: dict[str, Any], tensors: Tensors) -> str:
    """SHA-256 over the header without its checksum, and over every tensor with its name."""
    plain = {key: value for key, value in header.items() if key != "checksum"}
    return fingerprint(json.dumps(plain, sort_keys=True), tensors)


def _points(
    layout: Layout, header: dict[str, Any], tensors: Tensors, live: Tensors
) -> ControlPoints:
    """The saved points, on the devices of the module's own tensors."""
    stored: dict[str, Stored] = {}
    for e in layout.entries:
        values = tensors.get(f"points.values.{e.name}")
        if values is not None:
            stored[e.name] = Dense(values.to(live[e.name].device))
        else:
            levels, scales = (tensors[f"points.{kind}.{e.name}"] for kind in ("levels", "scales"))
            device, dtype = live[e.name].device, computed_in(live[e.name])
            stored[e.name] = Int8(levels.to(device), scales.to(device), dtype)
    offset = {
        e.name: tensors[f"offset.{e.name}"].to(live[e.name].device)
        for e in layout.entries
        if f"offset.{e.name}" in tensors
    }
    return ControlPoints(layout, stored, offset or None, header["storage"])


def _read(path: Path) -> tuple[dict[str, Any], Tensors]:
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("cl_manifold")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(text) if text else {}
    except (OSError, SafetensorError, ValueError) as error:
        raise StoreError(
            f"{path} is not a readable weight manifold ({error}); give the manifold.safetensors "
            "of a finished run"
        ) from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        got = header.get("format") if isinstance(header, dict) else None
        raise StoreError(
            f"{path} has format {got!r}, but {FORMAT!r} is needed; "
            "it was written by another program or version"
        )
    if header.get("checksum") != checksum(header, tensors):
        raise StoreError(f"{path} is damaged: its checksum does not match; use another copy")
    missing = sorted((KEYS - header.keys()) or (_needed(header) - tensors.keys()))
    if missing:
        raise StoreError(
            f"{path} lacks {', '.join(missing)}; it was written by another program or version"
        )
    return header, tensors


def _needed(header: dict[str, Any]) -> set[str]:
    """The tensors that the header speaks of; w₀ and information are not always kept."""
    names = {"belief", "prior"}
    for i in range(len(header["visits"])):
        names |= {f"context.{i}", f"phi.{i}"}
    for entry in layout_from_spec(header["layout"]).entries:
        whole = header["storage"] == "int8" and entry.trained
        kinds = ("levels", "scales") if whole else ("values",)
        names |= {f"points.{kind}.{entry.name}" for kind in kinds}
    return names
