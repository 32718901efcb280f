"""The period of a table's dates: days, weeks or months, in which horizons and lags are counted."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Period = Literal["day", "week", "month"]

ENOUGH = 3
"""Different dates, for a period other than days."""
WEEK = 7
YEAR: dict[Period, int] = {"day": 364, "week": 52, "month": 12}
"""Periods to the same weekday, week or month of another year."""


def period_of(dates: pd.Series[Any]) -> Period:
    """Return the period of dates: `month` if all are the same day of the month, `week` if all are the same weekday.

    >>> [period_of(pd.Series(pd.date_range("2024-01-31", periods=9, freq=f))) for f in ("D", "7D", "ME", "MS")]
    ['day', 'week', 'month', 'month']
    """
    days = pd.Series(dates.dt.normalize().dropna().unique())
    if len(days) < ENOUGH:
        return "day"
    if days.dt.day.nunique() == 1 or days.dt.is_month_end.all():
        return "month"
    return "week" if days.dt.day_of_week.nunique() == 1 else "day"


def period_numbers(dates: pd.Series[Any], period: Period) -> NDArray[np.int64]:
    """Return the number of each date's period: consecutive periods have consecutive numbers.

    >>> period_numbers(pd.Series(pd.to_datetime(["2023-12-31", "2024-01-31"])), "month").tolist()
    [24287, 24288]
    """
    if period == "month":
        return np.asarray(dates.dt.year * 12 + dates.dt.month - 1, dtype=np.int64)
    days = dates.to_numpy("datetime64[D]").astype(np.int64)
    return np.asarray(days // WEEK if period == "week" else days)


def counted(number: int, period: Period) -> str:
    """Return a number of periods in words.

    >>> counted(1, "day"), counted(31, "day")
    ('1 day', '31 days')
    """
    return f"{number:,} {period}{'' if number == 1 else 's'}"
