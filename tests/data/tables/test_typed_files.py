"""Formats with types, each file written here: what is a date in the file is a date in the table."""

from __future__ import annotations

import bz2
import contextlib
import datetime
import decimal
import gzip
import json
import lzma
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from dlrunner.data.core.target_columns import read_target
from dlrunner.data.core.targets import MultiLabel
from dlrunner.data.tables.schema import Column, Schema
from dlrunner.data.tables.source import TableFile
from dlrunner.data.tables.table import Reading, read_frame, read_new_rows, read_table
from dlrunner.errors import DataError
from dlrunner.inference.input_tables import as_table


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("skip_bad", [False, True])
def test_lists_are_labels_where_their_separator_is_named(tmp_path: Path, suffix: str, skip_bad: bool) -> None:
    """Without a word, each combination would be a class of its own."""
    rows = [{"text": "x", "tags": ["b", "a"]}, {"text": "y", "tags": []}, {"text": "z", "tags": ["c"]}]
    file = tmp_path / f"t.{suffix}"
    if suffix == "jsonl":
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    else:
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), file)
    table = read_table(file, Reading(skip_bad=skip_bad))
    assert [note for note in table.notes if note.startswith("lists")] == [
        "lists are read as texts like a|b: tags (data.target_separator='|' makes them labels)"
    ]
    target, values = read_target(table.frame, "tags", "auto", "|", "auto", table.rows)
    assert isinstance(target, MultiLabel)
    assert target.classes == ["a", "b", "c"]
    assert values.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_the_types_of_parquet_are_kept(tmp_path: Path) -> None:
    days = [datetime.date(2020, 1, 31), None, datetime.date(2020, 2, 1)]
    table = pa.table(
        {
            "day": pa.array(days, pa.date32()),
            "price": pa.array([decimal.Decimal("1.10"), decimal.Decimal("2.25"), None], pa.decimal128(10, 2)),
            "flag": pa.array([True, None, False]),
            "shop": pa.array(["a", "b", "a"]).dictionary_encode(),
            "tags": pa.array([["x", "y"], [], ["z"]]),
            "half": pa.array(np.array([0.5, 1, 2], np.float16)),
            "small": pa.array([1, 2, 3], pa.uint8()),
            "at": pa.array([0, 3_600_000_000_000, None], pa.timestamp("ns", tz="UTC")),
            "lasts": pa.array([86_400, 43_200, None], pa.duration("s")),
            "id": pa.array(["007", "7", "NA"]),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    read = read_table(tmp_path / "t.parquet", text=["id"])
    types = {each.name: each.type for each in read.schema.columns}
    assert types == {
        "day": "date", "price": "number", "flag": "boolean", "shop": "text", "tags": "text", "half": "number",
        "small": "integer", "at": "date", "lasts": "number", "id": "text",
    }  # fmt: skip
    frame = read.frame
    assert frame["day"].dt.day.tolist()[::2] == [31, 1]
    assert frame["price"].tolist()[:2] == [1.1, 2.25]
    assert frame["flag"].tolist() == [True, None, False]
    assert frame["tags"].tolist()[::2] == ["x|y", "z"]
    assert frame["lasts"].tolist()[:2] == [1.0, 0.5]
    assert frame["at"].dt.hour.tolist()[:2] == [0, 1]
    assert frame["id"].tolist() == ["007", "7", "NA"]
    missing = {each: read.schema.found[each].num_missing for each in types}
    assert [missing[each] for each in ("day", "price", "flag", "at", "lasts", "small", "id")] == [1, 1, 1, 1, 1, 0, 0]


def test_an_index_that_pandas_wrote_is_a_column(tmp_path: Path) -> None:
    pd.DataFrame({"x": [1, 2]}, index=["b", "a"]).to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").frame.to_dict("list") == {"x": [1, 2], "index": ["b", "a"]}


def test_a_date_cell_of_excel_is_a_date_and_a_number_a_number(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["day", "when", "clock", "lasts", "number", "code", "mixed", "gap"])
    for day in (1, 2, 31):
        sheet.append(
            [
                datetime.date(2023, 1, day),
                datetime.datetime(2023, 1, day, 12, 30, 15),
                datetime.time(8, day % 60),
                datetime.timedelta(hours=36),
                44_926 + day,
                f"0{day}",
                datetime.date(2023, 1, day) if day > 1 else "2023-01-01",
                datetime.date(2023, 1, day) if day > 1 else None,
            ]
        )
    book.save(tmp_path / "t.xlsx")
    read = read_table(tmp_path / "t.xlsx")
    assert {each.name: each.type for each in read.schema.columns} == {
        "day": "date", "when": "date", "clock": "time", "lasts": "number", "number": "integer", "code": "text",
        "mixed": "date", "gap": "date",
    }  # fmt: skip
    assert read.frame["day"].dt.day.tolist() == read.frame["mixed"].dt.day.tolist() == [1, 2, 31]
    assert read.frame["when"].astype(str).tolist()[2] == "2023-01-31 12:30:15"
    assert read.frame["lasts"].tolist() == [1.5] * 3
    assert read.frame["number"].tolist() == [44_927, 44_928, 44_957]
    assert read.frame["code"].tolist() == ["01", "02", "031"]
    assert read.schema.found["gap"].num_missing == 1
    assert read.frame["clock"].tolist() == [481, 482, 511]


def test_a_database_has_its_types_and_its_texts(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "t.db")) as database:
        database.execute("create table t (id text, n integer, x real, day text, anything)")
        rows = [("007", 1, 0.5, "2020-01-31", "a"), ("7", None, 1.0, "2020-02-01", 5)]
        database.executemany("insert into t values (?, ?, ?, ?, ?)", rows)
        database.commit()
    read = read_table(tmp_path / "t.db")
    assert [each.type for each in read.schema.columns] == ["text", "integer", "number", "date", "text"]
    assert read.frame["id"].tolist() == ["007", "7"]
    assert read.frame["anything"].tolist() == ["a", "5"]
    assert read.schema.found["n"].num_missing == 1


def test_compressed_files_are_the_same_table(tmp_path: Path) -> None:
    content = b"id;price\n007;1.234,50\n7;2,25\n"
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(content))
    (tmp_path / "b.csv.bz2").write_bytes(bz2.compress(content))
    (tmp_path / "c.csv.xz").write_bytes(lzma.compress(content))
    with zipfile.ZipFile(tmp_path / "d.csv.zip", "w") as archive:
        archive.writestr("d.csv", content)
    for path in sorted(tmp_path.glob("*.csv.*")):
        frame = read_table(path).frame
        assert frame["id"].tolist() == ["007", "7"], path
        assert frame["price"].tolist() == [1234.5, 2.25], path


def test_large_whole_numbers_keep_their_digits_in_every_format(tmp_path: Path) -> None:
    ids = [9007199254740993, 9007199254740995, None]
    with contextlib.closing(sqlite3.connect(tmp_path / "t.db")) as database:
        database.execute("CREATE TABLE t (id INTEGER, n INTEGER PRIMARY KEY AUTOINCREMENT)")
        database.executemany("INSERT INTO t (id) VALUES (?)", [(each,) for each in ids])
        database.commit()
    exact = [None if each is None else decimal.Decimal(each) for each in ids]
    kinds = {"a": pa.decimal128(18, 0), "b": pa.decimal128(38, 0)}
    for name, kind in kinds.items():
        pyarrow.parquet.write_table(pa.table({"id": pa.array(exact, kind)}), tmp_path / f"{name}.parquet")
    for name in ("t.db", "a.parquet", "b.parquet"):
        for text in ([], ["id"]):
            read = read_table(tmp_path / name, text=text)
            assert read.schema["id"].type == "text", name
            assert read.frame["id"].tolist()[:2] == ["9007199254740993", "9007199254740995"], name


def test_a_fraction_among_large_whole_numbers_takes_no_digit_from_them(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "t.db")) as database:
        database.execute("CREATE TABLE t (id)")
        database.executemany("INSERT INTO t VALUES (?)", [(9007199254740993,), (2.5,), (3.0,)])
        database.commit()
    assert read_table(tmp_path / "t.db", text=["id"]).frame["id"].tolist() == ["9007199254740993", "2.5", "3"]


def test_times_with_a_zone_are_local_ones_as_in_a_text(tmp_path: Path) -> None:
    times = pd.to_datetime(["2024-03-10T01:30-05:00", "2024-03-10T03:30-04:00"], utc=True).tz_convert(
        "America/New_York"
    )
    frame = pd.DataFrame({"at": times, "n": [1, 2]})
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_csv(tmp_path / "t.csv", index=False)
    expected = [datetime.datetime(2024, 3, 10, 1, 30), datetime.datetime(2024, 3, 10, 3, 30)]
    for name in ("t.parquet", "t.csv"):
        assert read_table(tmp_path / name).frame["at"].tolist() == expected, name
        assert read_table(None, query=f"select * from '{tmp_path / name}'").frame["at"].tolist() == expected, name


def test_the_fraction_of_a_day_counts_in_a_file_with_types(tmp_path: Path) -> None:
    frame = pd.DataFrame({"excel": [45292.5, 45294.0], "seconds": [1_704_103_200.25, 1_704_240_000.0]})
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_csv(tmp_path / "t.csv", index=False)
    for name in ("t.parquet", "t.csv"):
        read = read_table(tmp_path / name, dates=["excel", "seconds"]).frame
        assert read["excel"].tolist() == [datetime.datetime(2024, 1, 1, 12), datetime.datetime(2024, 1, 3)], name
        assert read["seconds"].tolist()[0] == datetime.datetime(2024, 1, 1, 10, 0, 0, 250_000), name


IDS = ["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12"]


@pytest.mark.parametrize("as_list", [False, True])
def test_ids_and_times_in_json_keep_their_characters(as_list: bool, tmp_path: Path) -> None:
    rows = [
        {"id": each, "opens": at, "n": n, "tags": [each], "more": {"TIME": at, "x": 1.5}}
        for n, (each, at) in enumerate(zip(IDS, ("8:05", "08:05:00"), strict=True))
    ]
    (tmp_path / "shop=01").mkdir()
    path = tmp_path / "shop=01" / "t.json"
    path.write_text(json.dumps(rows) if as_list else "\n".join(map(json.dumps, rows)))
    query = f"select id, opens, n, tags, more, shop from '{tmp_path}/*/*.json'"
    source = TableFile(None, query, Reading(), ids=["id", "opens"])
    for read in (read_table(tmp_path, text=["id", "opens"]), source.read(["id", "opens"])):
        assert read.frame["id"].tolist() == read.frame["tags"].tolist() == IDS
        assert read.frame["opens"].tolist() == ["8:05", "08:05:00"]
        assert read.frame["n"].tolist() == [0, 1]
        assert [json.loads(each)["TIME"] for each in read.frame["more"]] == ["8:05", "08:05:00"]
        assert read.frame["shop"].tolist() == ["01", "01"]
    assert read_new_rows(path)["id"].tolist() == IDS
    assert read_table(path).frame["opens"].tolist() == [485, 485]  # minutes of a time of day


def test_what_a_database_holds_in_its_log_counts(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE t (n INTEGER)")
        database.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(5)])
        database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        before = TableFile(str(path), None, Reading()).identity().sha256
        database.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(7)])
        database.commit()
        assert len(read_table(path).frame) == 12
        assert TableFile(str(path), None, Reading()).identity().sha256 != before


def test_days_as_floats_are_dates_next_to_missing_ones(tmp_path: Path) -> None:
    days = pa.table({"day": [20240101.0, float("nan"), None, 20240301.0], "y": [1, 2, 3, 4]})
    pyarrow.parquet.write_table(days, tmp_path / "t.parquet")
    read = read_table(tmp_path / "t.parquet", dates=["day"])
    assert read.frame["day"].dt.strftime("%Y-%m-%d").fillna("").tolist() == ["2024-01-01", "", "", "2024-03-01"]
    assert not read.bad
    pyarrow.parquet.write_table(pa.table({"day": [20240101.0, 1e19], "y": [1, 2]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"row 2: day is 1e\+19, which is not a date of the form %Y%m%d"):
        read_table(tmp_path / "t.parquet", dates=["day"])


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
@pytest.mark.parametrize(("bad", "form"), [(20231301, "%Y%m%d"), (99991231, "%Y%m%d"), (0, "days since 1900")])
def test_a_number_that_is_no_date_does_not_make_seconds_of_the_others(
    tmp_path: Path, name: str, bad: int, form: str
) -> None:
    start = 20230101 if form == "%Y%m%d" else 44927
    table = pd.DataFrame({"day": [*range(start, start + 28), bad], "y": range(29)})
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_parquet(tmp_path / "t.parquet")
    row = 30 if name == "t.csv" else 29
    with pytest.raises(DataError, match=rf"row {row}: day is '?{bad}'?, which is not a date of the form {form}"):
        read_table(tmp_path / name, dates=["day"])
    seconds = read_table(tmp_path / name, Reading(date_format="seconds since 1970"), dates=["day"])
    assert seconds.frame["day"].dt.year.min() == 1970


LONG = 1234567890123456789


def test_whole_numbers_of_new_rows_keep_their_digits_next_to_missing_ones(tmp_path: Path) -> None:
    ids = pa.table({"user": pa.array([LONG, LONG + 1, None, 7])})
    pyarrow.parquet.write_table(ids, tmp_path / "t.parquet")
    lines = [f'{{"user": {each}}}' for each in (LONG, LONG + 1, "null", 7)]
    (tmp_path / "t.jsonl").write_text("\n".join(lines) + "\n")
    schema = Schema((Column("user", verbatim=True),))
    for name in ("t.parquet", "t.jsonl"):
        new = read_new_rows(tmp_path / name)
        assert new["user"].tolist() == [LONG, LONG + 1, None, 7], name
        read = read_frame(new, schema, ["user"], tmp_path / name)
        assert read.frame["user"].fillna("").tolist() == [str(LONG), str(LONG + 1), "", "7"], name


@pytest.mark.parametrize(
    "given",
    [
        [{"user": LONG}, {"user": LONG + 1}, {"user": None}, {"user": 7}, {"item": "a"}],
        {"user": [LONG, LONG + 1, None, 7, None], "item": [None] * 4 + ["a"]},
    ],
)
def test_whole_numbers_of_rows_in_python_keep_their_digits_next_to_missing_ones(given: Any) -> None:
    table = as_table(None, "table", given)
    read = read_frame(table, Schema((Column("user", verbatim=True),)), ["user"], Path("the table"))
    assert read.frame["user"].fillna("").tolist() == [str(LONG), str(LONG + 1), "", "7", ""]


def test_a_column_that_is_text_in_one_part_is_text_in_all(tmp_path: Path) -> None:
    pd.DataFrame({"id": [2**60 + 1, 7], "n": [1, 2]}).to_parquet(tmp_path / "1.parquet")
    pd.DataFrame({"id": ["007", "x"], "n": [3.5, 4]}).to_parquet(tmp_path / "2.parquet")
    read = read_table(tmp_path)
    assert read.frame["id"].tolist() == ["1152921504606846977", "7", "007", "x"]
    assert read.frame["n"].tolist() == [1, 2, 3.5, 4]
    pd.DataFrame({"id": ["y"], "n": ["z"]}).to_parquet(tmp_path / "3.parquet")
    with pytest.raises(DataError, match="Field n has incompatible types"):
        read_table(tmp_path)


def test_a_sheet_without_rows_is_passed_over(tmp_path: Path) -> None:
    with pd.ExcelWriter(tmp_path / "t.xlsx") as book:
        pd.DataFrame({"read me": []}).to_excel(book, sheet_name="Notes", index=False)
        pd.DataFrame({"a": [1, 2]}).to_excel(book, sheet_name="Data", index=False)
    read = read_table(tmp_path / "t.xlsx")
    assert read.frame["a"].tolist() == [1, 2]
    assert any("the sheet Data is read" in note for note in read.notes)


def test_blank_rows_of_a_sheet_are_no_rows_and_count_in_messages(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for cells in ([], [], ["x", "y"], [1, 2], [None, ""], *([[row, row] for row in range(40)]), [3, "bad"]):
        book.active.append(cells)
    book.save(tmp_path / "t.xlsx")
    read = read_table(tmp_path / "t.xlsx")
    assert read.frame["x"].tolist() == [1, *range(40), 3]
    assert [read.rows.short(row) for row in (0, 1, 41)] == ["row 4", "row 6", "row 46"]
    assert len(read_new_rows(tmp_path / "t.xlsx")) == 42


@pytest.mark.parametrize("orient", ["columns", "index", "split", "table", "values"])
def test_json_that_is_not_an_object_for_each_row_is_refused(tmp_path: Path, orient: Any) -> None:
    """Each of these was one row of texts."""
    table = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    table.to_json(tmp_path / "t.json", orient=orient)
    with pytest.raises(DataError, match=r'lists, not an object for each row.*orient="records", lines=True'):
        read_table(tmp_path / "t.json")
    table.to_json(tmp_path / "t.json", orient="records", lines=True)
    assert len(read_table(tmp_path / "t.json").frame) == 2
    (tmp_path / "t.json").write_text('{"a": [1]}\n{"a": [2, 3]}')
    assert read_table(tmp_path / "t.json").frame["a"].tolist() == ["1", "2|3"]


@pytest.mark.parametrize("rows", ['[{"Sales": 1, "sales": 2}]', '{"Sales": 1}\n{"sales": 2}'])
def test_keys_of_json_that_differ_only_in_case_are_refused(tmp_path: Path, rows: str) -> None:
    (tmp_path / "t.json").write_text(rows)
    with pytest.raises(DataError, match=r"keys that differ only in case cannot be read: Sales, sales"):
        read_table(tmp_path / "t.json")
    (tmp_path / "t.json").write_text(rows.replace("Sales", "sales_1"))
    assert read_table(tmp_path / "t.json").schema.names.count("sales_1") == 1
