"""Times of day are numbers: minutes since midnight, in each format and in new rows too."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dlrunner.data.tables.schema import Schema
from dlrunner.data.tables.table import Reading, dump_schema, read_frame, read_table
from dlrunner.errors import DataError


@pytest.mark.parametrize(
    ("values", "minutes"),
    [
        (["12:30", "8:05", "00:00", "NA", "24:00"], [750, 485, 0, np.nan, 1440]),
        (["12:30:15", "08:05:00.5", "23:59:59,25", " 7:00 "], [750.25, 485 + 0.5 / 60, 1439 + 59.25 / 60, 420]),
        (["12:00 AM", "12:30 pm", "9:05PM", "1:00:30 am"], [0, 750, 1265, 60.5]),
    ],
)
def test_times_of_day_are_minutes_since_midnight(values: list[str], minutes: list[float], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("t,n\n" + "".join(f'"{value}",{n}\n' for n, value in enumerate(values)))
    table = read_table(tmp_path / "t.csv")
    assert table.schema["t"].described() == "time of day"
    assert "minutes since midnight" in str(table.schema.found["t"].note)
    np.testing.assert_allclose(table.frame["t"].to_numpy(), minutes)
    (tmp_path / "s.yaml").write_text(dump_schema(table.schema))
    pd.testing.assert_frame_equal(
        read_table(tmp_path / "t.csv", Reading(schema=str(tmp_path / "s.yaml"))).frame, table.frame
    )
    assert read_table(tmp_path / "t.csv", text=["t"]).frame["t"].iloc[1] == values[1], "an id keeps its characters"


def test_a_few_values_that_are_no_times_are_bad_and_many_make_it_text(tmp_path: Path) -> None:
    times = [f"{n % 24}:{n % 60:02d}" for n in range(200)]
    (tmp_path / "t.csv").write_text("t,n\n" + "".join(f"{t},1\n" for t in [*times, "noon", "25:00"]))
    table = read_table(tmp_path / "t.csv")
    assert (table.schema.found["t"].num_bad, table.schema.found["t"].bad_example) == (2, "row 202: 'noon'")
    with pytest.raises(DataError, match="row 202: t is 'noon', which is not a time of day; 2 such"):
        table.checked(["t"], skip_bad=False)
    assert len(table.checked(["t"], skip_bad=True).frame) == 200
    (tmp_path / "t.csv").write_text("t,n\n" + "".join(f"{t},1\n" for t in [*times, *["noon"] * 50]))
    assert read_table(tmp_path / "t.csv").schema["t"].type == "text"


def test_times_in_parquet_and_in_a_query_are_those_of_a_text(tmp_path: Path) -> None:
    clock = [datetime.time(12, 30), datetime.time(8, 5, 9, 500000), None]
    pd.DataFrame({"t": clock, "n": [1, 2, 3]}).to_parquet(tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("t,n\n12:30,1\n8:05:09.5,2\n,3\n")
    wanted = [750, 485 + 9.5 / 60, np.nan]
    for name in ("t.parquet", "t.csv"):
        np.testing.assert_allclose(read_table(tmp_path / name).frame["t"].to_numpy(), wanted)
        np.testing.assert_allclose(read_table(None, query=f"select * from '{tmp_path / name}'").frame["t"], wanted)
        query = f"select n, hour(t) as hour from '{tmp_path / name}' where t > '09:00'"
        assert read_table(None, query=query).frame.to_dict("list") == {"n": [1], "hour": [12]}


def test_new_rows_are_read_as_the_training_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("t,n\n12:30,1\n8:05,2\n")
    schema = read_table(tmp_path / "t.csv").schema
    new = pd.DataFrame({"t": ["0:15", "late", datetime.time(23, 0)]})
    read = read_frame(new, Schema.from_state(schema.state()), ["t"], Path("new"))
    np.testing.assert_array_equal(read.frame["t"], [15, np.nan, 1380])
    assert [(each.row, each.reason) for each in read.bad] == [(1, "t is 'late', which is not a time of day")]


@pytest.mark.parametrize(
    ("times", "offsets"),
    [
        (["2020-01-01T10:00:00Z", "2020-01-02T10:00:00+02:00"], "+02:00, Z"),
        (["2020-01-01 10:00:00.5", "2020-01-02 10:00:00.5 UTC"], "UTC, none"),
        (["2020-01-01T10:00:00+01:00", "2020-07-02T10:00:00+02:00"], None),  # summer time
        (["2020-01-01 10:00 EST", "2020-07-02 10:00 EDT"], None),
        (["2020-01-01", "2020-01-02 10:00:00Z"], None),
        (["2020-01-01", "2020-01-02"], None),
    ],
)
def test_different_offsets_from_utc_are_told(times: list[str], offsets: str | None, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("t,n\n" + "".join(f"{time},1\n" for time in times * 5))
    table = read_table(tmp_path / "t.csv")
    assert table.schema["t"].type == "date"
    assert table.frame["t"].dt.hour.isin([0, 10]).all(), "as written"
    note = table.schema.found["t"].note
    assert note is None if offsets is None else f"different offsets from UTC ({offsets})" in str(note)
