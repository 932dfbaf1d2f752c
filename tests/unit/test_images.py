"""Image sets: what is loaded, how it is divided, and what is said when files are missing."""

from dataclasses import replace
from pathlib import Path

import pytest
import sklearn.datasets
import torch

from cl_manifold.errors import ConfigError, DataError
from cl_manifold.streams import ImageSet, load_digits, load_mnist, validation_split
from cl_manifold.streams.images import MNIST_FILES


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load_digits()


def tiny(count: int = 8) -> ImageSet:
    x = torch.randint(0, 256, (count, 1, 2, 3), dtype=torch.uint8)
    y = torch.arange(count) % 4
    return ImageSet("tiny", x, y, x[:3], y[:3])


def test_digits_have_the_promised_sizes(digits: ImageSet) -> None:
    assert digits.train_x.shape == (1347, 1, 16, 16)
    assert digits.test_x.shape == (450, 1, 16, 16)
    assert (digits.classes, digits.input_shape) == (10, (1, 16, 16))
    assert int(digits.train_x.max()) == 255


def blurred(x: torch.Tensor) -> torch.Tensor:
    """(left + 6 self + right) / 8 along both axes: 2×2 means of a bilinear enlargement."""
    for axis in (1, 2):
        ends = x.narrow(axis, 0, 1), x.narrow(axis, x.shape[axis] - 1, 1)
        wide, size = torch.cat([ends[0], x, ends[1]], axis), x.shape[axis]
        x = 0.75 * x + 0.125 * (wide.narrow(axis, 0, size) + wide.narrow(axis, 2, size))
    return x


def test_digits_are_all_of_sklearns_digits_enlarged(digits: ImageSet) -> None:
    data, target = sklearn.datasets.load_digits(return_X_y=True)
    original = blurred(torch.tensor(data).reshape(-1, 8, 8) * 255 / 16).flatten(1)
    x = torch.cat([digits.train_x, digits.test_x]).double()
    y = torch.cat([digits.train_y, digits.test_y])
    small = torch.nn.functional.avg_pool2d(x, 2).flatten(1)
    distance, nearest = torch.cdist(small, original, p=float("inf")).min(1)
    assert distance.max() <= 0.5
    assert len(nearest.unique()) == 1797
    assert torch.equal(torch.tensor(target)[nearest], y)


def test_digits_are_stratified_and_always_the_same(digits: ImageSet) -> None:
    share = torch.bincount(digits.test_y) / torch.bincount(
        torch.cat([digits.train_y, digits.test_y])
    )
    assert (share - 450 / 1797).abs().max() < 0.005
    torch.manual_seed(99)
    assert load_digits().digest == digits.digest


def test_digest_depends_on_every_part() -> None:
    images = tiny()
    seen = {images.digest}
    for part in ("train_x", "train_y", "test_x", "test_y"):
        changed = getattr(images, part).clone()
        changed.view(-1)[-1] += 1
        seen.add(replace(images, **{part: changed}).digest)
    turned = {"train_x": (8, 1, 3, 2), "test_x": (3, 1, 3, 2)}
    parts = {part: getattr(images, part).reshape(shape) for part, shape in turned.items()}
    seen.add(replace(images, **parts).digest)
    assert len(seen) == 6
    assert all(len(digest) == 12 for digest in seen)


def test_moments_are_those_of_the_training_pixels() -> None:
    images = tiny(50)
    pixels = images.train_x.double() / 255
    assert images.moments == pytest.approx((pixels.mean().item(), pixels.std(correction=0).item()))


def test_validation_takes_the_last_training_images_and_no_test_image() -> None:
    images = tiny(8)
    held_out = validation_split(images, 3)
    assert torch.equal(held_out.train_x, images.train_x[:5])
    assert torch.equal(held_out.train_y, images.train_y[:5])
    assert torch.equal(held_out.test_x, images.train_x[5:])
    assert torch.equal(held_out.test_y, images.train_y[5:])
    assert held_out.name == "tiny-validation"


def test_validation_is_a_quarter_by_default(digits: ImageSet) -> None:
    assert len(validation_split(digits).test_x) == 336


@pytest.mark.parametrize("count", [0, 8])
def test_validation_of_impossible_size(count: int) -> None:
    with pytest.raises(ConfigError, match=r"tiny has 8 training images; ask for 1 to 7"):
        validation_split(tiny(8), count)


def test_missing_mnist_names_folder_files_and_cure(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / MNIST_FILES[0]).write_bytes(b"")
    with pytest.raises(DataError) as caught:
        load_mnist(tmp_path)
    text = str(caught.value)
    assert str(folder) in text
    lacking = text.split(";")[0]
    assert [name in lacking for name in MNIST_FILES] == [False, True, True, True]
    assert "let torchvision" in text


def test_broken_mnist_is_a_data_error(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in MNIST_FILES:
        (folder / name).write_bytes(b"\0\0\x08\x03garbage")
    with pytest.raises(DataError, match="could not be read from"):
        load_mnist(tmp_path)


def test_failed_download_is_a_data_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no network")

    monkeypatch.setattr("cl_manifold.streams.images.MNIST", offline)
    with pytest.raises(DataError, match=r"could not be downloaded to .* \(no network\)"):
        load_mnist(tmp_path, download=True)


def test_mnist_is_mnist(mnist_dir: Path) -> None:
    images = load_mnist(mnist_dir)
    assert images.train_x.shape == (60000, 1, 28, 28)
    assert images.test_x.shape == (10000, 1, 28, 28)
    assert torch.bincount(images.test_y).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
    assert images.moments == pytest.approx((0.1307, 0.3081), abs=1e-4)
    assert len(validation_split(images).test_x) == 10000
