"""Try thousands of changed settings and files.

python -m tests.fuzz [COUNT] [SEED]      20,000 by default; exits 1 where one was not refused well
"""

import random
import sys
import traceback
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.targets import targets


def tried(count: int, seed: int) -> tuple[list[tuple[str, int, int, int]], list[str]]:
    """Name, attempts, accepted and defects of each target; and what was said of the defects."""
    rows: list[tuple[str, int, int, int]] = []
    said: list[str] = []
    with TemporaryDirectory() as folder:
        for name, (share, attempt) in targets(Path(folder)).items():
            accepted, defects = 0, 0
            for number in range(max(1, round(share * count))):
                rng = random.Random(f"{seed} {name} {number}")
                try:
                    accepted += attempt(rng)
                except Exception:  # noqa: BLE001
                    defects += 1
                    said.append(f"{name} {number}: {traceback.format_exc()}")
            rows.append((name, max(1, round(share * count)), accepted, defects))
    return rows, said


def main() -> None:
    """Print a table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    rows, said = tried(count, seed)
    for text in said[:20]:
        sys.stderr.write(text + "\n")
    for name, attempts, accepted, defects in rows:
        sys.stdout.write(
            f"{name:<24} {attempts:>6} tried {accepted:>6} accepted {defects:>4} defects\n"
        )
    sys.exit(bool(said))


if __name__ == "__main__":
    main()
