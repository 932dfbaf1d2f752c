"""What reports are made of: sections and tables, and the templates that lay them out."""

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from matplotlib.figure import Figure

from cl_manifold.tracking.style import DECISIONS, INK


@dataclass(frozen=True)
class Table:
    """A table of plain texts.

    Attributes:
        head: names of the columns; a column without a name holds the names of the rows.
        rows: one text per column.
        numeric: columns of numbers, which stand on the right.
        tagged: a column of decisions, which carry their colours.
        strong: places of rows that stand out.
    """

    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    numeric: Sequence[str] = ()
    tagged: str = ""
    strong: Sequence[int] = ()


@dataclass(frozen=True)
class Section:
    """A heading and what is below it; left out where table, figure and code are empty.

    Attributes:
        notes: how to read table or code.
        folded: a line under which the table is folded away.
    """

    heading: str
    table: Table = field(default_factory=Table)
    notes: Sequence[str] = ()
    figure: Figure | None = None
    code: str = ""
    folded: str = ""


def render(template: str, **values: Any) -> str:
    """The text that a template of the package makes of the values.

    Every value is escaped in HTML; in Markdown by the filters `md` and `fenced`.
    """
    return _TEMPLATES.get_template(template).render(values)


def image(figure: Figure) -> str:
    """A figure as an address that holds all of it."""
    file = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "cl-manifold"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def markdown(text: str) -> str:
    r"""Text on one line that Markdown shows as it is, also inside a table.

    >>> markdown("# a|b *c*"), markdown("1. d_e")
    ('\\# a\\|b \\*c\\*', '1\\. d\\_e')
    """
    line = re.sub(r"[\\`*_<\[\]|~$&]", r"\\\g<0>", " ".join(text.split()))
    return re.sub(r"^(\d*)([#>]|[-+=.)](?![^\s=-]))", r"\1\\\2", line)


def fenced(code: str) -> str:
    """A block of code in Markdown, between fences that it does not hold."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", code)), default=0))
    return f"{fence}\n{code}\n{fence}"


def number(value: float | int | None) -> str:
    """Three decimals for fractions, grouped digits for counts, a dash for nothing."""
    if value is None or not isfinite(value):
        return "–"
    text = f"{value:,}" if isinstance(value, int) else f"{value:.3f}" if abs(value) < 100 else ""
    return (text or f"{value:,.1f}").replace("-", "−").replace(",", "\u202f")


_TEMPLATES = Environment(
    loader=PackageLoader("cl_manifold"),
    autoescape=select_autoescape(disabled_extensions=("md.jinja",), default=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters |= {"fenced": fenced, "image": image, "md": markdown}
_TEMPLATES.globals |= {"colours": DECISIONS, "ink": INK}
