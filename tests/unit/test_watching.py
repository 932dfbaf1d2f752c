"""Watching changes nothing: modes and random streams."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from cl_manifold.manifold.watching import undrawn, watching

Drawn = tuple[float, float, float]


def draw() -> Drawn:
    return float(torch.rand(())), float(np.random.rand()), random.random()  # noqa: NPY002


def seeded() -> None:
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)


def net_of_mixed_modes() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2), nn.ReLU()))
    net.train()
    net[1].eval()
    net[2].training = False
    return net


@pytest.mark.parametrize("fails", [False, True])
def test_random_streams_go_on_as_if_nothing_had_been_drawn(fails: bool) -> None:
    seeded()
    expected = [draw(), draw()]
    seeded()
    found, inside = [draw()], list[Drawn]()
    try:
        with undrawn():
            inside += [draw() for _ in range(3)]
            torch.manual_seed(99)
            if fails:
                raise KeyError
    except KeyError:
        pass
    found.append(draw())
    assert found == expected
    assert inside[0] == expected[1], "inside, streams go on too"


@pytest.mark.parametrize("fails", [False, True])
def test_every_submodule_keeps_its_own_mode(fails: bool) -> None:
    net = net_of_mixed_modes()
    before = [(m, m.training) for m in net.modules()]
    assert {training for _, training in before} == {False, True}
    seeded()
    expected = draw()
    seeded()
    try:
        with watching(net):
            assert not any(m.training for m in net.modules())
            draw()
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert [(m, m.training) for m in net.modules()] == before
    assert draw() == expected


@pytest.mark.parametrize(("started", "devices"), [(False, []), (True, [0, 1])])
def test_streams_of_devices_are_kept_where_any_are_in_use(
    started: bool, devices: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking a device that is not in use would start it."""
    kept: list[list[int]] = []

    @contextmanager
    def fork(devices: list[int]) -> Iterator[None]:
        kept.append(devices)
        yield

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: started)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.random, "fork_rng", fork)
    with undrawn():
        pass
    assert kept == [devices]
