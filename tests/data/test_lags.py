"""Lags and rolling means of the target: their values, and that none of them knows the future."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dlrunner.data.core.splitting import TRAIN, UNUSED, VALID
from dlrunner.data.tabular.dataset import TabularData
from dlrunner.data.tabular.lags import KnownTargets, LagSettings
from dlrunner.data.tabular.new_rows import rows_to_predict
from dlrunner.data.tabular.table import TabularTable
from dlrunner.errors import ConfigError, DataError

HORIZON = 10
LAGS = {"lags": [7, 14, 30], "rolling_means": [7, 28], "group": ["store"]}
NAMES = ["sold_lag_14", "sold_lag_30", "sold_mean_7", "sold_mean_28"]


def sales(num_days: int = 120, freq: str = "D") -> pd.DataFrame:
    """Rows of three stores, of which a tenth of the days is missing."""
    rng = np.random.default_rng(0)
    days = pd.date_range("2023-01-01", periods=num_days, freq=freq)
    rows = pd.DataFrame({"day": np.repeat(days, 3), "store": np.tile(["a", "b", "c"], num_days)})
    rows["sold"] = np.round(rng.gamma(3, 100, len(rows)), 1)
    return rows[rng.random(len(rows)) > 0.1].reset_index(drop=True)


def data(table: pd.DataFrame, **settings: Any) -> TabularData:
    table.to_csv("s.csv", index=False)
    given = {"split": "rolling", "folds": 2, "fold": 1, "horizon": HORIZON, **LAGS, **settings}
    return TabularData(Path(), path="s.csv", target="sold", **given)


def read(table: pd.DataFrame, **settings: Any) -> TabularTable:
    return data(table, **settings).read()


def by_pandas(table: pd.DataFrame, lags: Sequence[int], widths: Sequence[int], horizon: int) -> pd.DataFrame:
    """Return the features, computed on a grid of all days by pandas' shift and rolling."""
    grid = table.pivot(index="day", columns="store", values="sold").asfreq("D")
    columns = {f"sold_lag_{lag}": grid.shift(lag) for lag in lags}
    columns |= {f"sold_mean_{width}": grid.rolling(width, min_periods=1).mean().shift(horizon) for width in widths}
    rows = pd.MultiIndex.from_frame(table[["day", "store"]])
    return pd.DataFrame({name: values.stack(future_stack=True).reindex(rows) for name, values in columns.items()})


def test_values_are_those_of_pandas(here: Path) -> None:
    table = sales()
    found = read(table)
    expected = by_pandas(table, [14, 30], [7, 28], HORIZON)
    assert expected.isna().any().all()
    assert [name for name in found.roles.continuous if name.startswith("sold_")] == NAMES
    np.testing.assert_allclose(found.frame[NAMES].to_numpy(), expected.to_numpy(), rtol=1e-9)


def test_a_logarithmic_target_has_logarithmic_lags(here: Path) -> None:
    table = sales()
    found = read(table, target_transform="log1p").frame[NAMES].to_numpy()
    np.testing.assert_allclose(found, np.log1p(by_pandas(table, [14, 30], [7, 28], HORIZON).to_numpy()), rtol=1e-9)


def test_no_feature_uses_a_target_newer_than_the_origin(here: Path) -> None:
    table = sales()
    known = read(table)
    window = known.split == VALID
    assert known.dates is not None
    assert (known.dates[window].max() - known.dates[window].min()).days < HORIZON
    changed = table.copy()
    changed.loc[window, "sold"] = 1e6
    other = read(changed)
    np.testing.assert_array_equal(known.frame[NAMES].to_numpy(), other.frame[NAMES].to_numpy())
    origin = known.dates == known.dates[known.split == TRAIN].max()  # the last known day is used
    changed = table.copy()
    changed.loc[origin, "sold"] = 1e6
    assert (read(changed).frame["sold_mean_7"][window] > 1e5).any()


def test_new_rows_continue_from_the_last_known_targets(here: Path) -> None:
    table = sales()
    days = pd.date_range(table["day"].max() + pd.Timedelta(days=1), periods=HORIZON + 2)
    new = pd.DataFrame({"day": np.repeat(days, 3), "store": np.tile(["a", "b", "c"], len(days))})
    source = data(table)
    source.read()
    rows = rows_to_predict(new.astype(str), source.recipe(), ["store", *NAMES], Path("new.csv"))
    expected = by_pandas(pd.concat([table, new]), [14, 30], [7, 28], HORIZON).iloc[len(table) :]
    late = np.repeat(np.arange(len(days)) >= HORIZON, 3)
    np.testing.assert_allclose(rows.frame[NAMES][~late].to_numpy(), expected[~late].to_numpy(), rtol=1e-9)
    assert rows.notes[-1].startswith("6 row(s) are more than data.horizon=10 days after the last known sold")


def test_targets_of_new_rows_extend_the_known_ones(here: Path) -> None:
    table = sales()
    first = pd.Timestamp("2023-04-11")
    source = data(table[table["day"] < first])
    source.read()
    rows = rows_to_predict(table.astype(str), source.recipe(), ["store", *NAMES], Path("new.csv"))
    expected = by_pandas(table, [14, 30], [7, 28], HORIZON)
    np.testing.assert_allclose(rows.frame[NAMES].to_numpy(), expected.to_numpy(), rtol=1e-9)
    assert "row(s) with sold continue its history (to 2023-04-30)" in rows.notes[-1]
    recent = (table["day"] >= first - pd.Timedelta(days=5)).to_numpy()
    corrected = table.assign(sold=np.where(recent & (table["day"] < first), 7.0, table["sold"]))
    part = rows_to_predict(corrected[recent].astype(str), source.recipe(), ["store", *NAMES], Path("new.csv"))
    expected = by_pandas(corrected, [14, 30], [7, 28], HORIZON)[recent]
    np.testing.assert_allclose(part.frame[NAMES].to_numpy(), expected.to_numpy(), rtol=1e-9)
    some = table.astype(str).assign(sold=np.where(table["day"] < first, table["sold"].astype(str), "?"))
    rows = rows_to_predict(some, source.recipe(), ["store", *NAMES], Path("new.csv"))
    assert not rows.bad
    unknown = (table["day"] >= first + pd.Timedelta(days=HORIZON)).to_numpy()
    assert rows.frame["sold_mean_7"][unknown].isna().any()


def test_a_group_without_known_targets_is_noted(here: Path) -> None:
    source = data(sales())
    source.read()
    new = pd.DataFrame({"day": ["2023-05-01", "2023-05-01"], "store": ["a", "z"]})
    rows = rows_to_predict(new, source.recipe(), ["store", *NAMES], Path("new.csv"))
    assert rows.frame["sold_mean_28"].isna().tolist() == [False, True]
    assert rows.notes[-1] == "1 row(s) are of groups (store) without known targets"


def test_groups_of_numbers_are_found_again_without_their_fractions() -> None:
    days = np.arange(10)
    known = pd.DataFrame({"litres": [0.5] * 10 + [1.0] * 10})
    settings = LagSettings("sold", 1, "day", [1], [], ["litres"])
    targets = KnownTargets.of_rows(settings, known, np.tile(days, 2), np.arange(20.0))
    new = pd.DataFrame({"litres": [1.0, 1.0]})
    assert not targets.unknown_groups(new).any()
    assert targets.columns(new, np.array([9, 10]))["sold_lag_1"].tolist() == [18, 19]


def test_known_targets_survive_a_checkpoint() -> None:
    table = sales()
    settings = LagSettings("sold", HORIZON, "day", [7], [28], ["store"])
    periods = table["day"].to_numpy("datetime64[D]").astype(np.int64)
    known = KnownTargets.of_rows(settings, table, periods, table["sold"].to_numpy())
    again = KnownTargets.from_state(known.state())
    pd.testing.assert_frame_equal(again.columns(table, periods), known.columns(table, periods))


def test_rows_of_one_group_and_day_count_with_their_mean_and_a_note(here: Path) -> None:
    table = sales().drop(columns="store")
    found = read(table, group=None)
    day = pd.Timestamp("2023-04-30")
    expected = table.loc[table["day"] == day - pd.Timedelta(days=14), "sold"].mean()
    np.testing.assert_allclose(found.frame["sold_lag_14"][found.dates == day], expected)
    assert any("lags are of the mean target" in note for note in found.notes)


@pytest.mark.parametrize("group", [["store"], ["store", "kind"]])
def test_rows_without_a_group_are_a_group(group: list[str], here: Path) -> None:
    full = sales().assign(kind="x")
    gaps = full.assign(store=full["store"].where(full["store"] != "b"))
    names = list(NAMES)
    found, expected = (read(table, group=group).frame[names] for table in (gaps, full))
    np.testing.assert_array_equal(found.to_numpy(), expected.to_numpy())


def test_monthly_data_counts_in_months(here: Path) -> None:
    table = sales(60, "ME")
    found = read(table, horizon=3, lags=[12], rolling_means=None)
    assert found.dates is not None
    assert set(found.dates[found.split == VALID].dt.strftime("%Y-%m")) == {"2027-10", "2027-11", "2027-12"}
    one = table[table["store"] == "a"].set_index("day")["sold"]
    rows = (table["store"] == "a").to_numpy()
    expected = [one.get(day - pd.offsets.MonthEnd(12), np.nan) for day in one.index]
    np.testing.assert_allclose(found.frame["sold_lag_12"][rows], expected)
    assert any("(3 months)" in note for note in found.notes)


def test_windows_follow_each_other_and_train_on_what_is_before(here: Path) -> None:
    table = sales()
    folds = [read(table, folds=4, fold=fold) for fold in range(4)]
    for number, fold in enumerate(folds):
        assert fold.dates is not None
        valid, train = fold.dates[fold.split == VALID], fold.dates[fold.split == TRAIN]
        first = pd.Timestamp("2023-04-30") - pd.Timedelta(days=(4 - number) * HORIZON - 1)
        assert (valid.min(), valid.max()) == (first, first + pd.Timedelta(days=HORIZON - 1))
        assert train.max() == first - pd.Timedelta(days=1)
        assert (fold.dates[fold.split == UNUSED] > valid.max()).all()
        assert any(f"window {number + 1} of 4 (data.fold={number}): {first:%Y-%m-%d} to" in note for note in fold.notes)


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"horizon": None}, ConfigError, "data.horizon: is missing"),
        ({"split": "random", "valid": 0.2}, ConfigError, "all training rows must be older"),
        ({"split": "last_days", "valid": 20, "date": "day"}, ConfigError, "cover 20 days, more than"),
        ({"group": ["shop"]}, ConfigError, "no column 'shop'"),
        ({"group": ["sold"]}, ConfigError, "sold is the target"),
        ({"sample": 100}, ConfigError, "data.sample"),
        ({"lags": [200]}, DataError, "no training row has sold_lag_200: the training rows cover 110 days"),
        ({"folds": 12}, DataError, "are 130 days; the data covers 120 days"),
        ({"lags": None, "rolling_means": None}, ConfigError, "data.group: is for data.lags"),
        ({"fold": 2}, ConfigError, "data.fold: must lie between 0 and 1"),
        ({"test": 0.1}, ConfigError, "data.test: cannot be used with data.split=rolling"),
        (
            {"split": "last_days", "date": "day", "lags": None, "rolling_means": None, "group": None},
            ConfigError,
            "data.horizon: is for",
        ),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], error: type[Exception], said: str, here: Path) -> None:
    with pytest.raises(error, match=said):
        read(sales(), **settings)


def test_the_only_column_of_dates_is_taken_and_another_one_asked_for(here: Path) -> None:
    table = sales()
    with pytest.raises(ConfigError, match=r"data.date: is missing: s.csv has no column of dates"):
        read(table.drop(columns="day").assign(x=np.arange(len(table)) % 7))
    two = table.assign(sent=table["day"] + pd.Timedelta(days=2))
    with pytest.raises(ConfigError, match=r"data.date: is one of day, sent; which one"):
        read(two)
    assert read(two, date="day").dates is not None
    assert read(two, dates=["day"]).dates is not None


def test_lags_are_of_numbers_only(here: Path) -> None:
    table = sales().assign(sold=lambda rows: np.where(rows["sold"] > 200, "many", "few"))
    with pytest.raises(ConfigError, match="numeric target, not binary"):
        read(table)


def test_a_column_of_that_name_is_refused(here: Path) -> None:
    with pytest.raises(ConfigError, match="has a column sold_lag_14 already"):
        read(sales().assign(sold_lag_14=1.5))
