"""What a table of systems says, in sentences."""

from collections.abc import Mapping, Sequence

from cl_manifold.conditioning.experiment import Experiment, Row


def sentences(experiment: Experiment, rows: Sequence[Row]) -> list[str]:
    """The main result first, then what more functions, a wrong topology and a wrong context do.

    Only about systems that are in the table.
    """
    known = {row.system: row for row in rows}
    total, count = len(experiment.systems), len(experiment.seeds)
    where = f"{experiment.problem.name} on {experiment.pictures.name}"
    part = "" if len(rows) == total else f", stopped after {len(rows)} of {total} systems"
    seeds = f"{count} seeds" if count > 1 else "1 seed"
    lead = [known[name] for name in ("manifold", "concat", "concat-wide") if name in known]
    first = f"{where}, {seeds}{part}: " + "; ".join(
        f"{row.system} {row.in_range:.3f} in range and {row.held_out:.3f} held out"
        for row in lead or rows[:3]
    )
    others = [_larger(known, experiment), _told_wrong(known)]
    return [first, *(sentence for sentence in others if sentence)]


def _larger(known: Mapping[str, Row], experiment: Experiment) -> str:
    """From which number of functions on contexts that were held out suffer."""
    sizes = {name: basis.size for name, basis in experiment.problem.bases.items()}
    larger = [
        known[name]
        for name in sorted(sizes, key=sizes.__getitem__)
        if name in known and "-K" in name
    ]
    if "manifold" not in known or not larger:
        return ""
    base = known["manifold"]
    listed = ", ".join(f"K = {sizes[row.system]} {row.held_out:.3f}" for row in larger)
    start = f"Held out, K = {sizes['manifold']} reaches {base.held_out:.3f}, {listed}"
    worse = [row for row in larger if row.held_out < base.held_out - 0.01]
    if not worse:
        return f"{start}: more functions do not hurt here."
    return f"{start}: more functions hurt held-out contexts from K = {sizes[worse[0].system]} on."


def _told_wrong(known: Mapping[str, Row]) -> str:
    if "manifold" not in known:
        return ""
    base = known["manifold"]
    return (
        f"Told another context, the manifold falls from {base.in_range:.3f} to "
        f"{base.wrong_context:.3f} in range: it does use what it is told."
        if base.wrong_context < base.in_range - 0.01
        else "Told another context, the manifold is as good as before: the context does not matter."
    )
