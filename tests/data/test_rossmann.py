"""Rossmann's features against rows computed by hand, the cache, and what is said of damaged tables."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dlrunner.data.core.source import ArchiveOrFolder
from dlrunner.data.rossmann import dataset as rossmann
from dlrunner.data.rossmann.dataset import RossmannData, surroundings_from, surroundings_state
from dlrunner.data.rossmann.features import CATEGORICAL, CONTINUOUS, WEATHER, Surroundings, features
from dlrunner.data.rossmann.releases import FILES
from dlrunner.data.rossmann.synthetic import write_synthetic_rossmann
from dlrunner.errors import ConfigError, DataError

NOWHERE = Path("nowhere")


def store_table(**changes: Any) -> pd.DataFrame:
    """One store, 1, in Hessen; another, 2, in Lower Saxony, without competitor and without second promotion."""
    table = {
        "Store": [1, 2],
        "StoreType": ["c", "a"],
        "Assortment": ["a", "c"],
        "CompetitionDistance": [1270.0, np.nan],
        "CompetitionOpenSinceMonth": [9.0, np.nan],
        "CompetitionOpenSinceYear": [2014.0, np.nan],
        "Promo2SinceWeek": [14.0, np.nan],
        "Promo2SinceYear": [2015.0, np.nan],
        "PromoInterval": ["Jan,Apr,Jul,Oct", np.nan],
        "State": ["HE", "HB,NI"],
    }
    return pd.DataFrame({**table, **changes})


def weather_table(days: pd.DatetimeIndex) -> pd.DataFrame:
    frames = []
    for offset, state in enumerate(["HE", "HB,NI"]):
        frame = pd.DataFrame({"State": state, "Date": days})
        for place, name in enumerate(WEATHER):
            frame[name] = np.arange(len(days)) + 100.0 * place + 1000 * offset
        frame["Events"] = ["Rain" if day.day % 2 else np.nan for day in days]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def trend_table() -> pd.DataFrame:
    weeks = pd.date_range("2014-11-30", "2015-04-26", freq="7D")
    return pd.DataFrame(
        {
            "State": np.repeat(["HE", "HB,NI", "DE"], len(weeks)),
            "Date": np.tile(weeks, 3),
            "trend": np.concatenate([np.arange(len(weeks)) + base for base in (0, 100, 200)]),
        }
    )


def rows_of(days: pd.DatetimeIndex, store: int = 1, **flags: list[str]) -> pd.DataFrame:
    """Return a store's rows; `flags` list the days (as text) on which an event falls."""
    text = pd.Series(days.strftime("%Y-%m-%d"))
    return pd.DataFrame(
        {
            "Store": store,
            "DayOfWeek": days.day_of_week + 1,
            "Date": days,
            "Promo": text.isin(flags.get("promo", [])).astype(int),
            "StateHoliday": np.where(text.isin(flags.get("holiday", [])), "a", "0"),
            "SchoolHoliday": text.isin(flags.get("school", [])).astype(int),
        }
    )


def built(rows: pd.DataFrame, **changes: Any) -> pd.DataFrame:
    """Return the features of rows, indexed by day."""
    days = pd.date_range(rows["Date"].min(), rows["Date"].max())
    known = Surroundings(store_table(**changes), weather_table(days), trend_table()).with_rows(rows)
    return features(rows, known).set_index(rows["Date"])


def test_days_since_and_until_holidays_run_to_the_edges_of_what_is_known() -> None:
    rows = rows_of(pd.date_range("2014-12-24", "2015-01-07"), holiday=["2014-12-25", "2014-12-26", "2015-01-01"])
    table = built(rows)
    # By hand: before the first one and after the last one the longest distance that is known; 0 would be a holiday.
    assert table["AfterStateHoliday"].tolist() == [6, 0, 0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 6]
    assert table["BeforeStateHoliday"].tolist() == [1, 0, 0, 5, 4, 3, 2, 1, 0, 5, 5, 5, 5, 5, 5]
    assert table["StateHoliday"].tolist() == [0, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    # The seven days that end with the day, and those that begin with it.
    assert table["StateHoliday_bw"].tolist() == [0, 1, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1]
    assert table["StateHoliday_fw"].tolist() == [2, 2, 2, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("dtype", ["float64", "Int64"])
def test_a_missing_flag_is_not_set(dtype: Any) -> None:
    rows = rows_of(pd.date_range("2014-12-24", "2014-12-28"))
    rows["StateHoliday"] = pd.Series([0, None, 0, 1, 0], dtype=dtype)
    assert built(rows)["StateHoliday"].tolist() == [0, 0, 0, 1, 0]


def test_a_store_that_was_closed_for_months_has_no_events_in_the_gap() -> None:
    days = pd.date_range("2014-12-01", "2015-03-03")
    open_days = days[[0, 1, 2, 3, 4, -3, -2, -1]]
    table = built(rows_of(open_days, promo=["2014-12-04", "2014-12-05", "2015-03-02"], holiday=["2014-12-03"]))
    assert table["Promo_bw"].tolist() == [0, 0, 0, 1, 2, 0, 1, 1], "by days, not by rows: the gap is longer than a week"
    assert table["Promo_fw"].tolist() == [2, 2, 2, 2, 1, 1, 1, 0]
    days_since = [90, 90, 0, 1, 2, 88, 89, 90]  # 3 December to 1 March: 28 + 31 + 28 + 1
    assert table["AfterStateHoliday"].tolist() == days_since


def test_stores_do_not_see_each_other() -> None:
    days = pd.date_range("2015-01-01", "2015-01-09")
    both = pd.concat([rows_of(days, 1, promo=["2015-01-05"]), rows_of(days, 2)], ignore_index=True)
    table = built(both)
    assert table["Promo_bw"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1] + [0] * 9


def test_the_test_rows_surround_the_training_rows() -> None:
    train = rows_of(pd.date_range("2015-01-01", "2015-01-03"))
    test = rows_of(pd.date_range("2015-01-04", "2015-01-05"), promo=["2015-01-05"], holiday=["2015-01-04"])
    days = pd.date_range("2015-01-01", "2015-01-05")
    known = Surroundings(store_table(), weather_table(days), trend_table()).with_rows(train).with_rows(test)
    table = features(train, known)
    assert table["BeforeStateHoliday"].tolist() == [3, 2, 1]
    assert table["Promo_fw"].tolist() == [1, 1, 1]


def test_lower_saxony_is_found_under_both_its_names(tmp_path: Path) -> None:
    """state_names.csv calls it HB,NI, the trend's file NI."""
    folder, _ = write_synthetic_rossmann(tmp_path, num_stores=12)
    _, known = rossmann._read(ArchiveOrFolder(folder))
    shops = known.stores.loc[known.stores["State"] == "HB,NI", "Store"]
    assert len(shops) > 0
    assert "HB,NI" in set(known.weather["State"])
    rows = rows_of(pd.date_range("2015-03-02", "2015-03-02"), store=int(shops.iloc[0]))
    table = features(rows, known)
    trend = pd.read_csv(folder / "googletrend.csv")
    week = trend[(trend["file"] == "Rossmann_DE_NI") & trend["week"].str.startswith("2015-03-01")]
    assert table["trend"].tolist() == week["trend"].tolist()
    weather = pd.read_csv(folder / "weather.csv")
    day = weather[(weather["file"] == "Niedersachsen") & (weather["Date"] == "2015-03-02")]
    assert table["Max_Humidity"].tolist() == day["Max_Humidity"].tolist()


def test_trends_are_those_of_the_week_from_sunday_to_saturday() -> None:
    table = built(rows_of(pd.date_range("2014-12-05", "2014-12-14")))
    # 2014-12-05 is a Friday: the week of 30 November has trend 0, that of 7 December 1, of 14 December 2.
    assert table["trend"].tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 1, 2]
    assert table["trend_DE"].tolist() == [200, 200, 201, 201, 201, 201, 201, 201, 201, 202]


def test_long_years_have_a_week_53() -> None:
    rows = rows_of(pd.date_range("2015-12-27", "2016-01-04"))
    table = built(rows)
    assert table["Week"].tolist() == [52, 53, 53, 53, 53, 53, 53, 53, 1]
    assert table["Year"].tolist() == [2015] * 5 + [2016] * 4


def test_months_of_competition_and_weeks_of_promotion_are_counted_and_cut() -> None:
    days = pd.DatetimeIndex(["2014-09-14", "2014-10-14", "2014-10-15", "2015-03-29", "2015-04-06", "2016-12-31"])
    table = built(rows_of(days))
    # The competitor opened in September 2014, counted from the 15th, in months of 30 days, at most 24.
    assert table["CompetitionMonthsOpen"].tolist() == [0, 0, 1, 6, 6, 24]
    # The second promotion began in ISO week 14 of 2015, Monday 30 March; at most 25 weeks.
    assert table["Promo2Weeks"].tolist() == [0, 0, 0, 0, 1, 25]
    assert table["CompetitionOpenSinceYear"].tolist() == [2014] * 6
    unknown = built(rows_of(days, store=2))
    assert unknown["CompetitionMonthsOpen"].tolist() == [0] * 6
    assert unknown["CompetitionOpenSinceYear"].tolist() == [1900] * 6, "not known, as the lesson writes it"
    assert unknown["Promo2Weeks"].tolist() == [0] * 6
    assert unknown["PromoInterval"].isna().all()
    old = built(rows_of(days), CompetitionOpenSinceYear=[1961.0, np.nan])
    assert old["CompetitionMonthsOpen"].tolist() == [0] * 6, "a year before 1990 says nothing"


def test_weather_belongs_to_the_state_and_the_day() -> None:
    days = pd.date_range("2015-01-01", "2015-01-03")
    both = pd.concat([rows_of(days, 1), rows_of(days, 2)], ignore_index=True)
    table = built(both)
    assert table["Max_TemperatureC"].tolist() == [0, 1, 2, 1000, 1001, 1002]
    assert table["CloudCover"].tolist() == [800, 801, 802, 1800, 1801, 1802]
    assert table["Events"].astype(object).where(table["Events"].notna(), None).tolist() == ["Rain", None, "Rain"] * 2


def test_the_columns_are_the_lessons_in_their_order() -> None:
    table = built(rows_of(pd.date_range("2015-01-01", "2015-01-03")))
    assert list(table.columns) == [*CATEGORICAL, *CONTINUOUS]
    assert (len(CATEGORICAL), len(CONTINUOUS)) == (22, 16)


def test_what_a_run_stores_gives_the_same_features(tmp_path: Path) -> None:
    folder, _ = write_synthetic_rossmann(tmp_path, num_stores=12)
    train, known = rossmann._read(ArchiveOrFolder(folder))
    rows = train.iloc[::50]
    restored = surroundings_from(surroundings_state(known))
    pd.testing.assert_frame_equal(features(rows, restored), features(rows, known), check_categorical=False)


def test_a_run_of_an_older_version_keeps_its_distances(tmp_path: Path) -> None:
    rows = rows_of(pd.date_range("2014-12-24", "2014-12-28"), holiday=["2014-12-25"])
    known = Surroundings(store_table(), weather_table(pd.DatetimeIndex(rows["Date"])), trend_table()).with_rows(rows)
    state = surroundings_state(known)
    assert features(rows, surroundings_from(state))["BeforeStateHoliday"].tolist() == [1, 0, 1, 1, 1]
    del state["unknown_is_0"]
    later = rows_of(pd.date_range("2014-12-29", "2014-12-30"))
    old = surroundings_from(state).with_rows(later)
    assert features(rows, old)["BeforeStateHoliday"].tolist() == [1, 0, 0, 0, 0]
    assert features(rows, surroundings_from(surroundings_state(old))).equals(features(rows, old))


# The data set


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """A small chain's eight tables."""
    folder, _ = write_synthetic_rossmann(tmp_path / "chain", num_stores=12)
    copy = tmp_path / "tables"
    shutil.copytree(folder, copy)
    return copy


def data(path: Path, **settings: Any) -> RossmannData:
    return RossmannData(NOWHERE, path=str(path), **{"split": "last_days", "valid": 48, **settings})


def test_archive_and_folder_give_the_same_table(chain: Path, tmp_path: Path) -> None:
    archive = tmp_path / "rossmann.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in FILES:
            tar.add(chain / name, arcname=name)
    packed, unpacked = data(archive), data(chain)
    assert packed.identity().digest == unpacked.identity().digest
    pd.testing.assert_frame_equal(packed.read().frame, unpacked.read().frame)


def test_only_days_with_sales_are_rows_and_the_last_48_days_validate(chain: Path) -> None:
    table = data(chain).read()
    raw = pd.read_csv(chain / "train.csv", parse_dates=["Date"])
    assert len(table.frame) == int((raw["Sales"] > 0).sum())
    assert table.dates is not None
    days = table.dates[table.valid]
    sold = raw.loc[raw["Sales"] > 0, "Date"]
    expected = sold[sold >= pd.Timestamp("2015-06-14")]  # 48 days to 31 July
    assert (len(days), days.min(), days.max()) == (len(expected), expected.min(), pd.Timestamp("2015-07-31"))
    assert not (table.dates[~table.valid] >= days.min()).any()


def test_days_that_are_left_out_are_not_seen(chain: Path) -> None:
    table = data(
        chain, split="dates", valid_from="2013-08-01", valid_to="2013-09-17", leave_out=["2014-08-01", "2014-09-17"]
    ).read()
    assert table.dates is not None
    assert not table.dates.between("2014-08-01", "2014-09-17").any(), "the reported window is not seen"


def test_a_sample_is_the_same_for_the_same_seed(chain: Path) -> None:
    first, second = (data(chain, split="random", valid=0.25, sample=500).read() for _ in range(2))
    pd.testing.assert_frame_equal(first.frame, second.frame)
    assert (len(first.frame), int(first.valid.sum())) == (500, 125)
    with pytest.raises(DataError, match=r"data\.sample=999,999,999 is more than"):
        data(chain, sample=999_999_999).read()


def test_the_second_time_comes_from_the_cache_and_a_damaged_cache_is_made_anew(
    chain: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DLRUNNER_CACHE", str(tmp_path / "cache"))
    first = data(chain).read().frame
    calls = []
    build = RossmannData._build

    def counted(self: RossmannData) -> pd.DataFrame:
        calls.append(1)
        return build(self)

    monkeypatch.setattr(RossmannData, "_build", counted)
    pd.testing.assert_frame_equal(data(chain).read().frame, first)
    assert not calls
    kept = next((tmp_path / "cache" / "tables").glob("*.table"))
    kept.write_bytes(kept.read_bytes()[:1000])
    pd.testing.assert_frame_equal(data(chain).read().frame, first)
    assert len(calls) == 1
    # Another train.csv is another key.
    text = (chain / "train.csv").read_text().splitlines()
    (chain / "train.csv").write_text("\n".join(text[:-1]) + "\n")
    data(chain).read()
    assert len(calls) == 2


@pytest.mark.parametrize("name", [name for name in FILES if name != "sample_submission.csv"])
def test_a_missing_table_is_named(chain: Path, name: str) -> None:
    (chain / name).unlink()
    with pytest.raises(DataError, match=name):
        data(chain).identity()


def test_a_store_that_store_csv_does_not_know_is_named(chain: Path) -> None:
    stores = pd.read_csv(chain / "store.csv")
    stores[stores["Store"] != 7].to_csv(chain / "store.csv", index=False)
    with pytest.raises(DataError, match=r"store.csv has no row for 1 store\(s\): 7"):
        data(chain).read()


def test_a_date_that_is_none_is_named_with_its_row(chain: Path) -> None:
    text = (chain / "test.csv").read_text().splitlines()
    text[4] = text[4].replace("2015", "20x5")
    (chain / "test.csv").write_text("\n".join(text) + "\n")
    with pytest.raises(DataError, match=r"test.csv, row 5: Date is '20x5-.*', which is not a date"):
        data(chain).read()


@pytest.mark.parametrize("which", ["missing", "truncated"])
def test_an_archive_that_is_none_is_told(which: str, chain: Path, tmp_path: Path) -> None:
    archive = tmp_path / "rossmann.tgz"
    if which == "missing":
        with pytest.raises(ConfigError, match="there is no file"):
            data(archive).identity()
        return
    with tarfile.open(archive, "w:gz") as tar:
        for name in FILES:
            tar.add(chain / name, arcname=name)
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(DataError, match=r"damaged|missing"):
        data(archive).read()


def test_without_data_real_fails_and_auto_says_it_is_a_stand_in(here: Path) -> None:
    with pytest.raises(DataError, match=r"put rossmann.tgz there, or set DLRUNNER_DATA; download it from"):
        RossmannData(NOWHERE, source="real", split="last_days", valid=48).identity()
    identity = RossmannData(NOWHERE, split="last_days", valid=48).identity()
    assert identity.source == "synthetic"
    assert identity.best_achievable == pytest.approx(np.sqrt(1 - np.exp(-0.01)))


def test_the_stand_in_keeps_its_floor(tmp_path: Path) -> None:
    """Who knows all but the noise reaches the floor, and nothing that is constant in the noise beats it."""
    noise = np.random.default_rng(0).normal(0, 0.1, 400_000)
    floor = np.sqrt(1 - np.exp(-0.01))
    rmspe = [np.sqrt(np.mean((factor / np.exp(noise) - 1) ** 2)) for factor in (1.0, np.exp(-1.5 * 0.01), 0.97)]
    assert rmspe[1] == pytest.approx(floor, rel=3e-3)
    assert min(rmspe) == rmspe[1]


@pytest.mark.data
@pytest.mark.slow  # a million rows; synthetic tables in the same format are read above
def test_the_real_tables_have_the_published_cardinalities(real_data: Path) -> None:
    if not (real_data / "rossmann.tgz").exists():
        pytest.skip("needs rossmann.tgz in DLRUNNER_DATA")
    published = {
        "Store": 1116,
        "DayOfWeek": 8,
        "Year": 4,
        "Month": 13,
        "Day": 32,
        "StateHoliday": 3,
        "CompetitionMonthsOpen": 26,
        "Promo2Weeks": 27,
        "StoreType": 5,
        "Assortment": 4,
        "PromoInterval": 4,
        "CompetitionOpenSinceYear": 24,
        "Promo2SinceYear": 9,
        "State": 13,
        "Week": 53,
        "Events": 22,
        "Promo_fw": 7,
        "Promo_bw": 7,
        "StateHoliday_fw": 4,
        "StateHoliday_bw": 4,
        "SchoolHoliday_fw": 9,
        "SchoolHoliday_bw": 9,
    }
    table = RossmannData(real_data, split="dates", valid_from="2014-08-01", valid_to="2014-09-17").read()
    assert len(table.frame) == 844_338
    assert int(table.valid.sum()) == 38_399
    assert {name: table.frame[name].nunique() + 1 for name in CATEGORICAL} == published
    honest = RossmannData(real_data, split="last_days", valid=48).read()
    assert int(honest.valid.sum()) == 45_884


def test_the_lessons_columns_have_its_errors() -> None:
    days = pd.date_range("2014-12-15", "2015-01-18")
    rows = rows_of(days, holiday=["2014-12-25"])
    known = Surroundings(store_table(), weather_table(days), trend_table()).with_rows(rows)
    right, lesson = (features(rows, known, lesson=flag).set_index(days) for flag in (False, True))
    assert (lesson[["AfterStateHoliday", "BeforeStateHoliday"]] == 0).all(axis=None)
    assert right["AfterStateHoliday"].any()
    # Monday to Saturday: the trend of the week that follows; Sunday begins that week.
    week = slice("2014-12-15", "2014-12-21")
    assert (lesson["trend"][week] - right["trend"][week]).tolist() == [1] * 6 + [0]
    assert (lesson["trend_DE"][week] - right["trend_DE"][week]).tolist() == [1] * 6 + [0]
    # 29 to 31 December 2014 are in the ISO week 1 of 2015: 2014 has no such Sunday in the table.
    assert (lesson["trend"]["2014-12-29":"2014-12-31"] == 0).all()
    unchanged = [name for name in right if name not in ("AfterStateHoliday", "BeforeStateHoliday", "trend", "trend_DE")]
    pd.testing.assert_frame_equal(lesson[unchanged], right[unchanged])


def test_in_the_lesson_missing_numbers_are_0_and_statistics_are_those_of_all_rows(chain: Path) -> None:
    usual, lesson = data(chain).read(), data(chain, lesson=True).read()
    missing = usual.frame["CloudCover"].isna()
    assert missing.any()
    assert (lesson.frame["CloudCover"][missing] == 0).all()
    assert lesson.fitted.all()
    assert (usual.fitted == usual.train).all()


def test_days_around_a_closing_and_days_of_a_promotion_are_counted() -> None:
    days = pd.date_range("2015-03-02", "2015-03-20")  # Monday
    rows = rows_of(days, promo=["2015-03-03", "2015-03-04", "2015-03-20"])
    closed = days.isin(pd.date_range("2015-03-05", "2015-03-12"))
    rows["Open"] = np.where(closed, 0.0, 1.0)
    rows.loc[1, "Open"] = np.nan  # assumed open
    known = Surroundings(store_table(), weather_table(days), trend_table()).with_rows(rows)
    table = features(rows, known, open_days=True).set_index(days)
    opened = table.loc[["2015-03-04", "2015-03-13", "2015-03-14"]]
    assert opened["OpenGapBefore"].tolist() == [1, 9, 1]
    assert opened["OpenGapAfter"].tolist() == [9, 1, 1]
    assert opened["DaysSinceClosing"].tolist() == [40, 0, 1]
    assert table["DaysUntilClosing"].tolist()[:3] == [2, 1, 0]
    assert table["PromoDay"].tolist()[:4] == [0, 1, 2, 0]
    assert table["DaysSincePromo"].tolist()[2:6] == [0, 1, 2, 3]
    assert table["DaysUntilPromo"].tolist()[-4:] == [3, 2, 1, 0]
    assert table["WeekOfMonth"].tolist()[:7] == [0] * 6 + [1]
    alone = rows.drop(columns="Open")
    known = Surroundings(store_table(), weather_table(days), trend_table()).with_rows(alone)
    assert (features(alone, known, open_days=True)["DaysSinceClosing"] == 40).all()


def test_days_near_a_holiday_have_a_category() -> None:
    days = pd.date_range("2014-11-27", "2015-01-09")
    rows = rows_of(days, holiday=["2014-12-01", "2014-12-25", "2014-12-26", "2015-01-01"])
    known = Surroundings(store_table(), weather_table(days), trend_table()).with_rows(rows)
    near = features(rows, known, open_days=True).set_index(days)["NearHoliday"]
    assert near["2014-11-27":"2014-11-30"].tolist() == [44, 43, 42, 41]
    assert near["2014-12-01":"2014-12-05"].tolist() == [100, 114, 124, 134, 144]
    assert near["2014-12-23":"2014-12-29"].tolist() == [142, 141, 100, 100, 114, 124, 133]
    assert near["2015-01-01":"2015-01-09"].tolist() == [100, 114, 124, 134, 144, 144, 144, 44, 44]
    lesson = features(rows, known, open_days=True, lesson=True).set_index(days)["NearHoliday"]
    assert lesson.equals(near)


def test_columns_can_be_excluded(chain: Path) -> None:
    table = data(chain, exclude=["Year", "CloudCover"]).read()
    assert "Year" not in table.roles.categorical
    assert "CloudCover" not in table.roles.continuous
    assert len([*table.roles.categorical, *table.roles.continuous]) == len([*CATEGORICAL, *CONTINUOUS]) - 2
    with pytest.raises(ConfigError, match="did you mean Year"):
        data(chain, exclude=["Yeer"])
