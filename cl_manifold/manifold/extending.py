"""What tasks and belief become when a manifold is extended by further blocks of weights."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .atlas import Task
from .belief import Belief
from .layout import Extension


def inherited(information: Tensor | None, found: Extension, firmness: float) -> Tensor | None:
    """A task's information on more blocks.

    Args:
        information: on the old blocks; None where it is not kept.
        found: the new blocks.
        firmness: what a task holds the new parts of a wider tensor with; it leaves new tensors
            free, unless it protects everything exactly.
    """
    if information is None:
        return None
    exact = bool(information.isinf().all())
    new = torch.where(found.wider, firmness, 0.0).to(information)
    new = torch.full_like(new, torch.inf) if exact else new
    return torch.where(found.origin < 0, new, information[found.origin.clamp(min=0)])


def continued(belief: Belief, found: Extension, tasks: Sequence[Task]) -> Belief:
    """The belief over the new blocks, after what finished tasks hold of them."""
    belief = belief.inherited(found.origin)
    for task in tasks:
        if task.information is not None:
            f = torch.where(found.origin < 0, task.information, 0.0)
            belief = belief.observe(task.phi, f) if bool(f.any()) else belief
    return belief
