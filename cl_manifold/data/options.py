"""How a file is read as a stream. What is left out is guessed from the file, and that is said."""

from typing import Annotated, Literal

from pydantic import Field

from cl_manifold.options import Count, Options, Share

Columns = tuple[str, ...]


class DataOptions(Options):
    """Which columns of a file say what, and which rows test."""

    target: Columns | None = None
    """Column to predict, or several; auto: target, label, class or y, else the last one."""
    kind: Literal["classification", "regression"] | None = None
    """Whether the target is a class or a number; auto: few whole numbers, or text, are classes."""
    context: Columns | None = None
    """Column that says when or where, or several."""
    space: Columns | None = None
    """Of each context: circle:PERIOD[:wrap], interval[:LOW:HIGH], or codes for unrelated ones."""
    tasks: str | None = None
    """Column whose values are the experiences; auto: those of the context."""
    bins: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """So many equal parts of the context are the experiences; auto: 12 of more than 100 values."""
    features: Columns | None = None
    """Columns that are inputs, dates as days; auto: all others but dates and keys."""
    drop: Columns = ()
    """Columns that are no inputs."""
    missing: Literal["error", "drop"] = "error"
    """Rows with a missing value: refused, or left out."""
    transform: Literal["standard", "log1p", "none"] = "standard"
    """Of a number to predict: centred and scaled; log(1 + y) before that; or as it is."""
    holdout: str = "random"
    """Test rows: random, or blocks:COLUMN:SIZE, whole parts of so many days or numbers."""
    test_share: Share = 0.3
    """Share of the rows, or of the blocks, that test."""
    unseen: str | None = None
    """Contexts that are only tested: every:N, each N-th; last:N, the last N; none."""
    rows: Count | None = None
    """Rows read from the file, the first ones."""


class ImageOptions(Options):
    """What becomes of images, and how much memory they may take."""

    recipe: Literal["rotate", "permute", "split", "noise", "as-given"] | None = None
    """What makes the experiences; auto: as-given where a folder has task/class/, else rotate."""
    space: str | None = None
    """Of task folders: circle:PERIOD, interval, interval:LOW:HIGH or codes; auto: from names."""
    unseen: str | None = None
    """Task folders that are only tested: every:N, each N-th; last:N, the last N; none."""
    size: Annotated[int, Field(ge=4, le=1024)] | None = None
    """Height and width; auto: as they are where all are alike and up to 64 pixels, else 32."""
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    """Processes that read images that memory does not hold."""
    memory: Annotated[int, Field(ge=1, le=10**7)] = 2048
    """MiB for images; those beyond are read from disk at every use."""
