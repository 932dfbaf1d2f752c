"""Workers: all work is done once, whatever happens to the processes that do it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cl_manifold.comparison.workers import Ended, Failed, Lost, Started, Told, Workers, workers
from cl_manifold.errors import ConfigError

Tell = Callable[[Any], None]


@dataclass(frozen=True)
class Square:
    number: int

    def __call__(self, tell: Tell) -> tuple[int, int]:
        tell(f"squaring {self.number}")
        return self.number**2, os.getpid()


@dataclass(frozen=True)
class DieAtFirst:
    """Killed by SIGKILL until `times` files lie in the folder."""

    folder: Path
    times: int

    def __call__(self, tell: Tell) -> int:
        seen = len(list(self.folder.iterdir()))
        if seen < self.times:
            (self.folder / f"death {seen}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return seen


@dataclass(frozen=True)
class Mistake:
    def __call__(self, tell: Tell) -> int:
        return {}["a"]


@dataclass(frozen=True)
class Sleeper:
    """Writes its process id, and a second file where it may end cleanly."""

    folder: Path

    def __call__(self, tell: Tell) -> None:
        (self.folder / "pid").write_text(str(os.getpid()))
        (self.folder / "pid").rename(self.folder / "started")
        try:
            for _ in range(600):  # Ray interrupts between two steps, not within one
                time.sleep(0.1)
        except KeyboardInterrupt:
            (self.folder / "closed").touch()
            raise


ENGINES = ["processes", pytest.param("ray", marks=pytest.mark.slow)]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[Workers]:
    if request.param == "ray" and find_spec("ray") is None:
        pytest.skip("install cl-manifold[ray] to run this test")
    with closing(workers(request.param, 2)) as made:
        yield made


def test_all_work_is_done_once_by_processes_that_leave_nothing(engine: Workers) -> None:
    processes: set[int] = set()
    for _ in range(2):
        events = list(engine.perform([Square(number) for number in range(8)]))
        ended = {e.index: e.value for e in events if isinstance(e, Ended)}
        assert {index: square for index, (square, _) in ended.items()} == {
            n: n * n for n in range(8)
        }
        assert sorted(e.index for e in events if isinstance(e, Started)) == list(range(8))
        processes |= {process for _, process in ended.values()}
    assert os.getpid() not in processes
    assert list(engine.perform([])) == []


def test_every_piece_has_a_process_of_its_own_and_no_more_than_asked_for_go_on_at_once() -> None:
    with closing(workers("processes", 2)) as engine:
        going, most, ended = set[int](), 0, list[Ended]()
        for event in engine.perform([Square(number) for number in range(6)]):
            going |= {event.index} if isinstance(event, Started) else set()
            most = max(most, len(going))
            if isinstance(event, Ended):
                going.remove(event.index)
                ended.append(event)
                _assert_gone(event.value[1])
    assert most == 2
    assert len({event.value[1] for event in ended}) == 6


def test_who_stops_listening_at_a_result_may_give_more_work() -> None:
    with closing(workers("processes", 1)) as engine:
        for _ in range(2):
            assert any(isinstance(event, Ended) for event in engine.perform([Square(2)]))


def test_messages_come_before_the_result() -> None:
    with closing(workers("processes", 1)) as engine:
        first, second, third = engine.perform([Square(3)])
    assert first == Started(0)
    assert second == Told(0, "squaring 3")
    assert isinstance(third, Ended)


def test_a_killed_process_loses_only_its_own_work_which_is_done_again(
    engine: Workers, tmp_path: Path
) -> None:
    works = [Square(1), DieAtFirst(tmp_path, 2), Square(2), Square(3)]
    events = list(engine.perform(works))
    ended = {e.index: e.value for e in events if isinstance(e, Ended)}
    assert sorted(ended) == [0, 1, 2, 3]
    assert ended[1] == 2
    assert [e.index for e in events if isinstance(e, Lost)] == [1, 1]
    assert not [e for e in events if isinstance(e, Failed)]


def test_work_that_kills_every_process_is_given_up(engine: Workers, tmp_path: Path) -> None:
    events = list(engine.perform([DieAtFirst(tmp_path, 99), Square(5)]))
    [failed] = [e for e in events if isinstance(e, Failed)]
    assert failed.index == 0
    assert "died 3 times" in failed.problem
    assert [e.value[0] for e in events if isinstance(e, Ended)] == [25]
    assert len(list(tmp_path.iterdir())) == 3


def test_an_unforeseen_error_is_a_sentence_and_the_rest_goes_on(engine: Workers) -> None:
    events = list(engine.perform([Mistake(), Square(4), Square(5)]))
    [failed] = [e for e in events if isinstance(e, Failed)]
    assert failed.problem.startswith("KeyError: 'a'; ")
    assert sorted(e.value[0] for e in events if isinstance(e, Ended)) == [16, 25]


def test_closing_lets_work_end_cleanly_and_leaves_no_process(
    engine: Workers, tmp_path: Path
) -> None:
    events = engine.perform([Sleeper(tmp_path)])
    assert next(events) == Started(0)
    process = _wait_for(tmp_path / "started")
    engine.close()
    assert (tmp_path / "closed").exists()
    _assert_gone(process)


@pytest.mark.slow
def test_workers_follow_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from cl_manifold.comparison.workers import workers\n"
        "from tests.unit.test_workers import Sleeper\n"
        "list(workers('processes', 1).perform([Sleeper(Path(sys.argv[1]))]))\n"
    )
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, env=environment) as parent:
        worker = _wait_for(tmp_path / "started")
        parent.kill()
    _assert_gone(worker)
    assert (tmp_path / "closed").exists()


@pytest.mark.parametrize(
    ("name", "jobs", "sentence"),
    [("processes", 0, "got 0 jobs"), ("dask", 2, "unknown engine 'dask'; choose processes or ray")],
)
def test_wrong_engines_are_refused(name: str, jobs: int, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        workers(name, jobs)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'cl-manifold\[ray\]'"):
        workers("ray", 2)


def _wait_for(file: Path) -> int:
    deadline = time.monotonic() + 90
    while not file.exists():
        assert time.monotonic() < deadline, "the work never started"
        time.sleep(0.05)
    return int(file.read_text())


def _assert_gone(process: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError(f"process {process} is still there")
