"""What a query selects has the types and characters that the reader finds, not those that DuckDB guesses."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from dlrunner.data.tables.files import open_table
from dlrunner.data.tables.formats import missing
from dlrunner.data.tables.queries import _keeps_order
from dlrunner.data.tables.source import TableFile
from dlrunner.data.tables.table import Reading, read_open_table, read_table
from dlrunner.data.tabular.dataset import TabularData
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
    with contextlib.closing(sqlite3.connect(here / "names.db")) as database, database:
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


@pytest.mark.parametrize(
    ("query", "items"),
    [
        ("select version as item from 'v.csv'", ["1.10", "1.1", "2.0"]),
        ("select * rename (version as item) from 'v.csv'", ["1.10", "1.1", "2.0"]),
        ("with s as (select version || '-' || code as k from 'v.csv') select k as Item from s", ["1.10-1e01", "1.1-10", "2.0-7"]),
        ("select version as item from 'v.csv' union all select code from 'v.csv' where n = 1", ["1.10", "1.1", "2.0", "1e01"]),
        ("select case when n > 1 then version else code end as item from 'v.csv'", ["1e01", "1.1", "2.0"]),
        ("select x as item from (select version, n from 'v.csv') as t(x, n) where n < 3", ["1.10", "1.1"]),
        ("select arg_max(version, n) as item from 'v.csv' group by n > 1 order by 1", ["1.10", "2.0"]),
        ("select a.version as item from 'v.csv' a join 'v.csv' b on a.version = b.version", ["1.10", "1.1", "2.0"]),
        ("select cast(version as text) as item from 'v.csv' where n * 2 > 2", ["1.1", "2.0"]),
        ("select 10 * n as item from 'v.csv'", ["10", "20", "30"]),
    ],
)  # fmt: skip
def test_ids_keep_every_character_where_a_query_renames_or_joins_them(query: str, items: list[str], here: Path) -> None:
    (here / "v.csv").write_text("version,code,n\n1.10,1e01,1\n1.1,10,2\n2.0,7,3\n")
    with TableFile(None, query, Reading(), ids=["item"]).open() as raw:
        assert sorted(read_open_table(raw, Reading(), text=raw.names).frame.iloc[:, 0]) == sorted(items)


def test_the_id_of_the_rows_keeps_every_character_in_a_query(here: Path) -> None:
    (here / "v.csv").write_text("version,n,y\n" + "".join(f"{n}.10,{n},{n % 2}\n{n}.1,{n},1\n" for n in range(9)))
    query = "select version as code, n, y from 'v.csv'"
    table = TabularData(here, query=query, target="y", id="code", kind="binary").read()
    assert table.ids is not None
    assert table.ids["code"].tolist()[:2] == ["0.10", "0.1"]
    assert table.frame["n"].dtype == "int64"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("select price from 'sales.csv' where id > 5", r"a text meets a number; of text are: id .*text in quotes"),
        ("select sum(id) from 'sales.csv'", r"a text meets a number; of text are: id .*CAST\(column AS DOUBLE\)"),
        ("select price from 'k.csv' where id = 5", r"id is text and 'A7' not a number"),
    ],
)
def test_a_text_that_meets_a_number_in_a_query_is_refused_with_what_to_do(query: str, message: str, here: Path) -> None:
    (here / "k.csv").write_text("id,price\nA7,1\n")
    with pytest.raises(DataError, match=message) as refusal:
        read_table(None, query=query)
    assert "\n" not in str(refusal.value)
    assert read_table(None, query="select sum(cast(id as double)) as s from 'sales.csv'").frame["s"].tolist() == [122]


@pytest.mark.parametrize(
    ("query", "keeps"),
    [
        ("SELECT a, b + 1 FROM 't.csv' WHERE a > 'x'", True),
        ("FROM 't.csv'", True),
        ("SELECT DISTINCT a FROM 't.csv'", False),
        ("SELECT a, avg(b) FROM 't.csv' GROUP BY a", False),
        ("SELECT * FROM 't.csv' JOIN 'u.csv' USING (a)", False),
        ("SELECT a FROM 't.csv' UNION SELECT a FROM 'u.csv'", False),
        ("SELECT * FROM (SELECT a, count(*) FROM 't.csv' GROUP BY ALL) WHERE a > 'x'", False),
        ("SELECT a, row_number() OVER (ORDER BY b) FROM 't.csv'", False),
        ("SELECT a FROM 't.csv' ORDER BY b", False),
        ("SELECT a FROM 't.csv' WHERE a IN (SELECT a FROM 'u.csv')", False),
    ],
)
def test_rows_that_are_not_in_the_order_of_a_file_come_from_one_thread(query: str, keeps: bool) -> None:
    serialized = duckdb.execute("SELECT json_serialize_sql($query)", {"query": query}).fetchall()[0][0]
    assert _keeps_order(json.loads(serialized)) == keeps


def test_the_rows_of_a_query_have_the_same_order_each_time(here: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 500, (200_000, 2))
    pd.DataFrame(rows, columns=["a", "b"]).to_parquet("t.parquet")
    source = TableFile(None, "SELECT DISTINCT a, b FROM 't.parquet'", Reading())
    first, second = source.read().frame, source.read().frame
    pd.testing.assert_frame_equal(first, second)
    assert source.identity().sha256 == TableFile(None, source.query, Reading()).identity().sha256


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


@pytest.mark.parametrize(
    ("query", "column", "values"),
    [
        ("from 'long.csv' select id", "id", ["007", "007", "1.10", "1.10"]),
        ("unpivot (select k, v, w from 'long.csv') on v, w into name n value id", "id", ["1.10", "2", "3.0", "4", "5", "6", "7", "8"]),
        ("select * from (select k, v from 'long.csv') unpivot (id for n in (v))", "id", ["1.10", "3.0", "5", "7"]),
        ("pivot 'long.csv' on k in ('a', 'b') using first(v) group by id order by id", "a", ["1.10", "5"]),
        ("pivot 'long.csv' on k in ('a', 'b') using first(v) as f, sum(w) group by id order by id", "a_f", ["1.10", "5"]),
    ],
)  # fmt: skip
def test_pivoted_and_short_queries_read_files_by_the_rules(
    query: str, column: str, values: list[str], here: Path
) -> None:
    (here / "long.csv").write_text("id,k,v,w\n007,a,1.10,2\n007,b,3.0,4\n1.10,a,5,6\n1.10,b,7,8\n")
    table = TableFile(None, query, Reading(), ids=[column]).read(text=[column])
    assert table.frame[column].tolist() == values


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("pivot 'sales.csv' on id using sum(n)", "PIVOT needs the values that become columns"),
        ("select * from (pivot 'sales.csv' on id using sum(n))", "PIVOT needs the values that become columns"),
        ("summarize 'sales.csv'", "SUMMARIZE, DESCRIBE and SHOW select no rows"),
        ("select * from (describe select * from 'sales.csv')", "SUMMARIZE, DESCRIBE and SHOW select no rows"),
        ("show tables", "SUMMARIZE, DESCRIBE and SHOW select no rows"),
    ],
)
def test_queries_that_are_no_table_of_rows_are_refused(query: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_table(None, query=query)


WORDS = ", ".join(f"'{letter}'" for letter in "abcdefghijklmnopqrst")


@pytest.mark.parametrize("condition", [f"shop in ({WORDS})", "shop in (select 'a')"])
def test_a_list_of_words_keeps_the_order_of_rows(condition: str, here: Path) -> None:
    (here / "parts").mkdir()
    for month in (1, 2, 3):
        days = "".join(f"2024-0{month}-{day:02},a\n" for day in range(1, 21))
        (here / "parts" / f"{month}.csv").write_text(f"day,shop\n{days}")
    for _ in range(20):
        found = read_table(None, query=f"select * from 'parts/*.csv' where {condition}").frame["day"].tolist()
        assert found == sorted(found)
        with open_table("parts") as raw:  # NA, N/A and the like are such words
            days = raw.fetch(missing("c1"), "c0").column(1).to_pylist()
        assert days == sorted(days)


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ("select * from 'sales.csv' using sample 2 rows", "a sample without a seed"),
        ("select * from (from 'sales.csv' tablesample 50%)", "a sample without a seed"),
        ("select * from 'sales.csv' order by RANDOM() limit 2", r"random\(\)"),
        ("select *, uuid() as id from 'sales.csv'", r"uuid\(\)"),
    ],
)
def test_a_query_that_selects_by_chance_is_refused(query: str, what: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.query: {what} gives other rows each time.* \(bernoulli, 42\)"):
        read_table(None, query=query)


@pytest.mark.parametrize("sample", ["10% (bernoulli, 42)", "reservoir(500 rows) repeatable (42)", "50% (system, 7)"])
def test_a_sample_with_a_seed_has_the_same_rows_each_time(sample: str, here: Path) -> None:
    for number in range(3):
        pd.DataFrame({"n": np.arange(5000) + 5000 * number, "random": 1}).to_csv(f"part{number}.csv", index=False)
    source = TableFile(None, f"select n, random from 'part*.csv' using sample {sample}", Reading())
    found = {source.identity().sha256 for _ in range(5)}
    assert len(found) == 1
    assert 400 < len(source.read().frame) < 15_000


@pytest.mark.parametrize("name", ["days.csv", "days.xlsx"])
def test_a_total_at_the_end_of_a_file_is_not_counted_in_a_query(name: str, here: Path) -> None:
    days = pd.DataFrame({"day": [*[f"2024-01-0{day}" for day in (1, 2, 3)], "Total"], "n": [10, 20, 30, 60]})
    days.to_csv(name, index=False) if name.endswith("csv") else days.to_excel(name, index=False)
    table = read_table(None, query=f"select sum(n) as n, max(day) as last from '{name}'")
    assert table.frame["n"].tolist() == [60]
    assert str(table.frame["last"][0])[:10] == "2024-01-03"
    assert f"{name}: the last row is left out: it sums up the others (day is Total)" in table.notes
    with_text = TableFile(None, f"select day, n from '{name}' order by n", Reading(), ids=["day"])
    with with_text.open() as raw:  # a text or an id may be this word
        assert raw.fetch("c0").column(0).to_pylist()[-1] == "Total"
