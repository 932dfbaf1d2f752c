"""Streams by name, and what is said when options or data are impossible."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cl_manifold.errors import ConfigError, DataError
from cl_manifold.streams import (
    ImageSet,
    StreamOptions,
    TaskStream,
    ctrl_digits,
    ctrl_mnist,
    load_digits,
    noisy_digits,
    permuted_digits,
    recurring_digits,
    recurring_mnist,
    rotated,
    rotated_digits,
    rotated_mnist,
    split_digits,
    validation_split,
)

SMALL = StreamOptions(contexts=5, samples=30, test_samples=20)


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return load_digits()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "zigzag"}, "is 'zigzag', but must be one of random, sorted"),
        ({"contexts": 0}, "contexts is 0, but must be at least 1"),
        ({"samples": -1}, "samples is -1, but must be at least 1"),
        ({"test_samples": 0}, "test_samples is 0"),
    ],
)
def test_impossible_options(options: dict[str, int | str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StreamOptions(**options)  # pyright: ignore[reportArgumentType]


def test_more_samples_than_there_are(images: ImageSet) -> None:
    with pytest.raises(
        ConfigError, match=r"1348 images per context asked.*only 1347.*at most 1347"
    ):
        rotated(images, StreamOptions(samples=1348))
    with pytest.raises(ConfigError, match=r"451 images per context asked.*only 450"):
        rotated(images, StreamOptions(test_samples=451))


DIGITS = [
    rotated_digits,
    permuted_digits,
    split_digits,
    noisy_digits,
    recurring_digits,
    ctrl_digits,
]


@pytest.mark.parametrize("build", DIGITS)
def test_digit_streams_need_no_files(build: Callable[..., TaskStream]) -> None:
    assert build(SMALL).digest == load_digits().digest


def test_validation_streams_never_see_test_images(images: ImageSet) -> None:
    stream = rotated_digits(SMALL, None, "validation")
    assert stream.digest == validation_split(images).digest
    assert stream.name == "rotated-digits-validation"


@pytest.mark.parametrize("name", ["recurring", "ctrl"])
def test_hidden_tasks_are_validated_on_training_images(images: ImageSet, name: str) -> None:
    build = {"recurring": recurring_digits, "ctrl": ctrl_digits}[name]
    stream = build(StreamOptions(samples=1000), None, "validation")
    assert stream.digest == validation_split(images).digest
    assert stream.name == f"{name}-digits-validation"
    assert {len(e.dataset) for e in stream.test_stream} == {1347 // 4}


def test_unknown_holdout() -> None:
    with pytest.raises(ConfigError, match="'tests', but must be one of test, validation"):
        rotated_digits(SMALL, None, "tests")


def test_mnist_without_a_folder_names_the_option() -> None:
    with pytest.raises(DataError, match="pass --data-dir"):
        rotated_mnist(SMALL)


def test_mnist_stream(mnist_dir: Path) -> None:
    stream = rotated_mnist(SMALL, mnist_dir)
    assert stream.input_shape == (1, 28, 28)
    assert len(stream.train_stream) == 5


@pytest.mark.parametrize("build", [recurring_mnist, ctrl_mnist])
def test_mnist_streams_with_hidden_tasks(build: Callable[..., TaskStream], mnist_dir: Path) -> None:
    stream = build(StreamOptions(samples=30, test_samples=20), mnist_dir)
    assert stream.input_shape == (1, 28, 28)
    assert stream.hidden_tasks() is not None
