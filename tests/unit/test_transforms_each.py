"""Transforms with one parameter per image against transforms with one per batch."""

import numpy as np
import pytest
import torch

from cl_manifold.streams import add_noise_each, rotate, rotate_each


def test_each_image_turns_by_its_own_angle() -> None:
    images = torch.rand(5, 2, 9, 12)
    angles = torch.tensor([0.0, 17.0, 90.0, 203.5, -45.0], dtype=torch.float64)
    pairs = zip(images, angles.tolist(), strict=True)
    expected = torch.cat([rotate(image[None], angle) for image, angle in pairs])
    torch.testing.assert_close(rotate_each(images, angles), expected)


def test_quarter_turns_are_those_of_numpy() -> None:
    images = torch.rand(4, 1, 8, 8, dtype=torch.float64)
    turned = rotate_each(images, torch.tensor([0.0, 90.0, 180.0, 270.0]))
    for quarters, (image, found) in enumerate(zip(images, turned, strict=True)):
        expected = np.rot90(image[0].numpy(), quarters)
        np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-6)


def test_noise_has_the_level_of_its_image_and_stays_in_range() -> None:
    images = torch.full((3, 1, 200, 200), 0.5)
    levels = torch.tensor([0.0, 0.05, 1.0])
    noisy = add_noise_each(images, levels, torch.Generator().manual_seed(0))
    torch.testing.assert_close(noisy[0], images[0])
    assert float(noisy[1].std()) == pytest.approx(0.05, rel=0.02)
    assert float(noisy.min()) == 0
    assert float(noisy.max()) == 1
    # P(0.5 + ε ≤ 0) = Φ(−½)
    assert float((noisy[2] == 0).float().mean()) == pytest.approx(0.3085, abs=0.01)


def test_the_same_generator_gives_the_same_noise() -> None:
    images, levels = torch.rand(2, 3, 4, 4), torch.tensor([0.3, 0.6])
    once, again = (
        add_noise_each(images, levels, torch.Generator().manual_seed(4)) for _ in range(2)
    )
    assert torch.equal(once, again)
