"""Published rows: complete, in range, and never more than what their sources say."""

import tomllib
from importlib.resources import files

import pytest

from cl_manifold.comparison.published import Published, published_for

STREAMS = {
    "gpm-permuted-mnist",
    "mammoth-rotated-mnist",
    "split-mnist-task",
    "split-mnist-class",
}


def test_streams_with_published_rows() -> None:
    text = (files("cl_manifold.comparison") / "published.toml").read_text("utf-8")
    assert set(tomllib.loads(text)) == STREAMS


@pytest.mark.parametrize("stream", sorted(STREAMS))
def test_rows_are_complete_and_sorted(stream: str) -> None:
    rows = published_for(stream)
    assert rows
    assert [row.acc for row in rows] == sorted((row.acc for row in rows), reverse=True)
    for row in rows:
        assert 0.1 < row.acc < 1
        assert row.bwt is None or -0.2 < row.bwt < 0.05
        assert row.context in ("given", "inferred", "not used", "not stated")
        assert row.method
        assert row.setting
        assert row.source
    keys = [(row.method, row.source) for row in rows]
    assert len(set(keys)) == len(keys)


def test_one_row_in_full() -> None:
    [cuber] = [row for row in published_for("gpm-permuted-mnist") if row.method == "CUBER"]
    assert (cuber.acc, cuber.bwt, cuber.context, cuber.differs) == (0.9725, -0.0002, "not used", "")
    assert "MLP 100-100, 5 epochs, batch 10, SGD 0.01" in cuber.setting


def test_a_row_may_replace_what_its_group_says() -> None:
    rows = {(row.method, row.source): row for row in published_for("gpm-permuted-mnist")}
    ours = rows["SI", "Avalanche, continual-learning-baselines"]
    assert isinstance(ours, Published)
    assert (ours.acc, ours.context) == (0.83, "not stated")
    assert "2000-2000" in ours.differs


@pytest.mark.parametrize("stream", ["rotated-digits", "mammoth-permuted-mnist", "no such stream"])
def test_other_streams_have_none(stream: str) -> None:
    assert published_for(stream) == []
