"""What the tests do with a command of a page.

`run` on digits or on all contexts at once is run, made small; so are the commands that only list,
plan or show. `compare`, and what needs MNIST or cannot be small, is parsed, and every setting of
every run resolved. `resume` and `ui` are parsed. Of other programs it is checked that what they
name exists.
"""

import shlex
import tomllib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import click

from cl_manifold.cli.main import cli
from cl_manifold.cli.options import option_layers
from cl_manifold.comparison.entries import crossed, parse_entries, parse_grid, resolve_entry
from cl_manifold.experiments.config import fields_of, names_of, resolve
from cl_manifold.experiments.fitting import usual_strategies

from .pages import ROOT

Call = Callable[..., tuple[int, str, str]]

SMALL = {
    "stream.samples": "60",
    "stream.test_samples": "60",
    "network.hidden": "16",
    "training.epochs": "1",
    "training.steps": "4",
    "strategy.replay_samples": "20",
    "contexts.features": "20",
}
CONTEXTS = {"split": "5", "recurring": "5"}
"""The fewest that these streams can have; two for others."""
LARGE = ("mnist", "ctrl")
"""Streams that need files, or cannot be made small."""
QUICK = ("streams", "strategies", "settings", "plan", "show", "sync", "mend")
PARSED = ("resume", "ui", "predict")


def divided(line: str) -> tuple[dict[str, str], list[str]]:
    """Variables and words of a line.

    >>> divided("A=1 cl-manifold run  # a comment")
    ({'A': '1'}, ['cl-manifold', 'run'])
    """
    words = shlex.split(line, comments=True)
    variables: dict[str, str] = {}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        variables[name] = value
    return variables, words


def check(words: list[str], call: Call, done: set[tuple[str, ...]]) -> None:
    """Run the command, or check it as far as the module says.

    Args:
        words: of the command.
        call: runs one of ours.
        done: runs that need not be run again.
    """
    program, *rest = words
    if program.endswith("cl-manifold"):
        check_ours(rest, call, done)
    elif program == "make":
        assert f"\n{rest[0]}:" in (ROOT / "Makefile").read_text(), words
    elif program == "python":
        check_python(rest)
    elif program == "pip":
        check_extras(rest)
    else:
        raise AssertionError(f"no test knows what to do with {shlex.join(words)!r}")


def check_ours(words: list[str], call: Call, done: set[tuple[str, ...]]) -> None:
    """A command of ours."""
    if not words or words[0].startswith("-"):
        assert call(*words)[0] == 0, words
        return
    name, *rest = words
    command = cli.get_command(click.Context(cli), name)
    assert command is not None, words
    values = command.make_context(name, list(rest)).params
    if name == "run":
        check_run(values, rest, call, done)
    elif name == "compare":
        check_compare(values)
    elif name in QUICK:
        code, _, said = call(*words)
        assert code == 0, (words, said)
    else:
        assert name in PARSED, words


def check_run(
    values: dict[str, Any], rest: list[str], call: Call, done: set[tuple[str, ...]]
) -> None:
    """Resolve every setting; where no files are needed, run it small."""
    options = {k: v for k, v in values.items() if k not in ("resumed", "as_json")}
    layers = option_layers(**options)
    names = names_of([layer for _, layer in layers])
    config = resolve(layers).config
    data = f"{config.stream.name} {getattr(config.stream, 'images', '')}"
    if any(name in data for name in LARGE):
        return
    known = fields_of(**names)
    few = CONTEXTS.get(config.stream.name.partition("-")[0], "2")
    small = {"stream.contexts": few, **SMALL}
    more = [f"--set={key}={value}" for key, value in small.items() if key in known]
    if ("run", *rest) in done:
        return
    code, _, said = call("run", *rest, *more)
    assert code == 0, (rest, said)
    done.add(("run", *rest))


def check_compare(values: dict[str, Any]) -> None:
    """Resolve every setting of every run with the first seed."""
    keys = ("config", "assignments", "stream", "epochs", "data_dir", "tracking_uri", "experiment")
    layers = option_layers(**{key: values[key] for key in keys})
    stream = names_of([layer for _, layer in layers])["stream"]
    entries = parse_entries(values["strategies"] or usual_strategies(stream))
    for entry in crossed(entries, parse_grid(values["grid"]), layers):
        resolve_entry(entry, values["seeds"][0], layers)


def check_python(words: list[str]) -> None:
    """The file or module is there."""
    if words[0] == "-m":
        assert find_spec(words[1]) is not None, words
    for word in words:
        assert not word.endswith(".py") or (ROOT / word).is_file(), words


def check_extras(words: list[str]) -> None:
    """The extras of the package are there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for word in words:
        if "[" in word:
            extras = word.partition("[")[2].rstrip("]").split(",")
            assert set(extras) <= set(project["optional-dependencies"]), words
