"""The report: complete, self-contained, and safe with any text."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure

from cl_manifold.contexts.record import TaskRecord
from cl_manifold.tracking.figures import accuracy_matrix_figure
from cl_manifold.tracking.report import ReportData, render_report

MATRIX = np.array([[0.91, 0.31], [0.88, np.nan]])
EVIL = '<script>alert("1&2")</script>'
RECORDS = [
    TaskRecord(0, "0°", (0.0,), "given", "place", 1.0, 1.25, None, 0.105, 0.91, 1, 10, 0.5),
    TaskRecord(1, "90°", (90.0,), "inferred", "grow", 0.75, 2.5, 0.01, 0.31, 0.93, 3, 30, 0.5),
]


class Page(HTMLParser):
    """Tags, attributes and visible words of a page; refuses tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and "style" not in self.open:
            self.words.append(data.strip())


@pytest.fixture(scope="module")
def data() -> ReportData:
    return ReportData(
        title="weight-manifold · seed 0",
        sentence="0.905 at the end, little forgotten.",
        metrics={"acc": 0.905, "bwt": -0.03, "fwt": None, "stored_floats": 745234, "own key": 2},
        records=RECORDS,
        matrix=MATRIX,
        names=["0°", "90°"],
        final_acc=np.array([0.88, 0.925]),
        unseen_names=["45°"],
        unseen_acc=np.array([0.875]),
        config=[("topology.harmonics", "3", "--set"), ("stream.name", "digits", "default")],
        environment={"python": "3.11.7"},
        figures={"accuracy_matrix": accuracy_matrix_figure(MATRIX, ["0°", "90°"])},
    )


def test_everything_given_is_on_the_page(data: ReportData) -> None:
    page = Page(render_report(data))
    assert page.open == []
    expected = [
        data.title, data.sentence, "0.905", "−0.030", "745\u202f234", "own key", "90°", "90",
        "inferred", "grow", "0.750", "2.500", "0.010", "0.310", "0.930", "0.925", "45°", "0.875",
        "topology.harmonics", "--set", "digits", "3.11.7",
    ]  # fmt: skip
    assert [word for word in expected if word not in page.words] == []


def test_missing_numbers_are_dashes(data: ReportData) -> None:
    rows = re.findall(r"<tr>.*?</tr>", render_report(data))
    [first] = [row for row in rows if "place" in row]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", first)
    assert cells[5:] == ["1.000", "1.250", "–", "0.105", "0.910", "0.880"]
    assert "nan" not in render_report(data).lower().replace("nanm", "")


def test_the_page_asks_for_nothing_outside_itself(data: ReportData) -> None:
    html = render_report(data)
    assert re.findall(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[^\"]*", "", html)) == []
    page = Page(html)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "a"})
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert [source[:26] for source in sources if source] == ["data:image/svg+xml;base64,"]


def test_images_are_the_figures_with_their_titles(data: ReportData) -> None:
    [(_, image)] = [entry for entry in Page(render_report(data)).tags if entry[0] == "img"]
    assert image["alt"] == data.figures["accuracy_matrix"].get_suptitle()
    svg = base64.b64decode(str(image["src"]).partition(",")[2]).decode()
    assert "<svg" in svg
    assert not re.findall(r"(?:href|src)=\"(?!#|data:)", svg)


def test_the_same_data_gives_the_same_bytes(data: ReportData) -> None:
    assert render_report(data) == render_report(data)


def test_text_from_users_is_escaped_everywhere(data: ReportData) -> None:
    figure = Figure()
    figure.suptitle(EVIL)
    html = render_report(
        replace(
            data,
            title=EVIL,
            sentence=EVIL,
            metrics={EVIL: 1.0},
            records=[replace(r, name=EVIL, context_source=EVIL, decision=EVIL) for r in RECORDS],
            names=[EVIL, EVIL],
            unseen_names=[EVIL],
            config=[(EVIL, EVIL, EVIL)],
            environment={EVIL: EVIL},
            figures={EVIL: figure},
        )
    )
    page = Page(html)
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.open == []
    assert html.count("&lt;script&gt;") >= 15


def test_sections_without_content_are_left_out(data: ReportData) -> None:
    none = np.zeros(0)
    bare = replace(data, matrix=np.zeros((0, 0)), names=[], records=[], final_acc=none, metrics={})
    bare = replace(bare, unseen_names=[], unseen_acc=none, figures={}, config=[], environment={})
    html = render_report(bare)
    assert not re.search("<(h2|img|table|dl)", html)


def test_other_figures_follow_under_their_own_names(data: ReportData) -> None:
    html = render_report(replace(data, figures={"manifold": Figure(), "plasticity": Figure()}))
    headings = re.findall(r"<h2>(.*?)</h2>", html)
    assert headings[0] == "The manifold"
    assert headings.index("plasticity") < headings.index("Configuration")
    assert html.count("<img") == 2
