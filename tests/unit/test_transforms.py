"""Transforms against numpy, scipy and loops."""

import numpy as np
import pytest
import scipy.ndimage
import torch

from cl_manifold.streams import transforms
from cl_manifold.streams.transforms import add_noise, permute_pixels, rotate


def random_bytes(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_quarter_turns_are_exact_and_counter_clockwise(quarter: int) -> None:
    images = random_bytes(5, 1, 9, 9)
    expected = np.rot90(images.numpy(), k=quarter, axes=(2, 3))
    np.testing.assert_array_equal(rotate(images, 90.0 * quarter).numpy(), expected)


@pytest.mark.parametrize("degrees", [17.0, 133.5, -40.0])
@pytest.mark.parametrize("size", [8, 11])
def test_rotation_agrees_with_scipy(degrees: float, size: int) -> None:
    images = torch.rand(3, 2, size, size, dtype=torch.float64)
    expected = scipy.ndimage.rotate(
        images.numpy(), degrees, axes=(3, 2), reshape=False, order=1, mode="grid-constant"
    )
    direction = scipy.ndimage.rotate(images.numpy(), 90, axes=(3, 2), reshape=False, order=1)
    clockwise = np.allclose(direction, np.rot90(images.numpy(), k=-1, axes=(2, 3)), atol=1e-9)
    sign = -1.0 if clockwise else 1.0
    np.testing.assert_allclose(rotate(images, sign * degrees).numpy(), expected, atol=1e-9)


def test_rotation_of_a_rectangle_keeps_lengths() -> None:
    images = torch.zeros(1, 1, 7, 13)
    images[0, 0, 3, 3:10] = 1
    turned = rotate(images, 90.0)
    assert torch.equal(turned[0, 0, :, 6].round(), torch.ones(7))
    assert turned.sum().item() == pytest.approx(7, abs=1e-4)


def test_small_angle_moves_the_right_edge_up() -> None:
    images = torch.zeros(1, 1, 21, 21)
    images[0, 0, 10, 18] = 1
    row = int(rotate(images, 30.0)[0, 0].amax(1).argmax())
    assert row == 6


def test_rotation_of_bytes_is_the_rounded_rotation_of_floats() -> None:
    images = random_bytes(4, 1, 10, 10)
    rounded = (rotate(images.double() / 255, 50.0) * 255).round()
    assert (rotate(images, 50.0) - rounded).abs().max() <= 1
    assert rotate(images, 50.0).dtype == torch.uint8


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    images = random_bytes(7, 1, 6, 6)
    whole = rotate(images, 33.0), add_noise(images, 0.5, torch.Generator().manual_seed(3))
    monkeypatch.setattr(transforms, "CHUNK", 7)
    same = rotate(images, 33.0), add_noise(images, 0.5, torch.Generator().manual_seed(3))
    monkeypatch.setattr(transforms, "CHUNK", 2)
    assert torch.equal(rotate(images, 33.0), whole[0])
    assert torch.equal(same[0], whole[0])
    assert torch.equal(same[1], whole[1])


def test_permutation_is_a_gather_in_row_order() -> None:
    images = random_bytes(2, 3, 4, 5)
    permutation = torch.randperm(20)
    out = permute_pixels(images, permutation)
    for p, source in enumerate(permutation.tolist()):
        assert torch.equal(out[:, :, p // 5, p % 5], images[:, :, source // 5, source % 5])


def test_permutation_of_wrong_length_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"has 9 entries, but the images have 20 pixels; draw"):
        permute_pixels(random_bytes(1, 1, 4, 5), torch.randperm(9))


def test_noise_has_the_level_as_standard_deviation() -> None:
    images = torch.full((200, 1, 20, 20), 0.5)
    noise = add_noise(images, 0.1, torch.Generator().manual_seed(1)) - 0.5
    assert noise.std().item() == pytest.approx(0.1, rel=0.02)
    assert noise.mean().item() == pytest.approx(0.0, abs=0.002)


def test_noise_of_bytes_has_the_same_level() -> None:
    images = torch.full((200, 1, 20, 20), 128, dtype=torch.uint8)
    noise = add_noise(images, 0.1, torch.Generator().manual_seed(1)).double() - 128
    assert noise.std().item() / 255 == pytest.approx(0.1, rel=0.02)


def test_noise_is_clipped_and_level_zero_changes_nothing() -> None:
    images = torch.rand(10, 1, 5, 5)
    loud = add_noise(images, 1.0, torch.Generator().manual_seed(0))
    assert loud.min() == 0
    assert loud.max() == 1
    assert torch.equal(add_noise(images, 0.0, torch.Generator()), images)


@pytest.mark.parametrize("level", [-0.1, 1.5])
def test_noise_level_outside_the_interval(level: float) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]; rescale it"):
        add_noise(torch.rand(1, 1, 2, 2), level, torch.Generator())
