"""Streams of all contexts at once: where contexts are drawn and tested, and what they do."""

from typing import Any

import pytest
import torch
from torch import Tensor

from cl_manifold.geometry import Circle, Interval, Product
from cl_manifold.streams import FAMILIES, Continuum, ImageSet, TaskStream, rotate
from cl_manifold.streams.continuum import build_continuum

each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
HELD_OUT = {
    "rotation": (Circle(360.0), [(270, 360)], 24, 18),
    "noise": (Interval(0.0, 1.0), [(0.5, 1)], 16, 8),
    "rotation-noise": (
        Product(Circle(360.0), Interval(0.0, 1.0)), [(270, 360), (0.5, 1)], 72, 27
    ),
}  # fmt: skip
"""The space, the ranges that are never trained, tested contexts, those of them that are trained."""


def pictures(count: int = 40) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (2 * count, 1, 6, 6), generator=generator, dtype=torch.uint8)
    y = torch.randint(0, 3, (2 * count,), generator=generator)
    return ImageSet("made", x[:count], y[:count], x[count:], y[count:])


def pixels(experience: Any) -> Tensor:
    data = experience.dataset
    return torch.stack([data[i][0] for i in range(len(data))])


def targets_of(experience: Any) -> list[int]:
    return list(experience.dataset.targets)


@each_family
def test_what_is_trained_and_what_is_held_out(family: Continuum) -> None:
    space, held_out, cells, inside = HELD_OUT[family.name]
    assert family.topology.spec() == space.spec()
    contexts = family.tested()
    outside = torch.zeros(len(contexts), dtype=torch.bool)
    for values, (low, high) in zip(contexts.T, held_out, strict=True):
        outside |= (values > low) & (values < high)
    assert torch.equal(family.is_trained(contexts), ~outside)
    assert (len(contexts), int((~outside).sum())) == (cells, inside)
    stream = build_continuum(family, pictures(), 3)
    assert stream.trained == tuple((0.0, low) for low, _ in held_out)
    assert torch.equal(stream.contexts(), contexts[~outside])
    unseen = torch.stack([e.context for e in stream.unseen_stream])
    assert torch.equal(unseen, contexts[outside])


@each_family
def test_training_draws_from_the_whole_trained_part_and_nowhere_else(family: Continuum) -> None:
    contexts = family.draw(2000, torch.Generator().manual_seed(0))
    assert bool(family.is_trained(contexts).all())
    for values, (low, high) in zip(contexts.T, family.trained, strict=True):
        counts = torch.histc(values, 4, low, high)
        assert counts.sum() == 2000
        assert bool(((counts - 500).abs() < 100).all())


@each_family
def test_the_middles_of_the_cells_are_tested(family: Continuum) -> None:
    contexts = family.tested()
    loops = [
        [low + (high - low) * (i + 0.5) / n for i in range(n)]
        for (low, high), n in ((axis.whole, axis.cells) for axis in family.axes)
    ]
    both = [[a, b] for a in loops[0] for b in loops[1]] if loops[1:] else [[a] for a in loops[0]]
    torch.testing.assert_close(contexts, torch.tensor(both, dtype=torch.float64))


def drawing(stream: TaskStream, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    (experience,) = stream.train_stream
    assert experience.draw is not None
    return experience.draw(6, torch.Generator().manual_seed(seed))


def test_every_sample_is_turned_and_normalised_by_a_context_of_its_own() -> None:
    made = pictures()
    stream = build_continuum(FAMILIES["rotation"], made)
    x, y, contexts = drawing(stream, 0)
    mean, std = made.moments
    for image, label, context in zip(x, y, contexts, strict=True):
        candidates = rotate(made.train_x.float() / 255, float(context))
        gap = ((candidates - mean) / std - image).flatten(1).abs().amax(1)
        nearest = int(gap.argmin())
        assert float(gap[nearest]) < 1e-4
        assert made.train_y[nearest] == label
    again, other = drawing(stream, 0), drawing(stream, 1)
    assert all(torch.equal(a, b) for a, b in zip((x, y, contexts), again, strict=True))
    assert not torch.equal(contexts, other[2])


def test_both_coordinates_change_an_image() -> None:
    family = FAMILIES["rotation-noise"]
    images = torch.rand(1, 1, 8, 8).expand(2, 1, 8, 8)
    contexts = torch.tensor([[90.0, 0.0], [90.0, 0.5]], dtype=torch.float64)
    turned, noisy = family.apply(images, contexts, torch.Generator().manual_seed(0))
    torch.testing.assert_close(turned[0], torch.rot90(images[0, 0]), atol=1e-5, rtol=0)
    assert float((noisy - turned).abs().mean()) > 0.1


def test_test_images_are_those_of_the_context_and_other_ones_at_each() -> None:
    made = pictures()
    stream = build_continuum(FAMILIES["rotation"], made, 15)
    mean, std = made.moments
    experience = stream.test_stream[7]
    assert experience.context_name == "112.5°"
    candidates = rotate(made.test_x.float() / 255, 112.5) * 255
    for image, target in zip(pixels(experience), targets_of(experience), strict=True):
        shown = (image * std + mean) * 255
        gap = (candidates - shown).flatten(1).abs().amax(1)
        assert float(gap.min()) <= 0.51
        assert made.test_y[int(gap.argmin())] == target
    first, second = (pixels(stream.test_stream[i]).sum((1, 2, 3)) for i in (0, 1))
    assert len(torch.cat([first, second]).unique()) == 30
    assert len(build_continuum(FAMILIES["rotation"], made).test_stream[0].dataset) == 40
