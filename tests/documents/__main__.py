"""Writes the tables of the pages anew: `python -m tests.documents`."""

from .pages import DOCS
from .tables import filled


def main() -> None:
    """Fill every page that has a place for a table."""
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        path.write_text(filled(text), encoding="utf-8")


if __name__ == "__main__":
    main()
