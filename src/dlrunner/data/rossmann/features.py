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
HOLIDAY = "StateHoliday"
EVENTS = (HOLIDAY, "SchoolHoliday", "Promo")
"""Events with features of the days before and after."""

OPEN_DAYS = (
    *("OpenGapBefore", "OpenGapAfter", "DaysSinceClosing", "DaysUntilClosing"),
    *("PromoDay", "DaysSincePromo", "DaysUntilPromo", "WeekOfMonth"),
)
"""Continuous columns of `data.open_days`."""
NEAR_HOLIDAY = "NearHoliday"
"""Its category: which days after the last and before the next state holiday, and whether it is Christmas's time."""

ROW_COLUMNS = ("Store", "DayOfWeek", "Date", "Promo", "StateHoliday", "SchoolHoliday")
"""Columns that the features are computed from."""
STORE_COLUMNS = (
    *("Store", "StoreType", "Assortment", "CompetitionDistance", "CompetitionOpenSinceMonth"),
    *("CompetitionOpenSinceYear", "Promo2SinceWeek", "Promo2SinceYear", "PromoInterval"),
)
MOST_MONTHS, MOST_WEEKS, WINDOW, FAR = 24, 25, 7, 4
FLAGS = (*EVENTS, "Open")
"""What the calendar knows of each day."""
MOST_GAP, MOST_DAYS, CLOSING = 15, 40, 5
"""Most days of a gap between open days, most days since a closing, and the days that a closing has at least."""


@dataclass(frozen=True)
class Calendar:
    """The events of each store by day, of training and test rows together."""

    first_day: int
    """Days since 1970-01-01."""
    events: NDArray[np.bool_]
    """Shape [FLAGS, stores, days]; False on days without a row."""

    def with_rows(self, stores: NDArray[np.int64], days: NDArray[np.int64], flags: NDArray[np.bool_]) -> Calendar:
        """Return the calendar with the events of further rows.

        Args:
            stores: codes of the stores, shape [rows].
            days: days since 1970-01-01, shape [rows].
            flags: shape [FLAGS, rows].
        """
        old_last = self.first_day + self.events.shape[2] - 1
        first, last = min(self.first_day, int(days.min())), max(old_last, int(days.max()))
        events = np.zeros((len(FLAGS), self.events.shape[1], last - first + 1), dtype=bool)
        start = self.first_day - first
        events[:, :, start : start + self.events.shape[2]] = self.events
        events[:, stores, days - first] = flags
        return Calendar(first, events)

    @classmethod
    def of_rows(
        cls, num_stores: int, stores: NDArray[np.int64], days: NDArray[np.int64], flags: NDArray[np.bool_]
    ) -> Calendar:
        """Return the calendar of some rows."""
        empty = cls(int(days.min()), np.zeros((len(FLAGS), num_stores, 1), dtype=bool))
        return empty.with_rows(stores, days, flags)

    def days_since(self, event: str) -> NDArray[np.int16]:
        """Return the days since the last event of each store, 0 on the day itself.

        Before the first one nothing is known: the longest distance of the calendar, since 0 would be an event.

        >>> calendar = Calendar(0, np.array([[[0, 1, 0, 0, 1, 0]]] * 4, dtype=bool))
        >>> calendar.days_since("Promo").tolist(), calendar.days_until("Promo").tolist()
        ([[2, 0, 1, 2, 0, 1]], [[1, 0, 2, 1, 0, 2]])
        """
        return _since(self.of(event))

    def days_until(self, event: str) -> NDArray[np.int16]:
        """Return the days until the next event of each store; after the last one the longest distance."""
        return _since(self.of(event)[:, ::-1])[:, ::-1]

    def sum_before(self, event: str) -> NDArray[np.int8]:
        """Return the number of events in the seven days that end with each day."""
        return _sum_before(self.of(event))

    def sum_after(self, event: str) -> NDArray[np.int8]:
        """Return the number of events in the seven days that begin with each day."""
        return _sum_before(self.of(event)[:, ::-1])[:, ::-1]

    def of(self, flag: str) -> NDArray[np.bool_]:
        """Return one of FLAGS, [stores, days]."""
        return np.asarray(self.events[FLAGS.index(flag)])

    def open_days(self) -> dict[str, NDArray[Any]]:
        """Return the columns of OPEN_DAYS but the week of the month, each [stores, days].

        A gap is the number of days to the next open day, 1 for tomorrow; a closing is a gap with CLOSING closed days.
        The days since one count from 0, the first open day after it. PromoDay counts the days of a promotion in a row.
        """
        is_open, promo = self.of("Open"), self.of("Promo")
        before, after = _open_gap(is_open), _open_gap(is_open[:, ::-1])[:, ::-1]
        day = np.arange(promo.shape[1], dtype=np.int16)
        pause = np.maximum.accumulate(np.where(promo, np.int16(-1), day), axis=1)
        return {
            "OpenGapBefore": np.minimum(before, MOST_GAP),
            "OpenGapAfter": np.minimum(after, MOST_GAP),
            "DaysSinceClosing": _since_closing(is_open, before),
            "DaysUntilClosing": _since_closing(is_open[:, ::-1], after[:, ::-1])[:, ::-1],
            "PromoDay": np.where(promo, day - pause, np.int16(0)),
            "DaysSincePromo": np.minimum(self.days_since("Promo"), MOST_DAYS),
            "DaysUntilPromo": np.minimum(self.days_until("Promo"), MOST_DAYS),
        }


def _since(events: NDArray[np.bool_]) -> NDArray[np.int16]:
    day = np.arange(events.shape[1], dtype=np.int16)
    last = np.maximum.accumulate(np.where(events, day, np.int16(-1)), axis=1)
    distance = day - last
    return np.where(last < 0, distance[last >= 0].max(initial=0), distance)


def _open_gap(is_open: NDArray[np.bool_]) -> NDArray[np.int16]:
    """Return the days since the open day before each day; 1 where none is known."""
    day = np.arange(is_open.shape[1], dtype=np.int16)
    last = np.maximum.accumulate(np.where(is_open, day, np.int16(-1)), axis=1)
    before = np.concatenate([np.full((len(last), 1), -1, dtype=np.int16), last[:, :-1]], axis=1)
    return np.where(before < 0, np.int16(1), day - before)


def _since_closing(is_open: NDArray[np.bool_], gap: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return the days since a store opened again after a closing, at most MOST_DAYS, which also means never."""
    day = np.arange(is_open.shape[1], dtype=np.int16)
    opened = np.maximum.accumulate(np.where(is_open & (gap > CLOSING), day, np.int16(-MOST_DAYS)), axis=1)
    return np.minimum(day - opened, np.int16(MOST_DAYS))


def _sum_before(events: NDArray[np.bool_]) -> NDArray[np.int8]:
    total = np.cumsum(events, axis=1, dtype=np.int16)
    total[:, WINDOW:] -= total[:, :-WINDOW].copy()
    return total.astype(np.int8)


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
