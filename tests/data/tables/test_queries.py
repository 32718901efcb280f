"""What a query selects has the types and characters that the reader finds, not those that DuckDB guesses."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from dlrunner.data.tables.table import Reading, read_table
from dlrunner.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sales.csv").write_text(
        "id;day;price;n\n007;31.01.2023;1.234,50;1\n7;01.02.2023;2,00;2\n0108;02.02.2023;3,25;NA\n"
    )
    return tmp_path


def test_ids_dates_and_numbers_of_a_query_are_those_of_the_reader() -> None:
    table = read_table(None, query="select * from 'sales.csv' where price > 2.5 order by n")
    assert table.frame["id"].tolist() == ["007", "0108"]
    assert table.frame["price"].tolist() == [1234.5, 3.25]
    assert table.frame["day"].dt.month.tolist() == [1, 2]
    assert (table.schema["n"].type, table.schema.found["n"].num_missing) == ("integer", 1)


def test_a_query_joins_files_of_any_format(here: Path) -> None:
    with sqlite3.connect(here / "names.db") as database:
        database.execute("create table names (id text, name text)")
        database.execute("insert into names values ('007', 'Bond'), ('7', 'Seven')")
    (here / "parts").mkdir()
    (here / "parts" / "a.csv").write_text("id,colour\n007,red\n")
    (here / "parts" / "b.csv").write_text("id,colour\n7,blue\n")
    (here / "more.jsonl").write_text('{"id": "007", "when": "2020-02-03"}\n{"id": "7", "when": "2020-02-04"}\n')
    query = (
        "with s as (select * from 'sales.csv') select id, name, colour, \"when\", price from s "
        "join 'names.db' using (id) join 'parts/*.csv' using (id) join 'more.jsonl' using (id) order by name"
    )
    frame = read_table(None, query=query).frame
    assert frame["id"].tolist() == ["007", "7"]
    assert frame["colour"].tolist() == ["red", "blue"]
    assert frame["when"].dt.day.tolist() == [3, 4]


def test_what_could_be_read_in_two_ways_is_settled_as_without_a_query(here: Path) -> None:
    (here / "t.csv").write_text("a\tprice\n1\t1.234\n2\t812\n".replace("\t", ";"))
    query = "select * from 't.csv'"
    assert read_table(None, query=query).schema.found["price"].ambiguous
    assert read_table(None, Reading(decimal=","), query=query).frame["price"].tolist() == [1234, 812]


def test_a_function_that_guesses_types_is_noted() -> None:
    table = read_table(None, query="select * from read_csv('sales.csv')")
    assert any("read_csv guesses types" in note for note in table.notes)


def test_a_query_over_a_damaged_or_absent_file_is_refused(here: Path) -> None:
    (here / "bad.csv").write_text("a,b\n1,2\n1,2,3\n")
    with pytest.raises(DataError, match=r"bad\.csv, row 3 has more fields"):
        read_table(None, query="select a from 'bad.csv'")
    with pytest.raises(ConfigError, match=r"data\.query: there is no file .*none\.csv"):
        read_table(None, query="select a from 'none.csv'")


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        (Reading(separator=";;"), r"data\.separator: ';;' is not one character"),
        (Reading(separator='"'), r"data\.separator"),
        (Reading(encoding="base64"), r"data\.encoding: 'base64' is not an encoding"),
        (Reading(encoding="nonesuch"), r"data\.encoding"),
    ],
)
def test_a_separator_or_encoding_that_is_none_is_refused(reading: Reading, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_table("sales.csv", reading)


def test_a_nul_far_from_the_top_is_named(here: Path) -> None:
    (here / "late.csv").write_bytes(b"a,b\n" + b"1,2\n" * 600_000 + b"1,\0\n")
    with pytest.raises(DataError, match=r"late\.csv contains a NUL character \(byte 2,400,007\)"):
        read_table("late.csv")
