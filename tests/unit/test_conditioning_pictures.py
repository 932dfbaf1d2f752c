"""Images from folders and from torchvision's layout, and what is said when they are not there."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10

from cl_manifold.conditioning.pictures import SIZE, load_folder, load_pictures
from cl_manifold.errors import ConfigError, DataError
from cl_manifold.streams import load_digits

COLOURS = {"green": (0, 200, 0), "red": (200, 0, 0)}


def folder_of(place: Path, each: int, ending: str = "png") -> Path:
    for name, colour in COLOURS.items():
        (place / name).mkdir(parents=True)
        for index in range(each):
            image = Image.new("RGB", (20 + index, 10), (*colour[:2], index))
            image.save(place / name / f"{index}.{ending}")
    return place


def test_a_folder_becomes_two_parts_of_small_images(tmp_path: Path) -> None:
    pictures = load_pictures(f"images:{folder_of(tmp_path / 'photos', 8)}", None)
    assert pictures.name == "photos"
    assert pictures.input_shape == (3, SIZE, SIZE)
    assert pictures.classes == 2
    assert pictures.train_y.tolist() == [0] * 6 + [1] * 6
    assert pictures.test_y.tolist() == [0, 0, 1, 1]
    # classes in alphabetical order, colours where they belong, every fourth image in the test part
    assert pictures.train_x[0, :, 5, 5].tolist() == [0, 200, 0]
    assert pictures.train_x[6, :, 5, 5].tolist() == [200, 0, 0]
    assert pictures.test_x[:, 2, 0, 0].tolist() == [3, 7, 3, 7]


def test_folders_train_and_test_are_the_parts(tmp_path: Path) -> None:
    folder_of(tmp_path / "train", 2)
    folder_of(tmp_path / "test", 1, "jpg")
    pictures = load_pictures("images", tmp_path)
    assert len(pictures.train_x) == 4
    assert len(pictures.test_x) == 2
    (tmp_path / "test" / "blue").mkdir()
    with pytest.raises(DataError, match=r"blue, green, red.*give both the same folders"):
        load_folder(tmp_path)


def test_moments_and_digest_are_those_of_the_training_pixels(tmp_path: Path) -> None:
    pictures = load_folder(folder_of(tmp_path, 4))
    pixels = pictures.train_x.double() / 255
    mean, std = pictures.moments
    assert mean == pytest.approx(float(pixels.mean()))
    assert std == pytest.approx(float(pixels.std(correction=0)))
    assert load_pictures("digits", None).digest == load_digits().digest


def test_validation_images_are_training_images(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 8)
    pictures = load_pictures(f"images:{folder}", None, "validation")
    assert (len(pictures.train_x), len(pictures.test_x)) == (9, 3)
    true_test = load_folder(folder).test_x[:, 2, 0, 0].tolist()
    assert not set(pictures.test_x[:, 2, 0, 0].tolist()) & set(true_test)


@pytest.mark.parametrize(
    ("data", "holdout", "message"),
    [
        ("digit", "test", "did you mean digits"),
        ("mnist:here", "test", "unknown data 'mnist:here'"),
        ("digits", "tests", "holdout is 'tests', but must be one of test, validation"),
    ],
)
def test_unknown_names(data: str, holdout: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_pictures(data, None, holdout)


@pytest.mark.parametrize("data", ["mnist", "cifar10", "images"])
def test_data_that_needs_a_folder_says_so(data: str) -> None:
    with pytest.raises(DataError, match=r"pass --data-dir FOLDER, or use --data digits"):
        load_pictures(data, None)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        load_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds 0 folders"):
        load_folder(tmp_path)
    few = folder_of(tmp_path / "few", 3)
    with pytest.raises(DataError, match=r"no test image; give every class at least 4"):
        load_folder(few)
    broken = folder_of(tmp_path / "broken", 4)
    (broken / "red" / "x.png").write_text("no image")
    with pytest.raises(DataError, match=r"x\.png cannot be read .*; repair or remove it"):
        load_folder(broken)


def test_cifar_is_read_from_torchvisions_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / CIFAR10.base_folder
    place.mkdir()
    pixels = np.arange(2 * 3072, dtype=np.int64).astype(np.uint8).reshape(2, 3072)
    batch = {"data": pixels, "labels": [3, 9]}

    def write(file: str, content: Any) -> str:
        (place / file).write_bytes(pickle.dumps(content))
        return hashlib.md5((place / file).read_bytes()).hexdigest()

    def listed(files: list[list[str]]) -> list[list[str]]:
        return [[file, write(file, batch)] for file, _ in files]

    names = {"label_names": [str(i) for i in range(10)]}
    meta = CIFAR10.meta | {"md5": write(CIFAR10.meta["filename"], names)}
    with pytest.raises(DataError, match=r"CIFAR-10 could not be read .*--data images:DIR"):
        load_pictures("cifar10", tmp_path)
    # the checksums of the true files stand in the class
    monkeypatch.setattr(CIFAR10, "train_list", listed(CIFAR10.train_list))
    monkeypatch.setattr(CIFAR10, "test_list", listed(CIFAR10.test_list))
    monkeypatch.setattr(CIFAR10, "meta", meta)
    pictures = load_pictures("cifar10", tmp_path)
    assert pictures.input_shape == (3, 32, 32)
    assert pictures.classes == 10
    expected = torch.tensor(pixels[1].reshape(3, 32, 32))
    assert torch.equal(pictures.test_x[1], expected)


def test_mnist_is_found(mnist_dir: Path) -> None:
    assert load_pictures("mnist", mnist_dir).input_shape == (1, 28, 28)
