"""Part files are one table, read by the names of their columns."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from dlrunner.data.tables.table import read_table
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
