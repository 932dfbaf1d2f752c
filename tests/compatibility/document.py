"""docs/compatibility.md: the tables of the matrix, sentences as footnotes."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from .cells import RAW, REFUSED, RIGHT, WITHOUT, WRONG, Cell, Outcome

PATH = Path(__file__).parents[2] / "docs" / "compatibility.md"

HEAD = """# Compatibility

Written by `python -m tests.compatibility` from the cells that `tests/compatibility/` tests; do not
edit.

Every cell is a small stream that is trained and tested without the plugin, with Fisher information
and with exact information.

* **right**: the weights that a context is tested with are those that its training ended with,
  whatever other plugins did; with exact information earlier contexts do not move; with Fisher
  information on vertices they keep their score (for a growing head among the classes of that time);
  tasks are learned as well as without the plugin; and, for strategies, the MLflow logger alone
  leaves the weights as they are to the bit and sends the values that Avalanche's text logger
  prints.
* **refused**: one sentence before any training step.
* **fails without us**: so it does without the plugin, on this stack.

"""

TITLES = {
    "strategies": "Avalanche's strategies in five scenarios",
    "networks": "Networks, each with Naive",
    "losses": "Losses, each with Naive",
}


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


class Footnotes:
    """Numbers sentences in the order in which they are first needed."""

    def __init__(self) -> None:
        self.sentences: dict[str, int] = {}

    def mark(self, sentences: Iterable[str]) -> str:
        """The marks of some sentences."""
        numbers = [self.sentences.setdefault(s, len(self.sentences) + 1) for s in sentences]
        return "".join(f"[^{n}]" for n in numbers)

    def lines(self) -> list[str]:
        return [f"[^{n}]: {_escaped(s)}" for s, n in self.sentences.items()]


def _entry(outcome: Outcome, notes: Footnotes) -> str:
    return outcome.kind + notes.mark(list(dict.fromkeys(outcome.notes))[:3])


def _table(outcomes: Mapping[Cell, Outcome], notes: Footnotes) -> list[str]:
    columns = list(dict.fromkeys(cell.column for cell in outcomes))
    rows = list(dict.fromkeys(cell.row for cell in outcomes))
    entries = {(c.row, c.column): _entry(o, notes) for c, o in outcomes.items()}
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        lines.append(f"| {row} | " + " | ".join(entries[row, c] for c in columns) + " |")
    return lines


def summary(outcomes: Mapping[Cell, Outcome]) -> str:
    """How many cells ended how."""
    kinds = [o.kind for o in outcomes.values()]
    found = [k for k in (RIGHT, REFUSED, WITHOUT, WRONG, RAW) if k in kinds]
    return ", ".join(f"{kinds.count(k)} {k}" for k in found)


def page(outcomes: Mapping[Cell, Outcome]) -> str:
    """The whole document."""
    notes, lines = Footnotes(), []
    for table, title in TITLES.items():
        part = {c: o for c, o in outcomes.items() if c.table == table}
        lines += [f"## {title}", "", f"{len(part)} cells: {summary(part)}.", ""]
        lines += [*_table(part, notes), ""]
    return HEAD + "\n".join([*lines, *notes.lines()]) + "\n"


def names(text: str) -> set[tuple[str, str, str]]:
    """Table, row and column of every cell that a document tells of."""
    found: set[tuple[str, str, str]] = set()
    titles = {title: table for table, title in TITLES.items()}
    table, columns = "", []
    for line in text.splitlines():
        if line.startswith("## "):
            table, columns = titles[line[3:]], []
        elif line.startswith("| | "):
            columns = [part.strip() for part in line.strip("|").split("|")[1:]]
        elif line.startswith("| "):
            row = line.strip("|").split("|")[0].strip()
            found |= {(table, row, column) for column in columns}
    return found
