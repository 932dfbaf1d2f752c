"""What a run depended on: library versions, Python and the git commit."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version

LIBRARIES = ("cl-manifold", "torch", "avalanche-lib", "mlflow", "numpy", "torchvision")


def version_tags() -> dict[str, str]:
    """Tags with the versions in use and, in a git repository, the commit of the working folder."""
    tags = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            tags[f"version.{library}"] = version(library)
        except PackageNotFoundError:
            continue
    commit = _git("rev-parse", "HEAD")
    if commit:
        tags["mlflow.source.git.commit"] = commit
        changed = _git("status", "--porcelain", "--untracked-files=no")
        tags["mlflow.source.git.dirty"] = str(bool(changed))
    return tags


def _git(*words: str) -> str:
    """What git prints, or nothing where there is no git, no repository or no commit."""
    try:
        done = subprocess.run(
            ["git", *words], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
