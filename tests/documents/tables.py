"""The tables of docs/strategies.md and docs/streams.md, written from the code."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cl_manifold.comparison.published import published_for
from cl_manifold.experiments.config import kind_of
from cl_manifold.experiments.names import NETWORKS, STRATEGIES, STREAMS, TOPOLOGIES, Item
from cl_manifold.options import value_text
from cl_manifold.strategies import Method

PLACE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", flags=re.DOTALL)


def filled(text: str) -> str:
    """The page with every table written anew."""
    return PLACE.sub(lambda m: f"{m[1]}\n{TABLES[m[2]]()}\n\n{m[3]}", text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in lines
    )


def methods() -> dict[str, type[Method]]:
    """Every strategy by name."""
    return {name: kind_of("strategy", STRATEGIES, name, Method) for name in STRATEGIES}


def strategies() -> str:
    """What each strategy does, reads, keeps, and where it comes from."""
    head = ("strategy", "what it does", "learns", "context at test", "keeps", "source")
    return table(
        head,
        (
            (
                f"`{name}`",
                STRATEGIES[name].summary,
                ", ".join(method.learns),
                "as `contexts.test` says" if name == "weight-manifold" else method.at_test,
                first_line(method.stored.__doc__).rstrip("."),
                method.source,
            )
            for name, method in methods().items()
        ),
    )


def settings() -> str:
    """The settings of each strategy."""
    return table(
        ("strategy", "setting", "default", "tried", "meaning"),
        (
            (
                f"`{name}`",
                f"`{key}`",
                "auto" if field.default is None else value_text(field.default),
                ", ".join(value_text(value) for value in method.tried.get(key, ())),
                first_line(field.description),
            )
            for name, method in methods().items()
            for key, field in method.model_fields.items()
            if key != "name"
        ),
    )


def streams() -> str:
    """What each stream is, and whose setting it has."""
    rows = ((f"`{name}`", item.summary, item.source) for name, item in STREAMS.items())
    return table(("stream", "what it is", "setting of"), rows)


def defaults() -> str:
    """What each stream sets."""
    rows = (
        (f"`{name}`", ", ".join(f"`{k}={value_text(v)}`" for k, v in item.defaults.items()))
        for name, item in STREAMS.items()
    )
    return table(("stream", "sets"), rows)


def published() -> str:
    """What others published on these streams."""
    head = ("stream", "method", "ACC", "BWT", "context at test", "setting", "differs", "source")
    return table(
        head,
        (
            (
                f"`{name}`",
                row.method,
                f"{row.acc:.4g}",
                "" if row.bwt is None else f"{row.bwt:+.4g}",
                row.context,
                row.setting,
                row.differs,
                row.source,
            )
            for name in STREAMS
            for row in published_for(name)
        ),
    )


def catalogue(items: Mapping[str, Item]) -> Callable[[], str]:
    """Names and one sentence each."""
    return lambda: table(
        ("name", "what it is"), ((f"`{name}`", item.summary) for name, item in items.items())
    )


def first_line(text: Any) -> str:
    """The first line of a docstring or a description."""
    return str(text or "").strip().split("\n")[0]


TABLES: Mapping[str, Callable[[], str]] = {
    "strategies": strategies,
    "settings": settings,
    "topologies": catalogue(TOPOLOGIES),
    "networks": catalogue(NETWORKS),
    "streams": streams,
    "defaults": defaults,
    "published": published,
}
