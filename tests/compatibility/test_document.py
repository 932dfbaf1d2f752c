"""The committed document tells of the same cells as the tests, and there are enough of them."""

from .__main__ import all_cells
from .cells import RIGHT, Cell, Outcome
from .document import PATH, names, page


def test_document_has_every_cell() -> None:
    cells = {(c.table, c.row, c.column) for c in all_cells()}
    assert names(PATH.read_text()) == cells, "run python -m tests.compatibility"


def test_enough_cells() -> None:
    cells = all_cells()
    rows = {t: {c.row for c in cells if c.table == t} for t in ("strategies", "networks", "losses")}
    assert len(rows["strategies"]) >= 24
    assert len({c.column for c in cells if c.table == "strategies"}) == 5
    assert len(rows["networks"]) >= 56
    assert len(rows["losses"]) >= 8


def test_sentences_become_footnotes() -> None:
    cell = all_cells()[0]
    text = page({cell: Outcome("refused", ("a sentence | with a bar",))})
    assert "refused[^1]" in text
    assert "[^1]: a sentence \\| with a bar" in text
    assert names(text) == {(cell.table, cell.row, cell.column)}


def test_right_cells_carry_no_mark() -> None:
    cell: Cell = all_cells()[0]
    assert "| right |" in page({cell: Outcome(RIGHT)})
