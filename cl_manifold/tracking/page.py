"""The parts that HTML reports are made of: one page that needs nothing but itself."""

import base64
import io
from collections.abc import Iterable
from html import escape
from math import isfinite

import matplotlib as mpl
from matplotlib.figure import Figure

CSS = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 960px; padding: 28px 24px 56px; background: #fff; color: #1b1f24;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 6px; }
h2 { font-size: 17px; margin: 38px 0 10px; padding-bottom: 6px; border-bottom: 1px solid #e3e7ec; }
.sentence { font-size: 17px; margin: 0; color: #3b434d; max-width: 46em; }
.numbers { display: grid; grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)); gap: 10px;
  margin: 22px 0 0; padding: 0; }
.numbers div { background: #f5f7f9; border-radius: 8px; padding: 10px 14px; }
.numbers dt { font-size: 12.5px; color: #5b6470; }
.numbers dd { margin: 0; font-size: 21px; font-weight: 600; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th, td { padding: 5px 9px; text-align: left; vertical-align: top;
  border-bottom: 1px solid #edf0f3; }
th { font-weight: 600; color: #5b6470; border-bottom-color: #cbd2d9; vertical-align: bottom; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
td { overflow-wrap: anywhere; }
.wide td { overflow-wrap: normal; white-space: nowrap; }
.tag { display: inline-block; padding: 0 8px; border-radius: 9px; color: #fff; font-size: 12.5px; }
.note { font-size: 13px; color: #5b6470; }
img { display: block; width: 100%; height: auto; margin: 6px 0; }
details { margin-top: 12px; } summary { cursor: pointer; color: #0b6fb8; font-size: 14px; }
"""


def page(title: str, parts: Iterable[str], style: str = "") -> str:
    """The page as HTML text, without a reference to anything outside itself.

    Args:
        title: plain text.
        parts: HTML, one after the other; empty ones are left out.
        style: further CSS.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}{style}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )


def section(heading: str, content: str) -> str:
    """A heading and the HTML below it; nothing where there is no content."""
    return f"<section>\n<h2>{escape(heading)}</h2>\n{content}\n</section>" if content else ""


def cell(text: str, *, right: bool = False) -> str:
    """A table cell; numbers stand on the right."""
    mark = ' class="n"' if right else ""
    return f"<td{mark}>{escape(text)}</td>"


def picture(figure: Figure, name: str = "") -> str:
    """A figure as an image inside the page, with its title for those who cannot see it."""
    file = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "cl-manifold"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    content = base64.b64encode(file.getvalue()).decode("ascii")
    alt = escape(figure.get_suptitle() or name)
    return f'<img alt="{alt}" src="data:image/svg+xml;base64,{content}">'


def number(value: float | int | None) -> str:
    """Three decimals for fractions, grouped digits for counts, a dash for nothing."""
    if value is None or not isfinite(value):
        return "–"
    text = f"{value:,}" if isinstance(value, int) else f"{value:.3f}" if abs(value) < 100 else ""
    return (text or f"{value:,.1f}").replace("-", "−").replace(",", "\u202f")
