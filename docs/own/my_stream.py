"""A stream of your own: `cl-manifold run my_stream:Shifted --set stream.contexts=6`."""

from pathlib import Path

import torch

from cl_manifold.experiments.settings import OwnStream
from cl_manifold.geometry import Interval
from cl_manifold.options import Count
from cl_manifold.streams import StreamOptions, TaskStream, load_digits
from cl_manifold.streams.builders import Family, Task, build_family, number


class Shifted(OwnStream):
    """Digits that slide to the right, pixel by pixel; the context is how far."""

    step: Count = 1
    """Pixels between two contexts."""

    def build(self, options: StreamOptions, data_dir: Path | None) -> TaskStream:
        pixels = [self.step * k for k in range(options.contexts or 6)]

        def task(shift: int) -> Task:
            name = f"{shift} pixels"
            return Task(number(shift / 16), name, lambda x, _: torch.roll(x, shift, -1))

        family = Family(
            "shifted-digits", "digits that slide", Interval(), [task(p) for p in pixels]
        )
        return build_family(load_digits(), family, options)
