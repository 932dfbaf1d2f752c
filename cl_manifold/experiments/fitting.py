"""Which strategies fit which streams: tasks one after the other, or all contexts at once."""

from cl_manifold.data.reading import is_file_name
from cl_manifold.errors import ConfigError
from cl_manifold.experiments.names import STREAMS
from cl_manifold.strategies.methods.method import Method

TASKS = (
    "weight-manifold",
    "separate",
    "joint",
    "joint-concat",
    "concat",
    "replay",
    "online-ewc",
    "naive",
    "random",
)
AT_ONCE = (
    "joint-manifold",
    "concat",
    "film",
    "hypernetwork",
    "scn",
    "one-per-context",
    "joint",
)


def usual_strategies(stream: str) -> tuple[str, ...]:
    """What a comparison on the stream compares where nothing is said, the usual strategy first."""
    if is_file_name(stream):
        return TASKS[:-1]  # chance means nothing where numbers are predicted
    return AT_ONCE if stream in STREAMS and STREAMS[stream].at_once else TASKS


def usual_strategy(stream: str) -> str:
    """The strategy of a run where none is named."""
    return usual_strategies(stream)[0]


def check_fit(stream: str, at_once: bool, strategy: str, method: type[Method]) -> None:
    """Refuse a strategy that cannot learn what the stream gives.

    Raises:
        ConfigError: it learns tasks, but the stream trains all contexts at once, or the reverse.
    """
    if at_once and "contexts" not in method.learns:
        raise ConfigError(
            f"strategy {strategy} learns one task after the other, but {stream} trains all "
            f"contexts at once; choose one of {', '.join(AT_ONCE)}"
        )
    if not at_once and "tasks" not in method.learns:
        streams = [name for name, item in STREAMS.items() if item.at_once]
        raise ConfigError(
            f"strategy {strategy} learns all contexts at once, but {stream} gives one task after "
            f"the other; choose one of the streams {', '.join(streams)}, or a strategy such as "
            f"{', '.join(TASKS[:5])}"
        )
