"""Images of one's own as a stream: what is guessed, what is kept in memory, refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cl_manifold.data.images import guess_images, image_stream
from cl_manifold.data.options import ImageOptions
from cl_manifold.data.paths import kind_of_path
from cl_manifold.errors import ConfigError, DataError
from cl_manifold.experiments.config import resolve
from cl_manifold.geometry.topology import Circle, Interval, Simplex
from cl_manifold.strategies.materialise import layout_of, tensors_of
from cl_manifold.streams import StreamOptions, TaskStream, load_pictures
from cl_manifold.streams.listing import listed_folder
from cl_manifold.streams.stored import in_memory, stored

SORTED = StreamOptions(order="sorted")


def pictures(count: int = 24, shape: tuple[int, ...] = (6, 6)) -> Any:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


def saved(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "own.npz", **arrays)
    return folder / "own.npz"


def drawn(folder: Path, each: int = 4, classes: str = "ab", shape: Any = (6, 6)) -> Path:
    for place, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(each):
            pixels = np.full(shape, 40 * place + index, dtype=np.uint8)
            pixels[0, 0] = 200
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


def tasks(folder: Path, *names: str) -> Path:
    for name in names:
        drawn(folder / name)
    return folder


def stream_of(path: Path, stream: StreamOptions = SORTED, **options: Any) -> TaskStream:
    return image_stream(path, ImageOptions(**options), stream)


def items(experience: Any) -> Tensor:
    return torch.stack([item[0] for item in experience.dataset])


@pytest.mark.parametrize(
    ("shape", "found"),
    [((6, 6), (1, 6, 6)), ((6, 6, 3), (3, 6, 6)), ((3, 6, 6), (3, 6, 6)), ((1, 6, 7), (1, 6, 7))],
)
def test_images_may_have_their_channels_first_last_or_not(
    tmp_path: Path, shape: Any, found: Any
) -> None:
    x = pictures(24, shape)
    path = saved(tmp_path, x=x, y=np.arange(24) % 3)
    assert kind_of_path(str(path)) == "images"
    stream = stream_of(path, recipe="split")
    assert (stream.input_shape, stream.outputs) == (found, 3)
    kept = load_pictures(str(path), None)
    moved = x.transpose(0, 3, 1, 2) if shape == (6, 6, 3) else x.reshape(24, *found)
    assert sorted(kept.test_x.flatten(1).tolist()) == sorted(
        moved[[i for i in range(24) if (i // 3) % 4 == 3]].reshape(6, -1).tolist()
    )


def test_floats_between_0_and_1_are_the_same_images_as_bytes(tmp_path: Path) -> None:
    x, y = pictures(), np.arange(24) % 2
    first = stream_of(saved(tmp_path, x=x, y=y)).digest
    assert stream_of(saved(tmp_path, x=x / np.float32(255), y=y)).digest == first


def test_parts_and_names_of_classes_are_taken_from_the_file(tmp_path: Path) -> None:
    y = np.arange(24) % 4
    arrays = {"x_train": pictures(), "y_train": y, "x_test": pictures(8), "y_test": y[:8]}
    path = saved(tmp_path, **arrays, classes=np.array(["cat", "dog", "emu", "fox"]))
    stream = stream_of(path, recipe="split")
    assert [e.context_name for e in stream.train_stream] == ["cat, dog", "emu, fox"]
    assert [len(e.dataset) for e in stream.train_stream] == [12, 12]
    assert [len(e.dataset) for e in stream.test_stream] == [4, 4]
    inner = image_stream(path, ImageOptions(recipe="split"), SORTED, "validation")
    assert [len(e.dataset) for e in inner.train_stream] == [10, 10]
    assert [len(e.dataset) for e in inner.test_stream] == [2, 2]


@pytest.mark.parametrize(
    ("recipe", "contexts", "topology"),
    [("rotate", 12, "circle"), ("permute", 10, "simplex"), ("split", 2, "simplex"),
     ("noise", 5, "interval")],
)  # fmt: skip
def test_a_recipe_brings_contexts_and_topology(
    tmp_path: Path, recipe: Any, contexts: int, topology: str
) -> None:
    path = saved(tmp_path, x=pictures(), y=np.arange(24) % 4)
    found = guess_images(path, ImageOptions(recipe=recipe))
    assert (found.contexts, found.topology) == (contexts, topology)
    assert len(stream_of(path, recipe=recipe).train_stream) == contexts


def test_what_is_guessed_is_said(tmp_path: Path) -> None:
    one = guess_images(drawn(tmp_path / "one"), ImageOptions())
    assert one.notes == ("one set of images (data.recipe=rotate)",)
    many = guess_images(tasks(tmp_path / "many", "0", "30", "60"), ImageOptions())
    assert many.notes == (
        "3 task folders (data.recipe=as-given)",
        "task folders lie on interval:0:60 (data.space=interval:0:60)",
    )
    Image.new("L", (9, 6)).save(tmp_path / "one" / "a" / "4.png")
    [resized, _] = guess_images(tmp_path / "one", ImageOptions()).notes
    assert resized == "images of 2 sizes are resized to 32×32 (data.size)"


@pytest.mark.parametrize(
    ("folder", "names", "space", "kind"),
    [
        ("own", ("0", "90", "180", "270"), "circle:360", Circle),
        ("own", ("0", "30", "60"), "interval:0:60", Interval),
        ("hour", ("0", "7", "23"), "circle:24", Circle),
        ("own", ("10deg", "200deg", "300deg"), "circle:360", Circle),
        ("own", ("day 1", "day 12"), "interval:1:12", Interval),
        ("own", ("summer", "winter"), "codes", Simplex),
        ("own", ("day 1", "night 2"), "codes", Simplex),
    ],
)
def test_task_folders_lie_where_their_names_say(
    tmp_path: Path, folder: str, names: tuple[str, ...], space: str, kind: type
) -> None:
    path = tasks(tmp_path / folder, *names)
    assert guess_images(path, ImageOptions()).options.space == space
    stream = stream_of(path)
    assert isinstance(stream.topology, kind)
    assert [e.context_name for e in stream.train_stream] == sorted(
        names,
        key=lambda n: int("".join(c for c in n if c.isdigit()) or 0) if space != "codes" else n,
    )
    assert {len(e.dataset) for e in stream.train_stream} == {6}
    hidden = stream_of(path, unseen="last:1") if len(names) > 2 else None
    assert hidden is None or len(hidden.unseen_stream) == 1


def test_settings_of_images_and_of_tables_are_apart(tmp_path: Path) -> None:
    images = saved(tmp_path, x=pictures(), y=np.arange(24) % 2)
    config = resolve([("test", {"stream.name": str(images)})]).config
    assert (config.network.name, config.training.batch_size) == ("cnn", 64)
    with pytest.raises(ConfigError, match=r"unknown key 'data\.context'"):
        resolve([("test", {"stream.name": str(images), "data.context": "hour"})])
    table = tmp_path / "table.csv"
    table.write_text("a,b,c\n" + "1,2,3\n2,5,4\n" * 20)
    with pytest.raises(ConfigError, match=r"unknown key 'data\.recipe'"):
        resolve([("test", {"stream.name": str(table), "data.recipe": "rotate"})])


@pytest.mark.parametrize("recipe", ["rotate", "permute", "split"])
def test_images_read_from_disk_are_those_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: Any
) -> None:
    path = drawn(tmp_path / "own", each=8)
    usual = stream_of(path, recipe=recipe)
    monkeypatch.setattr("cl_manifold.data.images.MIB", 300)  # 8 of 16 images of 36 bytes
    some = stream_of(path, recipe=recipe, memory=1)
    [part] = layout_of(some.train_stream[0].dataset).parts
    leaf = part.leaf
    assert leaf.pixels.kept.nbytes <= 300
    assert 0 < leaf.pixels.inside < len(leaf)
    for a, b in zip(usual.train_stream, some.train_stream, strict=True):
        assert torch.equal(items(a), items(b))
    assert tensors_of(some.train_stream[0].dataset) is None, "there is no room for it"


def test_noise_of_an_image_read_from_disk_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cl_manifold.data.images.MIB", 300)
    stream = stream_of(drawn(tmp_path / "own", each=8), recipe="noise", memory=1)
    last = stream.train_stream[4]
    assert torch.equal(items(last), items(last))
    assert not torch.equal(items(last)[0], items(last)[1])


def test_as_many_images_stay_as_fit(tmp_path: Path) -> None:
    listing = listed_folder(drawn(tmp_path / "own", each=8))
    for memory, inside in ((36 * 16, 16), (36 * 16 - 1, 15), (36 * 4, 4), (35, 0)):
        found = stored(listing, memory)
        assert found.train_x.inside + found.test_x.inside == inside
        assert found.train_x.kept.nbytes <= memory
        assert found.moments == pytest.approx(in_memory(listing).moments)


def test_images_that_fit_are_made_into_tensors_while_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cl_manifold.data.images.MIB", 4000)
    stream = stream_of(drawn(tmp_path / "own", each=8), memory=1)
    found = tensors_of(stream.test_stream[0].dataset)
    assert found is not None
    assert torch.equal(found[0], items(stream.test_stream[0]))
    assert tensors_of(stream.train_stream[0].dataset, limit=100) is None


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    def refused(path: Path, sentence: str) -> None:
        with pytest.raises(DataError, match=sentence):
            stream_of(path)

    path = drawn(tmp_path / "truncated")
    whole = (path / "a" / "1.png").read_bytes()
    noise = Image.fromarray(pictures(1, (40, 40))[0])
    noise.save(path / "a" / "1.png")
    kept = (path / "a" / "1.png").read_bytes()
    (path / "a" / "1.png").write_bytes(kept[: len(kept) // 2])
    refused(path, r"a/1\.png cannot be read \(.*\); repair or remove it")
    (path / "a" / "1.png").write_bytes(whole)
    (path / "b" / "text.png").write_text("no image")
    refused(path, r"b/text\.png cannot be read \(Unid.*\); repair or remove it")
    path = drawn(tmp_path / "few")
    for index in (1, 2, 3):
        (path / "b" / f"{index}.png").unlink()
    refused(path, r"class b of .* has 1 image and so no test image; give every class at least 4")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "holds 0 folders, but needs one folder per class")
    refused(tmp_path / "nowhere", "there is no file or folder")
    tasks(tmp_path / "mixed", "0", "30")
    (tmp_path / "mixed" / "other").mkdir()
    refused(tmp_path / "mixed", "has the folder 0 with folders in it and other without")


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"x": pictures() * 1.0, "y": np.arange(24) % 2}, r"values from 0 to 255, but images need"),
        ({"x": pictures() - 300.0, "y": np.arange(24) % 2}, r"x with values from -"),
        ({"x": np.full((24, 6, 6), np.nan), "y": np.arange(24) % 2}, r"values from nan to nan"),
        ({"x": pictures(), "y": np.array([{}] * 24)}, r"save plain arrays with np\.savez"),
        ({"x": pictures(), "y": np.arange(24)}, r"class 0 of .* has 1 image and so no test"),
        ({"x": pictures(), "y": np.zeros(24)}, r"has the class 0 alone"),
        ({"x": pictures(), "y": np.arange(24) / 7}, r"has y with fractions"),
        (
            {"x": pictures(24, (6, 6, 3)), "y": np.arange(23)},
            r"y of shape \(23,\) beside 24 images",
        ),
        ({"x_train": pictures(), "y_train": np.arange(24) % 2}, r"needs x_test and y_test, too"),
    ],
)
def test_arrays_that_cannot_be_used(tmp_path: Path, arrays: Any, sentence: str) -> None:
    path = saved(tmp_path, **arrays)
    assert kind_of_path(str(path)) == "images"
    with pytest.raises(DataError, match=sentence):
        stream_of(path)


@pytest.mark.parametrize(
    ("names", "options", "sentence"),
    [
        ((), {"recipe": "as-given"}, "has 0 task folders; arrange the images as FOLDER/task"),
        ((), {"space": "codes"}, "data.space is set, but is about task folders"),
        ((), {"unseen": "last:1"}, "data.unseen is set, but is about task folders"),
        (("0", "30"), {"recipe": "rotate"}, "has task folders, which are the experiences"),
        (("0", "30"), {"space": "circle:20"}, "contexts lie between 0 and 30"),
        (("0", "360"), {"space": "circle:360"}, "lie at the same point of circle:360"),
        (("a", "b"), {"space": "circle:20"}, "call all of them by a different number each"),
    ],
)
def test_options_that_do_not_fit(
    tmp_path: Path, names: tuple[str, ...], options: Any, sentence: str
) -> None:
    path = tasks(tmp_path / "own", *names) if names else drawn(tmp_path / "own")
    with pytest.raises(ConfigError, match=sentence):
        stream_of(path, **options)
