"""Streams: which contexts, which images, which labels, and what depends on the seed."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from avalanche.benchmarks import SequenceCLStream
from torch import Tensor

from cl_manifold.errors import ConfigError
from cl_manifold.geometry.topology import Circle, Interval, Simplex
from cl_manifold.streams import (
    ContextExperience,
    ImageDataset,
    ImageSet,
    StreamOptions,
    TaskStream,
    load_digits,
    noisy,
    permuted,
    rotated,
    split,
)
from cl_manifold.streams.transforms import rotate

Family = Callable[[ImageSet, StreamOptions], TaskStream]
FAMILIES: dict[str, Family] = {
    "rotated": rotated,
    "permuted": permuted,
    "split": split,
    "noisy": noisy,
}
SMALL = StreamOptions(contexts=5, samples=30, test_samples=20)


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return load_digits()


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


def leaf(experience: ContextExperience) -> ImageDataset:
    data = experience.dataset._flat_data._datasets[0]
    assert isinstance(data, ImageDataset)
    return data


def attribute(experience: ContextExperience, name: str) -> list[int]:
    return list(experience.dataset._data_attributes[name])


def names(stream: SequenceCLStream[ContextExperience]) -> list[str]:
    return [experience.context_name for experience in stream]


def bytes_by_name(stream: SequenceCLStream[ContextExperience]) -> dict[str, Tensor]:
    return {experience.context_name: leaf(experience).images for experience in stream}


def same(a: TaskStream, b: TaskStream) -> bool:
    return all(
        names(x) == names(y)
        and all(
            torch.equal(p.context, q.context)
            and torch.equal(leaf(p).images, leaf(q).images)
            and torch.equal(leaf(p).targets, leaf(q).targets)
            for p, q in zip(x, y, strict=True)
        )
        for x, y in zip(a.streams.values(), b.streams.values(), strict=True)
    )


def test_equal_seeds_give_equal_streams(family: Family, images: ImageSet) -> None:
    torch.manual_seed(1)
    first = family(images, SMALL)
    torch.manual_seed(2)
    assert same(first, family(images, SMALL))


def test_other_seeds_give_other_streams(family: Family, images: ImageSet) -> None:
    assert not same(family(images, SMALL), family(images, replace(SMALL, seed=1)))


def test_contexts_lie_on_the_topology_and_match_between_parts(
    family: Family, images: ImageSet
) -> None:
    stream = family(images, SMALL)
    assert stream.contexts().dtype == torch.float64
    torch.testing.assert_close(stream.topology.wrap(stream.contexts()), stream.contexts())
    assert len(stream.train_stream) == len(stream.test_stream) == 5
    assert names(stream.train_stream) == names(stream.test_stream)
    for train, test in zip(stream.train_stream, stream.test_stream, strict=True):
        assert torch.equal(train.context, test.context)
        assert train.context.shape == (stream.topology.dim,)


def test_sizes_and_facts(family: Family, images: ImageSet) -> None:
    stream = family(images, SMALL)
    assert {len(e.dataset) for e in stream.train_stream} == {30}
    assert {len(e.dataset) for e in stream.test_stream} == {20}
    assert (stream.outputs, stream.input_shape) == (10, (1, 16, 16))
    assert stream.digest == images.digest
    assert stream.name.endswith("-digits")
    assert stream.description
    assert [e.current_experience for e in stream.train_stream] == [0, 1, 2, 3, 4]


def test_everything_is_used_without_a_number_of_samples(images: ImageSet) -> None:
    stream = rotated(images, StreamOptions(contexts=2))
    assert [len(e.dataset) for e in stream.train_stream] == [1347, 1347]
    assert [len(e.dataset) for e in stream.unseen_stream] == [450, 450]


def test_a_subset_has_no_image_twice_and_differs_between_contexts(images: ImageSet) -> None:
    numbered = replace(
        images,
        train_x=torch.arange(200, dtype=torch.uint8).reshape(200, 1, 1, 1).expand(200, 1, 16, 16),
        train_y=torch.arange(200) % 10,
    )
    stream = rotated(numbered, StreamOptions(contexts=4, samples=150, order="sorted"))
    rows = [leaf(e).images[:, 0, 8, 8] for e in stream.train_stream]
    assert all(len(r.unique()) == 150 for r in rows)
    assert not torch.equal(rows[0].sort().values, rows[2].sort().values)
    assert torch.equal(rows[0].long() % 10, leaf(stream.train_stream[0]).targets)


def test_training_part_trains_and_test_part_tests(family: Family, images: ImageSet) -> None:
    marked = replace(
        images,
        train_x=torch.zeros_like(images.train_x),
        test_x=torch.full_like(images.test_x, 255),
    )
    stream = family(marked, replace(SMALL, order="sorted"))
    train, test = leaf(stream.train_stream[0]).images, leaf(stream.test_stream[0]).images
    assert train[:, 0, 8, 8].max() == 0
    assert test[:, 0, 8, 8].min() == 255
    for experience in stream.unseen_stream:
        assert leaf(experience).images[:, 0, 8, 8].double().mean() > 128


def test_sorted_order_ascends_and_random_order_is_a_permutation_of_it(
    family: Family, images: ImageSet
) -> None:
    ascending = family(images, replace(SMALL, order="sorted"))
    shuffled = family(images, replace(SMALL, seed=3))
    coordinates = ascending.contexts() @ torch.arange(
        1.0, ascending.topology.dim + 1, dtype=torch.float64
    )
    assert torch.equal(coordinates, coordinates.sort().values)
    if family is not split:
        assert names(ascending.train_stream) != names(shuffled.train_stream)
        assert sorted(names(ascending.train_stream)) == sorted(names(shuffled.train_stream))


def test_the_order_does_not_change_the_data_of_a_context(images: ImageSet) -> None:
    a = bytes_by_name(noisy(images, SMALL).train_stream)
    b = bytes_by_name(noisy(images, replace(SMALL, order="sorted")).train_stream)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_rotation_matches_its_name_and_context(images: ImageSet) -> None:
    stream = rotated(images, StreamOptions(contexts=12, order="sorted"))
    assert isinstance(stream.topology, Circle)
    assert names(stream.train_stream)[:3] == ["0°", "30°", "60°"]
    assert stream.contexts().flatten().tolist() == pytest.approx([k / 12 for k in range(12)])
    assert torch.equal(leaf(stream.train_stream[2]).images, rotate(images.train_x, 60.0))
    assert torch.equal(leaf(stream.train_stream[2]).targets, images.train_y)


def test_test_images_follow_the_order_of_the_contexts(images: ImageSet) -> None:
    for experience in rotated(images, StreamOptions(contexts=5)).test_stream:
        turned = rotate(images.test_x, 360 * experience.context.item())
        assert torch.equal(leaf(experience).images, turned)


def test_unseen_angles_lie_halfway(images: ImageSet) -> None:
    stream = rotated(images, StreamOptions(contexts=4, test_samples=30))
    assert names(stream.unseen_stream) == ["45°", "135°", "225°", "315°"]
    assert [e.context.item() for e in stream.unseen_stream] == [0.125, 0.375, 0.625, 0.875]
    assert {len(e.dataset) for e in stream.unseen_stream} == {30}


def test_noise_levels(images: ImageSet) -> None:
    stream = noisy(images, StreamOptions(contexts=5, order="sorted"))
    assert isinstance(stream.topology, Interval)
    assert names(stream.train_stream) == ["σ 0", "σ 0.25", "σ 0.5", "σ 0.75", "σ 1"]
    assert [e.context.item() for e in stream.unseen_stream] == [0.125, 0.375, 0.625, 0.875]
    assert torch.equal(leaf(stream.train_stream[0]).images, images.train_x)
    clean = images.train_x.double()
    spread = [(leaf(e).images.double() - clean).std().item() for e in stream.train_stream]
    assert spread == sorted(spread)


def test_permutations_are_permutations_and_all_differ(images: ImageSet) -> None:
    stream = permuted(images, StreamOptions(contexts=3, order="sorted"))
    assert isinstance(stream.topology, Simplex)
    assert names(stream.train_stream) == ["permutation 1", "permutation 2", "permutation 3"]
    assert torch.equal(stream.contexts(), torch.eye(3, dtype=torch.float64))
    batches = [leaf(e).images.flatten(1) for e in stream.train_stream]
    original = images.train_x.flatten(1)
    for batch in batches:
        assert torch.equal(batch.sort(1).values, original.sort(1).values)
        assert not torch.equal(batch, original)
    assert not torch.equal(batches[0], batches[1])
    test = leaf(stream.test_stream[1]).images.flatten(1)
    columns = [
        next(j for j in range(256) if torch.equal(original[:, j], batches[1][:, i]))
        for i in range(100, 110)
    ]
    assert torch.equal(test[:, 100:110], images.test_x.flatten(1)[:, columns])


def test_split_divides_the_classes_and_keeps_global_labels(images: ImageSet) -> None:
    stream = split(images, StreamOptions())
    groups = [e.classes_in_this_experience for e in stream.train_stream]
    assert sorted(label for group in groups for label in group) == list(range(10))
    assert names(stream.train_stream) == [f"digits {a}, {b}" for a, b in groups]
    assert torch.equal(stream.contexts(), torch.eye(5, dtype=torch.float64))
    assert sum(len(e.dataset) for e in stream.train_stream) == 1347
    for train, test in zip(stream.train_stream, stream.test_stream, strict=True):
        label = leaf(train).targets[0]
        row = (images.train_y == label).nonzero()[0, 0]
        assert torch.equal(leaf(train).images[0], images.train_x[row])
        assert test.classes_in_this_experience == train.classes_in_this_experience


def test_sorted_split_takes_classes_in_order(images: ImageSet) -> None:
    stream = split(images, StreamOptions(contexts=5, order="sorted"))
    assert names(stream.train_stream)[:2] == ["digits 0, 1", "digits 2, 3"]
    assert len(stream.unseen_stream) == 0
    assert list(stream.unseen_stream) == []


def test_classes_that_cannot_be_divided(images: ImageSet) -> None:
    with pytest.raises(ConfigError, match="10 classes cannot be divided into 3 equal groups"):
        split(images, StreamOptions(contexts=3))


def test_copies_keep_the_context(images: ImageSet) -> None:
    experience = rotated(images, SMALL).train_stream[1]
    for copy in (experience.train(), experience.eval(), experience.logging()):
        assert isinstance(copy, ContextExperience)
        assert torch.equal(copy.context, experience.context)
        assert copy.context_name == experience.context_name
        assert copy.classes_in_this_experience == experience.classes_in_this_experience


def test_items_and_tensors_agree_exactly(images: ImageSet) -> None:
    data = ImageDataset(images.test_x, images.test_y, *images.moments)
    x, y = data.tensors()
    assert x.dtype == torch.float32
    rows = torch.tensor([3, 3, 0])
    picked = data.tensors(rows)
    for place, row in enumerate([3, 3, 0]):
        image, label = data[row]
        assert isinstance(label, int)
        assert torch.equal(image, x[row])
        assert torch.equal(image, picked[0][place])
        assert label == y[row] == picked[1][place]
    mean, std = images.moments
    torch.testing.assert_close(
        x.double(), (images.test_x / 255.0 - mean) / std, atol=1e-6, rtol=0, check_dtype=False
    )


def test_pixels_are_standardised(images: ImageSet) -> None:
    stream = rotated(images, StreamOptions(contexts=1))
    x, _ = leaf(stream.train_stream[0]).tensors()
    assert x.mean().item() == pytest.approx(0, abs=1e-4)
    assert x.std().item() == pytest.approx(1, abs=1e-3)


def test_one_task_label_by_default(images: ImageSet) -> None:
    """As on Avalanche's classic streams: nothing is told, and nothing that asks for it fails."""
    for experience in rotated(images, SMALL).train_stream:
        assert experience.dataset[0][2] == 0
        assert experience.task_labels == [0]


def test_task_labels_count_positions(family: Family, images: ImageSet) -> None:
    stream = family(images, replace(SMALL, task_labels=True))
    for part in (stream.train_stream, stream.test_stream):
        for place, experience in enumerate(part):
            assert experience.task_labels == [place]
            assert experience.task_label == place
            assert experience.dataset[3][2] == place
            assert attribute(experience, "targets_task_labels") == [place] * len(experience.dataset)
    assert len(stream.unseen_stream) == 0


def test_targets_are_ints_for_avalanche(images: ImageSet) -> None:
    for labels in (False, True):
        experience = split(images, replace(SMALL, task_labels=labels)).train_stream[0]
        assert attribute(experience, "targets") == leaf(experience).targets.tolist()
