"""Figures and reports of a comparison: what is in them, what is safe, what is left out."""

import base64
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from typing import Any, ClassVar

import matplotlib.pyplot as plt
import numpy as np
import pytest
from markdown_it import MarkdownIt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.text import Annotation, Text

from cl_manifold.comparison.figures import CONTEXTS, comparison_figures
from cl_manifold.comparison.findings import findings
from cl_manifold.comparison.outcome import Outcome
from cl_manifold.comparison.report import About, html_report, markdown_report, markdown_table
from cl_manifold.comparison.rows import Row, rows_of
from cl_manifold.strategies import Method, Setting
from cl_manifold.strategies.methods.plain import Naive

EVIL = '<script>alert("1&2")</script> | `a` *b*'
ABOUT = About(
    stream="gpm-permuted-mnist",
    description="MNIST with 10 unrelated pixel orders.",
    command="cl-manifold compare gpm-permuted-mnist --strategies naive,joint --seeds 0,1,2",
    settings={"stream.samples": "1000"},
    versions={"torch": "2.11.0"},
    seeds=(0, 1, 2),
    date="2026-01-31",
    tuned={},
    problems={"packnet": "packnet needs a task per head; leave it out"},
    methods={"naive": Naive()},
)
LABELS = ("weight-manifold", "weight-manifold:inferred", "replay", "naive", "joint")


def outcome(label: str, seed: int, final: float, context: str, memory: float = 1.0) -> Outcome:
    """A made-up result on three experiences that forgets down to `final`."""
    noise = np.random.default_rng([seed, *label.encode()]).normal(0, 0.002)
    matrix: list[list[float | None]] = [
        [0.9, 0.1, 0.1],
        [(0.9 + final) / 2, (0.9 + final) / 2, 0.1],
        [final + noise, final, final - noise],
    ]
    if label.startswith("joint"):
        matrix = [[None] * 3, [None] * 3, matrix[2]]
    result: dict[str, Any] = {
        "strategy": label.partition(":")[0],
        "score": final + noise,
        "bwt": -0.1,
        "forgetting": 0.1,
        "fwt": 0.05,
        "unseen_score": 0.8 if label == "weight-manifold" else None,
        "learning_score": 0.875,
        "score_matrix": matrix,
        "stored_floats": int(1000 * memory),
        "model_floats": 1000,
        "replay_samples": 500 if label == "replay" else 0,
        "train_seconds": 2.0 + seed,
        "metric": "accuracy",
        "context_at_test": context,
    }
    return Outcome(label, seed, result)


def outcomes() -> list[Outcome]:
    table = (
        ("weight-manifold", 0.95, "given", 7.0),
        ("weight-manifold:inferred", 0.94, "inferred", 7.0),
        ("replay", 0.85, "not used", 1.4),
        ("naive", 0.5, "not used", 1.0),
        ("joint", 0.92, "not used", 1.0),
    )
    return [outcome(label, s, acc, c, m) for label, acc, c, m in table for s in (0, 1, 2)]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return rows_of(outcomes())


@pytest.fixture(autouse=True)
def _no_global_figures() -> Iterator[None]:
    yield
    assert plt.get_fignums() == []


# -- figures -------------------------------------------------------------------------------------


def dots(axes: Axes) -> list[tuple[list[float], list[float], str]]:
    return [
        (*np.transpose(line.get_xydata()).tolist(), to_hex(line.get_color()))
        for line in axes.lines
        if line.get_marker() == "o"
    ]


def test_acc_shows_every_seed_in_the_colour_of_its_context(rows: list[Row]) -> None:
    figure = comparison_figures(outcomes(), rows)["score"]
    [axes] = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == [row.label for row in rows]
    found = dots(axes)
    assert len(found) == 5
    for place, (row, (accs, places, colour)) in enumerate(zip(rows, found, strict=True)):
        expected = [o.result["score"] for o in outcomes() if o.label == row.label and o.result]
        assert accs == expected
        assert places == [place] * 3
        assert colour == CONTEXTS[row.context].lower()
    low, high = axes.get_xlim()
    assert all(low < acc < high for accs, _, _ in found for acc in accs)
    assert figure.get_suptitle() == f"ACC at the end: weight-manifold first with {texts(rows[0])}"


def texts(row: Row) -> str:
    return f"{row.score:.3f} ± {row.score_sd:.3f}"


def test_learning_is_the_mean_over_seeds_and_joint_a_level_line(rows: list[Row]) -> None:
    figure = comparison_figures(outcomes(), rows)["learning"]
    [axes] = figure.axes
    curves = {ys[-1]: (xs, ys) for xs, ys, _ in dots(axes)}
    assert len(curves) == 4
    xs, ys = curves[min(curves)]
    assert xs == [1, 2, 3]
    assert ys == pytest.approx([0.9, 0.7, 0.5])
    [level] = [
        line for line in axes.lines if line.get_marker() == "None" and line.get_linestyle() == "--"
    ]
    assert np.ravel(level.get_ydata()) == pytest.approx([0.92, 0.92], abs=0.003)
    names = [text.get_text().split("  ")[0] for text in axes.texts]
    assert sorted(names) == sorted(LABELS)


def test_rows_that_were_not_fully_measured_leave_gaps() -> None:
    single = outcome("naive", 0, 0.5, "not used")
    assert single.result is not None
    single.result["score_matrix"][1][0] = None
    figure = comparison_figures([single], rows_of([single]))["learning"]
    assert dots(figure.axes[0])[0][0] == [1, 3]


def boxes(figure: Any, found: Sequence[Text]) -> list[Any]:
    figure.draw_without_rendering()
    # Text's own box: an annotation's includes its line
    return [Text.get_window_extent(text) for text in found]


@pytest.mark.parametrize("count", [9, 23])
def test_labels_do_not_overlap_and_nothing_is_cut(count: int) -> None:
    generator = np.random.default_rng(count)
    accs = generator.beta(6, 1.5, count)
    memories = generator.choice([1.0, 1.4, 2.0, 7.0], count)
    made = [
        outcome(f"strategy-{i}", s, acc, "given", memory)
        for i, (acc, memory) in enumerate(zip(accs.tolist(), memories.tolist(), strict=True))
        for s in (0, 1)
    ]
    for figure in comparison_figures(made, rows_of(made)).values():
        [axes] = figure.axes
        low, high = sorted(axes.get_ylim())
        ticks = [t for t in axes.get_yticklabels() if low <= t.get_position()[1] <= high]
        labels = [*axes.texts, *ticks]
        found = boxes(figure, labels)
        assert not [1 for a, b in combinations(found, 2) if shrunk(a).overlaps(shrunk(b))]
        page = figure.bbox
        assert all(page.x0 <= b.x0 and b.x1 <= page.x1 for b in found)
        assert all(page.y0 <= b.y0 and b.y1 <= page.y1 for b in found)


def shrunk(box: Any) -> Any:
    """Text boxes hold space for descenders that most names do not need."""
    return box.expanded(1.0, 0.7)


def test_memory_is_on_a_logarithmic_axis_and_names_what_keeps_nothing() -> None:
    made = [*outcomes(), outcome("random", 0, 0.1, "not used", 0.0)]
    figure = comparison_figures(made, rows_of(made))["memory"]
    [axes] = figure.axes
    assert axes.get_xscale() == "log"
    assert "not shown: random" in axes.get_xlabel()
    points = {t.get_text(): t.xy for t in axes.texts if isinstance(t, Annotation)}
    assert points["replay"][0] == pytest.approx(1.4)
    assert set(points) == set(LABELS)


def test_perfect_accuracies_have_a_readable_axis() -> None:
    made = [outcome("joint", seed, 1.0, "not used") for seed in (0, 1)]
    for one in made:
        assert one.result is not None
        one.result["score"] = 1.0  # type: ignore[index]
    figures = comparison_figures(made, rows_of(made))
    for which, name in (("score", "x"), ("memory", "y")):
        axis = getattr(figures[which].axes[0], f"{name}axis")
        low, high = axis.get_view_interval()
        assert low < 0.99 < 1.0 < high
        assert 1.0 in axis.get_majorticklocs()


def test_labels_are_drawn_letter_by_letter_and_begin_no_formula() -> None:
    names = ["a$b$", "<script>alert(1)</script>", "x|y", "_z_", "$\\frac{"]
    made = [outcome(n, s, 0.9, "given", 1.0 + i) for i, n in enumerate(names) for s in (0, 1)]
    made += [outcome("$none$", 0, 0.8, "given", 0.0)]
    for figure in comparison_figures(made, rows_of(made)).values():
        drawn = [
            text._preprocess_math(text.get_text())  # type: ignore[attr-defined]
            for text in figure.findobj(Text)
            if isinstance(text, Text) and text.get_text()
        ]
        assert {kind for _, kind in drawn} == {False}
        said = " ".join(words for words, _ in drawn)
        assert [name for name in [*names, "$none$"] if name not in said] == []
        figure.savefig(io.BytesIO(), format="svg")


def test_nothing_measured_draws_nothing() -> None:
    assert comparison_figures([], []) == {}


# -- reports -------------------------------------------------------------------------------------


def table(markdown: str, heading: str) -> list[list[str]]:
    """Cells of the first table under a heading."""
    _, _, rest = markdown.partition(f"## {heading}\n")
    lines = rest.partition("\n## ")[0].splitlines()
    rows = [line for line in lines if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def test_markdown_has_the_table_and_what_is_needed_to_repeat_it(rows: list[Row]) -> None:
    text = markdown_report(ABOUT, rows, outcomes())
    head, rule, first, *others = table(text, "Result")
    assert head[:5] == ["strategy", "ACC", "BWT", "forgetting", "FWT"]
    assert head[5:] == [
        "unseen", "learning acc.", "context at test", "replay", "memory ×", "time ×", "p",
    ]  # fmt: skip
    assert len(rule) == len(head)
    assert first[0] == "**weight-manifold**"
    assert first[1] == f"**{texts(rows[0])}**"
    assert first[2:] == [
        "−0.100", "0.100", "+0.050", "0.800", "0.875", "given", "0", "7.00", "1.00", "–",
    ]  # fmt: skip
    cells = {row[0]: row for row in others}
    assert cells["joint"][2:5] == ["–", "–", "–"]
    assert cells["replay"][8] == "500"
    assert all(len(row) == len(head) for row in others)
    assert f"```\n{ABOUT.command}\n```" in text
    assert "2026-01-31" in text
    assert ["packnet", ABOUT.problems["packnet"]] in table(text, "Could not run")
    assert ["torch", "2.11.0"] in table(text, "Environment")
    assert ["stream.samples", "1000"] in table(text, "Settings")


def test_the_table_alone_is_the_one_in_the_report(rows: list[Row]) -> None:
    assert markdown_table(rows) in markdown_report(ABOUT, rows, outcomes())
    assert markdown_table([]) == ""


def test_published_rows_stand_apart_with_their_sources(rows: list[Row]) -> None:
    text = markdown_report(ABOUT, rows, outcomes())
    found = {row[0]: row for row in table(text, "Published, not measured here")}
    assert found["CUBER"][1:4] == ["0.9725", "−0.0002", "not used"]
    assert "CUBER" not in "".join(row[0] for row in table(text, "Result"))
    elsewhere = markdown_report(replace(ABOUT, stream="rotated-digits"), rows, outcomes())
    assert "Published" not in elsewhere


class Keeps(Method):
    """Keeps samples.

    More of it.
    """

    source = "Somebody 2019"
    tried: ClassVar[Mapping[str, Any]] = {"penalty": (5.0, 50.0)}
    penalty: float = 5.0
    other: int = 3

    def build(self, setting: Setting) -> None:
        """Nothing."""


def test_hyper_parameters_and_where_they_come_from(rows: list[Row]) -> None:
    about = replace(
        ABOUT,
        tuned={"replay": {"strategy.penalty": 50.0}},
        methods={"replay": Keeps(penalty=50.0), "naive": Keeps()},
    )
    found = {row[0]: row[1:] for row in table(markdown_report(about, rows, []), "Strategies")}
    values = "penalty = 50.0 (chosen from 5.0, 50.0); other = 3"
    assert found["replay"] == ["Keeps samples", "Somebody 2019", values]
    assert found["naive"][2] == "penalty = 5.0; other = 3"
    assert found["joint"] == ["–", "–", "–"]


def test_sentences_say_seeds_contexts_and_tuning(rows: list[Row]) -> None:
    first, *others = findings(ABOUT, rows)
    assert first == (
        f"weight-manifold has the highest ACC of 5 on gpm-permuted-mnist: {texts(rows[0])} over "
        "3 seeds, context at test given."
    )
    said = " ".join(others)
    assert "not given the context, weight-manifold:inferred has the highest" in said
    assert re.search(r"\d of 4 tested strategies .* over 3 seeds, corrected by Holm", said)
    assert "No hyper-parameter was tuned" in said
    tuned = replace(ABOUT, tuned={"ewc": {"strategy.penalty": 1.0}, "naive": {}})
    said = " ".join(findings(tuned, rows))
    assert "of ewc were chosen on a validation part of the training data" in said
    validated = replace(ABOUT, settings={"stream.holdout": "validation"})
    assert "not on test data" in findings(validated, rows)[-1]


def test_sentences_of_small_and_broken_comparisons() -> None:
    one = [outcome("naive", 0, 0.5, "not used")]
    first, fewer, _ = findings(ABOUT, rows_of(one))
    assert "naive has an ACC on gpm-permuted-mnist" in first
    assert "over 1 seed," in first
    assert fewer == "Fewer seeds than planned: naive (1 of 3)."
    assert findings(ABOUT, []) == ["No strategy has a result on gpm-permuted-mnist."]
    broken = [Outcome("ewc", s, None, "the loss is not finite") for s in (0, 2)]
    text = markdown_report(ABOUT, [], broken)
    assert ["ewc", "seed 0, 2: the loss is not finite"] in table(text, "Could not run")
    assert "<img" not in html_report(ABOUT, [], broken, {})


def test_rows_of_different_data_have_sentences_of_their_own() -> None:
    made = [outcome(name, 0, acc, "not used") for name, acc in (("naive", 0.5), ("ewc", 0.6))]
    first, second, *_ = findings(ABOUT, rows_of(made, {"naive": "stream.samples = 100"}))
    assert "naive has an ACC on gpm-permuted-mnist with stream.samples = 100: " in first
    assert "ewc has an ACC on gpm-permuted-mnist: " in second


class Page(HTMLParser):
    """Tags of a page; refuses tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and "style" not in self.open:
            self.words.append(data.strip())


def test_html_says_what_markdown_says_and_carries_its_figures(rows: list[Row]) -> None:
    figures = comparison_figures(outcomes(), rows)
    html = html_report(ABOUT, rows, outcomes(), figures)
    page = Page(html)
    assert page.open == []
    expected = [*LABELS, texts(rows[0]), "CUBER", ABOUT.command, "2.11.0", "packnet", "500"]
    assert [word for word in expected if word not in page.words] == []
    assert page.tags.count("img") == 3
    images = re.findall(r'src="data:image/svg\+xml;base64,([^"]*)"', html)
    assert all("<svg" in base64.b64decode(image).decode() for image in images)
    rest = re.sub(r"base64,[^\"]*", "", html)
    assert re.findall(r"https?:|//[a-z]|@import|url\(", rest) == []
    assert html == html_report(ABOUT, rows, outcomes(), comparison_figures(outcomes(), rows))


def test_text_from_users_is_safe_in_both_forms(rows: list[Row]) -> None:
    about = About(EVIL, EVIL, EVIL, {EVIL: EVIL}, {EVIL: EVIL}, (0,), EVIL, {}, {EVIL: EVIL}, {})
    evil = [replace(rows[0], label=EVIL)]
    page = Page(html_report(about, evil, [Outcome(EVIL, 0, None, EVIL)], {}))
    assert page.open == []
    assert "script" not in page.tags
    text = markdown_report(about, evil, [])
    assert {len(row) for row in table(text, "Result")} == {12}
    assert {len(row) for row in table(text, "Settings")} == {2}
    shown = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    page = Page(shown.render(text))
    assert page.words.count(EVIL) == 10
    assert {"code", "em", "script"} & {*page.tags} == {"code"}


@pytest.mark.parametrize(
    "name",
    [
        EVIL, "a$b$", "x|y", "_z_", "__a__", "$\\frac{", "[a](b)", "![a][b]", "# a", "> a", "- a",
        "1. a", "2) a", "---", "+ a", "a\\", "\\|", "&lt;b&gt;", "~~a~~", "<b>", "*a* **b**",
        "`", "``",
    ],
)  # fmt: skip
def test_markdown_shows_foreign_text_letter_by_letter(name: str, rows: list[Row]) -> None:
    about = replace(ABOUT, description=name, settings={name: name}, command=f"a\n```{name}")
    text = markdown_report(about, [replace(rows[0], label=name)], [Outcome(name, 0, None, name)])
    shown = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    page = Page(shown.render(text))
    assert page.open == []
    # description, result, strategies, problems, settings twice
    assert page.words.count(name) == 6
    assert f"a\n```{name}" in page.words
    # the sentence, the label and its ACC
    assert page.tags.count("strong") == 3


def test_a_report_line_breaks_no_table(rows: list[Row]) -> None:
    text = markdown_report(replace(ABOUT, settings={"a\n\n# b": "c\r\n| d"}), rows, [])
    assert [r"a # b", r"c \| d"] in table(text, "Settings")
