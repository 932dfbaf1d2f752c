"""Small tables with the columns of those that the pages name."""

from pathlib import Path

import numpy as np
import pandas as pd


def write_tables(folder: Path) -> None:
    """bikes.csv, air_quality.csv, gas_drift.csv and moons50.npz, with random numbers inside."""
    rng = np.random.default_rng(0)
    rows = 24 * 40
    day = np.arange(rows) // 24
    date = np.datetime64("2026-01-01") + day.astype("timedelta64[D]")
    names = ("season", "temp", "atemp", "hum", "windspeed", "workingday", "holiday", "weathersit")
    inputs = {name: rng.normal(size=rows).round(3) for name in names}
    bikes = {"date": date, "hour": np.arange(rows) % 24, **inputs}
    bikes["count"] = rng.integers(1, 500, rows)
    pd.DataFrame(bikes).to_csv(folder / "bikes.csv", index=False)
    air = {"date": date, "day": day, **inputs, "benzene": rng.random(rows) * 20}
    pd.DataFrame(air).to_csv(folder / "air_quality.csv", index=False)
    month = np.repeat([1.5, 7.0, 12.0, 27.0], rows // 4)
    gas = {"month": month, "batch": month, **inputs, "gas": rng.integers(0, 6, rows)}
    pd.DataFrame(gas).to_csv(folder / "gas_drift.csv", index=False)
    x, y = rng.normal(size=(50, 20, 2)).astype(np.float32), rng.integers(0, 2, (50, 20))
    np.savez(folder / "moons50.npz", x=x, y=y, time=np.arange(50) * 0.98)
