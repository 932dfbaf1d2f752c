"""The package list, which is explicit on purpose, against the tree and against a built wheel."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import setuptools

ROOT = Path(__file__).parents[2]


def modules() -> set[str]:
    """Every module of the checkout, by its path inside a wheel."""
    own = {p.relative_to(ROOT) for p in (ROOT / "cl_manifold").rglob("*.py")}
    own = {p for p in own if p.parts[1] != "strategies"}
    linked = {
        Path("cl_manifold") / p.relative_to(ROOT) for p in (ROOT / "strategies").rglob("*.py")
    }
    return {p.as_posix() for p in own | linked}


def test_every_package_is_listed() -> None:
    listed = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    )
    assert listed == {str(Path(m).parent).replace("/", ".") for m in modules()}


def test_the_folder_in_the_package_is_a_link_to_the_one_at_the_top() -> None:
    assert (ROOT / "cl_manifold" / "strategies").resolve() == (ROOT / "strategies").resolve()


def test_a_wheel_holds_every_module_and_nothing_generic(tmp_path: Path) -> None:
    assert int(setuptools.__version__.split(".")[0]) >= 77
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "strategies", source / "strategies")
    shutil.copytree(ROOT / "cl_manifold", source / "cl_manifold", symlinks=True)
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('out'))"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = (source / "out").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {n for n in names if n.endswith(".py")} == modules()
    assert "cl_manifold/py.typed" in names
    templates = {p.relative_to(ROOT).as_posix() for p in (ROOT / "cl_manifold").rglob("*.jinja")}
    assert {n for n in names if n.endswith(".jinja")} == templates != set()
    assert {n.split("/")[0].split("-")[0] for n in names} == {"cl_manifold"}
