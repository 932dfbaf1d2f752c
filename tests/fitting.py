"""The strategies of the catalogue by what they learn."""

from cl_manifold.experiments.names import STRATEGIES, load

OF_TASKS = [name for name, item in STRATEGIES.items() if "tasks" in load(item.target).learns]
OF_CONTEXTS = [name for name, item in STRATEGIES.items() if "contexts" in load(item.target).learns]


def stream_for(strategy: str) -> str:
    """A stream that the strategy learns."""
    return "rotated-digits" if strategy in OF_TASKS else "rotation"
