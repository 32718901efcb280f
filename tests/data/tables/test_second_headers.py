"""A second row of a header is no data: it is refused, or left out where bad rows are."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from dlrunner.data.tables.table import Reading, read_table
from dlrunner.errors import DataError

UNITS = "day,store,weight,height\n,,kg,cm\n2020-01-01,a,1.5,10\n2020-01-02,b,2.5,\n2020-01-03,c,much,12\n"
MERGED = "id;Sales;;Costs;\n;min;max;min;max\n1;1,5;2;3;4\n2;2,5;3;4;5\n3;3;4;5;6\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (UNITS.replace("much", "3"), ", , kg, cm"),
        (MERGED, ", min, max, min, max"),
        ("# comment\nname,weight\n,[kg]\na,1\nb,2\n", ", [kg]"),
    ],
)
def test_a_second_header_row_is_refused_or_left_out(text: str, shown: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=r"t\.csv: the row below the header \(.*data\.skip_bad") as refusal:
        read_table(tmp_path / "t.csv")
    assert f"({shown})" in str(refusal.value)
    table = read_table(tmp_path / "t.csv", Reading(skip_bad=True))
    assert f"a second header row is left out (data.skip_bad): {shown}" in table.notes
    assert len(table.frame) == text.count("\n") - 2 - text.count("#")
    assert table.schema.columns[-1].type in ("integer", "number")
    assert table.rows.at(0).endswith(f"row {3 + text.count('#')}")


def test_rows_of_words_above_numbers_that_are_rows_stay(tmp_path: Path) -> None:
    for text in (
        "name,age\nAnn,unknown\nBob,5\nCid,7\nDan,8\n",  # one value that is missing in words
        "name,age,weight\nAnn,NA,-\nBob,5,1\nCid,7,2\n",
        "name,age,weight\nAnn,none,3\nBob,5,1\nCid,7,2\n",  # it has a number
        "name,kind\nAnn,kg\nBob,cm\nCid,kg\n",
    ):
        (tmp_path / "t.csv").write_text(text)
        assert len(read_table(tmp_path / "t.csv").frame) == text.count("\n") - 1


def test_a_second_header_row_of_excel_is_refused_or_left_out(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl")
    columns = pd.MultiIndex.from_tuples([("Sales", "min"), ("Sales", "max"), ("Costs", "min")])
    rows = pd.DataFrame([[1, 2, 3], [4, 5, 6], [7, 8, 9]], columns=columns)
    flat = pd.DataFrame([["Sales", None, "Costs"], ["min", "max", "min"], *rows.to_numpy().tolist()])
    flat.to_excel(tmp_path / "t.xlsx", header=False, index=False)
    with pytest.raises(DataError, match=r"t\.xlsx: the row below the header \(min, max, min\)"):
        read_table(tmp_path / "t.xlsx")
    table = read_table(tmp_path / "t.xlsx", Reading(skip_bad=True))
    assert table.frame["Sales"].tolist() == [1, 4, 7]
    assert table.rows.at(0).endswith("row 3")
