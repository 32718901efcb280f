"""The features of Rossmann Store Sales: one row per store and day.

Source: fast.ai deep learning part 1, lesson 4 (2018), after the third place of Kaggle's Rossmann Store Sales
(Guo and Berkhahn, Entity embeddings of categorical variables, 2016, https://arxiv.org/abs/1604.06737).

Instead of joins, stores, states and days are numbered and every feature is indexed in a dense table: [stores],
[states, days] or [stores, days].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dlrunner.data.rossmann.store_calendar import EVENTS, HOLIDAY, Calendar
from dlrunner.errors import DataError

VERSION = 3
"""Of the features; the cache of another version is not read."""

CATEGORICAL = (
    *("Store", "DayOfWeek", "Year", "Month", "Day", "StateHoliday", "CompetitionMonthsOpen", "Promo2Weeks"),
    *("StoreType", "Assortment", "PromoInterval", "CompetitionOpenSinceYear", "Promo2SinceYear", "State", "Week"),
    *("Events", "Promo_fw", "Promo_bw", "StateHoliday_fw", "StateHoliday_bw", "SchoolHoliday_fw", "SchoolHoliday_bw"),
)
WEATHER = (
    *("Max_TemperatureC", "Mean_TemperatureC", "Min_TemperatureC", "Max_Humidity", "Mean_Humidity", "Min_Humidity"),
    *("Max_Wind_SpeedKm_h", "Mean_Wind_SpeedKm_h", "CloudCover"),
)
CONTINUOUS = (
    *("CompetitionDistance", *WEATHER, "trend", "trend_DE"),
    *("AfterStateHoliday", "BeforeStateHoliday", "Promo", "SchoolHoliday"),
)

OPEN_DAYS = (
    *("OpenGapBefore", "OpenGapAfter", "DaysSinceClosing", "DaysUntilClosing"),
    *("PromoDay", "DaysSincePromo", "DaysUntilPromo", "WeekOfMonth"),
)
"""Continuous columns of `data.open_days`."""
NEAR_HOLIDAY, FAR = "NearHoliday", 4
"""Its category: the days after the last and before the next state holiday, up to FAR, and whether it is Christmas."""

ROW_COLUMNS = ("Store", "DayOfWeek", "Date", "Promo", "StateHoliday", "SchoolHoliday")
"""Columns that the features are computed from."""
STORE_COLUMNS = (
    *("Store", "StoreType", "Assortment", "CompetitionDistance", "CompetitionOpenSinceMonth"),
    *("CompetitionOpenSinceYear", "Promo2SinceWeek", "Promo2SinceYear", "PromoInterval"),
)
MOST_MONTHS, MOST_WEEKS = 24, 25


@dataclass(frozen=True)
class Surroundings:
    """External tables: stores, weather, trends, and the calendar of events."""

    stores: pd.DataFrame
    """One row per store, with its State; the columns of STORE_COLUMNS."""
    weather: pd.DataFrame
    """State, Date, the columns of WEATHER, Events."""
    trend: pd.DataFrame
    """State (`DE` for all Germany), Date (the Sunday on which the week begins), trend."""
    calendar: Calendar | None = None

    def with_rows(self, rows: pd.DataFrame) -> Surroundings:
        """Return the tables with the events of further rows in the calendar."""
        stores, days = self.store_codes(rows), day_numbers(rows["Date"])
        opened = pd.to_numeric(rows["Open"], errors="coerce").fillna(1) if "Open" in rows else pd.Series(1, rows.index)
        flags = np.stack([*(is_event(rows[event]) for event in EVENTS), is_event(opened)])
        if self.calendar is None:
            return replace(self, calendar=Calendar.of_rows(len(self.stores), stores, days, flags))
        return replace(self, calendar=self.calendar.with_rows(stores, days, flags))

    def store_codes(self, rows: pd.DataFrame) -> NDArray[np.int64]:
        """Return the index of each row's store in `stores`.

        Raises:
            DataError: a store is not in the table of stores.
        """
        codes = pd.Index(self.stores["Store"]).get_indexer(rows["Store"])
        if (codes < 0).any():
            unknown = sorted(set(rows["Store"].to_numpy()[codes < 0].tolist()))
            raise DataError(f"store.csv has no row for {len(unknown)} store(s): {', '.join(map(str, unknown[:5]))}")
        return np.asarray(codes, dtype=np.int64)


def day_numbers(dates: pd.Series[Any]) -> NDArray[np.int64]:
    """Return days since 1970-01-01."""
    return dates.to_numpy("datetime64[D]").astype(np.int64)


def is_event(column: pd.Series[Any]) -> NDArray[np.bool_]:
    """Return whether a flag is set: StateHoliday is a, b or c for holidays and 0 for none, the others are 1 and 0.

    A missing flag is not set.
    """
    if pd.api.types.is_numeric_dtype(column):
        return np.asarray(column.fillna(0).to_numpy() != 0)
    codes, categories = pd.factorize(column)
    return np.asarray(~np.isin(categories.astype(str), ["0", "", "nan"]))[codes] & (codes >= 0)


def features(
    rows: pd.DataFrame, surroundings: Surroundings, *, lesson: bool = False, open_days: bool = False
) -> pd.DataFrame:
    """Return the 22 categorical and 16 continuous columns of some rows, in their order, then those of `open_days`.

    Args:
        rows: the columns of ROW_COLUMNS, Date as datetime64.
        surroundings: external tables whose calendar has these rows.
        lesson: the columns as the lesson has them, with its errors (see `_as_in_the_lesson`).
        open_days: add the columns of OPEN_DAYS, and NEAR_HOLIDAY.
    """
    calendar = surroundings.calendar
    assert calendar is not None
    stores = surroundings.store_codes(rows)
    days = day_numbers(rows["Date"])
    built: dict[str, Any] = {"Store": rows["Store"].to_numpy(np.int32)}
    built["DayOfWeek"] = rows["DayOfWeek"].to_numpy(np.int8)
    built |= _date_parts(days)
    built |= _of_store(surroundings.stores, stores, days)
    built |= _of_state(surroundings, stores, days)
    at = (stores, days - calendar.first_day)
    for event in EVENTS:
        built[f"{event}_fw"] = calendar.sum_after(event)[at]
        built[f"{event}_bw"] = calendar.sum_before(event)[at]
    built["AfterStateHoliday"] = calendar.days_since(HOLIDAY)[at].astype(np.float32)
    built["BeforeStateHoliday"] = calendar.days_until(HOLIDAY)[at].astype(np.float32)
    for event, dtype in (("StateHoliday", np.int8), ("Promo", np.float32), ("SchoolHoliday", np.float32)):
        built[event] = is_event(rows[event]).astype(dtype)
    if lesson:
        built |= _as_in_the_lesson(built, surroundings, stores, days)
    names = [*CATEGORICAL, *CONTINUOUS]
    if open_days:
        built[NEAR_HOLIDAY] = _near_holiday(calendar, at, built["Month"], built["Day"])
        built |= {name: column[at].astype(np.float32) for name, column in calendar.open_days().items()}
        built["WeekOfMonth"] = ((built["Day"] - 1) // 7).astype(np.float32)
        names += [*OPEN_DAYS, NEAR_HOLIDAY]
    return pd.DataFrame({name: built[name] for name in names}, index=rows.index)


def _near_holiday(
    calendar: Calendar, at: tuple[NDArray[np.int64], NDArray[np.int64]], month: NDArray[Any], day: NDArray[Any]
) -> NDArray[np.int16]:
    """Return 10 · days since the last state holiday + days until the next one, both at most FAR, + 100 at Christmas."""
    since, until = (np.minimum(days[at], FAR) for days in (calendar.days_since(HOLIDAY), calendar.days_until(HOLIDAY)))
    christmas = (month == 12) | ((month == 1) & (day <= 7))
    return np.asarray(100 * christmas + 10 * since + until, dtype=np.int16)


def near_holiday_name(code: int) -> str:
    """Return what a category of NEAR_HOLIDAY means.

    >>> [near_holiday_name(code) for code in (0, 14, 142, 123, 44)]
    ['holiday', '1 after', '2 before, Christmas', '2 after and 3 before, Christmas', 'none near']
    """
    christmas, days = divmod(code, 100)
    since, until = divmod(days, 10)
    sides = [f"{count} {side}" for count, side in ((since, "after"), (until, "before")) if count < FAR]
    name = "holiday" if 0 in (since, until) else " and ".join(sides) or "none near"
    return f"{name}, Christmas" if christmas else name


def _as_in_the_lesson(
    built: dict[str, Any], surroundings: Surroundings, stores: NDArray[np.int64], days: NDArray[np.int64]
) -> dict[str, Any]:
    """Return the continuous columns that differ in the lesson.

    The distances to state holidays are 0, since missing dates overflowed; the trend of a week is joined by the year and
    the ISO week of its Sunday, with which the ISO week ends: mostly the trend of the week that follows; missing numbers
    are 0.
    """
    found: dict[str, Any] = {name: built[name] for name in CONTINUOUS}
    zeros = np.zeros(len(days), dtype=np.float32)
    found |= {"AfterStateHoliday": zeros, "BeforeStateHoliday": zeros}
    trend = surroundings.trend
    states = pd.Index([*surroundings.stores["State"].unique(), "DE"])
    of_row = states.get_indexer(pd.Index(surroundings.stores["State"]))[stores]
    weeks, week_of_row = np.unique(_year_and_week(days), return_inverse=True)
    week = pd.Index(weeks).get_indexer(pd.Index(_year_and_week(day_numbers(trend["Date"]))))
    state = states.get_indexer(pd.Index(trend["State"]))
    known = (state >= 0) & (week >= 0)
    table = np.full((len(states), len(weeks)), np.nan, dtype=np.float32)
    table[state[known], week[known]] = trend.loc[known, "trend"]
    found |= {"trend": table[of_row, week_of_row], "trend_DE": table[-1, week_of_row]}
    return {name: np.nan_to_num(np.asarray(column, dtype=np.float32)) for name, column in found.items()}


def _year_and_week(days: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 100 · calendar year + ISO week, which at the turn of a year need not belong together."""
    parts = _date_parts(days)
    return np.asarray(parts["Year"].astype(np.int64) * 100 + parts["Week"])


def _date_parts(days: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Return the parts of dates, computed once per distinct day."""
    first = int(days.min())
    dates = pd.to_datetime(np.arange(first, int(days.max()) + 1).astype("datetime64[D]"))
    at = days - first
    return {
        "Year": dates.year.to_numpy(np.int16)[at],
        "Month": dates.month.to_numpy(np.int8)[at],
        "Day": dates.day.to_numpy(np.int8)[at],
        "Week": dates.isocalendar().week.to_numpy(np.int8)[at],  # 53 in long years
    }


def _of_store(table: pd.DataFrame, stores: NDArray[np.int64], days: NDArray[np.int64]) -> dict[str, Any]:
    """Return the features of stores, and the time since the opening of a competitor and the start of Promo2."""
    since = table[["CompetitionOpenSinceYear", "CompetitionOpenSinceMonth", "Promo2SinceYear", "Promo2SinceWeek"]]
    years = since.fillna({"CompetitionOpenSinceYear": 1900, "Promo2SinceYear": 1900}).fillna(1).astype(np.int64)
    opened = np.array([_day(year, month) for year, month in years.iloc[:, :2].itertuples(index=False)], dtype=np.int64)
    promoted = np.array(
        [_monday(year, week) for year, week in years.iloc[:, 2:].itertuples(index=False)], dtype=np.int64
    )
    built: dict[str, Any] = {
        "CompetitionOpenSinceYear": years["CompetitionOpenSinceYear"].to_numpy(np.int16)[stores],
        "Promo2SinceYear": years["Promo2SinceYear"].to_numpy(np.int16)[stores],
        "CompetitionMonthsOpen": _elapsed(days, opened[stores], 30, MOST_MONTHS, opened < _day(1990, 1), stores),
        "Promo2Weeks": _elapsed(days, promoted[stores], 7, MOST_WEEKS, promoted < _day(1990, 1), stores),
        "CompetitionDistance": table["CompetitionDistance"].to_numpy(np.float32)[stores],
    }
    for name in ("StoreType", "Assortment", "PromoInterval", "State"):
        values = pd.Categorical(table[name])
        built[name] = pd.Categorical.from_codes(values.codes[stores], dtype=values.dtype)
    return built


def _day(year: int, month: int) -> int:
    """Return the day number of a month's fifteenth, as in the lesson."""
    return (date(year, month, 15) - date(1970, 1, 1)).days


def _monday(year: int, week: int) -> int:
    return (date.fromisocalendar(year, week, 1) - date(1970, 1, 1)).days


def _elapsed(
    days: NDArray[np.int64],
    since: NDArray[np.int64],
    unit: int,
    most: int,
    unknown: NDArray[np.bool_],
    stores: NDArray[np.int64],
) -> NDArray[np.int8]:
    """Return full units since a day, from 0 to `most`; 0 if the day is unknown."""
    units = np.clip((days - since) // unit, 0, most).astype(np.int8)
    return np.where(unknown[stores], np.int8(0), units)


def _of_state(surroundings: Surroundings, stores: NDArray[np.int64], days: NDArray[np.int64]) -> dict[str, Any]:
    """Return weather by state and day, and the trend of the week (Sunday to Saturday) of each day."""
    states = pd.Index(surroundings.stores["State"].unique())
    of_row = states.get_indexer(surroundings.stores["State"])[stores]
    first, last = int(days.min()), int(days.max())
    at = (of_row, days - first)
    built: dict[str, Any] = {}

    weather = surroundings.weather
    state, day = states.get_indexer(weather["State"]), day_numbers(weather["Date"])
    known = (state >= 0) & (day >= first) & (day <= last)
    known_at = (state[known], day[known] - first)
    table = np.full((len(states), last - first + 1, len(WEATHER)), np.nan, dtype=np.float32)
    table[known_at] = weather.loc[known, list(WEATHER)].to_numpy(np.float32)
    values = table[at]
    for index, name in enumerate(WEATHER):
        built[name] = values[:, index]
    events = pd.Categorical(weather["Events"])
    codes = np.full(table.shape[:2], -1, dtype=np.int8)
    codes[known_at] = events.codes[known]
    built["Events"] = pd.Categorical.from_codes(codes[at], dtype=events.dtype)

    trend = surroundings.trend
    germany = len(states)
    state = np.where(trend["State"] == "DE", germany, states.get_indexer(trend["State"]))
    sunday = day_numbers(trend["Date"])
    weekly = np.full((germany + 1, last - first + 1), np.nan, dtype=np.float32)
    for weekday in range(7):
        day = sunday + weekday
        known = (state >= 0) & (day >= first) & (day <= last)
        weekly[state[known], day[known] - first] = trend.loc[known, "trend"]
    built["trend"] = weekly[at]
    built["trend_DE"] = weekly[germany][at[1]]
    return built
