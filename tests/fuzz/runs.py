"""Real runs with extreme values that are accepted.

python -m tests.fuzz.runs [COUNT] [SEED]      200 by default; exits 1 where one ended badly
"""

import random
import sys
import traceback
from types import NoneType
from typing import Any, Literal, get_args, get_origin
from warnings import catch_warnings, simplefilter

import numpy as np
import torch
from pydantic.fields import FieldInfo

from cl_manifold.errors import ClManifoldError
from cl_manifold.experiments.config import Resolved, fields_of, resolve
from cl_manifold.experiments.names import STRATEGIES
from cl_manifold.experiments.trial import Trial

STREAMS = ("rotated-digits", "permuted-digits", "split-digits", "recurring-digits", "noisy-digits")
AT_ONCE = ("rotation", "noise", "rotation-noise")
LEFT_ALONE = ("stream.images", "stream.download", "training.device", "training.threads")
BASE = {
    "stream.samples": 40,
    "stream.test_samples": 20,
    "training.epochs": 1,
    "network.hidden": (6,),
}


def extremes(field: FieldInfo) -> list[Any]:
    """Values at the ends of a field's range, and some inside."""
    bounds: dict[str, Any] = {}
    for part in field.metadata:
        bounds |= {n: getattr(part, n) for n in ("ge", "gt", "le", "lt") if hasattr(part, n)}
    kinds = get_args(field.annotation) or (field.annotation,)
    if get_origin(field.annotation) is Literal:
        return list(kinds)
    found: list[Any] = [None] if NoneType in kinds else []
    found += [True, False] if bool in kinds else []
    if int in kinds and bool not in kinds:
        low = bounds.get("ge", 0)
        found += [low, low + 1, low + 2, 17, min(bounds.get("le", 200), 200)]
    if float in kinds:
        low, high = (
            bounds.get("ge", bounds.get("gt", -1e30)),
            bounds.get("le", bounds.get("lt", 1e30)),
        )
        found += [low, high, low + 1e-12, 1e-6, 0.5, 1.0, 1e6]
    return found


def configuration(rng: random.Random) -> Resolved | None:
    """A run of some strategy with three extreme values; None where they are refused."""
    strategy = rng.choice(list(STRATEGIES))
    for stream in rng.sample([*STREAMS, *AT_ONCE], len(STREAMS) + len(AT_ONCE)):
        try:
            known = fields_of(stream, "mlp", strategy)
            break
        except ClManifoldError:
            continue
    else:
        return None
    values = {"stream.name": stream, "strategy.name": strategy, "seed": rng.randrange(5)}
    values |= {key: value for key, value in BASE.items() if key in known}
    values |= {"stream.contexts": 3} if "stream.contexts" in known else {}
    values |= {"training.steps": 3} if "training.steps" in known else {}
    free = [key for key in known if key not in LEFT_ALONE and extremes(known[key])]
    for key in rng.sample(free, 3):
        values[key] = rng.choice(extremes(known[key]))
    try:
        return resolve([("fuzz", values)])
    except ClManifoldError:
        return None


def outcome(resolved: Resolved) -> str:
    """How the run ends: "finished" or "refused".

    Raises:
        AssertionError: weights or accuracies are no numbers.
    """
    try:
        trial = Trial(resolved)
        for _ in trial.steps():
            pass
    except ClManifoldError:
        return "refused"
    accuracies = trial.progress.final
    assert bool(np.isfinite(accuracies).all()), "an accuracy that is no number"
    assert ((accuracies >= 0) & (accuracies <= 1)).all(), "an accuracy outside [0, 1]"
    for name, w in trial.strategy.model.state_dict().items():
        assert bool(torch.isfinite(w).all()) or not w.is_floating_point(), f"{name} is not finite"
    return "finished"


def main() -> None:
    """Print how many ended how."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    ends = {"finished": 0, "refused": 0, "defects": 0}
    number = 0
    while sum(ends.values()) < count:
        number += 1
        resolved = configuration(random.Random(f"{seed} {number}"))
        if resolved is None:
            continue
        try:
            with catch_warnings():
                simplefilter("ignore")
                ends[outcome(resolved)] += 1
        except Exception:  # noqa: BLE001
            ends["defects"] += 1
            changed = {k: v for k, v, source in resolved.rows() if source == "fuzz"}
            sys.stderr.write(f"{number} {changed}\n{traceback.format_exc()[-1500:]}\n")
    sys.stdout.write(f"{ends}\n")
    sys.exit(bool(ends["defects"]))


if __name__ == "__main__":
    main()
