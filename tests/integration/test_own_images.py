"""The command line on images of one's own: an `.npz`, and folders of tasks."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Call = Callable[..., tuple[int, str, str]]
SHORT = ("--epochs", "1", "--set", "training.batch_size=8", "--set", "network.channels=4")


def test_an_npz_is_rotated(call: Call, folder: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 3), dtype=np.uint8)
    np.savez(folder / "own.npz", x=x, y=np.arange(48) % 3)
    code, text, said = call("run", "own.npz", "--set", "stream.contexts=3", "--json", *SHORT)
    result = json.loads(text)
    assert (code, result["stream"]) == (0, "rotated-own")
    assert {d["name"] for d in result["decisions"]} == {"0°", "120°", "240°"}
    assert "guessed: one set of images (data.recipe=rotate)" in said
    code, text, _ = call(
        *("run", "rotation", "--set", "stream.images=own.npz", "--set", "training.steps=2"),
        *("--set", "network.hidden=4", "--json"),
    )
    assert (code, json.loads(text)["stream"]) == (0, "rotation-own")


@pytest.mark.parametrize("workers", [0, 2])
def test_task_folders_are_experiences(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    if workers:
        monkeypatch.setattr("cl_manifold.data.images.MIB", 500)
    for task in ("0", "30", "60"):
        for name, grey in (("dark", 20), ("light", 220)):
            (folder / "own" / task / name).mkdir(parents=True)
            for index in range(4):
                pixels = np.full((8, 8), grey + index, dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "own" / task / name / f"{index}.png")
    words = ("--set", f"data.workers={workers}", "--set", "data.memory=1")
    code, text, said = call("run", "own", "--json", *SHORT, *words)
    result = json.loads(text)
    assert code == 0
    assert {d["name"] for d in result["decisions"]} == {"0", "30", "60"}
    assert "guessed: task folders lie on interval:0:60 (data.space=interval:0:60)" in said
    (folder / "own" / "0" / "dark" / "0.png").write_text("no image")
    assert call("run", "own", *SHORT)[0] == 1
