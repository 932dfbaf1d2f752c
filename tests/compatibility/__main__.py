"""Run all cells and write docs/compatibility.md: `python -m tests.compatibility`."""

import sys

import torch

from . import losses, networks, strategies
from .cells import Cell, Outcome, judge
from .document import PATH, page, summary


def all_cells() -> list[Cell]:
    """Every cell, in the order of the document."""
    return strategies.cells() + networks.cells() + losses.cells()


def main() -> None:
    """Judge every cell, tell the progress on standard error, write the document."""
    torch.set_num_threads(1)
    outcomes: dict[Cell, Outcome] = {}
    for cell in all_cells():
        outcomes[cell] = judge(cell)
        sys.stderr.write(f"{cell.name}: {outcomes[cell].kind}\n")
    PATH.write_text(page(outcomes))
    sys.stderr.write(f"{len(outcomes)} cells: {summary(outcomes)}\n")


if __name__ == "__main__":
    main()
