"""Figures draw the data they were given, say what it shows, and leave nothing open."""

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from math import pi
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from cl_manifold.contexts.record import TaskRecord
from cl_manifold.geometry.fourier import Fourier
from cl_manifold.geometry.topology import Circle, Interval, Product, Simplex, Topology, torus
from cl_manifold.tracking.figures import (
    learning_figure,
    score_by_context_figure,
    score_matrix_figure,
)
from cl_manifold.tracking.manifold_figure import manifold_figure
from cl_manifold.tracking.projection import WeightProjection
from cl_manifold.tracking.style import DECISIONS, hues, new_figure, score_floor, tidy

NAN = np.nan
MATRIX = np.array([[0.91, 0.31, NAN], [0.88, 0.93, 0.42], [0.86, 0.92, 0.97]])
NAMES = ["0°", "120°", "240°"]
NONE = np.zeros((0, 1))


@pytest.fixture(autouse=True)
def _no_global_figures() -> Iterator[None]:
    yield
    assert plt.get_fignums() == []


def record(experience: int, context: tuple[float, ...], decision: str = "place") -> TaskRecord:
    return TaskRecord(
        experience, f"c{experience}", context, "given", decision,
        1.0, 1.0, 0.0, 0.1, 0.9, 3, 10, 0.1,
    )  # fmt: skip


def texts(axes: Axes) -> dict[str, tuple[float, float]]:
    """Every text in the axes and the point it belongs to."""
    found: dict[str, tuple[float, float]] = {}
    for text in axes.texts:
        x, y = text.xy if isinstance(text, Annotation) else text.get_position()
        found[text.get_text()] = (float(x), float(y))
    return found


def points(axes: Axes, label: str) -> Any:
    [line] = [line for line in axes.lines if line.get_label() == label]
    return np.asarray(line.get_xydata())


def test_the_matrix_is_drawn_with_gaps_left_out() -> None:
    figure = score_matrix_figure(MATRIX, NAMES)
    axes = figure.axes[0]
    [mesh] = [item for item in axes.collections if isinstance(item, QuadMesh)]
    np.testing.assert_array_equal(
        np.ma.filled(np.ma.asarray(mesh.get_array()), NAN).reshape(3, 3), MATRIX
    )
    assert texts(axes)["0.42"] == (2, 1)
    assert len(axes.texts) == 8
    assert [label.get_text() for label in axes.get_xticklabels()] == NAMES
    assert axes.get_ylim() == (2.5, -0.5)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("evaluated on", "after training on")


def test_large_matrices_have_no_printed_values() -> None:
    figure = score_matrix_figure(np.full((16, 16), 0.5), [str(i) for i in range(16)])
    assert list(figure.axes[0].texts) == []
    huge = score_matrix_figure(np.full((100, 100), 0.5), [str(i) for i in range(100)])
    assert len(huge.axes[0].get_xticklabels()) == 34


@pytest.mark.parametrize(
    ("lost", "title"),
    [
        (0.004, "0.948 at the end, nothing forgotten (BWT −0.004)"),
        (0.03, "0.935 at the end, little forgotten (BWT −0.030)"),
        (0.4, "0.750 at the end, much forgotten (BWT −0.400)"),
    ],
)
def test_the_matrix_title_states_the_finding(lost: float, title: str) -> None:
    figure = score_matrix_figure(np.array([[0.95, 0.1], [0.95 - lost, 0.95]]), NAMES[:2])
    assert figure.get_suptitle() == f"Accuracy after each task: {title}"


def test_an_unfinished_or_single_matrix_claims_nothing_it_cannot() -> None:
    unfinished = np.array([[0.9, NAN], [NAN, NAN]])
    assert score_matrix_figure(unfinished, NAMES[:2]).get_suptitle() == "Accuracy after each task"
    single = score_matrix_figure(np.array([[0.9]]), NAMES[:1]).get_suptitle()
    assert single == "Accuracy after each task: 0.900 at the end"


def by_context(topology: Topology, contexts: Any, unseen: Any) -> Figure:
    count = len(contexts)
    return score_by_context_figure(
        np.asarray(contexts, dtype=float),
        [f"c{i}" for i in range(count)],
        (np.linspace(0.91, 0.95, count), np.linspace(0.92, 0.97, count)),
        np.asarray(unseen, dtype=float),
        np.linspace(0.81, 0.83, len(unseen)),
        topology,
    )


def test_accuracy_on_a_circle_is_drawn_over_the_wrapped_angle() -> None:
    figure = by_context(Circle(360.0), [[0.0], [120.0], [600.0]], [[60.0], [-30.0]])
    axes = figure.axes[0]
    final = points(axes, "seen, at the end")
    np.testing.assert_allclose(final, [[0, 0.91], [120, 0.93], [240, 0.95]])
    after = points(axes, "seen, right after training")
    np.testing.assert_allclose(after, [[0, 0.92], [120, 0.945], [240, 0.97]])
    np.testing.assert_allclose(points(axes, "unseen contexts"), [[60, 0.81], [330, 0.83]])
    figure.canvas.draw()
    assert [label.get_text() for label in axes.get_xticklabels()][:3] == ["0°", "45°", "90°"]
    assert figure.get_suptitle() == (
        "Accuracy by context at the end: 0.910 to 0.950; unseen contexts 0.820 on average"
    )


def test_accuracy_on_an_interval_shows_all_of_it() -> None:
    axes = by_context(Interval(2.0, 4.0), [[2.5], [3.0]], NONE).axes[0]
    low, high = axes.get_xlim()
    assert low < 2 < 4 < high
    np.testing.assert_allclose(points(axes, "seen, at the end")[:, 0], [2.5, 3.0])
    assert "unseen contexts" not in [line.get_label() for line in axes.lines]


def test_accuracy_elsewhere_is_bars_from_zero() -> None:
    axes = by_context(Simplex(3), np.eye(3), [[0.5, 0.5, 0.0]]).axes[0]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([0.91, 0.93, 0.95])  # pyright: ignore[reportAttributeAccessIssue]
    assert axes.get_ylim()[0] == 0
    assert [label.get_text() for label in axes.get_xticklabels()] == ["c0", "c1", "c2"]
    assert points(axes, "unseen contexts")[0, 0] > 2.5


def test_learning_averages_over_what_was_seen() -> None:
    figure = learning_figure(MATRIX)
    drawn = points(figure.axes[0], "average over all seen")
    np.testing.assert_allclose(drawn, [[1, 0.91], [2, (0.88 + 0.93) / 2], [3, 2.75 / 3]])
    diagonal = points(figure.axes[0], "this experience, right after it")
    np.testing.assert_allclose(diagonal[:, 1], [0.91, 0.93, 0.97])
    assert figure.get_suptitle().endswith("so far: 0.910 at first, 0.917 at the end")


def test_learning_of_an_unfinished_stream_ends_where_it_stopped() -> None:
    matrix = np.array([[0.9, 0.1], [NAN, NAN]])
    figure = learning_figure(matrix)
    assert figure.get_suptitle().endswith("0.900 at first, 0.900 at the end")
    assert np.isnan(points(figure.axes[0], "average over all seen")[1, 1])


def edges(axes: Axes) -> list[str]:
    """Edge colours of the dots, in the order drawn."""
    dots = [item for item in axes.collections if not isinstance(item, LineCollection)]
    colours = [colour for dot in dots for colour in np.asarray(dot.get_edgecolor())]
    return [to_hex(colour).upper() for colour in colours]


def test_a_circle_is_a_ring_with_numbered_dots_coloured_by_decision() -> None:
    records = [record(0, (0.0,)), record(1, (0.25,), "grow"), record(2, (0.5,), "reuse")]
    figure = manifold_figure(Circle(), Fourier(2), records)
    [axes] = figure.axes
    found = texts(axes)
    np.testing.assert_allclose(
        [found["0"], found["1"], found["2"]], [(1, 0), (0, 1), (-1, 0)], atol=1e-12
    )
    np.testing.assert_allclose(found["c1"], (0, 1), atol=1e-12)
    assert edges(axes) == [DECISIONS[word] for word in ("place", "grow", "reuse")]
    title = "3 contexts on the circle: 1 placed, 1 grown, 1 reused; K = 5"
    assert figure.get_suptitle() == title
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["place", "grow", "reuse"]


def test_a_second_visit_is_drawn_beside_the_first_and_named_once() -> None:
    records = [record(0, (0.0,)), record(1, (0.5,)), record(2, (0.0,), "reuse")]
    found = texts(manifold_figure(Circle(), Fourier(1), records).axes[0])
    assert found["0"] == (1, 0)
    assert 0.7 < found["2"][0] < 0.9
    assert "c2" not in found


def test_an_interval_is_a_line_from_end_to_end() -> None:
    records = [record(0, (4.0,)), record(1, (2.0,))]
    found = texts(manifold_figure(Interval(2.0, 4.0), Fourier(1), records).axes[0])
    assert found["0"][0] > found["1"][0] == 0
    assert found["0"][1] == found["1"][1] == 0


def test_a_simplex_is_a_polygon_of_vertices() -> None:
    records = [record(i, tuple(row)) for i, row in enumerate(np.eye(3).tolist())]
    records.append(record(3, (1 / 3, 1 / 3, 1 / 3)))
    found = texts(manifold_figure(Simplex(3), Fourier(1), records).axes[0])
    np.testing.assert_allclose(found["0"], (0, 1), atol=1e-12)
    np.testing.assert_allclose([np.hypot(*found[str(i)]) for i in range(3)], 1)
    np.testing.assert_allclose(found["3"], (0, 0), atol=1e-12)


@pytest.mark.parametrize(
    ("topology", "word"),
    [(torus(2), "torus"), (Product(Circle(), Interval(0.0, 2.0)), "product")],
    ids=["torus", "cylinder"],
)
def test_a_product_of_two_is_a_square_chart(topology: Topology, word: str) -> None:
    figure = manifold_figure(topology, Fourier(1), [record(0, (0.25, 0.75))])
    [axes] = figure.axes
    assert texts(axes)["0"] == (0.25, 0.75)
    assert axes.get_box_aspect() == 1
    assert axes.get_xlim()[0] < 0 < 1 < axes.get_xlim()[1]
    assert word in figure.get_suptitle()


def test_many_contexts_are_dots_without_text() -> None:
    records = [record(i, (i / 60,)) for i in range(60)]
    [axes] = manifold_figure(Circle(), Fourier(1), records).axes
    assert list(axes.texts) == []
    assert len(edges(axes)) == 60


def test_the_projected_weights_close_on_a_circle_and_carry_the_dots() -> None:
    angle = 2 * pi * np.arange(8) / 8
    curve = np.stack([2 * np.cos(angle), np.sin(angle)], axis=-1)
    projection = WeightProjection(curve, curve[[0, 2]], (0.8, 0.15))
    records = [record(0, (0.0,)), record(1, (0.25,))]
    axes = manifold_figure(Circle(), Fourier(1), records, projection).axes[1]
    [line] = [item for item in axes.collections if isinstance(item, LineCollection)]
    np.testing.assert_allclose(line.get_segments()[-1], [curve[-1], curve[0]])
    np.testing.assert_allclose(texts(axes)["1"], curve[2])
    assert axes.get_title() == "their weights, two main directions (95%)"


def test_the_curve_of_an_interval_stays_open() -> None:
    curve = np.stack([np.arange(5.0), np.arange(5.0) ** 2], axis=-1)
    projection = WeightProjection(curve, curve[:1], (0.9, 0.1))
    axes = manifold_figure(Interval(), Fourier(1), [record(0, (0.0,))], projection).axes[1]
    [line] = [item for item in axes.collections if isinstance(item, LineCollection)]
    assert len(line.get_segments()) == 4


def test_records_without_contexts_are_refused_with_a_remedy() -> None:
    with pytest.raises(ValueError, match=r"2 numbers to be drawn on product, got \[1\]; leave"):
        manifold_figure(torus(2), Fourier(1), [record(0, (0.5,))])


@pytest.mark.parametrize("curve", [np.zeros((5, 2)), np.outer(np.arange(5.0), [1.0, 0.0])])
def test_weights_on_a_line_or_in_a_point_can_be_drawn(curve: np.ndarray) -> None:
    projection = WeightProjection(curve, curve[:1], (1.0, 0.0))
    figure = manifold_figure(Circle(), Fourier(1), [record(0, (0.0,))], projection)
    figure.savefig(io.BytesIO())


EVIL = ["a$b$", "<script>alert(1)</script>", "x|y", "_z_", "$\\frac{", "\\$", "$$"]


def test_names_are_drawn_letter_by_letter_and_begin_no_formula() -> None:
    count = len(EVIL)
    matrix, contexts = np.full((count, count), 0.5), np.arange(count)[:, None] / count
    records = [replace(record(i, (i / count,), name), name=name) for i, name in enumerate(EVIL)]
    figure = new_figure("".join(EVIL), 3.0)
    tidy(figure.add_subplot(), *EVIL[:2])
    figures = [
        figure,
        score_matrix_figure(matrix, EVIL),
        manifold_figure(Circle(), Fourier(2), records),
        score_by_context_figure(
            contexts, EVIL, (matrix[0], matrix[0]), NONE, np.zeros(0), Simplex(count)
        ),
    ]
    drawn = [
        text._preprocess_math(text.get_text())  # type: ignore[attr-defined]
        for figure in figures
        for text in figure.findobj(Text)
        if isinstance(text, Text) and text.get_text()
    ]
    assert {kind for _, kind in drawn} == {False}
    counts = Counter(words for words, _ in drawn)
    assert all(counts[name] >= 5 for name in EVIL)
    assert figure.get_suptitle() == "".join(EVIL)
    for figure in figures:
        figure.savefig(io.BytesIO(), format="svg")


def test_hues_are_equally_light_and_meet_on_a_circle() -> None:
    colors = hues(np.linspace(0, 1, 25), cyclic=True)
    np.testing.assert_allclose(colors[0], colors[-1], atol=1e-12)
    assert colors.min() >= 0
    assert colors.max() <= 1
    linear = np.where(colors > 0.04045, ((colors + 0.055) / 1.055) ** 2.4, colors / 12.92)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert np.ptp(luminance) < 0.12
    ends = hues(np.array([0.0, 1.0]), cyclic=False)
    assert np.linalg.norm(ends[0] - ends[1]) > 0.5


def test_decision_colours_are_legible_on_white() -> None:
    for color in DECISIONS.values():
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)
        ]
        assert 1.05 / (np.dot(linear, [0.2126, 0.7152, 0.0722]) + 0.05) > 3.5


def test_accuracy_axes_start_at_a_round_value_below_the_data() -> None:
    assert score_floor([0.953, 0.97, NAN]) == pytest.approx(0.9)
    assert score_floor([0.3, 0.9]) == 0
    assert score_floor([]) == 0


def test_what_was_never_measured_right_after_training_is_not_drawn() -> None:
    contexts, nothing = np.arange(3)[:, None] / 3, np.full(3, np.nan)
    figure = score_by_context_figure(
        contexts, ["a", "b", "c"], (np.ones(3), nothing), np.zeros((0, 1)), np.zeros(0), Circle()
    )
    assert [line.get_label() for line in figure.axes[0].lines] == ["seen, at the end"]
