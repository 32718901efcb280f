"""Synthetic stores in the publisher's eight tables; the best achievable RMSPE is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dlrunner.data.core.synthetic import generated

VERSION = 1
NOISE = 0.1
"""Standard deviation of log(Sales) given store, day and promotion."""
STATES = {"Hessen": "HE", "Bayern": "BY", "Berlin": "BE", "Niedersachsen": "HB,NI", "Sachsen": "SN"}
FILES = (
    *("train.csv", "test.csv", "store.csv", "store_states.csv", "state_names.csv", "googletrend.csv"),
    *("weather.csv", "sample_submission.csv"),
)


def write_synthetic_rossmann(folder: Path, num_stores: int = 40) -> tuple[Path, float]:
    """Write the eight tables into a folder, unless they exist, and return it with the best achievable score.

    log(Sales) is a sum of effects of store, type, weekday, month, promotion and school holidays, and normal noise of
    standard deviation s. The best prediction of a log-normal y for the RMSPE is median · exp(-1.5 s²), and its
    RMSPE, the best achievable one, sqrt(1 - exp(-s²)).
    """
    path = folder / f"rossmann-{VERSION}-{num_stores}"
    best = math.sqrt(1 - math.exp(-(NOISE**2)))

    def write(temporary: Path) -> float:
        _generate(temporary, num_stores)
        return best

    return generated(path, FILES, write)


def _generate(path: Path, num_stores: int) -> None:
    """Write the tables of the competition and of the lesson."""
    rng = np.random.default_rng(0)
    days = pd.date_range("2013-01-01", "2015-07-31")
    later = pd.date_range("2015-08-01", "2015-09-17")
    codes = list(STATES.values())
    stores = _stores(rng, num_stores)
    state_of = rng.choice(codes, num_stores)
    train = _sales(rng, stores, _rows(days, num_stores))
    order = ["Store", "DayOfWeek", "Date", "Sales", "Customers", "Open", "Promo", "StateHoliday", "SchoolHoliday"]
    train = train.sort_values(["Date", "Store"], ascending=[False, True])[order]

    test = _rows(later, num_stores).sort_values(["Date", "Store"], ascending=[False, True])
    test.insert(0, "Id", np.arange(1, len(test) + 1))
    test = test[["Id", "Store", "DayOfWeek", "Date", "Open", "Promo", "StateHoliday", "SchoolHoliday"]]
    test["Open"] = test["Open"].astype("Int64").where(test["Id"] % 97 != 0)

    every = pd.date_range(days[0], later[-1])
    tables = {
        "train.csv": train,
        "test.csv": test,
        "store.csv": stores,
        "store_states.csv": pd.DataFrame({"Store": stores["Store"], "State": state_of}),
        "state_names.csv": pd.DataFrame({"StateName": list(STATES), "State": codes}),
        "weather.csv": pd.concat([_weather(rng, name, every) for name in STATES]),
        "googletrend.csv": _trends(rng, codes),
        "sample_submission.csv": pd.DataFrame({"Id": test["Id"], "Sales": 0}),
    }
    for name, table in tables.items():
        table.to_csv(path / name, index=False, date_format="%Y-%m-%d")


def _stores(rng: np.random.Generator, num_stores: int) -> pd.DataFrame:
    numbers = np.arange(1, num_stores + 1)
    return pd.DataFrame(
        {
            "Store": numbers,
            "StoreType": rng.choice(["a", "b", "c", "d"], num_stores),
            "Assortment": rng.choice(["a", "b", "c"], num_stores),
            "CompetitionDistance": np.where(
                rng.random(num_stores) < 0.1, np.nan, rng.integers(2, 300, num_stores) * 10
            ),
            "CompetitionOpenSinceMonth": np.where(numbers % 3 == 0, np.nan, rng.integers(1, 13, num_stores)),
            "CompetitionOpenSinceYear": np.where(numbers % 3 == 0, np.nan, rng.integers(2000, 2016, num_stores)),
            "Promo2": (numbers % 2).astype(int),
            "Promo2SinceWeek": np.where(numbers % 2 == 0, np.nan, rng.integers(1, 51, num_stores)),
            "Promo2SinceYear": np.where(numbers % 2 == 0, np.nan, rng.integers(2009, 2016, num_stores)),
            "PromoInterval": np.where(numbers % 2 == 0, "", "Jan,Apr,Jul,Oct"),
        }
    )


def _rows(dates: pd.DatetimeIndex, num_stores: int) -> pd.DataFrame:
    """Return the days of all stores, without sales."""
    frame = pd.DataFrame(
        {"Date": np.repeat(dates, num_stores), "Store": np.tile(np.arange(1, num_stores + 1), len(dates))}
    )
    day = frame["Date"]
    frame["DayOfWeek"] = day.dt.day_of_week + 1
    frame["Promo"] = ((day.dt.isocalendar().week % 2 == 0) & (frame["DayOfWeek"] < 6)).astype(int)
    christmas = day.dt.strftime("%m-%d").isin(["12-25", "12-26"])
    public = day.dt.strftime("%m-%d").isin(["01-01", "05-01", "10-03"])
    frame["StateHoliday"] = np.select([christmas, public], ["c", "a"], "0")
    frame["SchoolHoliday"] = day.dt.month.isin([7, 8]).astype(int)
    frame["Open"] = ((frame["DayOfWeek"] != 7) & (frame["StateHoliday"] == "0")).astype(int)
    return frame


def _sales(rng: np.random.Generator, stores: pd.DataFrame, train: pd.DataFrame) -> pd.DataFrame:
    """Return training rows with sales: lognormal around effects of store, weekday, month, promotion and holidays."""
    kind = np.array([0, 0.3, -0.1, 0.1])[stores["StoreType"].map(ord) - 97]
    store_effect = rng.normal(8.5, 0.35, len(stores)) + kind
    weekday = np.array([0.15, 0.02, -0.03, 0.0, 0.05, -0.1, 0.0])
    month = 0.15 * np.sin(np.arange(12) / 12 * 2 * np.pi)
    half_year = (train["Store"] % 7 == 0) & train["Date"].between("2014-07-01", "2014-12-31")
    train = train[~half_year].reset_index(drop=True)  # some stores are closed for months and have no rows
    mean = (
        store_effect[train["Store"].to_numpy() - 1]
        + weekday[train["DayOfWeek"] - 1]
        + month[train["Date"].dt.month - 1]
        + 0.3 * train["Promo"]
        + 0.05 * train["SchoolHoliday"]
    )
    sales = np.exp(mean + rng.normal(0, NOISE, len(train)))
    train["Sales"] = np.where(train["Open"] == 1, np.maximum(1, np.round(sales)), 0).astype(int)
    train["Customers"] = train["Sales"] // 9
    return train


def _trends(rng: np.random.Generator, codes: Sequence[str]) -> pd.DataFrame:
    """Return weekly search interest in Germany and its states."""
    sundays = pd.date_range("2012-12-02", "2015-09-27", freq="7D")
    weeks = [f"{day:%Y-%m-%d} - {day + pd.Timedelta(days=6):%Y-%m-%d}" for day in sundays]
    files = ["Rossmann_DE", *(f"Rossmann_DE_{code[-2:]}" for code in codes)]
    return pd.concat(
        [pd.DataFrame({"file": f, "week": weeks, "trend": rng.integers(40, 101, len(weeks))}) for f in files]
    )


def _weather(rng: np.random.Generator, state: str, days: pd.DatetimeIndex) -> pd.DataFrame:
    """Return seasonal weather with missing values in CloudCover."""
    temperature = 10 - 10 * np.cos(days.day_of_year / 365 * 2 * np.pi) + rng.normal(0, 3, len(days))
    humidity = np.clip(rng.normal(75, 10, len(days)), 20, 100)
    return pd.DataFrame(
        {
            "file": state,
            "Date": days,
            "Max_TemperatureC": (temperature + 4).round(),
            "Mean_TemperatureC": temperature.round(),
            "Min_TemperatureC": (temperature - 4).round(),
            "Max_Humidity": np.clip(humidity + 15, 0, 100).round(),
            "Mean_Humidity": humidity.round(),
            "Min_Humidity": (humidity - 20).round(),
            "Max_Wind_SpeedKm_h": rng.integers(8, 50, len(days)),
            "Mean_Wind_SpeedKm_h": rng.integers(3, 30, len(days)),
            "CloudCover": np.where(rng.random(len(days)) < 0.1, np.nan, rng.integers(0, 9, len(days))),
            "Events": rng.choice(["", "Rain", "Fog", "Rain-Snow"], len(days)),
        }
    )
