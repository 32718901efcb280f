"""Any table that pandas writes comes back the same from each format."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlrunner.data.core.splitting import random_rows
from dlrunner.data.tables.table import Reading, dump_schema, read_frame, read_new_rows, read_table
from dlrunner.errors import DataError

WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    "t.csv": lambda frame, path: frame.to_csv(path, index=False),
    "t.tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "european.csv": lambda frame, path: frame.to_csv(path, index=False, sep=";", decimal=","),
    "t.csv.gz": lambda frame, path: frame.to_csv(path, index=False),
    "t.parquet": lambda frame, path: frame.to_parquet(path, index=False),
    "t.jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True, date_format="iso"),
    "t.xlsx": lambda frame, path: frame.to_excel(path, index=False),
}
SLOW = {"t.tsv", "t.csv.gz"}
"""Formats that are read as CSV is."""
LETTERS = st.text(alphabet="abzäß€日 ,;\"'|-#=", min_size=1, max_size=8).map(lambda text: f"x{text}y")


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    num_rows = draw(st.integers(2, 12))

    def column(values: st.SearchStrategy[object], may_miss: bool = True) -> list[object]:
        found: list[object] = draw(st.lists(values, min_size=num_rows, max_size=num_rows))
        if may_miss and draw(st.booleans()):
            found[draw(st.integers(0, num_rows - 1))] = None
        return found

    days = st.dates(pd.Timestamp("1990-01-01").date(), pd.Timestamp("2030-12-31").date())
    return pd.DataFrame(
        {
            "key": pd.Series([f"k{i:03d}" for i in range(num_rows)], dtype="str"),
            "code": pd.Series(column(st.integers(0, 99).map("0{:03d}".format)), dtype="str"),
            "text": pd.Series(column(LETTERS), dtype="str"),
            "whole": np.array(column(st.integers(-(10**9), 10**9), may_miss=False), dtype=np.int64),
            "number": np.array(
                column(st.integers(-(10**6), 10**6).map(lambda n: round(n / 100 + 0.001, 3))), dtype=np.float64
            ),
            "when": pd.to_datetime(pd.Series(column(days))).astype("datetime64[us]"),
            "flag": np.array(column(st.booleans(), may_miss=False), dtype=bool),
        }
    )


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in WRITERS]
)
@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(frame=tables())
def test_a_table_comes_back_with_its_values_ids_and_split(name: str, frame: pd.DataFrame) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        WRITERS[name](frame, path)
        table = read_table(path, text=["key"])
        schema = Path(folder) / "schema.yaml"
        schema.write_text(dump_schema(table.schema))
        again = read_table(path, Reading(schema=str(schema))).frame
        strings = read_new_rows(path)
    found = table.frame
    assert found["key"].tolist() == frame["key"].tolist()
    for column in ("code", "text"):
        pd.testing.assert_series_equal(found[column], frame[column], check_names=False)
    for column in ("whole", "number"):
        np.testing.assert_array_equal(found[column].to_numpy(np.float64), frame[column].to_numpy(np.float64))
    known = frame["when"].notna()
    if known.any():
        assert found["when"].isna().tolist() == (~known).tolist()
        assert (found["when"][known] == frame["when"][known]).all()
    assert found["flag"].tolist() == frame["flag"].tolist()
    assert (random_rows(len(found), 0.5, 1) == random_rows(len(frame), 0.5, 1)).all()
    pd.testing.assert_frame_equal(found, again)
    # What prediction reads: the strings of the file, or a DataFrame, by the schema of the training table.
    for given_frame in (strings, frame):
        read = read_frame(given_frame, table.schema, list(frame.columns), Path(name))
        assert not read.bad
        pd.testing.assert_frame_equal(read.frame, found)


@pytest.mark.parametrize(
    ("column", "value"), [("number", "many"), ("when", "soon"), ("whole", "1.5x"), ("flag", "perhaps")]
)
def test_a_file_that_breaks_the_schema_is_refused_with_row_and_value(column: str, value: str, tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "number": np.arange(30) / 4,
            "when": pd.date_range("2020-01-01", periods=30),
            "whole": np.arange(30),
            "flag": np.arange(30) % 2 == 0,
        }
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    schema = yaml.safe_load(dump_schema(read_table(tmp_path / "t.csv").schema))
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(schema))
    changed = frame.astype(object)
    changed.loc[6, column] = value
    changed.to_csv(tmp_path / "t.csv", index=False)
    table = read_table(tmp_path / "t.csv", Reading(schema=str(tmp_path / "s.yaml")))
    with pytest.raises(DataError, match=f"row 8: {column} is '{value}', which is not a"):
        table.checked(list(frame.columns), skip_bad=False)
    assert len(table.checked(list(frame.columns), skip_bad=True).frame) == 29
