"""Streams with hidden tasks: what is visited when, with which images, and what nobody may see."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cl_manifold.contexts import GivenContext
from cl_manifold.errors import ConfigError, ContextError
from cl_manifold.geometry.topology import Simplex
from cl_manifold.streams import (
    VARIANTS,
    ContextExperience,
    ImageDataset,
    ImageSet,
    StreamOptions,
    TaskStream,
    add_background,
    ctrl,
    load_digits,
    recurring,
    rotate,
    rotated,
    texture,
)

SMALL = StreamOptions(samples=30, test_samples=20)
FAMILIES: dict[str, Callable[[ImageSet, StreamOptions], TaskStream]] = {
    "recurring": recurring,
    **{v: lambda i, o, v=v: ctrl(i, replace(o, variant=v)) for v in VARIANTS},
}


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return load_digits()


@pytest.fixture(scope="module")
def numbered(images: ImageSet) -> ImageSet:
    """Training images that show their own number, one brightness each, whatever happens to them."""
    numbers = torch.arange(200, dtype=torch.uint8)
    train_x = numbers.reshape(200, 1, 1, 1).expand(200, 1, 16, 16)
    return replace(images, train_x=train_x, train_y=numbers.long() % 10)


def leaf(experience: ContextExperience) -> ImageDataset:
    data = experience.dataset._flat_data._datasets[0]
    assert isinstance(data, ImageDataset)
    return data


def numbers(experience: ContextExperience) -> Tensor:
    return leaf(experience).images[:, 0, 8, 8]


def sizes(stream: TaskStream) -> list[int]:
    return [len(e.dataset) for e in stream.train_stream]


def kinds(stream: TaskStream) -> list[str | None]:
    return [e.hidden_kind for e in stream.train_stream]


def hidden(stream: TaskStream) -> list[int]:
    found = stream.hidden_tasks()
    assert found is not None
    return found


def seen_before(tasks: list[int]) -> list[str]:
    """The truth, from the definition."""
    return ["return" if task in tasks[:k] else "first" for k, task in enumerate(tasks)]


def same(a: TaskStream, b: TaskStream) -> bool:
    return hidden(a) == hidden(b) and all(
        torch.equal(leaf(p).images, leaf(q).images)
        and torch.equal(leaf(p).targets, leaf(q).targets)
        for x, y in zip(a.streams.values(), b.streams.values(), strict=True)
        for p, q in zip(x, y, strict=True)
    )


@pytest.fixture(params=FAMILIES)
def stream(request: pytest.FixtureRequest, images: ImageSet) -> TaskStream:
    return FAMILIES[request.param](images, SMALL)


# -- all of them ---------------------------------------------------------------------------------


def test_nothing_tells_a_method_where_it_is(stream: TaskStream) -> None:
    for part in (stream.train_stream, stream.test_stream):
        for experience in part:
            assert not hasattr(experience, "context")
            with pytest.raises(ContextError, match="carries no context"):
                GivenContext()(experience)
    with pytest.raises(ContextError, match=f"the experiences of {stream.name} carry no contexts"):
        stream.contexts()


def test_the_truth_is_consistent(stream: TaskStream) -> None:
    tasks = hidden(stream)
    assert stream.topology.spec() == Simplex(len(set(tasks))).spec()
    assert set(tasks) == set(range(stream.topology.dim))
    for part in (stream.train_stream, stream.test_stream):
        assert [e.hidden_task for e in part] == tasks
        assert [e.truth for e in part] == seen_before(tasks)
        named = {(e.hidden_task, e.context_name) for e in part}
        assert len(named) == len(set(tasks)) == len({name for _, name in named})
    assert [kind == "return" for kind in kinds(stream)] == [
        t == "return" for t in seen_before(tasks)
    ]
    assert len(stream.unseen_stream) == 0


def test_visits_share_test_images_and_draw_their_own_training_images(stream: TaskStream) -> None:
    tests: dict[int | None, ImageDataset] = {}
    for experience in stream.test_stream:
        first = tests.setdefault(experience.hidden_task, leaf(experience))
        assert torch.equal(first.images, leaf(experience).images)
        assert torch.equal(first.targets, leaf(experience).targets)
        assert len(first) == 20
    visits: dict[int | None, list[Tensor]] = {}
    for experience in stream.train_stream:
        others = visits.setdefault(experience.hidden_task, [])
        assert not any(torch.equal(leaf(experience).images, x) for x in others)
        others.append(leaf(experience).images)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_seed_decides(family: str, images: ImageSet) -> None:
    make = FAMILIES[family]
    torch.manual_seed(1)
    first = make(images, SMALL)
    torch.manual_seed(2)
    assert same(first, make(images, SMALL))
    assert not same(first, make(images, replace(SMALL, seed=1)))


def test_copies_keep_the_truth(images: ImageSet) -> None:
    experience = recurring(images, SMALL).train_stream[5]
    for copy in (experience.train(), experience.eval(), experience.logging()):
        assert isinstance(copy, ContextExperience)
        assert not hasattr(copy, "context")
        assert (copy.hidden_task, copy.hidden_kind, copy.truth) == (
            experience.hidden_task,
            experience.hidden_kind,
            experience.truth,
        )


def test_task_labels_are_positions_and_not_the_truth(images: ImageSet) -> None:
    stream = recurring(images, replace(SMALL, task_labels=True))
    assert [e.task_label for e in stream.train_stream] == list(range(12))
    assert [e.task_label for e in stream.test_stream] == list(range(12))


def test_other_streams_hide_nothing(images: ImageSet) -> None:
    stream = rotated(images, replace(SMALL, contexts=2))
    assert stream.hidden_tasks() is None
    assert [(e.hidden_task, e.hidden_kind, e.truth) for e in stream.train_stream] == [
        (None, None, None)
    ] * 2


# -- recurring -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_every_hidden_task_occurs_and_the_order_is_seeded(images: ImageSet, seed: int) -> None:
    stream = recurring(images, replace(SMALL, seed=seed))
    assert len(stream.train_stream) == len(stream.test_stream) == 12
    assert set(hidden(stream)) == set(range(5))
    assert hidden(stream) != sorted(hidden(stream))
    assert kinds(stream).count("first") == 5
    assert kinds(stream).count("return") == 7
    assert stream.name == "recurring-digits"
    assert set(sizes(stream)) == {30}


def test_three_rotations_40_degrees_apart_and_two_permutations(images: ImageSet) -> None:
    offsets = set()
    for seed in range(4):
        stream = recurring(images, StreamOptions(samples=30, seed=seed))
        test = {e.hidden_task: e for e in stream.test_stream}
        angles = [int(test[k].context_name.removesuffix("°")) for k in range(3)]
        assert [(angle - angles[0]) % 360 for angle in angles] == [0, 40, 80]
        offsets.add(angles[0])
        for k, angle in enumerate(angles):
            assert torch.equal(leaf(test[k]).images, rotate(images.test_x, float(angle)))
        for k in (3, 4):
            assert test[k].context_name == f"permutation {k - 2}"
            shuffled, original = leaf(test[k]).images.flatten(1), images.test_x.flatten(1)
            assert torch.equal(shuffled.sort(1).values, original.sort(1).values)
            assert not torch.equal(shuffled, original)
        assert not torch.equal(leaf(test[3]).images, leaf(test[4]).images)
        for experience in test.values():
            assert torch.equal(leaf(experience).targets, images.test_y)
    assert len(offsets) == 4


def test_a_visit_has_no_image_twice_and_visits_differ(numbered: ImageSet) -> None:
    stream = recurring(numbered, StreamOptions(contexts=20, samples=50))
    drawn = [numbers(e) for e in stream.train_stream]
    assert all(len(d.unique()) == 50 for d in drawn)
    assert len({tuple(d.sort().values.tolist()) for d in drawn}) == 20
    for experience, d in zip(stream.train_stream, drawn, strict=True):
        assert torch.equal(leaf(experience).targets, d.long() % 10)


def test_hundreds_of_returns(images: ImageSet) -> None:
    stream = recurring(images, StreamOptions(contexts=205, samples=10, test_samples=10))
    assert kinds(stream).count("return") == 200
    assert min(Counter(hidden(stream)).values()) > 20


def test_sorted_order_visits_task_after_task_with_the_same_images(images: ImageSet) -> None:
    shuffled, ascending = (
        recurring(images, SMALL),
        recurring(images, replace(SMALL, order="sorted")),
    )
    assert hidden(ascending) == sorted(hidden(shuffled))
    for task in range(5):
        a, b = (
            [leaf(e).images for e in s.train_stream if e.hidden_task == task]
            for s in (shuffled, ascending)
        )
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_as_many_experiences_as_hidden_tasks_but_not_fewer(images: ImageSet) -> None:
    assert set(kinds(recurring(images, replace(SMALL, contexts=5)))) == {"first"}
    with pytest.raises(
        ConfigError, match=r"4 experiences asked, but recurring-digits .* 5 hidden.* ask for 5 or"
    ):
        recurring(images, replace(SMALL, contexts=4))


# -- ctrl ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "tasks", "data", "last"),
    [
        ("minus", [0, 1, 2, 3, 4, 0], [200, 20, 20, 20, 20, 20], "return"),
        ("plus", [0, 1, 2, 3, 4, 0], [20, 20, 20, 20, 20, 200], "return"),
        ("in", [0, 1, 2, 3, 4, 5], [200, 20, 20, 20, 20, 20], "related"),
        ("out", [0, 1, 2, 3, 4, 5], [200, 20, 20, 20, 20, 20], "related"),
        ("pl", [0, 1, 2, 3, 4, 5], [20, 20, 20, 20, 20, 200], "first"),
    ],
)
def test_short_streams(
    images: ImageSet, variant: str, tasks: list[int], data: list[int], last: str
) -> None:
    stream = ctrl(images, StreamOptions(samples=200, variant=variant))
    assert (hidden(stream), sizes(stream)) == (tasks, data)
    assert kinds(stream) == ["first"] * 5 + [last]
    assert stream.name == "ctrl-digits"
    assert f"{variant}: {VARIANTS[variant]}" in stream.description
    original = images.test_x.flatten(1)
    assert torch.equal(leaf(stream.test_stream[0]).images, images.test_x)
    unrelated = [k for k in range(1, 6) if kinds(stream)[k] == "first"]
    batches = [leaf(stream.test_stream[k]).images.flatten(1) for k in unrelated]
    for k, batch in enumerate(batches):
        assert torch.equal(batch.sort(1).values, original.sort(1).values)
        assert not any(torch.equal(batch, other) for other in [original, *batches[:k]])
    for experience in stream.test_stream:
        assert experience.classes_in_this_experience == list(range(10))


def test_in_has_the_same_labels_in_front_of_one_background(images: ImageSet) -> None:
    stream = ctrl(images, StreamOptions(samples=200, variant="in"))
    last = leaf(stream.test_stream[5])
    assert torch.equal(last.targets, images.test_y)
    assert stream.test_stream[5].context_name == "original, background 1"
    x, out = images.test_x.double(), last.images.double()
    dark = torch.where(x == 0, out, 255).amin(0)
    assert ((x > 0) | (out == dark)).all()
    seen = (dark < 255) & (dark > 0)
    assert seen.double().mean() > 0.5
    # the background is rounded to whole brightnesses where it is read off
    assert ((out - (x + (255 - x) * dark / 255)).abs()[:, seen] <= 1.0).all()
    train = leaf(stream.train_stream[5]).images
    assert (train[:, seen] >= dark[seen].to(torch.uint8)).all()


def test_out_has_the_same_images_with_a_permutation_of_the_labels(images: ImageSet) -> None:
    for seed in range(5):
        stream = ctrl(images, StreamOptions(samples=200, variant="out", seed=seed))
        last = leaf(stream.test_stream[5])
        assert torch.equal(last.images, images.test_x)
        pairs = set(zip(images.test_y.tolist(), last.targets.tolist(), strict=True))
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) == 10
        assert all(a != b for a, b in pairs)


def test_new_labels_hold_for_training_too(numbered: ImageSet) -> None:
    stream = ctrl(numbered, StreamOptions(samples=200, variant="out"))
    test = leaf(stream.test_stream[5]).targets
    labels = dict(zip(numbered.test_y.tolist(), test.tolist(), strict=True))
    train = stream.train_stream[5]
    expected = [labels[number % 10] for number in numbers(train).tolist()]
    assert leaf(train).targets.tolist() == expected


def test_everything_and_a_tenth_without_a_number_of_samples(images: ImageSet) -> None:
    assert sizes(ctrl(images, StreamOptions(variant="minus"))) == [1347] + [134] * 5
    assert sizes(ctrl(images, StreamOptions(contexts=3, variant="plus"))) == [134, 134, 1347]


@pytest.mark.parametrize("seed", range(5))
def test_the_long_stream_mixes_all_kinds(images: ImageSet, seed: int) -> None:
    stream = ctrl(images, StreamOptions(samples=50, test_samples=20, variant="long", seed=seed))
    names = [e.context_name for e in stream.train_stream]
    assert len(stream.train_stream) == 30
    assert Counter(kinds(stream)) == {"return": 12, "first": 7, "related": 11}
    new = [name for name, kind in zip(names, kinds(stream), strict=True) if kind == "related"]
    assert sum("background" in name for name in new) == 6
    assert sum("labels" in name for name in new) == 5
    amounts: dict[int, int] = {}
    for name, kind, task, size in zip(
        names, kinds(stream), hidden(stream), sizes(stream), strict=True
    ):
        if kind == "related":
            origin = names[: names.index(name)]
            assert name.split(",")[0] in origin
            assert size == 5
        if kind == "return":
            assert {size, amounts[task]} == {5, 50}
        amounts[task] = size


def test_long_streams_of_different_seeds_differ(images: ImageSet) -> None:
    options = StreamOptions(samples=50, test_samples=20, variant="long")
    orders = [hidden(ctrl(images, replace(options, seed=seed))) for seed in range(4)]
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "sideways"}, "'sideways', but must be one of minus, plus, in, out, pl, long"),
        ({"order": "sorted"}, "a CTrL stream is its order; leave it random"),
        ({"contexts": 2}, "2 experiences asked, but the CTrL stream minus needs at least 3"),
        (
            {"contexts": 10, "variant": "long"},
            "10 experiences asked, but .* long needs at least 11; .* usual are 30",
        ),
        ({"samples": 9}, "samples is 9, .* a tenth of that; ask for at least 10"),
    ],
)
def test_impossible_suites(images: ImageSet, options: dict[str, int | str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ctrl(images, StreamOptions(**options))  # pyright: ignore[reportArgumentType]


# -- backgrounds ---------------------------------------------------------------------------------


def test_background_matches_a_slow_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    real = torch.rand(3, 2, 4, 5, generator=generator, dtype=torch.float64)
    background = torch.rand(4, 5, generator=generator, dtype=torch.float64)
    bytes_ = (real * 255).round().to(torch.uint8)
    bytes_[0, 0, 0, :2] = torch.tensor([0, 255], dtype=torch.uint8)
    out, out_bytes = add_background(real, background), add_background(bytes_, background)
    assert (out.dtype, out_bytes.dtype) == (torch.float64, torch.uint8)
    for n, c, i, j in torch.cartesian_prod(*map(torch.arange, real.shape)).tolist():
        x, b, byte = real[n, c, i, j].item(), background[i, j].item(), bytes_[n, c, i, j].item()
        assert out[n, c, i, j].item() == pytest.approx(x + (1 - x) * b, abs=1e-12)
        exact = 255 * (byte / 255 + (1 - byte / 255) * b)
        assert abs(out_bytes[n, c, i, j].item() - exact) <= 0.5 + 1e-3


def test_textures_are_smooth_bounded_and_seeded() -> None:
    a, b = (texture(16, 28, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert a.shape == (16, 28)
    assert not torch.equal(a, b)
    assert torch.equal(a, texture(16, 28, torch.Generator().manual_seed(0)))
    assert 0 <= a.min() < a.max() <= 0.75
    # five nodes: four cells over fifteen steps, so no step exceeds 4/15 of the range
    assert a.diff(dim=0).abs().max() <= 0.75 * 4 / 15
    corners = torch.rand(5, 5, generator=torch.Generator().manual_seed(0))[::4, ::4]
    torch.testing.assert_close(a[:: 16 - 1, :: 28 - 1], 0.75 * corners)


def test_backgrounds_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"values from -0\.5 to 2, but must lie in \[0, 1\]"):
        add_background(torch.zeros(1, 1, 1, 2), torch.tensor([[-0.5, 2.0]]))
