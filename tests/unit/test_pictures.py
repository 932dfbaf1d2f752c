"""Images by one word, and what is said when they are not there."""

from pathlib import Path

import pytest
from PIL import Image

from cl_manifold.errors import ConfigError, DataError
from cl_manifold.streams import load_digits, load_folder, load_pictures
from cl_manifold.streams.pictures import SIZE

COLOURS = {"green": (0, 200, 0), "red": (200, 0, 0)}


def folder_of(place: Path, each: int, ending: str = "png") -> Path:
    for name, colour in COLOURS.items():
        (place / name).mkdir(parents=True)
        for index in range(each):
            image = Image.new("RGB", (20 + index, 10), (*colour[:2], index))
            image.save(place / name / f"{index}.{ending}")
    return place


def test_a_folder_becomes_two_parts_of_small_images(tmp_path: Path) -> None:
    pictures = load_folder(folder_of(tmp_path / "photos", 8))
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
    pictures = load_folder(tmp_path)
    assert len(pictures.train_x) == 4
    assert len(pictures.test_x) == 2
    (tmp_path / "test" / "blue").mkdir()
    with pytest.raises(DataError, match=r"blue, green, red.*give both the same folders"):
        load_folder(tmp_path)


def test_digits_are_digits() -> None:
    assert load_pictures("digits", None).digest == load_digits().digest


def test_validation_images_are_training_images_of_every_class(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 40)
    pictures = load_pictures(str(folder), None, "validation")
    assert (len(pictures.train_x), len(pictures.test_x)) == (45, 15)
    assert pictures.test_y.unique().tolist() == [0, 1]
    true_test = load_folder(folder).test_x[:, 2, 0, 0].tolist()
    assert not set(pictures.test_x[:, 2, 0, 0].tolist()) & set(true_test)
    with pytest.raises(ConfigError, match="holdout is 'tests', but must be one of test, valid"):
        load_pictures(str(folder), None, "tests")


def test_images_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"stream\.images is 'mnsit'.*did you mean mnist"):
        load_pictures("mnsit", None)
    with pytest.raises(DataError, match=r"there is no such folder.*give one with a folder per"):
        load_pictures(str(tmp_path / "nowhere"), None)
    with pytest.raises(DataError, match="pass --data-dir FOLDER"):
        load_pictures("mnist", None)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds 0 folders"):
        load_folder(tmp_path)
    few = folder_of(tmp_path / "few", 3)
    with pytest.raises(DataError, match=r"no test image; give every class at least 4"):
        load_folder(few)
    broken = folder_of(tmp_path / "broken", 4)
    (broken / "red" / "x.png").write_text("no image")
    with pytest.raises(DataError, match=r"x\.png cannot be read .*; repair or remove it"):
        load_folder(broken)


def test_mnist_is_found(mnist_dir: Path) -> None:
    assert load_pictures("mnist", mnist_dir).input_shape == (1, 28, 28)
