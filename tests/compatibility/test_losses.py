"""Every cell of the table of losses ends right, refused, or as it ends without the plugin."""

import pytest

from .cells import RAW, WRONG, Cell, judge
from .losses import cells


@pytest.mark.parametrize("cell", cells(), ids=lambda cell: f"{cell.row}, {cell.column}")
def test_cell(cell: Cell) -> None:
    outcome = judge(cell)
    assert outcome.kind not in (WRONG, RAW), "\n".join(outcome.notes)
