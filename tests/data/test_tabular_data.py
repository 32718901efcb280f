"""Tables of one's own: what their columns become, which rows validate, and what is refused with its row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from dlrunner.data.core.columns import date_column, date_parts, part_prefixes
from dlrunner.data.core.regression import Regression
from dlrunner.data.core.row_locations import RowLocations
from dlrunner.data.tables.table import read_table
from dlrunner.data.tabular.dataset import TabularData
from dlrunner.data.tabular.new_rows import rows_to_predict
from dlrunner.data.tabular.preprocessing import TabularPreprocessor
from dlrunner.data.tabular.table import TabularTable
from dlrunner.errors import ConfigError, DataError
from dlrunner.models.tabular import EmbeddingNet
from dlrunner.tasks.tabular.task import Tabular

NOWHERE = Path("nowhere")


def houses(num_rows: int = 300, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "id": np.arange(num_rows) + 7,
            "city": rng.choice(["Bonn", "Köln", "Ulm"], num_rows),
            "rooms": rng.integers(1, 6, num_rows),
            "area": rng.normal(80, 20, num_rows).round(1),
            "built": rng.integers(1900, 2020, num_rows),
            "garden": rng.random(num_rows) < 0.5,
            "sold": pd.date_range("2020-01-01", periods=num_rows).strftime("%Y-%m-%d"),
            "country": "DE",
        }
    )
    table.loc[table.index % 10 == 3, "area"] = np.nan
    table["price"] = (1000 * table["area"].fillna(80) + 20_000 * table["rooms"]).round()
    table["dear"] = np.where(table["price"] > table["price"].median(), "yes", "no")
    return table


def read(table: pd.DataFrame, name: str = "h.csv", **settings: Any) -> TabularTable:
    if not Path(name).exists():
        table.to_csv(name, index=False)
    return TabularData(NOWHERE, path=name, **{"target": "price", **settings}).read()


# Columns


def test_columns_are_inferred_with_a_reason(here: Path) -> None:
    table = read(houses().drop(columns="dear"))
    assert table.roles.categorical[:3] == ["city", "rooms", "garden"]
    assert table.roles.continuous[:3] == ["rooms", "area", "built"]  # few whole numbers: a category and a number
    assert table.roles.continuous[-1] == "sold_Elapsed"
    assert {"id", "country"} <= set(table.roles.left_out)
    assert table.roles.id == "id"
    uses = {each["name"]: each["use"] for each in table.columns}
    assert uses["city"] == "categorical: text, 3 categories"
    assert uses["rooms"] == "categorical and continuous: 5 integers"
    assert uses["garden"] == "categorical: true or false"
    assert uses["area"] == "continuous: numbers"
    assert uses["country"] == "left out: constant"
    assert uses["sold"] == "date: its parts are inputs"
    assert uses["id"] == "id of the rows"
    assert uses["price"] == "target: regression"
    notes = "\n".join(table.notes)
    assert "data.categorical=[a,b] data.continuous=[c,d]" in notes
    assert "target price: regression on numbers, standardised" in notes


def test_named_columns_are_taken_as_named(here: Path) -> None:
    table = read(houses(), categorical=["city", "built"], continuous=["area"])
    assert (table.roles.categorical, table.roles.continuous) == (["city", "built"], ["area"])
    assert not [note for note in table.notes if note.startswith("categorical:")]


def test_a_column_may_be_a_category_and_a_number(here: Path) -> None:
    table = read(houses(), categorical=["rooms"], continuous=["rooms", "area"])
    assert (table.roles.categorical, table.roles.continuous) == (["rooms"], ["rooms", "area"])
    assert {each["name"]: each["use"] for each in table.columns}["rooms"].startswith("categorical and continuous")


def test_dates_become_their_parts() -> None:
    parts = date_parts(
        pd.Series(pd.to_datetime(["2015-12-31", "2016-01-04", "2016-02-29"])),
        part_prefixes(["saleDate"], ())["saleDate"],
    )
    assert parts.columns[0] == "sale_Year"
    first, second, third = parts.to_dict("records")
    assert [first[f"sale_{p}"] for p in ("Year", "Month", "Week", "Day", "Dayofweek", "Dayofyear")] == [
        *(2015, 12, 53, 31, 3, 365)
    ]
    assert all(first[f"sale_Is_{end}"] for end in ("year_end", "quarter_end", "month_end"))
    assert not first["sale_Is_month_start"]
    assert (second["sale_Week"], second["sale_Dayofweek"]) == (1, 0)
    assert (third["sale_Is_month_end"], third["sale_Is_quarter_end"]) == (True, False)
    assert third["sale_Elapsed"] - second["sale_Elapsed"] == 56


def test_the_hour_of_time_stamps_is_an_input_and_that_of_days_is_not(here: Path) -> None:
    table = houses()
    table["seen"] = pd.date_range("2020-01-01 05:30", periods=len(table), freq="6h").strftime("%Y-%m-%dT%H:%M")
    roles = read(table).roles
    assert "seen_Hour" in roles.categorical
    assert "seen_Hour" in roles.continuous
    assert "sold_Hour" in roles.left_out
    stamps = pd.Series(pd.to_datetime(["2020-01-01 23:59", "NaT"]))
    assert date_parts(stamps, "")["Hour"].tolist()[0] == 23
    assert date_parts(stamps, "")["Hour"].isna().tolist() == [False, True]


def test_a_part_of_a_date_is_a_category_only_where_each_has_enough_training_rows(here: Path) -> None:
    small, many = read(houses(300)).roles, houses(300).sample(9_000, replace=True, random_state=0)
    large = read(many, "many.csv").roles
    assert {"sold_Dayofyear", "sold_Week"}.isdisjoint(small.categorical)
    assert {"sold_Dayofyear", "sold_Week"} <= set(small.continuous)
    assert {"sold_Dayofyear", "sold_Week"} <= set(large.categorical)
    assert "sold_Dayofweek" in small.categorical


@pytest.mark.parametrize(
    ("settings", "is_forecast"),
    [
        ({"split": "last_days", "valid": 30, "date": "sold"}, True),
        ({"split": "rolling", "horizon": 30}, True),
        ({"split": "last_rows", "valid": 30}, True),
        ({"split": "dates", "date": "sold", "valid_from": "2020-03-01", "valid_to": "2020-03-31"}, False),
        ({"split": "random"}, False),
    ],
)
def test_the_days_of_a_forecast_have_no_bins(settings: dict[str, Any], is_forecast: bool, here: Path) -> None:
    task = Tabular(TabularData(NOWHERE, path="h.csv", target="price", **settings), 32, 0, torch.device("cpu"))
    houses().to_csv("h.csv", index=False)
    assert "sold_Elapsed" in task.table.roles.continuous
    assert ("sold_Elapsed" not in task.preparation.quantiles) == is_forecast
    assert set(task.table.roles.continuous) - set(task.preparation.quantiles) <= {"sold_Elapsed"}
    place = list(task.dims.continuous).index("sold_Elapsed")
    assert (len(task.dims.quantiles[place]) == 0) == is_forecast
    net = EmbeddingNet(task.dims, bins=8)
    assert net.encoding is not None
    assert (place not in net.encoding.columns.tolist()) == is_forecast


def test_a_column_of_an_older_run_with_the_name_of_a_part_is_read_from_new_rows() -> None:
    columns = [{"name": "Date", "type": "date", "format": "ISO 8601"}, {"name": "Hour", "type": "number"}]
    recipe = {"dates": {"Date": ""}, "schema": columns}
    rows = pd.DataFrame({"Date": ["2020-05-17 08:00"], "Hour": ["13"]})
    frame = rows_to_predict(rows, recipe, ["Hour", "Month"], Path("new.csv")).frame
    assert frame[["Hour", "Month"]].to_numpy().tolist() == [[13, 5]]


def test_dates_can_be_named_and_may_be_written_in_other_ways(here: Path) -> None:
    table = houses()
    table["sold"] = pd.to_datetime(table["sold"]).dt.strftime("%d %b %Y")
    found = read(table, categorical=["city"], continuous=["area"], dates=["sold"])
    assert {"sold_Month", "sold_Dayofweek"} <= set(found.roles.categorical)
    assert "sold_Elapsed" in found.roles.continuous
    numbers = date_column(pd.Series([20150701, 20150702]), "d", RowLocations(Path("x.csv")))
    assert numbers.dt.day.tolist() == [1, 2]


def test_dates_may_be_categories() -> None:
    days = pd.Series(pd.to_datetime(["2020-01-01", "2020-01-02", "2020-01-01", "NaT"]))
    found = TabularPreprocessor.fit(pd.DataFrame({"day": days}), ["day"], [])
    assert found.categories == {"day": ["2020-01-01", "2020-01-02"]}
    later = pd.Series(pd.to_datetime(["2020-01-02 00:00", "2020-01-02 12:00"]))
    assert found.codes(pd.DataFrame({"day": days}))[:, 0].tolist() == [1, 2, 1, 0]
    assert found.codes(pd.DataFrame({"day": later}))[:, 0].tolist() == [2, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"categorical": ["city", "city"]}, "the column city is named twice"),
        ({"categorical": ["citty"]}, "has no column 'citty'; did you mean city"),
        ({"categorical": ["price"]}, "price cannot be an input too"),
        ({"target": "prize"}, "has no column 'prize'; did you mean price"),
        ({"dates": ["when"]}, "has no column 'when'"),
        ({"id": "nr"}, "has no column 'nr'"),
        ({"target": None}, "which column is the target"),
        ({"split": "last_days", "valid": 5}, "data.date: is missing"),
        ({"split": "column"}, "data.valid_column: is missing"),
        ({"split": "dates", "date": "sold"}, "data.valid_from: is missing"),
        ({"split": "dates", "date": "sold", "valid_from": "soon"}, "'soon' is not a day"),
        ({"split": "dates", "date": "sold", "valid_from": "01.08.2014"}, "'01.08.2014' is not a day"),
        ({"split": "dates", "date": "sold", "valid_from": "08/01/2014"}, "'08/01/2014' is not a day"),
        ({"split": "dates", "date": "sold", "valid_to": "2014-08"}, "data.valid_to: '2014-08' is not a day"),
        ({"date": "sold", "leave_out": ["2014-08-01", "08.2014"]}, "data.leave_out: '08.2014' is not a day"),
        ({"date": "sold", "leave_out": ["2014-09-17", "2014-08-01"]}, "2014-09-17 is later than 2014-08-01"),
        ({"split": "dates", "date": "sold", "valid_from": "2020-03-01", "valid_to": "2020-02-01"}, "is later than"),
        ({"split": "folds", "fold": 5}, "data.fold: must lie between 0 and 4"),
        ({"split": "stratified"}, "stratified needs classes"),
        ({"valid": 3}, "must be a fraction between 0 and 1"),
        ({"kind": "multilabel"}, "needs data.target="),
        ({"target": "dear", "target_transform": "log"}, "is for numbers; dear is read as binary"),
        ({"target": "city", "kind": "binary"}, "binary needs two classes; city has 3"),
    ],
)
def test_a_wrong_request_is_answered_in_a_sentence(settings: dict[str, Any], message: str, here: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read(houses(), **settings)


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (("price", 4, np.nan), {}, r"row 6: the target price is missing; 1 such row\(s\)"),
        (("price", 4, np.inf), {}, r"row 6: price is 'inf', which is not a finite number"),
        (("price", 4, 0), {"target_transform": "log"}, r"row 6: the target price is 0, which has no logarithm"),
        (("price", 4, -3), {"target_transform": "log"}, r"row 6: the target price is -3, which has no logarithm"),
        (("price", 4, -3), {"target_transform": "log1p"}, r"row 6: the target price is -3; .*from 0 on"),
        (("price", 4, "dear"), {}, r"row 6: price is 'dear', which is not a number.*data.skip_bad=true"),
        (("sold", 4, "soon"), {"dates": ["sold"]}, r"row 6: sold is 'soon', which is not a date"),
        (("sold", 4, None), {"date": "sold", "split": "last_days"}, r"row 6: sold is missing"),
        (
            ("area", 4, "big"),
            {"continuous": ["area"]},
            r"row 6: area is 'big', which is not a number; 1 such row",
        ),
        (("price", slice(None), 5), {}, "the target price is 5 in every row"),
    ],
)
def test_bad_values_are_named_with_their_row(
    change: tuple[str, Any, Any], settings: dict[str, Any], message: str, here: Path
) -> None:
    table = houses().astype({"price": object, "area": object})
    table.loc[change[1], change[0]] = change[2]
    with pytest.raises((DataError, ConfigError), match=message):
        read(table, **settings)


def test_constant_columns_are_left_out_and_ids_as_categories_are_warned_of(here: Path) -> None:
    table = read(houses(), categorical=["city", "country", "id"], continuous=["area"])
    assert "country" not in table.roles.categorical
    told = "\n".join(table.notes)
    assert "the column country is constant and left out" in told
    assert "the column id has 300 categories in 300 rows" in told


# Targets


def test_kinds_of_targets_are_found(here: Path) -> None:
    table = houses()
    table["l1"], table["l2"] = (table["rooms"] > 2).astype(int), (table["area"] > 80).astype(int)
    table["tags"] = np.where(table["rooms"] > 2, "big;old", "small")
    inputs: dict[str, Any] = {"categorical": ["city"], "continuous": ["area"]}
    assert read(table, **inputs).target.kind == "regression"
    binary = read(table, target="dear", **inputs)
    assert (binary.target.kind, binary.target.classes) == ("binary", ["no", "yes"])
    assert (np.array(["no", "yes"])[binary.values] == table["dear"]).all()
    assert read(table, target="l1", **inputs).target.kind == "binary"
    cities = read(table, target="city", categorical=["rooms"], continuous=["area"])
    assert (cities.target.kind, cities.target.num_outputs) == ("multiclass", 3)
    rooms = read(table, target="rooms", kind="multiclass", **inputs)
    assert rooms.target.classes == [1, 2, 3, 4, 5]
    labels = read(table, target=["l1", "l2"], **inputs)
    assert (labels.target.kind, labels.values.shape) == ("multilabel", (300, 2))
    tags = read(table, target="tags", target_separator=";", **inputs)
    assert tags.target.classes == ["big", "old", "small"]
    assert (tags.values.sum(axis=1) == np.where(table["rooms"] > 2, 2, 1)).all()


@pytest.mark.parametrize("transform", ["standard", "log", "log1p", "none"])
def test_targets_are_learned_transformed_and_told_in_their_own_unit(transform: str, here: Path) -> None:
    table = read(houses(), target_transform=transform)
    target = table.target.fit(table.values[~table.valid])
    encoded = target.encode(table.values)
    train = encoded[~table.valid]
    if transform == "standard":
        assert float(train.mean()) == pytest.approx(0, abs=1e-5)
        assert float(train.std(correction=0)) == pytest.approx(1)
    if transform == "log":
        np.testing.assert_allclose(encoded.numpy(), np.log(table.values), rtol=1e-6)
    assert target.statistics()["high"] == pytest.approx(float(train.max()))
    np.testing.assert_allclose(target.decode(encoded).numpy(), table.values, rtol=1e-5)


def test_a_few_whole_numbers_may_be_classes_and_that_is_said(here: Path) -> None:
    notes = "\n".join(read(houses(), target="rooms").notes)
    assert "5 whole numbers are learned as a quantity; data.kind=multiclass" in notes
    assert "whole numbers are learned" not in "\n".join(read(houses(), target="built").notes)
    assert "whole numbers are learned" not in "\n".join(read(houses(), target="rooms", kind="multiclass").notes)


def test_zeros_are_learned_by_log1p_and_no_prediction_is_negative_where_no_target_is(here: Path) -> None:
    values = np.array([0.0, 0.0, 1.0, 9.0, 99.0])
    target = Regression(["sold"], transform="log1p").fit(values)
    np.testing.assert_allclose(target.encode(values).numpy(), np.log1p(values), rtol=1e-6)
    np.testing.assert_allclose(target.decode(torch.tensor([-0.5, 0.0, 1.0])).numpy(), [0, 0, np.expm1(1)], rtol=1e-6)
    standard = Regression(["sold"], transform="standard").fit(values)
    assert standard.decode(torch.tensor([-3.0])).tolist() == [0.0]
    below = Regression(["gain"], transform="standard").fit(values - 1)
    assert below.decode(torch.tensor([-3.0])).item() < -1


# Which rows validate


def marked(table: pd.DataFrame, **settings: Any) -> np.ndarray:
    return read(table, categorical=["city"], continuous=["area"], **settings).valid


def test_validation_by_share_is_the_lessons(here: Path) -> None:
    np.random.seed(42)
    expected = np.random.permutation(300)[:60]
    assert set(np.flatnonzero(marked(houses()))) == set(expected)


def test_validation_by_last_rows_days_and_range(here: Path) -> None:
    table = houses()
    assert np.flatnonzero(marked(table, split="last_rows", valid=30)).tolist() == list(range(270, 300))
    assert marked(table, split="last_rows", valid=0.5).sum() == 150
    mixed = table.sample(frac=1, random_state=1).reset_index(drop=True)
    mixed.to_csv("mixed.csv", index=False)
    days = pd.to_datetime(mixed["sold"])
    last = read(mixed, "mixed.csv", split="last_days", valid=10, date="sold").valid
    assert sorted(days[last]) == sorted(days)[-10:]
    chosen = read(mixed, "mixed.csv", split="dates", date="sold", valid_from="2020-02-01", valid_to="2020-02-29").valid
    assert (chosen == (days.dt.strftime("%Y-%m") == "2020-02")).all()
    left = read(mixed, "mixed.csv", split="last_days", valid=10, date="sold", leave_out=["2020-02-01", "2020-02-29"])
    assert len(left.frame) == 300 - 29


def test_stratified_validation_keeps_the_shares_of_the_classes(here: Path) -> None:
    table = houses()
    table["rare"] = np.where(table.index < 6, "a", "b")
    valid = read(table, target="rare", categorical=["city"], continuous=["area"], split="stratified").valid
    assert valid[:6].sum() == 1
    assert valid[6:].sum() == round(0.2 * 294)


def test_folds_cover_every_row_once(here: Path) -> None:
    folds = [marked(houses(), split="folds", folds=4, fold=fold) for fold in range(4)]
    assert (np.sum(folds, axis=0) == 1).all()


def test_a_column_can_mark_the_rows_that_validate(here: Path) -> None:
    table = houses()
    table["part"] = np.where(table.index % 3 == 0, "valid", "train")
    found = read(table, split="column", valid_column="part")
    assert (found.valid == (table.index % 3 == 0)).all()
    assert "part" not in [*found.roles.categorical, *found.roles.continuous]
    table.loc[5, "part"] = "perhaps"
    with pytest.raises(DataError, match=r"row 7: part is 'perhaps'; it must be true or false"):
        read(table, "perhaps.csv", split="column", valid_column="part")


@pytest.mark.parametrize(
    ("settings", "which"),
    [
        ({"split": "dates", "date": "sold", "valid_from": "2030-01-01"}, "leaves no rows of 300 for validation"),
        ({"split": "dates", "date": "sold", "valid_from": "2000-01-01"}, "leaves no rows of 300 for training"),
        ({"split": "last_rows", "valid": 300}, "leaves no rows of 300 for training"),
        ({"split": "random", "valid": 0.001}, "leaves no rows of 300 for validation"),
    ],
)
def test_a_validation_range_must_leave_rows_on_both_sides(settings: dict[str, Any], which: str, here: Path) -> None:
    with pytest.raises(DataError, match=which):
        marked(houses(), **settings)


# What is fitted on the training rows


def test_only_training_rows_are_fitted() -> None:
    frame = pd.DataFrame({"c": ["a", "b", "a", "z"], "x": [1.0, np.nan, 3.0, 1000.0]})
    preparation = TabularPreprocessor.fit(frame.iloc[:3], ["c"], ["x"])
    assert preparation.categories == {"c": ["a", "b"]}
    assert preparation.cardinalities == {"c": 3}
    assert preparation.codes(frame)[:, 0].tolist() == [1, 2, 1, 0], "an unseen level has code 0"
    assert preparation.continuous == ["x", "x_na"]
    mean, deviation = 2.0, np.sqrt(2 / 3)  # of 1, the median 2, and 3
    expected = [[-1 / deviation, 0], [0, 1], [1 / deviation, 0], [(1000 - mean) / deviation, 0]]
    np.testing.assert_allclose(preparation.numbers(frame), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("train", "new", "codes"),
    [
        ([1, 2, 3], ["2", "3", "9"], [2, 3, 0]),
        ([1, 2, 3], [2.0, np.nan, 1.0], [2, 0, 1]),
        (["1", "b"], [1, 2], [1, 0]),
        ([True, False], ["True", "False"], [2, 1]),
        ([0.5, 1.5], [1.5, 7.0], [2, 0]),
        (["a", None, "b"], [None, "b"], [0, 2]),
    ],
)
def test_categories_are_found_again_however_a_file_was_read(train: list[Any], new: list[Any], codes: list[int]) -> None:
    preparation = TabularPreprocessor.fit(pd.DataFrame({"c": train}), ["c"], [])
    assert preparation.codes(pd.DataFrame({"c": new}))[:, 0].tolist() == codes


def test_categoricals_and_plain_columns_have_the_same_codes() -> None:
    plain = pd.DataFrame({"c": ["b", "a", None, "c"]})
    typed = plain.astype({"c": pd.CategoricalDtype(["c", "b", "a", "unused"])})
    for train in (plain, typed):
        preparation = TabularPreprocessor.fit(train.iloc[:3], ["c"], [])
        assert preparation.categories == {"c": ["a", "b"]}
        assert preparation.codes(plain)[:, 0].tolist() == preparation.codes(typed)[:, 0].tolist() == [2, 1, 0, 0]


def test_new_rows_are_compared_with_what_was_fitted(here: Path) -> None:
    train = houses()
    preparation = TabularPreprocessor.fit(train, ["city"], ["area", "built"])
    new = houses(seed=1).assign(city="Rom")
    new.loc[0, "built"] = np.nan
    notes = preparation.check(new, RowLocations(Path("new.csv")))
    assert notes[0] == "city: 300 row(s) with categories not seen in training (Rom)"
    assert notes[1] == "built: 1 missing value(s) replaced by the training median"
    with pytest.raises(DataError, match=r"new.csv is missing 2 column\(s\) that the run was trained on: city, area"):
        preparation.check(new.drop(columns=["city", "area"]), RowLocations(Path("new.csv")))
    with pytest.raises(DataError, match=r"new.csv, row 3: area is 'wide', which is not a number"):
        preparation.check(
            new.astype({"area": object}).replace({"area": {new["area"].iloc[1]: "wide"}}), RowLocations(Path("new.csv"))
        )
    restored = TabularPreprocessor.from_state(preparation.state())
    np.testing.assert_array_equal(restored.numbers(new), preparation.numbers(new))


def test_a_single_column_is_prepared_as_with_all_others() -> None:
    table = houses()
    preparation = TabularPreprocessor.fit(table, ["city", "rooms"], ["area", "rooms"], base="built")
    codes, numbers = preparation.codes(table), preparation.numbers(table)
    for name, own_codes, own_numbers in (("city", [0], []), ("rooms", [1], [1]), ("area", [], [0, 2])):
        alone = preparation.of_column(name)
        assert (alone.codes(table[[name]]) == codes[:, own_codes]).all()
        assert (alone.numbers(table[[name]]) == numbers[:, own_numbers]).all()


def test_a_unit_that_changed_by_a_factor_of_a_thousand_is_noted() -> None:
    preparation = TabularPreprocessor.fit(houses(), ["city"], ["area", "built"])
    notes = preparation.check(houses().assign(area=houses()["area"] * 1000), RowLocations(Path("new.csv")))
    assert [note.split(":")[0] for note in notes] == ["area"]
    assert "in another unit?" in notes[0]
    assert not preparation.check(houses().assign(area=houses()["area"] * 3), RowLocations(Path("new.csv")))


@pytest.mark.parametrize("factor", [1000, 0.001])
def test_a_unit_is_not_noted_where_numbers_lie_around_zero(factor: float) -> None:
    train = pd.DataFrame({"x": np.random.default_rng(0).normal(0.001, 1, 400)})
    preparation = TabularPreprocessor.fit(train, [], ["x"])
    place = RowLocations(Path("new.csv"))
    for seed in range(20):  # medians of so few rows differ by any factor
        new = pd.DataFrame({"x": np.random.default_rng(seed).normal(0, 1, 25)})
        assert preparation.check(new, place) == []
    skewed = pd.DataFrame({"x": np.random.default_rng(0).lognormal(5, 1, 400)})  # deviations as large as the median
    assert "in another unit?" in TabularPreprocessor.fit(skewed, [], ["x"]).check(skewed * factor, place)[0]


def test_notes_are_about_the_rows_that_are_predicted() -> None:
    preparation = TabularPreprocessor.fit(houses(), ["city"], ["built"])
    new = houses(3).assign(city=["Rom", "Ulm", "Rom"], built=[np.nan, 1990, np.nan])
    place = RowLocations(Path("new.csv"))
    notes = preparation.check(new, place, np.array([True, True, False]))
    assert notes == [
        "city: 1 row(s) with categories not seen in training (Rom)",
        "built: 1 missing value(s) replaced by the training median",
    ]
    assert preparation.check(new, place, np.array([False, True, False])) == []


def test_the_name_of_a_column_does_not_matter(here: Path) -> None:
    train = pd.DataFrame({"x": np.arange(20.0)}).rename(columns={"x": "history_length"})
    preparation = TabularPreprocessor.fit(train, [], ["history_length"])
    far = preparation.numbers(pd.DataFrame({"history_length": [1e3, 1e6]}))
    assert far[1, 0] > 100 * far[0, 0]
    history = TabularPreprocessor.fit(train, [], ["history_length"], history=["history_length"])
    assert history.numbers(pd.DataFrame({"history_length": [1e3, 1e6]}))[:, 0].tolist() == [6, 6]
    old = {name: value for name, value in history.state().items() if name != "history"}
    assert TabularPreprocessor.from_state(old) == history


def test_new_rows_need_the_columns_of_dates() -> None:
    recipe = {"dates": {"sold": "sold_"}}
    with pytest.raises(DataError, match=r"is missing 1 column.*: sold"):
        rows_to_predict(houses().drop(columns="sold"), recipe, ["area"], Path("new.csv"))
    rows = rows_to_predict(houses().assign(sold_Week=99), recipe, ["area", "sold_Week"], Path("new.csv"))
    assert rows.frame["sold_Week"].max() == 44, "a part is made from the date"


def test_parts_of_dates_have_names_of_their_own(here: Path) -> None:
    table = houses().assign(Date="2020-05-06", Year=np.arange(len(houses())) % 7, created=houses()["sold"])
    table["Date"] = np.where(np.arange(len(table)) % 2, "2020-05-06", "2021-01-01")
    table["created_date"] = table["Date"]
    frame = read(table).frame
    assert frame["Year"].max() == 6, "a column of the user's is not replaced"
    assert {"Date_Year", "created_Year", "created_date_Year"} <= set(frame.columns)


@pytest.mark.parametrize("name", ["h.csv", "h.tsv", "h.csv.gz", "h.csv.zip", "h.parquet"])
def test_a_table_is_read_whatever_its_format(name: str, here: Path) -> None:
    table = houses()
    if name.endswith("parquet"):
        table.to_parquet(name)
    else:
        table.to_csv(name, index=False, sep="\t" if "tsv" in name else ",")
    found = read(table, name)
    table.to_csv("plain.csv", index=False)
    expected = read(table, "plain.csv")
    assert found.roles.categorical == expected.roles.categorical
    assert found.roles.continuous == expected.roles.continuous
    np.testing.assert_array_equal(found.values, expected.values)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("preis;stadt;m2\n1,5;A;3\n2;B;4\n-0,25;A;5\n", [1.5, 2.0, -0.25]),
        ("preis;stadt;m2\n1.5;A, old;3\n2;B;4\n-0.25;A;5\n", [1.5, 2.0, -0.25]),
        ("preis|stadt|m2\n1.5|A;B|3\n2|B|4\n-0.25|A|5\n", [1.5, 2.0, -0.25]),
    ],
)
def test_tables_with_other_separators_and_decimal_commas_are_read(
    tmp_path: Path, text: str, expected: list[float]
) -> None:
    (tmp_path / "my.csv").write_text(text)
    table = read_table(tmp_path / "my.csv").frame
    assert table.columns.tolist() == ["preis", "stadt", "m2"]
    assert table["preis"].tolist() == expected


def test_words_with_commas_are_no_numbers(tmp_path: Path) -> None:
    (tmp_path / "my.csv").write_text("a;b\n1,5;1\nx,y;2\n")
    assert read_table(tmp_path / "my.csv").frame["a"].tolist() == ["1,5", "x,y"]


# Reading


def test_codes_keep_their_leading_zeros_and_dates_have_one_format(here: Path) -> None:
    lines = [
        f"{i % 28 + 1:02d}/{i % 12 + 1:02d}/2020;{i % 9:03d};{i},5;{'ja' if i % 2 else 'nein'}" for i in range(200)
    ]
    (here / "shop.csv").write_text("day;code;price;sold\n" + "\n".join(lines) + "\n")
    table = TabularData(here, path="shop.csv", target="price", split="last_days", valid=30, date="day").read()
    assert sorted(set(table.frame["code"])) == [f"{i:03d}" for i in range(9)]
    np.testing.assert_allclose(table.values, np.arange(200) + 0.5)
    days = pd.to_datetime([line.split(";")[0] for line in lines], format="%d/%m/%Y")
    assert table.valid.sum() == (days > days.max() - pd.Timedelta(days=30)).sum()


def test_a_column_that_could_be_read_in_two_ways_is_refused_only_if_it_is_used(here: Path) -> None:
    lines = [f"{(i * 7) % 12 + 1:02d}/{i % 11 + 1:02d}/2020,{i % 5},{i}" for i in range(60)]
    (here / "t.csv").write_text("day,a,y\n" + "\n".join(lines) + "\n")
    with pytest.raises(ConfigError, match=r"data.date_format='%d/%m/%Y' or data.date_format='%m/%d/%Y'"):
        TabularData(here, path="t.csv", target="y").read()
    assert len(TabularData(here, path="t.csv", target="y", categorical=["a"]).read().frame) == 60
    table = TabularData(here, path="t.csv", target="y", date_format="%m/%d/%Y").read()
    first = table.frame.iloc[1]
    assert (first["day_Month"], first["day_Day"]) == (8, 2)


def test_bad_rows_are_left_out_on_request_and_counted(here: Path) -> None:
    lines = [f"{i}.5,{i % 5},{i}" for i in range(200)]
    lines[7], lines[9] = "broken,2,7", "9.5,4,"
    (here / "t.csv").write_text("x,a,y\n" + "\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"row 9: x is 'broken', which is not a number"):
        TabularData(here, path="t.csv", target="y").read()
    table = TabularData(here, path="t.csv", target="y", skip_bad=True).read()
    assert len(table.frame) == 198
    assert table.rows.positions is not None
    assert {7, 9}.isdisjoint(table.rows.positions.tolist())
    notes = "\n".join(table.notes)
    assert "1 of 200 rows are left out" in notes
    assert "row 9" in notes
    assert "y is missing" in notes


def test_a_schema_fixes_what_was_understood(here: Path) -> None:
    (here / "t.csv").write_text("x,code,y\n" + "".join(f"{i},{i % 7},{i * 2}\n" for i in range(50)))
    (here / "s.yaml").write_text(
        "columns:\n- {name: x, type: number}\n- {name: code, type: text}\n- {name: y, type: number}\n"
    )
    table = TabularData(here, path="t.csv", target="y", schema="s.yaml").read()
    assert table.frame["code"].tolist()[:3] == ["0", "1", "2"]
    assert table.roles.categorical == ["code"]
    (here / "t.csv").write_text("x,code,y\n1,2,3\nmany,2,4\n")
    with pytest.raises(DataError, match="row 3: x is 'many', which is not a number"):
        TabularData(here, path="t.csv", target="y", schema="s.yaml").read()
    (here / "t.csv").write_text("x,y\n1,3\n2,4\n")
    with pytest.raises(DataError, match="is missing the column code"):
        TabularData(here, path="t.csv", target="y", schema="s.yaml").read()


def test_a_query_selects_from_files_and_its_rows_are_the_identity(here: Path) -> None:
    houses().to_parquet(here / "h.parquet")
    data = TabularData(here, query="select * from 'h.parquet' where rooms < 4", target="price")
    table = data.read()
    assert len(table.frame) == (houses()["rooms"] < 4).sum()
    before = data.identity().sha256
    assert before == TabularData(here, query=data.file.query, target="price").identity().sha256
    houses().assign(area=1.0).to_parquet(here / "h.parquet")
    assert before != data.identity().sha256
    with pytest.raises(ConfigError, match="one SELECT"):
        TabularData(here, query="copy (select 1) to 'x.csv'", target="price").read()


def test_part_files_are_one_table(here: Path) -> None:
    (here / "parts").mkdir()
    houses().iloc[:100].to_csv(here / "parts" / "a.csv", index=False)
    houses().iloc[100:].to_csv(here / "parts" / "b.csv", index=False)
    whole = read(houses())
    for path in ("parts", "parts/*.csv"):
        table = TabularData(here, path=path, target="price").read()
        pd.testing.assert_frame_equal(table.frame, whole.frame)
        np.testing.assert_array_equal(table.valid, whole.valid)


def test_the_first_days_may_be_given_with_a_time_and_an_offset(here: Path) -> None:
    table = read(houses(), split="dates", date="sold", valid_from="2020-09-01T00:00-05:00")
    assert table.valid.sum() == (pd.to_datetime(houses()["sold"]) >= pd.Timestamp("2020-09-01")).sum()
