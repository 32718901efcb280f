"""Folders named KEY=VALUE are columns, whose texts keep their characters."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from dlrunner.data.tables.source import TableFile
from dlrunner.data.tables.table import Reading, read_frame, read_new_rows, read_table
from dlrunner.errors import DataError

Writer = Callable[[Path, pd.DataFrame], object]


def _lines(frame: pd.DataFrame) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in frame.to_dict("records")).encode()


WRITERS: dict[str, Writer] = {
    "csv": lambda path, frame: frame.to_csv(path, index=False),
    "csv.gz": lambda path, frame: frame.to_csv(path, index=False),
    "json": lambda path, frame: path.write_text(json.dumps(frame.to_dict("records"))),
    "jsonl.gz": lambda path, frame: path.write_bytes(gzip.compress(_lines(frame))),
    "parquet": lambda path, frame: frame.to_parquet(path),
}


def write(folder: Path, kind: str = "csv") -> Path:
    """Write a table of six files, by year and shop; the first shop has a leading zero, the second is missing."""
    for year in (2019, 2020):
        for n, shop in enumerate(("01", "__HIVE_DEFAULT_PARTITION__", "a%2Fb c")):
            part = folder / f"year={year}" / f"shop={shop}"
            part.mkdir(parents=True)
            WRITERS[kind](part / f"part.{kind}", pd.DataFrame({"x": [n, year], "y": ["u", "v"]}))
    return folder


@pytest.mark.parametrize("kind", WRITERS)
def test_keys_in_the_names_of_folders_are_columns(kind: str, tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "k=v" / "sales", kind))
    assert table.schema.names == ["x", "y", "year", "shop"]
    assert table.frame["year"].tolist() == [2019] * 6 + [2020] * 6
    assert table.frame["shop"].isna().tolist() == [False, False, True, True, False, False] * 2
    assert table.frame["shop"].dropna().tolist() == ["01", "01", "a/b c", "a/b c"] * 2
    assert table.frame["x"].tolist() == [0, 2019, 1, 2019, 2, 2019, 0, 2020, 1, 2020, 2, 2020]
    assert "year=2020" in table.rows.at(7)
    new = read_new_rows(tmp_path / "k=v" / "sales")
    assert new["shop"].dropna().tolist() == ["01", "01", "a/b c", "a/b c"] * 2
    year = tmp_path / "k=v" / "sales" / "year=2019"
    with pytest.raises(DataError, match=r"is missing 1 column.*give the folder above year=2019"):
        read_frame(read_new_rows(year), table.schema, table.schema.names, year)


@pytest.mark.parametrize("kind", WRITERS)
def test_keys_are_columns_in_a_query(kind: str, tmp_path: Path) -> None:
    files = f"{write(tmp_path, kind)}/*/*/*.{kind}"
    table = read_table(None, query=f"select x, shop, year from '{files}' where shop = '01' and year > 2019")
    assert table.frame.to_dict("list") == {"x": [0, 2020], "shop": ["01", "01"], "year": [2020, 2020]}


def test_a_bad_part_and_other_dialects_keep_their_keys(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "year=2019" / "shop=01" / "part.csv").write_text("y;x\nu;5\nv;6;7\n")
    table = read_table(tmp_path, Reading(skip_bad=True))
    rows = table.frame[table.frame["shop"] == "01"]
    assert rows[["x", "year"]].to_numpy().tolist() == [[5, 2019], [0, 2020], [2020, 2020]]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_key_that_is_a_column_of_the_files_too_is_refused(kind: str, tmp_path: Path) -> None:
    (tmp_path / "x=1").mkdir()
    WRITERS[kind](tmp_path / "x=1" / f"part.{kind}", pd.DataFrame({"x": [2, 3], "y": [1, 2]}))
    with pytest.raises(DataError, match="x is a column of the files, and of the folders' names too"):
        read_table(tmp_path)
    assert read_table(tmp_path / "x=1" / "*").frame["x"].tolist() == [2, 3]


def test_files_in_folders_of_other_keys_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "more.csv").write_text("x,y\n1,u\n")
    with pytest.raises(DataError, match=r"part\.csv is in folders of year, shop, .*more\.csv of none"):
        read_table(tmp_path)


def test_a_table_whose_folders_are_renamed_is_another_one(tmp_path: Path) -> None:
    write(tmp_path)
    before = TableFile(str(tmp_path), None, Reading()).identity().sha256
    (tmp_path / "year=2020").rename(tmp_path / "year=2021")
    assert TableFile(str(tmp_path), None, Reading()).identity().sha256 != before
