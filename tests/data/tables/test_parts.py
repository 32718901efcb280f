"""Part files are one table, read by the names of their columns."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from dlrunner.data.tables.schema import Column, Schema
from dlrunner.data.tables.table import Reading, read_frame, read_new_rows, read_table
from dlrunner.errors import DataError


def test_parts_in_another_order_or_with_another_separator_are_read_by_name(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "1.csv").write_text("id,x\n007,1\n7,2\n")
    (parts / "2.csv").write_text("x,id\n3,08\n")
    (parts / "3.csv").write_text("sep=;\nid;x\n09;4\n")
    (parts / "4.csv").write_text("x, id\n5, 10\n")
    table = read_table(parts)
    assert table.schema.names == ["id", "x"]
    assert table.frame["id"].tolist() == ["007", "7", "08", "09", "10"]
    assert table.frame["x"].tolist() == [1, 2, 3, 4, 5]
    assert [note for note in table.notes if "another order" in note and note.startswith(("2.csv", "4.csv"))]
    assert "3.csv has the separator ';', 1.csv ','" in table.notes
    selected = read_table(None, query=f"select id from '{parts}/*.csv' where x > 2")
    assert selected.frame["id"].tolist() == ["08", "09", "10"]


def test_parts_with_other_columns_are_refused(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("id,x\n1,1\n")
    (tmp_path / "2.csv").write_text("id,y\n1,1\n")
    with pytest.raises(DataError, match=r"2\.csv has other columns than .*1\.csv: id, y"):
        read_table(tmp_path / "*.csv")


def test_parts_of_parquet_are_read_by_name(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1], "b": ["x"]}).to_parquet(tmp_path / "1.parquet")
    pd.DataFrame({"b": ["y"], "a": [2]}).to_parquet(tmp_path / "2.parquet")
    assert read_table(tmp_path / "*.parquet").frame.to_dict("list") == {"a": [1, 2], "b": ["x", "y"]}


def test_parts_of_parquet_with_other_types_keep_their_values(tmp_path: Path) -> None:
    noon, five = datetime(2020, 1, 1, 12, tzinfo=ZoneInfo("America/New_York")), datetime(2020, 1, 1, 17)
    parts = [
        {
            "id": pa.array([7, 8]),
            "at": pa.array([noon] * 2, pa.timestamp("us", tz="America/New_York")),
            "x": pa.array([0.1, 0.2], pa.float32()),
            "day": pa.array([date(2020, 1, 1)] * 2),
            "kind": pa.array(["a", "b"]).dictionary_encode(),
        },
        {
            "id": pa.array(["007", "010"]),
            "at": pa.array([five] * 2),
            "x": pa.array([16777217.0, 0.3]),
            "day": pa.array([datetime(2020, 1, 2, 5)] * 2),
            "kind": pa.array(["a", "c"]),
        },
    ]
    for order in (parts, parts[::-1]):
        for number, columns in enumerate(order):
            pyarrow.parquet.write_table(pa.table(columns), tmp_path / f"{number}.parquet")
        glob = tmp_path / "*.parquet"
        for read in (read_table(glob), read_table(None, query=f"select * from '{glob}'")):
            found = read.frame.to_dict("list")
            assert sorted(found["id"]) == ["007", "010", "7", "8"]
            assert sorted({f"{each:%H:%M}" for each in found["at"]}) == ["12:00", "17:00"]
            assert sorted(found["x"]) == [0.1, 0.2, 0.3, 16777217]
            assert sorted({f"{each:%d %H:%M}" for each in found["day"]}) == ["01 00:00", "02 05:00"]
            assert sorted(found["kind"]) == ["a", "a", "b", "c"]


def test_parts_of_parquet_whose_types_do_not_go_together_are_refused(tmp_path: Path) -> None:
    for number, values in enumerate(([2**60 + 1], [0.5])):  # as a float it would be another number
        pyarrow.parquet.write_table(pa.table({"id": values}), tmp_path / f"{number}.parquet")
    with pytest.raises(DataError, match="types that do not go together, write them with one: Integer value"):
        read_table(tmp_path)


def told(path: Path) -> list[str]:
    """Return the notes of a table without its bad rows."""
    return list(read_table(path, Reading(skip_bad=True)).notes)


def test_a_ragged_row_of_one_part_is_named_or_left_out(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("id,x\n1,1\n2,2\n")
    (tmp_path / "2.csv.gz").write_bytes(gzip.compress(b'id,x\n3,3\n4,4,4\n"5\n5",5\n6\n7,7\n'))
    (tmp_path / "3.csv").write_text("x;id\n8;8\n9;9;9\n")
    parts = tmp_path / "*.csv*"
    with pytest.raises(DataError, match=r"2\.csv\.gz, row 3 has more fields, the header 2") as refusal:
        read_table(parts)
    assert "\n" not in str(refusal.value)
    table = read_table(parts, Reading(skip_bad=True))
    assert table.frame["id"].tolist() == ["1", "2", "3", "5\n5", "7", "8"]
    wanted = f"3 of 9 rows are left out (data.skip_bad): {tmp_path / '2.csv.gz'}, row 3: has more fields, the header 2"
    assert wanted in table.notes


def test_a_ragged_row_of_a_file_is_left_out_and_the_others_keep_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("sep=,\nid,x\n1,1\n2\n" + "".join(f"{n},{n}\n" for n in range(3, 60)) + "60,?!\n")
    with pytest.raises(DataError, match=r"t\.csv, row 4 has 1 fields, the header 2"):
        read_table(path)
    table = read_table(path, Reading(skip_bad=True))
    assert table.schema.found["x"].bad_example == "row 62: '?!'"
    with pytest.raises(DataError, match=r"t\.csv, row 62: x is '\?!'"):
        table.checked(["x"], skip_bad=False)
    assert len(path.read_text().splitlines()) == 62
    path.write_text("id,x\n1\n2\n")
    with pytest.raises(DataError, match="no other row is left"):
        read_table(path, Reading(skip_bad=True))


def test_an_open_quotation_mark_takes_its_part_out_but_no_other(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("id,x\n1,1\n")
    (tmp_path / "2.csv").write_text('id,x\n2,"2\n' + "3,3\n" * 50)
    with pytest.raises(DataError, match=r"2\.csv, row 2 has a quotation mark that is not closed"):
        read_table(tmp_path)
    assert read_table(tmp_path, Reading(skip_bad=True)).frame["id"].tolist() == [1]
    assert any(n.startswith("1 of 2 files are left out") and "2.csv, row 2" in n for n in told(tmp_path))
    with pytest.raises(DataError, match=r"2\.csv, row 2 has a quotation mark that is not closed"):
        read_table(tmp_path / "2.csv", Reading(skip_bad=True))


def test_a_line_of_one_part_that_is_not_json_is_named_or_left_out(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    (tmp_path / "2.jsonl.gz").write_bytes(gzip.compress(b'{"a": 3}\n{"a": 4\n\n{"a": 5}\n'))
    parts = tmp_path / "*.jsonl*"
    with pytest.raises(DataError, match=r"2\.jsonl\.gz is not JSON at line \d") as refusal:
        read_table(parts)
    assert "\n" not in str(refusal.value)
    assert read_table(parts, Reading(skip_bad=True)).frame["a"].tolist() == [1, 2, 3, 5]
    assert any(f"left out (data.skip_bad): {tmp_path / '2.jsonl.gz'}, row 2 is not JSON" in n for n in told(parts))


def test_a_cut_list_of_json_is_left_out_and_told(tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text('[{"a": 1}, {"a": 2}]')
    (tmp_path / "2.json").write_text('[{"a": 1}, {"a": 2}, {"a"')
    with pytest.raises(DataError, match=r"2\.json is not JSON at record \d: unexpected end of data$"):
        read_table(tmp_path)
    assert read_table(tmp_path, Reading(skip_bad=True)).frame["a"].tolist() == [1, 2]
    assert any(n.startswith("1 of 2 files are left out") and "2.json is not JSON" in n for n in told(tmp_path))
    with pytest.raises(DataError, match=r"2\.json is not JSON"):
        read_table(tmp_path / "2.json", Reading(skip_bad=True))


def test_a_part_of_parquet_that_is_damaged_inside_is_named_or_left_out(tmp_path: Path) -> None:
    for name in ("1.parquet", "2.parquet"):
        pd.DataFrame({"a": range(1000), "b": [f"{n} text" for n in range(1000)]}).to_parquet(tmp_path / name)
    whole = (tmp_path / "2.parquet").read_bytes()
    (tmp_path / "2.parquet").write_bytes(whole[:100] + bytes(5000) + whole[5100:])
    with pytest.raises(DataError, match=r"2\.parquet is damaged or cannot be read: ") as refusal:
        read_table(tmp_path)
    assert "\n" not in str(refusal.value)
    assert len(read_table(tmp_path, Reading(skip_bad=True)).frame) == 1000
    assert any(n.startswith("1 of 2 files are left out") and "2.parquet" in n for n in told(tmp_path))


def test_a_bad_value_of_one_part_is_named_by_its_part_and_row(tmp_path: Path) -> None:
    good = "".join(f"{n},{n}\n" for n in range(100))
    (tmp_path / "1.csv").write_text(f"id,x\n{good}")
    (tmp_path / "2.csv").write_text("sep=;\nid;x\n100;1\n101;much\n")
    (tmp_path / "3.csv").write_text("id,x\n102,2\n103,?!\n")
    table = read_table(tmp_path)
    with pytest.raises(DataError, match=r"2\.csv, row 4: x is 'much', which is not an? .*2 such row"):
        table.checked(["x"], skip_bad=False)
    assert table.schema.found["x"].bad_example == "2.csv, row 4: 'much'"
    notes = table.checked(["x"], skip_bad=True).notes
    assert any("2 of 104 rows are left out" in note and "2.csv, row 4: x is 'much'" in note for note in notes)
    (tmp_path / "2.csv").write_text("id,x\n100,1\n101,1,1\n")
    with pytest.raises(DataError, match=r"3\.csv, row 3: x is '\?!'"):
        read_table(tmp_path, Reading(skip_bad=True)).checked(["x"], skip_bad=False)


PART_WRITERS: dict[str, Callable[[Path, list[dict[str, object]]], object]] = {
    "json": lambda path, rows: path.write_text(json.dumps(rows)),
    "jsonl": lambda path, rows: path.write_text("".join(f"{json.dumps(row)}\n" for row in rows)),
    "jsonl.gz": lambda path, rows: path.write_bytes(
        gzip.compress("".join(f"{json.dumps(row)}\n" for row in rows).encode())
    ),
    "parquet": lambda path, rows: pd.DataFrame(rows).astype("str").to_parquet(path),
}


@pytest.mark.parametrize("kind", PART_WRITERS)
def test_a_bad_value_of_a_part_with_types_is_named_by_its_part_and_row(kind: str, tmp_path: Path) -> None:
    for number, values in enumerate([list(range(50)), [*range(40), "much", *range(400)], [1, 2]]):
        PART_WRITERS[kind](tmp_path / f"{number}.{kind}", [{"id": f"n{n}", "x": x} for n, x in enumerate(values)])
    with pytest.raises(DataError, match=rf"1\.{kind}, row 41: x is 'much', which is not"):
        read_table(tmp_path).checked(["x"], skip_bad=False)
    new = read_new_rows(tmp_path)
    bad = read_frame(new, Schema((Column("x", "number"),)), ["x"], tmp_path)
    assert bad.rows.short(bad.bad[0].row) == f"1.{kind}, row 41"


def test_the_totals_of_all_parts_are_left_out(tmp_path: Path) -> None:
    for month in (1, 2, 3):
        days = "".join(f"2024-0{month}-0{day},a,{10 * day}\n" for day in (1, 2, 3))
        end = f"{'Sum:' if month == 2 else 'Total'},,60\n" if month < 3 else ""
        (tmp_path / f"{month}.csv").write_text(f"day,shop,sales\n{days}{end}")
    table = read_table(tmp_path)
    assert table.frame["sales"].tolist() == [10, 20, 30] * 3
    assert table.schema["day"].type == "date"
    assert table.rows.all_short(9) == [f"{month}.csv, row {row}" for month in (1, 2, 3) for row in (2, 3, 4)]
    assert "the last rows of 2 files are left out: they sum up the others (day is Sum:)" in table.notes


@pytest.mark.parametrize("word", ["Grand Total", "Gesamtergebnis", "Total general", "Totale complessivo"])
def test_the_total_of_a_pivot_table_is_left_out(word: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"shop;sales\na;10\nb;20\nc;30\n{word};60\n")
    assert read_table(tmp_path / "t.csv").frame["sales"].tolist() == [10, 20, 30]


def test_a_category_total_within_a_part_is_no_total(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("kind,n\nTotal,1\nOther,2\nTotal,3\n")
    (tmp_path / "2.csv").write_text("kind,n\nOther,4\nTotal,5\n")
    assert read_table(tmp_path).frame["n"].tolist() == [1, 2, 3, 4, 5]


def test_the_only_row_of_a_part_is_no_total(tmp_path: Path) -> None:
    for number, kind in enumerate(("Total", "Other", "Third", "Sum")):
        (tmp_path / f"{number}.csv").write_text(f"kind,n\n{kind},{number}\n")
    assert read_table(tmp_path).frame["n"].tolist() == [0, 1, 2, 3]
