"""What a user left out about a table, guessed from its columns, and said."""

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches

from cl_manifold.data.columns import (
    MOST_CATEGORIES,
    DataFrame,
    Kind,
    Series,
    dates,
    is_whole,
    kind_of,
    numbers,
)
from cl_manifold.data.options import DataOptions
from cl_manifold.data.spaces import CODES, WRAP, parsed_space, space_text
from cl_manifold.errors import ConfigError, DataError
from cl_manifold.geometry.topology import Circle, Interval

USUAL_TARGETS = ("target", "label", "class", "y")
MOST_CLASSES = 20
"""More whole numbers than this are a number to predict, not classes."""
MOST_TASKS, USUAL_BINS = 100, 12
_PERIODS: tuple[tuple[tuple[str, ...], float, float], ...] = (
    (("hour",), 23.0, 24.0),
    (("month",), 12.0, 12.0),
    (("weekday", "dayofweek", "day_of_week", "dow"), 7.0, 7.0),
    (("angle", "degree", "degrees", "deg", "azimuth", "heading", "bearing"), 360.0, 360.0),
    (("season", "phase"), 1.0, 1.0),
)
"""Names of columns that run around a circle, the highest value, and the period."""


def filled(frame: DataFrame, options: DataOptions) -> tuple[DataOptions, list[str]]:
    """The options with nothing left to guess, and a sentence for each guess.

    Raises:
        ConfigError: a column that there is not, or options that do not fit the table.
        DataError: the table cannot be used.
    """
    check_columns(frame, options)
    notes: list[str] = []
    target, said = _target(frame, options)
    notes += said
    kind, said = _kind(frame, target, options)
    notes += said
    context = options.context
    if not context:
        raise ConfigError(
            "data.context is not set; name the column that says when or where, such as --set "
            f"data.context={_other(frame, target)}; columns are {', '.join(frame.columns)}"
        )
    space, said = _spaces(frame, context, options)
    notes += said
    bins, said = _bins(frame, context, space, options)
    notes += said
    used = {*target, *context, *options.drop, *([options.tasks] if options.tasks else [])}
    features, said = _features(frame, used, options)
    notes += said
    guessed = {
        **{"target": target, "kind": kind, "space": space, "bins": bins, "features": features},
    }
    return options.model_copy(update=guessed), notes


def check_columns(frame: DataFrame, options: DataOptions) -> None:
    """Every column that the options name must be there.

    Raises:
        ConfigError: one is not; the nearest names are suggested.
    """
    for key, names in _named(options):
        for name in names:
            if name not in frame.columns:
                close = get_close_matches(name, frame.columns, n=2, cutoff=0.5)
                hint = " or ".join(close) or ", ".join(frame.columns)
                raise ConfigError(f"data.{key} names no column {name!r}; there is {hint}")
    for name in {*(options.target or ()), *(options.features or ())}:
        if name in (options.context or ()):
            raise ConfigError(f"column {name} is data.context; give another one beside it")
    for name in options.target or ():
        if name in (options.features or ()):
            raise ConfigError(f"column {name} is data.target; it cannot be an input")


def _named(options: DataOptions) -> Iterator[tuple[str, Sequence[str]]]:
    """Settings that name columns, and the names."""
    for key in ("target", "context", "features", "drop"):
        yield key, getattr(options, key) or ()
    yield "tasks", [options.tasks] if options.tasks else []
    kind, *parts = options.holdout.split(":")
    if kind == "blocks" and parts and parts[0] != "row":
        yield "holdout", parts[:1]


def _other(frame: DataFrame, target: Sequence[str]) -> str:
    return next(name for name in frame.columns if name not in target)


def _target(frame: DataFrame, options: DataOptions) -> tuple[tuple[str, ...], list[str]]:
    if options.target:
        return options.target, []
    named = [name for name in frame.columns if name.lower() in USUAL_TARGETS]
    taken = {*(options.context or ()), *(options.features or ()), *options.drop, options.tasks}
    free = [name for name in named or frame.columns if name not in taken]
    if not free:
        raise ConfigError("no column is left to predict; give data.target")
    return (free[-1],), [f"predicts {free[-1]} (data.target)"]


def _kind(frame: DataFrame, target: Sequence[str], options: DataOptions) -> tuple[str, list[str]]:
    """Whether classes or numbers are predicted."""
    kinds: list[Kind] = [kind_of(frame[name]) for name in target]
    for name, kind in zip(target, kinds, strict=True):
        if kind == "constant":
            raise DataError(f"column {name} has one value throughout; there is nothing to predict")
        if kind == "date":
            raise DataError(f"column {name} holds dates; predict a class or a number")
    classes = [_is_classes(frame[name], kind) for name, kind in zip(target, kinds, strict=True)]
    said: list[str] = []
    chosen = options.kind
    if chosen is None:
        chosen = "classification" if len(target) == 1 and classes[0] else "regression"
        what = (
            f"{frame[target[0]].nunique()} classes of {target[0]}"
            if chosen == "classification"
            else f"{' and '.join(target)} as number{'s' * (len(target) > 1)}"
        )
        said = [f"predicts {what} (data.kind={chosen})"]
    texts = [name for name, kind in zip(target, kinds, strict=True) if kind in ("text", "key")]
    if chosen == "regression" and any(not _is_numeric(frame[name]) for name in texts):
        raise ConfigError(f"data.kind is regression, but column {texts[0]} holds texts")
    if chosen == "classification" and options.transform != "standard":
        raise ConfigError(
            f"data.transform is {options.transform}, but {target[0]} holds classes; leave it out, "
            "or say data.kind=regression"
        )
    if chosen == "classification" and len(target) > 1:
        raise ConfigError("data.kind is classification, but data.target names several columns")
    return chosen, said


def _is_classes(column: Series, kind: Kind) -> bool:
    if kind in ("text", "key") and not _is_numeric(column):
        return True
    return column.nunique() <= MOST_CLASSES and is_whole(column)


def _is_numeric(column: Series) -> bool:
    from pandas.api import types

    return types.is_numeric_dtype(column)


def _spaces(
    frame: DataFrame, context: Sequence[str], options: DataOptions
) -> tuple[tuple[str, ...], list[str]]:
    """The space of each context, with its ends."""
    given = options.space
    if given is not None and len(given) != len(context):
        raise ConfigError(
            f"data.space has {len(given)} parts, but data.context names {len(context)} columns; "
            "give one for each"
        )
    found: list[str] = []
    for place, name in enumerate(context):
        column = frame[name].dropna()
        text = given[place] if given else _space(name, column)
        if text == CODES:
            found.append(CODES)
            continue
        if not _is_numeric(column) and dates(column) is None:
            raise ConfigError(f"data.space is {text}, but column {name} holds texts; use codes")
        values = numbers(column)
        space = space_text(parsed_space(text, float(values.min()), float(values.max())))
        found.append(space + WRAP * text.endswith(WRAP))
    if CODES in found and len(found) > 1:
        raise ConfigError("data.space has codes beside other spaces; give one column of codes")
    said = [f"contexts are {name} on {text}" for name, text in zip(context, found, strict=True)]
    return tuple(found), [] if given else [f"{' and '.join(said)} (data.space={','.join(found)})"]


def _space(name: str, column: Series) -> str:
    """A guess from the name and the values of a column."""
    if not _is_numeric(column) and dates(column) is None:
        return CODES
    values = numbers(column)
    return space_of_values(name.lower(), float(values.min()), float(values.max()), is_whole(values))


def space_of_values(word: str, low: float, high: float, whole: bool) -> str:
    """A guess from a word and the ends of its values; `whole`: all are whole numbers.

    >>> space_of_values("hour", 0.0, 23.0, True), space_of_values("wear", 0.0, 8.0, True)
    ('circle:24', 'interval:0:8')
    """
    for names, top, period in _PERIODS:
        fits = word in names and (whole or period <= 1)
        if fits and low >= 0 and top * 0.5 < high <= top:
            return space_text(Circle(period))
    return space_text(Interval(low, high if high > low else low + 1))


def _bins(
    frame: DataFrame, context: Sequence[str], space: Sequence[str], options: DataOptions
) -> tuple[int | None, list[str]]:
    """Into how many parts the context is cut; None where its values are the experiences."""
    if options.bins:
        problem = "tasks is set, too" if options.tasks else ""
        problem = problem or ("data.context names several columns" if len(context) > 1 else "")
        problem = problem or ("contexts are codes" if CODES in space else "")
        if problem:
            raise ConfigError(f"data.bins is set, but {problem}; leave one of them out")
        return options.bins, []
    count = len(frame[list(context)].drop_duplicates())
    if options.tasks or count <= MOST_TASKS:
        return None, []
    if len(context) > 1 or CODES in space:
        raise ConfigError(
            f"{' and '.join(context)} take {count} different values, more than {MOST_TASKS}; name "
            "the column of the experiences by data.tasks"
        )
    return USUAL_BINS, [f"{count} values of {context[0]} make {USUAL_BINS} experiences (data.bins)"]


def _features(
    frame: DataFrame, used: Iterable[str], options: DataOptions
) -> tuple[tuple[str, ...], list[str]]:
    """The columns that are inputs, and which were left out."""
    if options.features:
        return options.features, []
    kept: list[str] = []
    left: dict[str, list[str]] = {}
    for name in frame.columns:
        if name not in {*used}:
            kind = kind_of(frame[name])
            many = kind == "text" and frame[name].nunique() > MOST_CATEGORIES
            if kind in ("number", "text") and not many:
                kept.append(name)
            else:
                left.setdefault("too many texts" if many else kind, []).append(name)
    if not kept:
        raise DataError("no column is left as an input; name some by data.features")
    said = [f"{', '.join(names)} ({reason})" for reason, names in left.items()]
    return tuple(kept), [f"no inputs are {'; '.join(said)}"] if said else []
