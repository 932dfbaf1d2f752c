"""Data sets as tensors, the cache that keeps them, and mini-batches of them."""

import gc
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from avalanche.benchmarks.utils import AvalancheDataset, ConstantSequence, TaskLabels
from avalanche.benchmarks.utils.data_attribute import DataAttribute
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from cl_manifold.strategies.loader import TensorLoader
from cl_manifold.strategies.materialise import TensorCache, gathered, layout_of, tensors_of
from cl_manifold.streams import ImageDataset

CPU = torch.device("cpu")
LIMIT = 2**20


def images(count: int = 20) -> ImageDataset:
    x = torch.randint(0, 256, (count, 1, 3, 3), dtype=torch.uint8)
    return ImageDataset(x, torch.randint(0, 10, (count,)), 0.3, 0.2)


def plain(count: int = 20) -> TensorDataset:
    return TensorDataset(torch.randn(count, 4), torch.randint(0, 10, (count,)))


def labelled(data: Any, *labels: int) -> AvalancheDataset:
    values: Any = ConstantSequence(labels[0], len(data)) if len(labels) == 1 else list(labels)
    return AvalancheDataset([data], data_attributes=[TaskLabels(values)])


def halved(item: Tensor) -> Tensor:
    return item / 2


class Foreign(Dataset[tuple[Tensor, int]]):
    """A data set of which nothing is known but its items."""

    def __init__(self, change: Callable[[Tensor], Tensor] = halved) -> None:
        self.x, self.change = torch.randn(40, 2), change

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.change(self.x[index]), index % 3


def nested() -> AvalancheDataset:
    frozen = AvalancheDataset([images(9)], transform_groups={"train": (halved, None)})  # pyright: ignore[reportArgumentType]
    first = AvalancheDataset([images(8)]).subset([7, 0, 3, 3])
    return frozen.freeze_transforms().concat(first).subset([12, 0, 9, 8, 8])


DATA: dict[str, Callable[[], AvalancheDataset]] = {
    "images": lambda: AvalancheDataset([images()]),
    "tensors": lambda: AvalancheDataset([plain()]),
    "subset": lambda: AvalancheDataset([images()]).subset([5, 3, 3, 19]),
    "subset of subset": lambda: AvalancheDataset([images()]).subset([5, 3, 9]).subset([2, 0]),
    "concat": lambda: AvalancheDataset([images(5)]).concat(AvalancheDataset([images(7)])),
    "mixed order": lambda: AvalancheDataset([images(5), images(7)]).subset([11, 0, 6, 4, 5]),
    "concat of subsets": lambda: (
        AvalancheDataset([images(5)]).subset([4, 1]) + AvalancheDataset([images(7)]).subset([6])
    ),
    "with itself": lambda: (data := AvalancheDataset([images(5)])).subset([1, 2]) + data,
    "one label": lambda: labelled(images(), 7),
    "many labels": lambda: labelled(images(4), 3, 1, 4, 1).subset([3, 2, 0]),
    "transform": lambda: AvalancheDataset([plain()], transform_groups={"train": (halved, None)}),  # pyright: ignore[reportArgumentType]
    "eval transform": lambda: AvalancheDataset(
        [plain()], transform_groups={"train": (None, None), "eval": (halved, None)}  # pyright: ignore[reportArgumentType]
    ).eval(),
    "nested": nested,
    "foreign": lambda: AvalancheDataset([Foreign()]),
}  # fmt: skip
DIRECT = set(DATA) - {"transform", "eval transform", "nested", "foreign"}


@pytest.fixture(params=DATA)
def dataset(request: pytest.FixtureRequest) -> AvalancheDataset:
    return DATA[request.param]()


def collated(data: AvalancheDataset) -> list[Tensor]:
    """What a plain loader makes of it: the oracle."""
    return next(iter(DataLoader(data, batch_size=len(data))))  # pyright: ignore[reportArgumentType]


def check_equal(got: list[Tensor] | None, expected: list[Tensor]) -> None:
    assert got is not None
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def test_tensors_are_the_collated_items(dataset: AvalancheDataset) -> None:
    check_equal(tensors_of(dataset), collated(dataset))
    check_equal(TensorCache(LIMIT).tensors_of(dataset, LIMIT, CPU), collated(dataset))


@pytest.mark.parametrize("name", DATA)
def test_known_leaves_are_read_without_touching_items(name: str) -> None:
    data = DATA[name]()
    layout = layout_of(data)
    assert layout.direct == (name in DIRECT)
    if layout.direct:
        check_equal(gathered(layout), collated(data)[:2])


def test_torch_random_numbers_do_not_change(dataset: AvalancheDataset) -> None:
    before = torch.get_rng_state()
    tensors_of(dataset)
    TensorCache(LIMIT).tensors_of(dataset, LIMIT, CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_random_transforms_are_refused() -> None:
    def flipped(x: Tensor) -> Tensor:
        return x.flip(0) if torch.rand(()) < 0.5 else x

    assert tensors_of(AvalancheDataset([Foreign(flipped)])) is None
    groups: Any = {"train": (flipped, None), "eval": (None, None)}
    data = AvalancheDataset([plain(40)], transform_groups=groups)
    assert tensors_of(data.train()) is None
    check_equal(tensors_of(data.eval()), collated(data.eval()))


def test_what_is_not_made_of_numbers_is_refused() -> None:
    data = [{"x": 1}, {"x": 2}]
    assert tensors_of(AvalancheDataset([data])) is None  # pyright: ignore[reportArgumentType]
    assert tensors_of(AvalancheDataset([[("a", 1), ("b", 2)]])) is None  # pyright: ignore[reportArgumentType]
    assert tensors_of(AvalancheDataset([[(object(), 1)]])) is None  # pyright: ignore[reportArgumentType]


def test_large_and_empty_data_are_refused() -> None:
    data = AvalancheDataset([images(20)])
    size = 20 * (9 * 4 + 8)
    assert tensors_of(data, limit=size) is not None
    assert tensors_of(data, limit=size - 1) is None
    assert tensors_of(data.subset([])) is None
    assert TensorCache(LIMIT).tensors_of(data.subset([]), LIMIT, CPU) is None


def test_the_cache_finds_copies_of_a_dataset(dataset: AvalancheDataset) -> None:
    cache = TensorCache(LIMIT)
    group = dataset._flat_data._transform_groups.current_group
    first = cache.tensors_of(dataset, LIMIT, CPU)
    again = cache.tensors_of(dataset.with_transforms(group), LIMIT, CPU)
    assert first is not None
    assert again is first
    assert len(cache) == 1


def test_the_cache_tells_relatives_apart() -> None:
    cache, data = TensorCache(LIMIT), AvalancheDataset([images(6)])
    relatives = [
        data,
        data.subset([0, 1, 2, 3, 5, 4]),
        data.subset([0, 1]),
        data.concat(AvalancheDataset([images(6)])),
        labelled(data, 1),
        labelled(data, 2),
        labelled(data, 1, 2, 1, 2, 1, 2),
    ]
    for _ in range(2):
        for relative in relatives:
            check_equal(cache.tensors_of(relative, LIMIT, CPU), collated(relative))
    assert len(cache) == len(relatives)


def test_transform_groups_do_not_share() -> None:
    groups: Any = {"train": (None, None), "eval": (halved, None)}
    data = AvalancheDataset([plain()], transform_groups=groups)
    cache = TensorCache(LIMIT)
    for _ in range(2):
        check_equal(cache.tensors_of(data.train(), LIMIT, CPU), collated(data.train()))
        check_equal(cache.tensors_of(data.eval(), LIMIT, CPU), collated(data.eval()))


def test_transforms_that_rarely_differ_do_not_share() -> None:
    leaf = plain()
    leaf.tensors[0][9] = 100.0
    groups: Any = {"train": (torch.relu, None), "eval": (torch.nn.ReLU6(), None)}
    data = AvalancheDataset([leaf], transform_groups=groups)
    cache = TensorCache(LIMIT)
    for group in (data.train(), data.eval()):
        check_equal(cache.tensors_of(group, LIMIT, CPU), collated(group))


@pytest.mark.parametrize("position", [0, 7])
def test_data_changed_in_place_are_read_again(position: int) -> None:
    for leaf in (images(20), plain(20)):
        cache, data = TensorCache(LIMIT), AvalancheDataset([leaf])
        cache.tensors_of(data, LIMIT, CPU)
        stored = leaf.images if isinstance(leaf, ImageDataset) else leaf.tensors[0]
        stored[position] += 1
        check_equal(cache.tensors_of(data, LIMIT, CPU), collated(data))


def test_a_transform_that_changed_its_mind_is_noticed() -> None:
    factor = [1.0]
    leaf = Foreign(lambda x: x * factor[0])
    cache, data = TensorCache(LIMIT), AvalancheDataset([leaf])
    cache.tensors_of(data, LIMIT, CPU)
    factor[0] = 2.0
    check_equal(cache.tensors_of(data, LIMIT, CPU), collated(data))
    assert len(cache) == 1


def test_the_cache_forgets_dead_datasets_and_keeps_within_its_room() -> None:
    size = 20 * (9 * 4 + 8)
    cache = TensorCache(2 * size)
    alive = [AvalancheDataset([images(20)]) for _ in range(3)]
    kept = [cache.tensors_of(data, LIMIT, CPU) for data in alive]
    again = [cache.tensors_of(data, LIMIT, CPU) for data in alive]
    assert [a is b for a, b in zip(again, kept, strict=True)] == [True, True, False]
    assert cache.size == 2 * size
    third = alive[2]
    alive.clear()
    gc.collect()
    assert cache.tensors_of(third, LIMIT, CPU) is cache.tensors_of(third, LIMIT, CPU)
    assert len(cache) == 1


def test_checkpoints_hold_no_data() -> None:
    cache, data = TensorCache(LIMIT), AvalancheDataset([images(20)])
    cache.tensors_of(data, LIMIT, CPU)
    restored = pickle.loads(pickle.dumps(cache))
    assert (len(restored), restored.limit) == (0, LIMIT)
    check_equal(restored.tensors_of(data, LIMIT, CPU), collated(data))


def rows() -> list[Tensor]:
    return [torch.arange(10.0).reshape(10, 1), torch.arange(10)]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("size", [1, 3, 5, 10, 11])
def test_mini_batches_have_the_sizes_of_torchs_loader(
    size: int, shuffle: bool, drop_last: bool
) -> None:
    stock = DataLoader(TensorDataset(*rows()), size, shuffle=shuffle, drop_last=drop_last)
    ours = TensorLoader(rows(), size, shuffle=shuffle, drop_last=drop_last)
    assert len(ours) == len(stock)
    assert [len(x) for x, _ in ours] == [len(x) for x, _ in stock]
    for x, y in ours:
        assert torch.equal(x[:, 0], y)
    seen = [value for _, y in ours for value in y.tolist()]
    assert len(set(seen)) == len(seen)
    if not shuffle:
        assert seen == list(range(len(seen)))


def test_shuffling_follows_the_global_seed_and_changes_with_every_epoch() -> None:
    loader = TensorLoader(rows(), 10, shuffle=True)

    def epochs() -> list[list[int]]:
        torch.manual_seed(5)
        return [next(iter(loader))[1].tolist() for _ in range(2)]

    first, second = epochs()
    assert first != second
    assert epochs() == [first, second]


@pytest.mark.parametrize("shuffle", [False, True])
def test_changing_a_mini_batch_does_not_change_the_data(shuffle: bool) -> None:
    data = rows()
    for x, y in TensorLoader(data, 4, shuffle=shuffle):
        x.zero_()
        y.zero_()
    assert torch.equal(data[1], torch.arange(10))
    assert torch.equal(data[0], rows()[0])


def test_attributes_that_are_not_in_items_are_no_columns() -> None:
    hidden = DataAttribute(list(range(20)), "hidden")  # pyright: ignore[reportArgumentType]
    data = AvalancheDataset([plain()], data_attributes=[hidden])
    check_equal(tensors_of(data), collated(data))
