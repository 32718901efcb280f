"""Synthetic daily sales of a shop's stores; the best achievable forecast of its last windows is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

HORIZON, NUM_WINDOWS = 31, 4
"""Days of the month that follows; windows of as many days before it whose best forecast is known."""
NOISE = 0.12
"""Standard deviation of log(sales) of a day and store, given everything else."""
STEP = 0.01
"""Standard deviation of a store's level from one day to the next: a random walk that no other column shows."""
PROMOTION = 0.35
WEEKDAYS = np.array([[-0.1, -0.1, -0.05, 0.0, 0.15, 0.3, -0.6], [0.05, 0.1, 0.1, 0.05, 0.0, -0.2, -0.4]])
"""Effects from Monday on, of stores in the city and of those near offices."""
TREND = 0.06
"""Growth of log(sales) in a year."""
SEASON = 0.15
CHRISTMAS = 0.5
SALES = (900, 650, 480, 1200, 350, 720, 560, 260)
"""A day of each store, on average at the start."""


def write_sample_sales(folder: Path) -> None:
    """Write the sales of 2021 to 2023, the rows of the next month without them, and what a forecast can know.

    log(sales) of store s on day t is base(s) + weekday + promotion + trend + season + level(s, t) + noise, with a
    level that is a random walk: the best forecast knows everything but noise and steps after its origin.

    `sales.csv` has date, store, type, promotion and sales, `next.csv` the same without sales, `truth.csv` for the
    last windows of `HORIZON` days and the next month the sales and the expected sales at the start of the window.
    """
    rng = np.random.default_rng(0)
    days = pd.date_range("2021-01-01", "2024-01-31")
    num_stores, num_days = len(SALES), len(days)
    kind = np.arange(num_stores) % 2
    weeks = rng.random((num_stores, num_days // 7 + 2)) < 0.3
    start = np.asarray(days.day_of_week)[0]
    promoted = weeks[:, (np.arange(num_days) + start) // 7] & (np.asarray(days.day_of_week) < 6)
    level = np.cumsum(rng.normal(0, STEP, (num_stores, num_days)), axis=1)
    known = (
        np.log(SALES)[:, None]
        + WEEKDAYS[kind][:, np.asarray(days.day_of_week)]
        + PROMOTION * promoted
        + TREND * np.arange(num_days) / 365.25
        - SEASON * np.cos(2 * np.pi * (np.asarray(days.day_of_year) - 20) / 365.25)
        + CHRISTMAS * ((days.month == 12) & (days.day >= 10) & (days.day <= 23))
    )
    sales = np.round(np.exp(known + level + rng.normal(0, NOISE, known.shape)))
    rows = pd.DataFrame(
        {
            "date": np.tile(days.strftime("%Y-%m-%d"), num_stores),
            "store": np.repeat([f"s{number + 1}" for number in range(num_stores)], num_days),
            "type": np.repeat(np.array(["city", "offices"])[kind], num_days),
            "promotion": promoted.ravel().astype(int),
            "sales": sales.ravel().astype(int),
            "expected": _expected(known, level).ravel().round(1),
        }
    ).sort_values(["date", "store"], ignore_index=True)
    is_next = rows["date"] >= "2024-01-01"
    rows[~is_next].drop(columns="expected").to_csv(folder / "sales.csv", index=False)
    rows[is_next].drop(columns=["sales", "expected"]).to_csv(folder / "next.csv", index=False)
    truth = rows.loc[rows["expected"].notna(), ["date", "store", "sales", "expected"]]
    truth.to_csv(folder / "truth.csv", index=False)


def _expected(known: NDArray[np.float64], level: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the expected sales at the start of each window, NaN before the windows."""
    num_days = known.shape[1]
    first = num_days - (NUM_WINDOWS + 1) * HORIZON
    ahead = (np.arange(num_days) - first) % HORIZON + 1
    origin = np.maximum(np.arange(num_days) - ahead, 0)
    expected: NDArray[np.float64] = np.exp(known + level[:, origin] + (NOISE**2 + ahead * STEP**2) / 2)
    expected[:, :first] = np.nan
    return expected
