"""The space of a context, as text and as a topology: `circle:24`, `interval:0:10`, `codes`.

Values beyond a circle are refused, as misprints mostly are; `circle:20:wrap` runs around it.
"""

from cl_manifold.errors import ConfigError
from cl_manifold.geometry.topology import Circle, Interval, Topology

CODES = "codes"
WRAP = ":wrap"
_FORMS = "circle:PERIOD, circle:PERIOD:wrap, interval, interval:LOW:HIGH or codes"


def parsed_space(text: str, low: float, high: float) -> Topology | None:
    """The topology that a text means; None for `codes`.

    >>> parsed_space("circle:24", 0.0, 23.0).spec()
    {'kind': 'circle', 'period': 24.0}

    Args:
        text: as a user writes it.
        low: smallest value of the context.
        high: largest value; an interval without ends reaches from one to the other.

    Raises:
        ConfigError: it is no such text, or values lie outside.
    """
    if text.startswith("circle:") and text.endswith(WRAP):
        return parsed_space(text.removesuffix(WRAP), 0.0, 0.0)
    kind, *ends = text.split(":")
    try:
        values = [float(end) for end in ends]
    except ValueError:
        values = [0.0] * 9
    if kind == CODES and not values:
        return None
    if kind == "circle" and len(values) == 1 and 0 < values[0] < float("inf"):
        return _holding(Circle(values[0]), text, (0.0, values[0]), (low, high))
    if kind == "interval" and not values:
        return Interval(low, high if high > low else low + 1)
    if kind == "interval" and len(values) == 2 and values[0] < values[1]:
        return _holding(Interval(*values), text, (values[0], values[1]), (low, high))
    raise ConfigError(f"data.space is {text!r}, but needs {_FORMS}")


def _holding(
    space: Topology, text: str, ends: tuple[float, float], values: tuple[float, float]
) -> Topology:
    low, high = values
    if low < ends[0] or high > ends[1]:
        raise ConfigError(
            f"data.space is {text}, but contexts lie between {low:g} and {high:g}; give a space "
            "that holds them all, or circle:PERIOD:wrap for what repeats"
        )
    return space


def space_text(space: Topology | None) -> str:
    """The text of a topology.

    >>> space_text(Circle(24.0)), space_text(Interval(0.0, 0.5)), space_text(None)
    ('circle:24', 'interval:0:0.5', 'codes')
    """
    if isinstance(space, Circle):
        return f"circle:{space.period!r}".removesuffix(".0")
    if isinstance(space, Interval):
        low, high = (repr(end).removesuffix(".0") for end in (space.low, space.high))
        return f"interval:{low}:{high}"
    return CODES
