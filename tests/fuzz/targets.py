"""What reads settings and files: each takes something changed, and says no in one sentence."""

import io
import json
import random
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch

from cl_manifold.cli.tables import PRINTERS
from cl_manifold.comparison.entries import crossed, parse_entries, parse_grid
from cl_manifold.comparison.order import ComparisonResult
from cl_manifold.comparison.outcome import Outcome
from cl_manifold.comparison.rows import rows_of
from cl_manifold.errors import ClManifoldError
from cl_manifold.experiments import snapshot
from cl_manifold.experiments.config import (
    fields_of,
    from_assignments,
    from_environment,
    from_toml,
    resolve,
)
from cl_manifold.experiments.names import NETWORKS, STRATEGIES, STREAMS
from cl_manifold.experiments.result import parsed
from cl_manifold.experiments.trial import Trial
from cl_manifold.manifold.saving import load_manifold, save_manifold
from cl_manifold.tracking.run_folder import Start, create, delete, reopen
from tests.fuzz.mutations import changed, changed_json, damaged, text, value

Try = Callable[[random.Random], bool]
"""Tries something; whether it was accepted. Anything but a ClManifoldError is a defect."""

TINY = {
    "stream.contexts": 3,
    "stream.samples": 40,
    "stream.test_samples": 30,
    "training.epochs": 1,
    "network.hidden": (6,),
}
TOML = """seed = 3
[stream]
name = "rotated-digits"
contexts = 4
[strategy]
name = "weight-manifold"
price = 2.5
[training]
epochs = 2
lr = 0.01
[network]
hidden = [8, 8]
[topology]
kind = "circle"
harmonics = 2
"""


def accepts(work: Callable[[], Any]) -> bool:
    """Whether it is done; a refusal must be one sentence.

    Raises:
        AssertionError: the refusal is not one.
    """
    try:
        work()
    except ClManifoldError as error:
        said = str(error)
        assert said.strip(), "a refusal says nothing"
        assert len(said) < 3000, f"a refusal of {len(said)} characters"
        assert "Traceback" not in said
        return False
    return True


# -- settings --------------------------------------------------------------------------------------


def assigned(rng: random.Random) -> bool:
    """`--set KEY=VALUE` for some keys of some stream, network and strategy."""
    names = {
        "stream": rng.choice(list(STREAMS)),
        "network": rng.choice(list(NETWORKS)),
        "strategy": rng.choice(list(STRATEGIES)),
    }
    keys = [*_known(**names), text(rng)]
    words = [f"{section}.name={name}" for section, name in names.items() if rng.random() < 0.8]
    words += [f"{rng.choice(keys)}={text(rng)}" for _ in range(1 + rng.randrange(3))]
    return accepts(lambda: resolve([("fuzz", from_assignments(tuple(words)))]))


def from_file(folder: Path) -> Try:
    """A TOML file with changed characters."""
    path = folder / "settings.toml"

    def attempt(rng: random.Random) -> bool:
        path.write_bytes(damaged(TOML.encode(), rng))
        return accepts(lambda: resolve([("fuzz", from_toml(path))]))

    return attempt


def layered(rng: random.Random) -> bool:
    """Values of any type, as a file or a script may give them."""
    keys = list(_known(rng.choice(list(STREAMS)), "mlp", rng.choice(list(STRATEGIES))))
    given = {rng.choice(keys): value(rng) for _ in range(1 + rng.randrange(3))}
    return accepts(lambda: resolve([("fuzz", given)]))


def environment(rng: random.Random) -> bool:
    """Variables with the prefix of ours."""
    keys = ["SEED", "STREAM", "EPOCHS", "STREAM_CONTEXTS", "NETWORK_HIDDEN", "TOPOLOGY", text(rng)]
    given = {f"CL_MANIFOLD_{rng.choice(keys)}": text(rng) for _ in range(2)}
    return accepts(lambda: resolve([("environment", from_environment(given))]))


def entries(rng: random.Random) -> bool:
    """Strategies and grids as the command line takes them."""
    names = [rng.choice([*STRATEGIES, text(rng)]) for _ in range(1 + rng.randrange(2))]
    names = [rng.choice([name, f"{name}:spline", f"{name}:{text(rng)}"]) for name in names]
    grids = [rng.choice(["strategy.price=1,2", f"{text(rng)}={text(rng)}", text(rng)])]
    return accepts(lambda: crossed(parse_entries(names), parse_grid(grids), []))


def _known(stream: str, network: str, strategy: str) -> list[str]:
    """The keys of a run with these names; of an ordinary one where they do not fit."""
    try:
        return list(fields_of(stream, network, strategy))
    except ClManifoldError:
        return list(fields_of("rotated-digits", "mlp", "weight-manifold"))


# -- files -----------------------------------------------------------------------------------------


class Files:
    """Files of one real trial, to be changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.resolved = resolve([("fuzz", TINY)])
        trial = Trial(self.resolved)
        for _ in trial.steps():
            pass
        self.tree = trial.freeze()
        snapshot.save(folder / "snapshot", self.tree)
        self.snapshot = (folder / "snapshot").read_bytes()
        plugin = trial.manifold
        assert plugin is not None
        assert plugin.manifold is not None
        self.network = trial.network
        save_manifold(plugin.manifold, folder / "manifold.safetensors")
        self.manifold = (folder / "manifold.safetensors").read_bytes()
        self.context = plugin.coordinates()[1]
        self.state = {k: w.clone() for k, w in plugin.manifold.state(self.context).items()}
        found = trial.result("0" * 32)
        self.result = json.dumps(found.as_dict())
        rows = rows_of([Outcome("naive", seed, found.as_dict()) for seed in (0, 1)])
        comparison = ComparisonResult("0" * 32, "digits", (0, 1), rows, [], {})
        self.comparison = json.dumps(comparison.as_dict())

    def bytes_of_a_snapshot(self, rng: random.Random) -> bool:
        """A snapshot with changed bytes is refused, or holds what it held."""
        path = self.folder / "damaged"
        path.write_bytes(damaged(self.snapshot, rng))
        found: list[Any] = []
        if not accepts(lambda: found.append(snapshot.load(path))):
            return False
        Trial(self.resolved).thaw(found[0])
        return True

    def rows_of_a_snapshot(self, rng: random.Random) -> bool:
        """A snapshot whose table somebody changed, with a checksum that is right."""
        rows = list(self.tree["rows"])
        place = rng.randrange(len(rows))
        row = {k: v for k, v in rows[place].items() if not isinstance(v, torch.Tensor)}
        rows[place] = {**rows[place], **dict(_dictionary(changed(row, rng)))}
        tree = self.tree | {"rows": rows}
        return accepts(lambda: Trial(self.resolved).thaw(tree))

    def bytes_of_a_manifold(self, rng: random.Random) -> bool:
        """A manifold with changed bytes is refused, or has the very weights."""
        path = self.folder / "damaged.safetensors"
        path.write_bytes(damaged(self.manifold, rng))
        found: list[Any] = []
        if not accepts(lambda: found.append(load_manifold(path, self.network))):
            return False
        state = found[0].state(self.context)
        assert all(torch.equal(state[name], w) for name, w in self.state.items())
        return True

    def results(self, rng: random.Random) -> bool:
        """result.json and comparison.json, as `show` prints them."""
        file = rng.choice(["result.json", "comparison.json"])
        data = changed_json(self.result if file == "result.json" else self.comparison, rng)
        kind, show = PRINTERS[file]
        with redirect_stdout(io.StringIO()):
            return accepts(lambda: show(parsed(kind, data, file)))

    def kept_run(self, rng: random.Random) -> bool:
        """A folder of a run with a changed file."""
        start = Start(
            uri="sqlite:///x",
            experiment_id="1",
            name="name",
            params={"a": "1"},
            tags={"t": "x"},
            sources={"a": "default"},
            time=1,
        )
        folder = create(self.folder / "runs", start)
        for step in range(3):
            folder.append({"metrics": [("score", 0.5, 1, step)]}, {f"{step}.txt": b"text"})
        folder.close()
        files = [p for p in sorted(folder.path.rglob("*")) if p.is_file() and p.stat().st_size]
        path = rng.choice([p for p in files if p.name != "lock"])
        path.write_bytes(damaged(path.read_bytes(), rng))

        def open_and_read() -> None:
            again = reopen(folder.path)
            for line in again.unsent():
                json.dumps(line)
            again.content("1.txt")
            again.close()

        try:
            return accepts(open_and_read)
        finally:
            delete(folder.path)


def _dictionary(thing: Any) -> dict[str, Any]:
    return thing if isinstance(thing, dict) else {"kind": thing}


def targets(folder: Path) -> dict[str, tuple[float, Try]]:
    """Everything that is tried, by name, with its share."""
    files = Files(folder)
    return {
        "assignments": (0.3, assigned),
        "TOML files": (0.1, from_file(folder)),
        "values of any type": (0.15, layered),
        "environment": (0.05, environment),
        "entries and grids": (0.05, entries),
        "bytes of a snapshot": (0.05, files.bytes_of_a_snapshot),
        "rows of a snapshot": (0.05, files.rows_of_a_snapshot),
        "bytes of a manifold": (0.05, files.bytes_of_a_manifold),
        "result files": (0.15, files.results),
        "folders of kept runs": (0.05, files.kept_run),
    }
