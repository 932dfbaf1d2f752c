"""The report: complete, self-contained, and safe with any text."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure

from cl_manifold.contexts.evidence import Evidence
from cl_manifold.contexts.record import TaskRecord
from cl_manifold.geometry.fourier import Fourier
from cl_manifold.geometry.topology import Circle, Simplex, Topology
from cl_manifold.tracking.figures import (
    learning_figure,
    score_by_context_figure,
    score_matrix_figure,
)
from cl_manifold.tracking.manifold_figure import manifold_figure
from cl_manifold.tracking.projection import WeightProjection
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
        metric="accuracy",
        title="weight-manifold · seed 0",
        sentence="0.905 at the end, little forgotten.",
        metrics={"score": 0.905, "bwt": -0.03, "fwt": None, "stored_floats": 745234, "own key": 2},
        records=RECORDS,
        matrix=MATRIX,
        names=["0°", "90°"],
        final_score=np.array([0.88, 0.925]),
        unseen_names=["45°"],
        unseen_score=np.array([0.875]),
        config=[("topology.harmonics", "3", "--set"), ("stream.name", "digits", "default")],
        environment={"python": "3.11.7"},
        figures={"score_matrix": score_matrix_figure(MATRIX, ["0°", "90°"])},
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
    assert image["alt"] == data.figures["score_matrix"].get_suptitle()
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
    bare = replace(
        data, matrix=np.zeros((0, 0)), names=[], records=[], final_score=none, metrics={}
    )
    bare = replace(bare, unseen_names=[], unseen_score=none, figures={}, config=[], environment={})
    html = render_report(bare)
    assert not re.search("<(h2|img|table|dl)", html)


def test_other_figures_follow_under_their_own_names(data: ReportData) -> None:
    html = render_report(replace(data, figures={"manifold": Figure(), "plasticity": Figure()}))
    headings = re.findall(r"<h2>(.*?)</h2>", html)
    assert headings[0] == "The manifold"
    assert headings.index("plasticity") < headings.index("Configuration")
    assert html.count("<img") == 2


def long_stream(topology: Topology, contexts: np.ndarray) -> ReportData:
    """A made-up run with evidence for every context and all figures."""
    count = len(contexts)
    matrix = np.random.default_rng(count).random((count, count))
    names = [f"context {i}" for i in range(count)]
    evidence = Evidence(64, (0.5,), False, 1.5, 0.3, 0.1, 0.01, 0.5, 1.0, 0.2, 0.1, 0.9, 0.4, 0.1)
    records = [
        replace(RECORDS[i % 2], experience=i, name=name, context=tuple(place), evidence=evidence)
        for i, (name, place) in enumerate(zip(names, contexts.tolist(), strict=True))
    ]
    grid = topology.grid(361).numpy()
    angle = np.arange(len(grid))
    curve = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    projection = WeightProjection(curve, curve[:count], (0.8, 0.1))
    nowhere = np.zeros((0, topology.dim))
    return ReportData(
        metric="accuracy", title="", sentence="", metrics={}, records=records, matrix=matrix,
        names=names, final_score=matrix[-1], unseen_names=names, unseen_score=matrix[0], config=[],
        environment={},
        figures={
            "manifold": manifold_figure(topology, Fourier(2), records, projection),
            "score_by_context": score_by_context_figure(
                contexts, names, (matrix[-1], matrix.diagonal()), nowhere, np.zeros(0), topology
            ),
            "learning": learning_figure(matrix),
            "score_matrix": score_matrix_figure(matrix, names),
        },
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["circle", pytest.param("simplex", marks=pytest.mark.slow)])
def test_pages_grow_no_faster_than_streams(kind: str) -> None:
    sizes: dict[int, int] = {}
    for count in (100, 200, 300):
        circle = kind == "circle"
        contexts = np.arange(count)[:, None] / count if circle else np.eye(count)
        data = long_stream(Circle() if circle else Simplex(count), contexts)
        sizes[count] = len(render_report(data).encode())
    assert sizes[300] <= 3_000_000
    assert sizes[300] / sizes[100] <= 3.3
    assert sizes[300] / sizes[200] <= 1.65


@pytest.mark.parametrize("count", [85, 84])
def test_of_a_large_matrix_a_part_is_shown_that_says_where_the_rest_is(
    data: ReportData, count: int
) -> None:
    matrix = np.arange(count * count).reshape(count, count) / count**2
    names, ends = [f"c{i}" for i in range(count)], np.ones(count)
    records = RECORDS[:1] * count
    large = replace(data, matrix=matrix, names=names, records=records, final_score=ends, figures={})
    html = render_report(large)
    [said] = re.findall(r"<summary>(The matrix.*?)</summary>", html)
    assert said.endswith(f": one context in 3, and the last; all {count} are in result.json")
    rows = re.findall(r"<tr><th>([^<]*)</th>(<td.*?)</tr>", html)
    assert len(rows) == 29
    places = sorted({*range(0, count, 3), count - 1})
    assert [name for name, _ in rows] == [f"c{i}" for i in places]
    shown = [float(value) for _, cells in rows for value in re.findall(r">([\d.]+)<", cells)]
    expected = matrix[np.ix_(places, places)].ravel()
    np.testing.assert_allclose(shown, expected, atol=5.1e-4)


def test_a_coordinate_of_many_numbers_is_its_largest(data: ReportData) -> None:
    long = replace(RECORDS[0], context=tuple(np.eye(20)[17].tolist()))
    words = Page(render_report(replace(data, records=[long, RECORDS[1]]))).words
    assert "1 at 17 of 0 to 19" in words
