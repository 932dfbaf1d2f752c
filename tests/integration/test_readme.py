"""README and docs/: their code and commands run, their links, numbers and sentences hold."""

import ast
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from matplotlib.figure import Figure

import cl_manifold
from cl_manifold import contexts, geometry
from cl_manifold.cli.main import cli
from tests.documents.commands import check, divided
from tests.documents.pages import DOCS, INCLUDED, LINK, ROOT, Page, page, pages
from tests.documents.samples import write_tables
from tests.documents.tables import PLACE, filled

Call = Callable[..., tuple[int, str, str]]
PAGES = {p.name: p for p in pages()}
OWN = DOCS / "own"
LANGUAGES = {"bash", "python", "text", "toml", "{.python}"}
"""The last includes a file."""
TAG = re.compile(r"\\tag\{(\d+)\}")


def blank(figure: Figure, file: Any, **options: Any) -> None:
    """An empty file in place of a figure."""
    if isinstance(file, str | Path):
        Path(file).touch()


def named(found: list[Page]) -> list[Any]:
    return [pytest.param(p, id=p.name) for p in found]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """One folder for all pages, with an empty store and the files of docs/own."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "mlruns").mkdir()
    shutil.copy(empty_store, folder / "mlruns" / "mlflow.db")
    for file in OWN.glob("*.py"):
        shutil.copy(file, folder)
    write_tables(folder)
    return folder


@pytest.fixture(scope="module")
def done() -> set[tuple[str, ...]]:
    """Runs that need not be run again."""
    return set()


@pytest.fixture
def folder(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder, as the one to work in."""
    monkeypatch.chdir(shared)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(shared))])
    before = mlflow.get_tracking_uri()
    yield shared
    mlflow.end_run()  # that a page's own logger began
    mlflow.set_tracking_uri(before)
    for file in OWN.glob("*.py"):
        sys.modules.pop(file.stem, None)


@pytest.mark.parametrize("document", named([p for p in PAGES.values() if p.of("python")]))
@pytest.mark.filterwarnings("ignore")
def test_code_runs(document: Page, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for code in document.of("python"):
        exec(compile(code, document.name, "exec"), names)
    if document.name == "docs/tutorial.md":
        said = capsys.readouterr().out
        assert said.count("at the end: ") == 3
        assert names["naive"] < 0.3 < 0.9 < names["inferred"] < names["told"]


@pytest.mark.parametrize("document", named([p for p in PAGES.values() if p.commands]))
@pytest.mark.filterwarnings("ignore")
def test_commands_run(
    document: Page,
    folder: Path,
    call: Call,
    done: set[tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if document.name != "README.md":  # figures, which others test, take most of a small run
        monkeypatch.setattr(Figure, "savefig", blank)
    for text in document.of("toml"):
        (folder / "settings.toml").write_text(text)
    for line in document.commands:
        variables, words = divided(line)
        with monkeypatch.context() as environment:
            for name, value in variables.items():
                environment.setenv(name, value)
            check(words, call, done)


@pytest.mark.parametrize("document", named(list(PAGES.values())))
def test_links_lead_somewhere(document: Page) -> None:
    for link in LINK.findall(document.prose):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = document.path.parent / file if file else document.path
        assert target.exists(), link
        if anchor and not anchor.startswith("cl_manifold."):  # of the API: `make docs` checks them
            assert anchor in page(target).anchors, link


@pytest.mark.parametrize("document", named(list(PAGES.values())))
def test_blocks_say_what_they_are(document: Page) -> None:
    assert {language for language, _ in document.blocks} <= LANGUAGES
    for _, text in document.blocks:
        for file in INCLUDED.findall(text):
            assert file.startswith(("examples/", "docs/own/"))
            assert (ROOT / file).is_file()


def test_readme_is_short() -> None:
    assert len(PAGES["README.md"].text.splitlines()) <= 150


def test_tables_are_those_of_the_code() -> None:
    written = [p for p in PAGES.values() if PLACE.search(p.text)]
    assert {p.name for p in written} == {"docs/strategies.md", "docs/streams.md"}
    for p in written:
        assert p.text == filled(p.text), "run python -m tests.documents"


def test_every_command_has_an_example() -> None:
    words = [divided(line)[1] for line in PAGES["docs/command-line.md"].commands]
    assert {w[1] for w in words if w[0] == "cl-manifold"} == set(cli.commands)


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    listed = set(re.findall(r"[\w/-]+\.md", text[text.index("\nnav:") :]))
    found = {p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md")}
    assert listed == {name for name in found if not name.startswith("decisions/0")}


def test_every_public_name_is_described() -> None:
    text = PAGES["docs/api/index.md"].text
    missing = [n for n in cl_manifold.__all__ if f"`{n}`" not in text and f"- {n}\n" not in text]
    assert missing == []
    elsewhere = set(re.findall(r"`(\w+)`", text))
    assert elsewhere <= {*geometry.__all__, *contexts.__all__}


def test_decisions_are_listed() -> None:
    listed = set(LINK.findall(PAGES["docs/decisions/index.md"].prose))
    assert listed == {p.name for p in (DOCS / "decisions").glob("0*.md")}


def test_equations_are_numbered_and_those_that_are_named_exist() -> None:
    text = PAGES["docs/mathematics.md"].text
    tags = [int(tag) for tag in TAG.findall(text)]
    assert tags == list(range(1, len(tags) + 1))
    sources = [*(ROOT / "cl_manifold").rglob("*.py"), *(ROOT / "strategies").rglob("*.py")]
    cited = "".join(file.read_text() for file in sources)
    numbers = {int(n) for n in re.findall(r"docs/mathematics\.md, eq\. \((\d+)\)", cited)}
    assert len(numbers) >= 8
    assert numbers <= set(tags)


def test_errors_on_the_page_are_those_of_the_code() -> None:
    said = [" ".join(s.split()) for file in sources_of_errors() for s in sentences(file)]
    errors = re.findall(r"^- \*\*(.+?)\*\*", PAGES["docs/troubleshooting.md"].text, re.MULTILINE)
    assert len(errors) >= 20
    patterns = {e: ".*".join(map(re.escape, re.split(r"\b[A-Z]+\b", e))) for e in errors}
    assert [e for e, p in patterns.items() if not any(re.search(p, s) for s in said)] == []


def sources_of_errors() -> list[Path]:
    return [*(ROOT / "cl_manifold").rglob("*.py"), *(ROOT / "strategies").rglob("*.py")]


def sentences(file: Path) -> Iterator[str]:
    """Every string of a file; what is filled in is left out."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = [v.value if isinstance(v, ast.Constant) else "…" for v in node.values]
            yield "".join(str(part) for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_citation_names_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == cl_manifold.__version__
    assert {"cff-version", "message", "title", "authors", "license"} <= set(cited)
