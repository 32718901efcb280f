"""Columns that do not vary in the training rows: of what validates or is predicted, they must not become huge inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from dlrunner.data.core.regression import Regression
from dlrunner.data.core.row_locations import RowLocations
from dlrunner.data.ratings.dataset import RatingsData
from dlrunner.data.tabular.dataset import TabularData
from dlrunner.data.tabular.preprocessing import TabularPreprocessor
from dlrunner.data.tabular.table import TabularTable
from dlrunner.schedules import Phase, constant
from dlrunner.tasks.collab.task import Collab

NOWHERE = Path("nowhere")
PLACE = RowLocations(Path("new.csv"))


def sales() -> pd.DataFrame:
    """Forty days, of which the last nine validate: a month, a fee, a city and a column that begin with them."""
    rng = np.random.default_rng(0)
    days = pd.date_range("2024-01-01", periods=40).repeat(10)
    late = np.asarray(days >= pd.Timestamp("2024-02-01"))
    return pd.DataFrame(
        {
            "day": days.strftime("%Y-%m-%d"),
            "area": rng.normal(80, 20, 400).round(1),
            "fee": np.where(late, 0.2, 0.1),
            "city": np.where(late, "Ulm", "Bonn"),
            "income": np.where(late, 250_000 + np.arange(400), np.nan),
            "bonus": np.where(np.arange(400) % 3 == 0, np.nan, np.where(late, 250_000.0, 5.0)),
            "sales": rng.normal(100, 5, 400).round(1),
        }
    )


def read(**settings: Any) -> TabularTable:
    sales().to_csv("s.csv", index=False)
    return TabularData(NOWHERE, path="s.csv", target="sales", date="day", split="last_days", valid=9, **settings).read()


def prepared(table: TabularTable) -> tuple[TabularPreprocessor, np.ndarray[Any, Any]]:
    found = TabularPreprocessor.fit(table.frame, table.roles.categorical, table.roles.continuous, rows=table.fitted)
    return found, found.numbers(table.frame)


def test_columns_that_are_constant_or_empty_in_the_training_rows_are_left_out(here: Path) -> None:
    table = read()
    uses = {each["name"]: each["use"] for each in table.columns}
    assert uses["fee"] == uses["city"] == "left out: constant in the training rows"
    assert uses["income"] == "left out: empty in the training rows"
    assert uses["area"] == "continuous: numbers"
    assert {"day_Month", "day_Year"} <= set(table.roles.left_out)
    assert table.roles.reasons["day_Month"] == "part of a date, constant in the training rows"
    assert table.roles.reasons["day_Year"] == "part of a date, constant"
    assert {"day_Day", "day_Elapsed"} <= set(table.roles.continuous)
    preparation, numbers = prepared(table)
    assert np.abs(numbers).max() < 10
    assert not preparation.check(table.frame[table.valid].drop(columns=["bonus"]).assign(bonus=5.0), PLACE)[1:]


def test_named_columns_that_are_constant_in_the_training_rows_are_left_out_with_a_note(here: Path) -> None:
    table = read(categorical=["city"], continuous=["area", "fee", "income"])
    assert (table.roles.categorical, table.roles.continuous) == ([], ["area"])
    for name, reason in (("city", "constant"), ("fee", "constant"), ("income", "empty")):
        assert f"the column {name} is {reason} in the training rows and left out" in table.notes


def test_one_number_next_to_missing_ones_says_only_whether_it_is_missing(here: Path) -> None:
    table = read(continuous=["area", "bonus"])
    preparation, numbers = prepared(table)
    assert preparation.continuous == ["area", "bonus", "bonus_na"]
    assert (numbers[:, 1] == 0).all()
    assert (numbers[:, 2] == table.frame["bonus"].isna()).all()
    (note,) = preparation.check(table.frame[table.valid].copy(), PLACE)
    assert note == "bonus: 60 number(s), such as 250000, are not 5, the only number in training, and count as it"


def test_the_rounding_of_a_sum_is_not_a_deviation() -> None:
    fees = np.full(160, 0.1)
    assert 0 < fees.std() < 1e-16
    preparation = TabularPreprocessor.fit(pd.DataFrame({"fee": fees}), [], ["fee"])
    assert preparation.numbers(pd.DataFrame({"fee": [0.1, 0.2]})).tolist() == [[0], [0]]
    assert np.isfinite(preparation.quantiles["fee"]).all()
    target = Regression(["fee"], transform="standard").fit(fees)
    assert target.encode(np.array([0.2])).tolist() == pytest.approx([0.1])


def test_a_number_of_any_size_is_a_finite_input_with_a_note() -> None:
    preparation = TabularPreprocessor.fit(pd.DataFrame({"x": np.arange(20.0)}), [], ["x"])
    new = pd.DataFrame({"x": [1.0, 1e40, -1e140]})
    numbers = preparation.numbers(new)
    assert np.isfinite(numbers).all()
    assert numbers[1, 0] == -numbers[2, 0] > 1e5
    (note,) = preparation.check(new, PLACE)
    assert note.startswith("x: 2 number(s), such as 1e+40, are more than 1,000,000 standard deviations from the mean")


def test_another_unit_is_noted_where_the_training_median_is_0() -> None:
    numbers = pd.DataFrame({"x": np.random.default_rng(0).normal(0, 1, 101).round(1)})
    numbers["x"] -= numbers["x"].median()
    preparation = TabularPreprocessor.fit(numbers, [], ["x"])
    assert preparation.check(numbers + 10, PLACE) == []
    assert "in another unit?" in preparation.check(numbers + 5000, PLACE)[0]


def test_ratings_of_one_time_have_no_later_time(here: Path) -> None:
    rows = [(u, i, (u + i) % 5 + 1, "2024-01-01" if i < 8 else "2024-03-01") for u in range(9) for i in range(10)]
    pd.DataFrame(rows, columns=["user", "item", "rating", "time"]).to_csv("r.csv", index=False)
    data = RatingsData(NOWHERE, path="r.csv", timestamp="time", split="time", valid=0.2)
    task = Collab(data, 16, 0, torch.device("cpu"))
    batch = next(iter(task.batches("valid", 0, Phase(1, constant(1), (0.1,)))))
    assert (batch.inputs[2] == 0).all()
