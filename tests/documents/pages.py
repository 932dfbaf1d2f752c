"""README and the pages of docs/: their blocks, headings and links."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^( *)```(\S*)\n(.*?)^\1```$", flags=re.DOTALL | re.MULTILINE)
INCLUDED = re.compile(r'--8<-- "([^"]+)"')
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*)$", flags=re.MULTILINE)
FORMULA = re.compile(r"\$\$.*?\$\$", flags=re.DOTALL)


@dataclass(frozen=True)
class Page:
    """A page in Markdown.

    Attributes:
        path: of the file.
        text: of the file.
    """

    path: Path
    text: str

    @property
    def name(self) -> str:
        """Its path from the root of the project."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def blocks(self) -> list[tuple[str, str]]:
        """Language and text of every fenced block."""
        return [(language, text) for _, language, text in FENCE.findall(self.text)]

    def of(self, language: str) -> list[str]:
        """The blocks of one language."""
        return [text for kind, text in self.blocks if kind == language]

    @property
    def commands(self) -> list[str]:
        """Every line of its blocks of commands."""
        lines = [line for text in self.of("bash") for line in text.splitlines()]
        return [line.partition("   #")[0].strip() for line in lines if line.strip()]

    @property
    def prose(self) -> str:
        """The page without blocks and formulas."""
        return FORMULA.sub("", FENCE.sub("", self.text))

    @property
    def anchors(self) -> set[str]:
        """What the headings can be called by."""
        return {slug(heading) for heading in HEADING.findall(self.prose)}


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and MkDocs make it.

    >>> slug("Stop and `resume`")
    'stop-and-resume'
    """
    kept = re.sub(r"[^\w\- ]", "", heading.lower())
    return kept.strip().replace(" ", "-")


def page(path: Path) -> Page:
    """The page in a file."""
    return Page(path, path.read_text(encoding="utf-8"))


def pages() -> list[Page]:
    """README, CONTRIBUTING and every page of docs/."""
    paths = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
    return [page(path) for path in paths]
