"""Mistakes in a schema or a setting are refused before data is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dlrunner.data.core.columns import date_parts
from dlrunner.data.tables.schema import Column, Schema
from dlrunner.data.tables.table import Reading, load_schema, read_frame, read_table
from dlrunner.errors import ConfigError


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{name: a, type: date, format: 12}", "column a: the format 12 is none of strptime's"),
        ("{name: a, type: date, format: '%d.%m.%Q'}", "is none of strptime's"),
        ("{name: a, type: number, decimal: ',', thousands: ','}", "decimal and thousands are both ','"),
        ("{name: a, type: numbre}", "the type is one of"),
        ("{name: a, tpye: text}", "did you mean type"),
        ("{type: text}", "a name and a type"),
    ],
)
def test_a_mistake_in_a_schema_is_refused_with_file_and_column(entry: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(f"columns:\n- {entry}\n")
    with pytest.raises(ConfigError) as refused:
        load_schema(tmp_path / "s.yaml")
    assert "s.yaml" in str(refused.value)
    assert said in str(refused.value)


def test_settings_that_contradict_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.thousands"):
        Reading(decimal=",", thousands=",")
    with pytest.raises(ConfigError, match=r"data\.date_format"):
        Reading(date_format="day first")


def test_numbers_where_dates_were_are_bad_and_not_missing() -> None:
    schema = Schema((Column("sold", "date", format="%d.%m.%Y"),))
    read = read_frame(pd.DataFrame({"sold": [20210517, 20210518]}), schema, ["sold"], Path("new.parquet"))
    assert [(each.row, each.reason) for each in read.bad] == [
        (0, "sold is '20210517', which is not a date, %d.%m.%Y"),
        (1, "sold is '20210518', which is not a date, %d.%m.%Y"),
    ]


def test_dates_of_any_year_have_parts() -> None:
    dates = pd.Series(np.array(["0001-05-17", "9999-12-31", "NaT"], dtype="datetime64[us]"))
    parts = date_parts(dates, "")
    assert parts["Year"].tolist()[:2] == [1, 9999]
    assert parts["Elapsed"].iloc[1] - parts["Elapsed"].iloc[0] == 3_651_922
    assert parts["Elapsed"].isna().tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["5.97e24", "6.42E+23", "0.33e24"], "number"),
        (["5970000000000000000000000", "642000000000000000000000"], "text"),
        (["0123", "0456"], "text"),
        (["1e3", "2e3"], "integer"),
    ],
)
def test_an_exponent_makes_a_number_where_so_many_digits_are_an_id(
    values: list[str], kind: str, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("mass,n\n" + "".join(f"{value},1\n" for value in values * 5))
    table = read_table(tmp_path / "t.csv")
    assert table.schema["mass"].type == kind
    if kind == "number":
        assert table.frame["mass"].iloc[0] == 5.97e24


def test_dates_that_three_formats_read_name_two_that_differ(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("when,y\n" + "".join(f"01/01/{year},{year}\n" for year in range(10, 16)))
    found = read_table(tmp_path / "t.csv").schema.found["when"]
    assert found.ambiguous
    assert found.doubt == (
        "01/01/10 may be 01 Jan 2010 or 10 Jan 2001: set data.date_format='%d/%m/%y' or data.date_format='%y/%m/%d'"
    )


@pytest.mark.parametrize("values", [[1, 0, 2], [1.0, 0.0, 2.0]])
def test_numbers_that_are_neither_0_nor_1_are_no_booleans(values: list[float]) -> None:
    read = read_frame(pd.DataFrame({"b": values}), Schema((Column("b", "boolean"),)), ["b"], Path("new.csv"))
    assert read.frame["b"].tolist() == [True, False, None]
    assert [each.row for each in read.bad] == [2]


def test_true_and_false_in_other_words_are_booleans_of_new_rows() -> None:
    texts = ["1", "0", "Yes", "no", "TRUE", "f", "1.0", "", "maybe"]
    read = read_frame(pd.DataFrame({"b": texts}), Schema((Column("b", "boolean"),)), ["b"], Path("new.csv"))
    assert read.frame["b"].tolist() == [True, False, True, False, True, False, True, None, None]
    assert [each.row for each in read.bad] == [8]


def test_intervals_and_periods_of_pandas_are_texts() -> None:
    bins = pd.cut([1, 2, 5], [0, 3, 6])
    months = pd.PeriodIndex(["2024-01", None, "2024-03"], freq="M")
    read = read_frame(pd.DataFrame({"bin": bins, "month": months}), None, ["bin", "month"], Path("the table"))
    assert read.frame["bin"].tolist() == ["(0, 3]", "(0, 3]", "(3, 6]"]
    assert read.frame["month"].dt.month.fillna(0).tolist() == [1, 0, 3]
