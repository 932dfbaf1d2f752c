"""Settings: fields with a type, a range and a meaning, and one sentence for a value that is not.

A class of settings states each of its facts once, at the field:

    class Replay(Options):
        samples: Count = 500
        \"\"\"How many training samples are remembered in all.\"\"\"
"""

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo

from cl_manifold.errors import ConfigError

Count = Annotated[int, Field(ge=1, le=10**9)]
"""1, 2, 3, …"""
NotNegative = Annotated[float, Field(ge=0, le=1e30)]
Positive = Annotated[float, Field(gt=0, le=1e30)]
Share = Annotated[float, Field(gt=0, lt=1)]

_NOTHING = ("", "all", "none", "auto")
_NUMBERS = {int: "a whole number", float: "a number", bool: "true or false"}
_BOUNDS = {"ge": "{} or more", "gt": "more than {}", "le": "at most {}", "lt": "less than {}"}


class Options(BaseModel):
    """A set of settings; subclasses add fields, with a docstring below each.

    Values may be given as text, as on a command line: "3", "true", "256,128", and "all", "none" or
    "auto" where None is allowed.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _from_text(cls, value: Any, info: Any) -> Any:
        """Text as the type of its field."""
        kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
        if isinstance(value, str):
            if NoneType in kinds and value.lower() in _NOTHING:
                return None
            if any(get_origin(kind) is tuple for kind in kinds):
                return tuple(part for part in value.split(",") if part.strip())
        elif isinstance(value, bool) and bool not in kinds:
            raise ValueError("a truth value")
        return value


S = TypeVar("S", bound=Options)


def options_of(cls: type[S], values: Mapping[str, Any], section: str = "") -> S:
    """The settings with these values; a value that does not fit is named by `section.key`.

    Raises:
        ConfigError: an unknown key, or a value of the wrong type or range.
    """
    try:
        return cls(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        name = f"{section}.{key}".strip(".")
        if key not in cls.model_fields:
            raise ConfigError(f"{name}: {first['msg']}") from None
        given = value_text(values.get(key, cls.model_fields[key].default))
        needs = range_text(cls.model_fields[key], _too_large(first["type"]))
        raise ConfigError(f"{name} is {given!r}, but needs {needs}") from None


def range_text(field: FieldInfo, whole: bool = False) -> str:
    """What a field accepts, for people; `whole`: with bounds that only keep a computer from harm.

    >>> class One(Options):
    ...     size: Count | None = None
    ...     share: Share = 0.5
    ...     order: Literal["random", "sorted"] = "random"
    >>> [range_text(field) for field in One.model_fields.values()]
    ["a whole number, 1 or more, or 'all'", 'a number between 0 and 1', 'one of random, sorted']
    """
    kinds = [kind for kind in _kinds(field.annotation) if kind is not NoneType]
    kind = kinds[0]
    optional = ", or 'all'" if NoneType in _kinds(field.annotation) else ""
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}{optional}"
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        each = _bounded(get_args(item)[1:], whole) if get_origin(item) is Annotated else ""
        return f"{'texts' if item is str else 'whole numbers'}{each}, separated by commas{optional}"
    bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    bounds = field.metadata or (get_args(kind)[1:] if get_origin(kind) is Annotated else ())
    return f"{_NUMBERS.get(bare, 'a text')}{_bounded(bounds, whole)}{optional}"


def value_text(value: Any) -> str:
    """A value as people write it on the command line."""
    if value is None:
        return "all"
    if isinstance(value, tuple | list):
        return ",".join(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the one type there is."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _too_large(kind: str) -> bool:
    return kind.startswith("less_than")


def _bounded(metadata: Any, whole: bool) -> str:
    """`, 1 or more`, ` between 0 and 1`."""
    found: dict[str, float] = {}
    for item in metadata:
        for part in item.metadata if isinstance(item, FieldInfo) else (item,):
            found |= {name: b for name in _BOUNDS if (b := getattr(part, name, None)) is not None}
    if {"gt", "lt"} <= set(found):
        return f" between {found['gt']:g} and {found['lt']:g}"
    shown = [_BOUNDS[n].format(f"{b:g}") for n, b in found.items() if whole or abs(b) < 10**9]
    return f", {' and '.join(shown)}" if shown else ""
