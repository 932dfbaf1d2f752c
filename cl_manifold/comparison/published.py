"""Published results of the streams that mirror a published setting.

They stand beside a comparison, never in it: nobody measured them here, and no mean contains them.
The numbers lie in `published.toml`; a stream without an entry there has none.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Published:
    """One published result.

    Attributes:
        method: as its source calls it.
        acc: final average accuracy, in [0, 1].
        bwt: backward transfer as a fraction; None where the source gives none.
        context: "given", "inferred" or "not used" at test; "not stated" where we do not know.
        setting: how it was measured.
        differs: how that differs from this project's stream; empty where no difference is known.
        source: who published the number.
    """

    method: str
    acc: float
    bwt: float | None
    context: str
    setting: str
    differs: str
    source: str


def published_for(stream: str) -> list[Published]:
    """Published results on that stream, highest accuracy first; empty where there are none."""
    rows = [
        Published(
            method=row["method"],
            acc=float(row["acc"]),
            bwt=float(row["bwt"]) if "bwt" in row else None,
            context=row.get("context", group["context"]),
            setting=group["setting"],
            differs=row.get("differs", group["differs"]),
            source=group["source"],
        )
        for group in _groups().get(stream, [])
        for row in group["rows"]
    ]
    return sorted(rows, key=lambda row: row.acc, reverse=True)


@cache
def _groups() -> dict[str, list[dict[str, Any]]]:
    """Groups of rows with one setting and one source, by stream."""
    text = (files("cl_manifold.comparison") / "published.toml").read_text("utf-8")
    return tomllib.loads(text)
