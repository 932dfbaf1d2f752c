"""Layout: the bijection between a module's state and one flat vector of weights.

Parameters come first, then floating-point buffers such as BatchNorm statistics: buffers ride along,
fitted but not trained. Integer buffers are not part of the weights. Each entry is cut into blocks:
the weights that share one covariance.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cl_manifold.errors import LayoutError

Granularity = Literal["tensor", "row", "weight"]
GRANULARITIES: tuple[Granularity, ...] = ("tensor", "row", "weight")


@dataclass(frozen=True)
class Entry:
    """Where one tensor of the state lies in the flat vector.

    Attributes:
        name: as in `state_dict`.
        shape: of the tensor.
        start: of its first weight in the flat vector.
        size: number of weights.
        block_start: of its first block.
        blocks: into how many equal, contiguous blocks it is cut.
        trained: True for a parameter, False for a buffer.
        non_negative: True for a variance, which interpolation must not make negative.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    size: int
    block_start: int
    blocks: int
    trained: bool
    non_negative: bool


@final
class Layout:
    """An ordered list of entries; `size` weights in `blocks` blocks."""

    def __init__(self, entries: tuple[Entry, ...]) -> None:
        self.entries = entries
        self.size = sum(e.size for e in entries)
        self.blocks = sum(e.blocks for e in entries)
        self.trained = tuple(e for e in entries if e.trained)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self.entries == other.entries

    def __hash__(self) -> int:
        return hash(self.entries)

    def split(self, flat: Float[Tensor, "*batch D"]) -> dict[str, Tensor]:
        """Views of the flat weights in the shapes of the state."""
        parts = flat.split([e.size for e in self.entries], dim=-1)
        return {
            e.name: part.unflatten(-1, e.shape) if e.shape else part.squeeze(-1)
            for e, part in zip(self.entries, parts, strict=True)
        }

    def tensors(self, module: nn.Module) -> list[Tensor]:
        """The module's own tensors in the order of the entries.

        Raises:
            LayoutError: a tensor is missing or has another shape.
        """
        state = dict(module.named_parameters()) | dict(module.named_buffers())
        found: list[Tensor] = []
        for entry in self.entries:
            tensor = state.get(entry.name)
            if tensor is None or tuple(tensor.shape) != entry.shape:
                got = "is missing" if tensor is None else f"has shape {tuple(tensor.shape)}"
                raise LayoutError(
                    f"{entry.name} {got}, but the weight manifold holds it with shape "
                    f"{entry.shape}; keep the architecture fixed, or leave the tensor off the "
                    "manifold with select=lambda name: ..."
                )
            found.append(tensor)
        return found

    def read(self, module: nn.Module) -> Float[Tensor, " D"]:
        """The module's current weights as one new flat vector."""
        return torch.cat([t.detach().reshape(-1) for t in self.tensors(module)])

    @torch.no_grad()
    def write(self, module: nn.Module, flat: Float[Tensor, " D"]) -> None:
        """Copy flat weights into the module, in place."""
        parts = self.split(flat)
        for entry in self.entries:
            if entry.non_negative:
                parts[entry.name] = parts[entry.name].clamp(min=0)
        for entry, tensor in zip(self.entries, self.tensors(module), strict=True):
            tensor.copy_(parts[entry.name])

    def by_block(self, flat: Float[Tensor, "*batch D"]) -> Iterator[tuple[slice, Tensor]]:
        """For each entry: which blocks it has, and a view (*batch, blocks, weights per block)."""
        for e in self.entries:
            part = flat[..., e.start : e.start + e.size].unflatten(-1, (e.blocks, -1))
            yield slice(e.block_start, e.block_start + e.blocks), part

    def spec(self) -> list[dict[str, Any]]:
        """Plain values for JSON."""
        return [asdict(e) | {"shape": list(e.shape)} for e in self.entries]


def layout_from_spec(spec: list[dict[str, Any]]) -> Layout:
    """The inverse of `Layout.spec`."""
    rows: list[dict[str, Any]] = [e | {"shape": tuple(e["shape"])} for e in spec]
    return Layout(tuple(Entry(**row) for row in rows))


def layout_of(
    module: nn.Module,
    granularity: Granularity = "tensor",
    select: Callable[[str], bool] = lambda name: True,
) -> Layout:
    """The layout of a module's parameters and floating-point buffers.

    Args:
        module: any module; tied parameters count once.
        granularity: what shares a covariance: a whole tensor, a row (first axis) or one weight.
            A buffer is always one block.
        select: which names of the state go onto the manifold.
    """
    if granularity not in GRANULARITIES:
        raise LayoutError(
            f"unknown blocks {granularity!r}; choose one of {', '.join(GRANULARITIES)}"
        )
    variances = _variances(module)
    entries: list[Entry] = []
    start = block_start = 0
    tensors = [(n, p, True) for n, p in module.named_parameters()]
    tensors += [(n, b, False) for n, b in module.named_buffers() if b.is_floating_point()]
    for name, tensor, trained in tensors:
        if not select(name) or tensor.numel() == 0:
            continue
        rows = tensor.shape[0] if tensor.ndim else 1
        blocks = {"tensor": 1, "row": rows, "weight": tensor.numel()}[granularity] if trained else 1
        shape, size = tuple(tensor.shape), tensor.numel()
        entries.append(
            Entry(name, shape, start, size, block_start, blocks, trained, name in variances)
        )
        start, block_start = start + size, block_start + blocks
    if not any(e.trained for e in entries):
        raise LayoutError(
            "no parameter is left for the weight manifold; pass a module with parameters "
            "or a select that keeps some of them"
        )
    return Layout(tuple(entries))


def _variances(module: nn.Module) -> set[str]:
    """Names of the running variances of normalisation layers."""
    norms = (nn.modules.batchnorm._NormBase,)
    prefixes = [name for name, m in module.named_modules() if isinstance(m, norms)]
    return {f"{prefix}.running_var".lstrip(".") for prefix in prefixes}
