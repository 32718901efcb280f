"""Few rows are read by other queries than many, with the same result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dlrunner.data.tables.raw import RawTable
from dlrunner.data.tables.table import Reading, Table, dump_schema, read_table

ROWS = 60


def mixed() -> pd.DataFrame:
    """Return columns of all kinds, some of them of the same one, some with bad and missing values."""
    rng = np.random.default_rng(0)
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 400, ROWS), unit="D")
    prices = rng.normal(0, 1e3, ROWS)
    table = pd.DataFrame(
        {
            "whole": rng.integers(-5, 5, ROWS).astype(str),
            "also_whole": rng.integers(0, 10**6, ROWS).astype(str),
            "number": prices.round(3).astype(str),
            "comma": [f"{each:.2f}".replace(".", ",") for each in prices],
            "thousands": [f"{each:,.2f}" for each in prices],
            "price": [f"{abs(each):.2f} €" for each in prices],
            "iso": days.strftime("%Y-%m-%d"),
            "also_iso": days.strftime("%Y-%m-%d"),
            "german": days.strftime("%d.%m.%Y"),
            "day_or_month": ["01/02/2024"] * ROWS,
            "time": [f"{each % 24}:{each % 60:02d}" for each in range(ROWS)],
            "flag": rng.choice(["true", "false"], ROWS),
            "id": [f"{each:05d}" for each in range(ROWS)],
            "word": rng.choice(["  Bonn", "Ulm  ", "NA", "3"], ROWS),
            "nearly": [*map(str, range(ROWS - 1)), "x"],
            "huge": ["1e300", *map(str, range(ROWS - 1))],
            "empty": [""] * ROWS,
            "late": [""] * (ROWS - 1) + ["7"],
        }
    )
    table.loc[3, ["whole", "number", "iso"]] = "NA"
    table.loc[5, ["also_whole", "also_iso", "flag"]] = ""
    return table


def both(path: Path, monkeypatch: pytest.MonkeyPatch, reading: Reading | None = None) -> list[Table]:
    read = [read_table(path, reading or Reading(), text=["id"])]
    for module in ("candidates", "reading"):
        monkeypatch.setattr(f"dlrunner.data.tables.{module}.FEW_ROWS", 0)
    read.append(read_table(path, reading or Reading(), text=["id"]))
    monkeypatch.undo()
    return read


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_few_rows_are_read_as_many_are(separator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed().to_csv(tmp_path / "t.csv", index=False, sep=separator)
    few, many = both(tmp_path / "t.csv", monkeypatch)
    assert few.schema == many.schema
    assert {each.type for each in few.schema.columns} == {"text", "integer", "number", "date", "time", "boolean"}
    pd.testing.assert_frame_equal(few.frame, many.frame)
    assert few.bad == many.bad
    assert {each.column for each in few.bad} == {"nearly", "huge"}


def test_few_rows_under_a_schema_are_read_as_many_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = mixed()
    table.to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "s.yaml").write_text(dump_schema(read_table(tmp_path / "t.csv", text=["id"]).schema))
    table.loc[7, ["whole", "iso", "flag", "price", "time"]] = "what"
    table.to_csv(tmp_path / "t.csv", index=False)
    few, many = both(tmp_path / "t.csv", monkeypatch, Reading(schema=str(tmp_path / "s.yaml")))
    pd.testing.assert_frame_equal(few.frame, many.frame)
    assert few.bad == many.bad
    assert {each.column for each in few.bad if each.row == 7} == {"whole", "iso", "flag", "price", "time"}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_number_of_queries_hardly_grows_with_columns(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aggregates, fetched = [], []
    aggregate, fetch = RawTable.aggregate, RawTable.fetch

    def counted(table: RawTable, *expressions: str, of: Sequence[str] = ()) -> list[int]:
        aggregates.append(len(expressions))
        return aggregate(table, *expressions, of=of)

    def noted(table: RawTable, *expressions: str, limit: str = "") -> pa.Table:
        fetched.append(len(expressions))
        return fetch(table, *expressions, limit=limit)

    monkeypatch.setattr(RawTable, "aggregate", counted)
    monkeypatch.setattr(RawTable, "fetch", noted)
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 250)), columns=[f"c{i}" for i in range(250)])
    file = tmp_path / f"t.{kind}"
    table.to_csv(file, index=False) if kind == "csv" else table.to_parquet(file)
    read = read_table(file).frame
    pd.testing.assert_frame_equal(read, table)
    assert len(aggregates) + len(fetched) < 10
    # Of a file of text the expressions of all columns are planned as those of one.
    assert sum(aggregates) < (20 if kind == "csv" else 5 * 250 + 20)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_numbers_that_are_all_missing_are_none(kind: str, tmp_path: Path) -> None:
    table = pd.DataFrame({"a": [1.5, 2.5], "nothing": [np.nan, np.nan]})
    file = tmp_path / f"t.{kind}"
    table.to_csv(file, index=False, na_rep="NA") if kind == "csv" else table.to_parquet(file)
    read = read_table(file)
    assert read.frame["a"].tolist() == [1.5, 2.5]
    assert read.schema.found["nothing"].num_missing == (2 if kind == "parquet" else 0)  # NA is a word of a text
    assert read.schema["nothing"].type == ("integer" if kind == "parquet" else "text")
