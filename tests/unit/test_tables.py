"""A table as a stream: what is guessed, which rows test, where scales come from, refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from cl_manifold.data.options import DataOptions
from cl_manifold.data.preprocessing import Preprocessing, fitted, preprocessing_from, variances
from cl_manifold.data.reading import read_table
from cl_manifold.data.table import guess, table_stream
from cl_manifold.errors import ConfigError, DataError
from cl_manifold.geometry.topology import Circle, Interval, Product, Simplex
from cl_manifold.streams import StreamOptions, TaskStream

DAYS, HOURS = 40, 24


@pytest.fixture
def hours() -> Any:
    """Every hour of forty days, with a number, a class and columns that are no inputs."""
    rng = np.random.default_rng(0)
    day, hour = np.divmod(np.arange(DAYS * HOURS), HOURS)
    warm = rng.normal(size=len(day))
    return pd.DataFrame(
        {
            "id": np.arange(len(day)),
            "date": pd.Timestamp("2026-01-01") + pd.to_timedelta(day, "D"),
            "hour": hour,
            "warm": warm,
            "sky": np.array(["clear", "rain", "snow"])[rng.integers(0, 3, len(day))],
            "site": "here",
            "note": [f"row {i}" for i in range(len(day))],
            "count": np.round(np.exp(2 + np.sin(hour / 24 * 2 * np.pi) + warm / 4), 3),
        }
    )


def saved(frame: Any, folder: Path, name: str = "hours.csv") -> Path:
    path = folder / name
    frame.to_parquet(path) if name.endswith("parquet") else frame.to_csv(path, index=False)
    return path


def options(**changes: Any) -> DataOptions:
    return DataOptions(**{"context": ("hour",), "target": ("count",), **changes})


def stream_of(path: Path, seed: int = 0, part: Any = "test", **changes: Any) -> TaskStream:
    return table_stream(path, options(**changes), StreamOptions(seed=seed), part)


def targets(stream: Any) -> Tensor:
    return torch.cat([_targets(e) for e in stream])


def _targets(experience: Any) -> Tensor:
    return torch.stack([torch.as_tensor(item[1]) for item in experience.dataset])


@pytest.mark.parametrize("name", ["hours.csv", "hours.parquet"])
def test_what_is_left_out_is_guessed_and_said(hours: Any, tmp_path: Path, name: str) -> None:
    found = guess(saved(hours, tmp_path, name), DataOptions(context=("hour",)))
    assert found.options.target == ("count",)
    assert (found.options.kind, found.options.space) == ("regression", ("circle:24",))
    assert (found.options.bins, found.options.features) == (None, ("warm", "sky"))
    assert found.topology == "circle"
    assert found.notes == (
        "predicts count (data.target)",
        "predicts count as number (data.kind=regression)",
        "contexts are hour on circle:24 (data.space=circle:24)",
        "no inputs are id, note (key); date (date); site (constant)",
    )
    again = guess(saved(hours, tmp_path, name), found.options)
    assert (again.options, again.notes[:-1]) == (found.options, ())


@pytest.mark.parametrize(
    ("name", "values", "space"),
    [
        ("hour", range(24), "circle:24"),
        ("hour", [h + 0.5 for h in range(24)], "interval:0.5:23.5"),
        ("month", range(1, 13), "circle:12"),
        ("weekday", range(7), "circle:7"),
        ("angle", range(0, 360, 10), "circle:360"),
        ("season", np.linspace(0, 1, 50), "circle:1"),
        ("season", range(1, 5), "interval:1:4"),
        ("month", [1.5, 7, 12, 14.5, 27], "interval:1.5:27"),
        ("wear", [0, 3, 8], "interval:0:8"),
        ("room", ["a", "b", "c"], "codes"),
    ],
)
def test_the_space_of_a_context_is_guessed_from_name_and_values(
    tmp_path: Path, name: str, values: Any, space: str
) -> None:
    values = list(values)
    frame = pd.DataFrame({name: values * 5, "x": np.arange(5 * len(values)) % 7 + 0.5})
    frame["y"] = frame["x"] * 2.0 + np.linspace(0, 1, len(frame))
    found = guess(saved(frame, tmp_path), DataOptions(context=(name,)))
    assert found.options.space == (space,)


def test_rows_test_in_whole_blocks_and_never_train(hours: Any, tmp_path: Path) -> None:
    path = saved(hours.assign(count=np.arange(len(hours)) + 0.5), tmp_path)
    changes: dict[str, Any] = {"holdout": "blocks:date:4", "transform": "none"}
    stream = stream_of(path, **changes)
    train, test = ({round(v - 0.5) for v in targets(s).flatten().tolist()} for s in _both(stream))
    assert train | test == set(range(len(hours)))
    assert not train & test
    blocks = {row // HOURS // 4 for row in test}
    assert len(blocks) == 3  # 30 % of ten
    assert {row // HOURS // 4 for row in train} == set(range(10)) - blocks
    inner = stream_of(path, part="validation", **changes)
    fitting, validation = (
        {round(v - 0.5) for v in targets(s).flatten().tolist()} for s in _both(inner)
    )
    assert fitting | validation == train
    assert not fitting & validation
    other = stream_of(path, seed=1, **changes)
    assert {round(v - 0.5) for v in targets(other.test_stream).flatten().tolist()} != test


def _both(stream: TaskStream) -> tuple[Any, Any]:
    return stream.train_stream, stream.test_stream


def test_scales_come_from_training_rows_alone(hours: Any, tmp_path: Path) -> None:
    path = saved(hours, tmp_path)
    stream = stream_of(path, holdout="blocks:date:4", transform="log1p")
    inputs = torch.cat([torch.stack([i[0] for i in e.dataset]) for e in stream.train_stream])
    assert inputs.shape[1] == 4  # warm, and three kinds of sky
    assert inputs[:, 0].mean().abs() < 1e-5
    assert (inputs[:, 0].std(correction=0) - 1).abs() < 1e-5
    assert set(inputs[:, 1:].unique().tolist()) == {0.0, 1.0}
    assert (inputs[:, 1:].sum(1) == 1).all()
    y = targets(stream.train_stream)
    assert y.mean().abs() < 1e-5
    assert (y.std(correction=0) - 1).abs() < 1e-5
    assert stream.regression is not None
    assert stream.regression.targets == ("log(1 + count)",)


def test_r_squared_is_0_for_the_mean_of_training_and_1_for_the_truth(
    hours: Any, tmp_path: Path
) -> None:
    stream = stream_of(saved(hours, tmp_path))
    assert stream.metric == "R²"
    each = [_targets(e) for e in stream.test_stream]
    nothing = [float(stream.score(torch.zeros_like(y), y).mean()) for y in each]
    assert np.mean(nothing) == pytest.approx(0, abs=1e-6)
    assert all(float(stream.score(y, y).mean()) == 1 for y in each)
    truth = np.concatenate([y.numpy() for y in each])
    guessed = truth + 0.5
    assert stream.regression is not None
    score = 1 - 0.25 / stream.regression.variance[0]
    assert float(stream.score(torch.tensor(guessed), torch.tensor(truth)).mean()) == pytest.approx(
        score, abs=1e-6
    )
    spread = hours["count"].std(ddof=0)  # of all rows, near that of training rows
    assert stream.regression.rmse(score) == pytest.approx(0.5 * spread, rel=0.05)


def test_contexts_lie_on_their_space_in_order(hours: Any, tmp_path: Path) -> None:
    stream = table_stream(saved(hours, tmp_path), options(), StreamOptions(order="sorted"))
    assert isinstance(stream.topology, Circle)
    assert stream.topology.period == 24
    assert stream.contexts().flatten().tolist() == list(range(24))
    assert [e.context_name for e in stream.train_stream][:2] == ["hour 0", "hour 1"]
    parts = stream_of(saved(hours, tmp_path), bins=6)
    assert sorted(parts.contexts().flatten().tolist()) == [2, 6, 10, 14, 18, 22]
    more = hours.assign(damp=hours["warm"] ** 2)
    two = stream_of(saved(more, tmp_path), context=("hour", "warm"), tasks="sky")
    assert isinstance(two.topology, Product)
    assert len(two.train_stream) == 3
    coded = stream_of(saved(hours, tmp_path), context=("sky",))
    assert isinstance(coded.topology, Simplex)
    assert {e.context_name for e in coded.train_stream} == {"sky clear", "sky rain", "sky snow"}


def test_experiences_of_another_column_lie_at_the_mean_of_their_contexts(
    hours: Any, tmp_path: Path
) -> None:
    """On a circle the mean of directions: hours 23 and 1 meet at 0, not at 12."""
    late = hours[hours["hour"].isin([23, 1, 11, 13])]
    frame = late.assign(half=np.where(late["hour"].isin([23, 1]), "night", "noon"))
    stream = stream_of(saved(frame, tmp_path), tasks="half")
    found = {e.context_name: float(e.context) for e in stream.train_stream}
    assert min(found["half night"], 24 - found["half night"]) == pytest.approx(0, abs=1e-9)
    assert found["half noon"] == pytest.approx(12)


def test_dates_are_contexts_in_days(hours: Any, tmp_path: Path) -> None:
    stream = stream_of(saved(hours, tmp_path), context=("date",), bins=4)
    assert isinstance(stream.topology, Interval)
    assert stream.topology.high == DAYS - 1
    assert sorted(stream.contexts().flatten().tolist()) == pytest.approx(
        [39 / 8, 39 * 3 / 8, 39 * 5 / 8, 39 * 7 / 8]
    )


@pytest.mark.parametrize(
    ("unseen", "hidden"), [("every:2", list(range(1, 24, 2))), ("last:3", [21, 22, 23])]
)
def test_unseen_contexts_are_only_tested(
    hours: Any, tmp_path: Path, unseen: str, hidden: list[int]
) -> None:
    path = saved(hours, tmp_path)
    stream = stream_of(path, unseen=unseen)
    assert [float(e.context) for e in stream.unseen_stream] == hidden
    assert not {float(c) for c in stream.contexts()} & {*map(float, hidden)}
    inner = stream_of(path, part="validation", unseen=unseen)
    seen = {float(c) for c in inner.contexts()} | {float(e.context) for e in inner.unseen_stream}
    assert not seen & {*map(float, hidden)}
    assert len(inner.unseen_stream) > 0


def test_classes_are_kept_in_order_and_answers_are_told_back(hours: Any, tmp_path: Path) -> None:
    stream = stream_of(saved(hours, tmp_path), target=("sky",))
    assert (stream.metric, stream.outputs) == ("accuracy", 3)
    found, said = fitted(hours, _filled(hours, tmp_path, target=("sky",)))
    assert found.classes == ("clear", "rain", "snow")
    assert said == []
    logits = torch.eye(3)[[2, 0]]
    assert found.predicted(logits) == {"sky": ["snow", "clear"]}
    numbers, _ = fitted(hours, _filled(hours, tmp_path, transform="log1p"))
    told = numbers.predicted(numbers.answers(hours))["count"]
    assert told == pytest.approx(hours["count"].tolist(), rel=1e-5)
    assert preprocessing_from(found.as_dict()) == found
    assert isinstance(preprocessing_from(numbers.as_dict()), Preprocessing)


def _filled(frame: Any, folder: Path, **changes: Any) -> DataOptions:
    return guess(saved(frame, folder), options(**changes)).options


@pytest.mark.parametrize(
    ("change", "changes", "error", "sentence"),
    [
        ({}, {"context": None}, ConfigError, "data.context is not set; name the column"),
        ({}, {"context": ("huor",)}, ConfigError, "names no column 'huor'; there is hour"),
        ({}, {"target": ("hour",)}, ConfigError, "column hour is data.context"),
        ({}, {"space": ("circle:12",)}, ConfigError, "contexts lie between 0 and 23"),
        ({}, {"space": ("ring",)}, ConfigError, "data.space is 'ring', but needs circle:PERIOD"),
        ({}, {"space": ("codes", "codes")}, ConfigError, "data.space has 2 parts"),
        ({}, {"holdout": "weeks"}, ConfigError, "data.holdout is 'weeks', but needs random"),
        ({}, {"holdout": "blocks:day:7"}, ConfigError, "names no column 'day'; there is"),
        ({}, {"holdout": "blocks:date:900"}, ConfigError, "makes 1 block; give smaller ones"),
        ({}, {"unseen": "every:1"}, ConfigError, "data.unseen is 'every:1', but needs every:N"),
        ({}, {"unseen": "last:23"}, ConfigError, "leaves fewer than two of 24 contexts"),
        ({}, {"bins": 3, "tasks": "sky"}, ConfigError, "data.bins is set, but tasks is set, too"),
        ({}, {"target": ("site",)}, DataError, "column site has one value throughout"),
        ({}, {"target": ("date",)}, DataError, "column date holds dates"),
        ({}, {"target": ("sky",), "kind": "regression"}, ConfigError, "column sky holds texts"),
        ({}, {"target": ("sky",), "transform": "log1p"}, ConfigError, "sky holds classes; leave"),
        ({}, {"drop": ("warm", "sky")}, DataError, "no column is left as an input"),
        ({"warm": np.nan}, {}, DataError, "column warm is empty"),
        ({"count": -2.0}, {"transform": "log1p"}, DataError, "column count has one value"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_sentence(
    hours: Any,
    tmp_path: Path,
    change: dict[str, Any],
    changes: dict[str, Any],
    error: type[Exception],
    sentence: str,
) -> None:
    path = saved(hours.assign(**change), tmp_path)
    with pytest.raises(error, match=sentence):
        stream_of(path, **changes)


def test_missing_values_are_refused_or_left_out(hours: Any, tmp_path: Path) -> None:
    hours.loc[3:7, "warm"] = np.nan
    path = saved(hours, tmp_path)
    with pytest.raises(DataError, match="5 of 960 rows have a missing value, the first in column"):
        stream_of(path)
    left = stream_of(path, missing="drop")
    assert sum(len(e.dataset) for s in _both(left) for e in s) == 955
    assert "5 rows with missing values left out" in guess(path, options(missing="drop")).notes
    hours["sky"] = np.where(hours.index % 2, hours["sky"], None)
    hours.loc[hours.index % 2 == 1, "warm"] = np.nan
    with pytest.raises(DataError, match="every row has a missing value"):
        stream_of(saved(hours, tmp_path), missing="drop")


def test_an_experience_without_rows_is_named(hours: Any, tmp_path: Path) -> None:
    few = hours.drop(hours.index[(hours["hour"] == 5) & (hours.index > 24)])
    with pytest.raises(DataError, match=r"hour 5 has no (training|test) row; give fewer"):
        stream_of(saved(few, tmp_path), holdout="blocks:date:4")


def test_a_class_without_training_rows_is_named(hours: Any, tmp_path: Path) -> None:
    last = hours.assign(sky=np.where(hours["date"].dt.day_of_year < 37, hours["sky"], "hail"))
    found = [_refusal(saved(last, tmp_path), seed) for seed in range(8)]
    assert any("has the class 'hail', which no training row has" in said for said in found)


def _refusal(path: Path, seed: int) -> str:
    try:
        stream_of(path, seed, target=("sky",), holdout="blocks:date:4")
    except DataError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("none.csv", None, "there is no file"),
        ("empty.csv", b"", "cannot be read"),
        ("short.csv", b"a,b\n1,2\n", "has 1 rows and 2 columns"),
        ("broken.csv", b'a,b\n"1,2\n' + b"3,4\n" * 20, "cannot be read|has 0 rows|columns"),
        ("binary.csv", bytes(range(256)) * 20, "cannot be read"),
        ("twice.csv", b"a , a\n" + b"1,2\n" * 20, "has the column 'a' twice"),
        ("bad.parquet", b"PAR1 nothing", "cannot be read"),
        ("bad.npz", b"PK nothing", "cannot be read"),
    ],
)
def test_a_file_that_is_no_table_is_refused(
    tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        read_table(path)


def test_arrays_become_columns(tmp_path: Path) -> None:
    x = np.arange(24, dtype=np.float32).reshape(12, 2)
    np.savez(tmp_path / "flat.npz", x=x, y=np.arange(12), where=np.linspace(0, 1, 12))
    assert list(read_table(tmp_path / "flat.npz").columns) == ["x0", "x1", "y", "where"]
    three = {"x": x.reshape(3, 4, 2), "y": np.arange(12).reshape(3, 4), "time": np.arange(3) / 2}
    np.savez(tmp_path / "tables.npz", **three)
    frame = read_table(tmp_path / "tables.npz")
    assert frame["time"].tolist() == [0] * 4 + [0.5] * 4 + [1] * 4
    assert frame["x1"].tolist() == x[:, 1].tolist()
    assert frame["y"].tolist() == list(range(12))
    np.savez(tmp_path / "objects.npz", x=x, y=np.array([{}] * 12))
    with pytest.raises(DataError, match=r"save plain arrays with np\.savez"):
        read_table(tmp_path / "objects.npz")
    np.savez(tmp_path / "uneven.npz", x=x, y=np.arange(11))
    with pytest.raises(DataError, match=r"y of shape \(11,\) beside 12 rows"):
        read_table(tmp_path / "uneven.npz")
    np.savez(tmp_path / "other.npz", z=x)
    with pytest.raises(DataError, match="has the arrays z, but needs x and y"):
        read_table(tmp_path / "other.npz")


def test_blocks_inside_experiences_are_drawn_from_each(hours: Any, tmp_path: Path) -> None:
    path = saved(hours, tmp_path)
    for seed in range(4):
        stream = stream_of(path, seed, context=("date",), bins=10, holdout="blocks:date:1")
        shares = [
            len(test.dataset) / (len(test.dataset) + len(train.dataset))
            for train, test in zip(*_both(stream), strict=True)
        ]
        assert shares == [0.25] * 10  # one of four days each


def test_dates_are_inputs_where_they_are_named(hours: Any, tmp_path: Path) -> None:
    stream = stream_of(saved(hours, tmp_path), features=("date", "warm"))
    found = torch.cat([torch.stack([i[0] for i in e.dataset]) for e in stream.train_stream])
    assert found.shape[1] == 2
    steps = found[:, 0].unique().diff()
    assert torch.allclose(steps, steps[0].expand(len(steps)), rtol=1e-3)
    assert len(steps) == DAYS - 1


def test_a_circle_may_be_run_around_more_than_once(hours: Any, tmp_path: Path) -> None:
    frame = hours.assign(time=np.arange(len(hours)) // 32)
    path = saved(frame, tmp_path)
    with pytest.raises(ConfigError, match="or circle:PERIOD:wrap for what repeats"):
        stream_of(path, context=("time",), space=("circle:10",))
    wrapped: dict[str, Any] = {"context": ("time",), "space": ("circle:10:wrap",)}
    stream = table_stream(path, options(**wrapped, unseen="last:5"), StreamOptions(order="sorted"))
    assert stream.contexts().flatten().tolist() == list(range(25))  # in order of time
    assert stream.topology.same(stream.contexts()[3], stream.contexts()[13])
    parts = stream_of(path, **wrapped, bins=5)
    assert sorted(parts.contexts().flatten().tolist()) == [1, 3, 5, 7, 9]
    assert sum(len(e.dataset) for s in _both(parts) for e in s) == len(frame)


def test_parts_of_an_interval_are_counted_from_its_lower_end(hours: Any, tmp_path: Path) -> None:
    frame = hours.assign(wear=100 + hours["hour"] / 2)
    stream = table_stream(
        saved(frame, tmp_path),
        options(context=("wear",), space=("interval:100:112",), bins=3),
        StreamOptions(order="sorted"),
    )
    assert stream.contexts().flatten().tolist() == [102, 106, 110]
    assert [e.context_name for e in stream.train_stream] == [
        "wear 100–104", "wear 104–108", "wear 108–112",
    ]  # fmt: skip
    sizes = [
        len(train.dataset) + len(test.dataset) for train, test in zip(*_both(stream), strict=True)
    ]
    assert sizes == [8 * DAYS] * 3


def test_blocks_may_be_the_values_of_a_column(hours: Any, tmp_path: Path) -> None:
    frame = hours.assign(crew=np.array(list("abcdefghij"))[hours.index // HOURS % 10])
    frame["count"] = frame.index + 0.5
    stream = stream_of(
        saved(frame, tmp_path), transform="none", holdout="blocks:crew", drop=("crew",)
    )
    rows = {round(v - 0.5) for v in targets(stream.test_stream).flatten().tolist()}
    crews = set(frame.loc[sorted(rows), "crew"])
    assert len(crews) == 3  # 30 % of ten
    assert rows == set(frame.index[frame["crew"].isin(crews)])


def test_several_contexts_are_ordered_by_the_first(hours: Any, tmp_path: Path) -> None:
    frame = hours.assign(a=hours["hour"] // 12, b=hours["hour"] // 6 % 2 * 10)
    stream = table_stream(
        saved(frame, tmp_path), options(context=("a", "b")), StreamOptions(order="sorted")
    )
    assert stream.contexts().tolist() == [[0, 0], [0, 10], [1, 0], [1, 10]]
    assert [e.context_name for e in stream.train_stream][1] == "a 0 b 10"


def test_two_contexts_are_enough_to_train(hours: Any, tmp_path: Path) -> None:
    stream = stream_of(saved(hours, tmp_path), unseen="last:22")
    assert (len(stream.train_stream), len(stream.unseen_stream)) == (2, 22)


def test_the_unit_of_r_squared_is_the_distance_to_the_mean_of_training() -> None:
    train = torch.tensor([[1.0, 10.0], [3.0, 30.0]])
    tests = [torch.tensor([[2.0, 20.0], [4.0, 20.0]]), torch.tensor([[5.0, 50.0]])]
    # distances to (2, 20): (0 + 4) / 2 and 9; 0 and 900
    assert variances(train, tests) == (5.5, 450.0)
