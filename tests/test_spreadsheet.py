"""CSV files of large tables."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dlrunner.files.spreadsheet import MANY_ROWS, as_csv, csv_pieces


def test_a_table_that_is_written_in_pieces_is_the_same() -> None:
    times = pd.Series(pd.date_range("2020-01-01", periods=120_000, freq="s").floor("D")).mask(lambda s: s.index == 7)
    times[110_000] += pd.Timedelta(hours=1)
    table = pd.DataFrame(
        {"=name\nx": [f"-{n}a" for n in range(len(times))], "y": np.arange(len(times)) / 3, "t": times}
    )
    for each in (table, table[:0], table[["y"]], table.rename(columns={"t": "=t"})):
        pieces = list(csv_pieces(each))
        assert b"".join(pieces) == as_csv(each)[0]
    assert len(list(csv_pieces(table))) == 2


NUMBERS = [0.0, -0.0, 1.0, 0.1 + 0.2, 1e-5, 1e16, 123456789012345678.0, 1e300, 5e-324, np.inf, -np.inf, np.nan]


@pytest.mark.parametrize("separator", [",", "\t"])
@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("floats", NUMBERS),
        ("short floats", np.array([0.1, 3.6254, 1e-5, np.nan], np.float32)),
        ("integers", np.array([0, -5, 2**62])),
        ("small integers", np.array([0, 255], np.uint8)),
        ("texts", ["a", "", "ä b", "'x", "1.50", None]),
        ("texts of objects", pd.Series(["a", None, np.nan, "b"], dtype=object)),
        ("integers of objects", pd.Series([1, None, 3, -(2**40)], dtype=object)),
        ("large integers of objects", pd.Series([1, 2**70], dtype=object)),
        ("floats of objects", pd.Series([1.0, 2.5, None], dtype=object)),
        ("dates of objects", pd.Series([date(2020, 1, 1)], dtype=object)),
        ("lists", pd.Series([[1, 2], [3]], dtype=object)),
        ("quotes", ['a "b"', "c"]),
        ("commas", ["a,b", "c"]),
        ("tabs", ["a\tb", "c"]),
        ("lines", ["a\nb", "c\rd"]),
        ("surrogates", pd.Series(["a\udcff", "b"], dtype=object)),
        ("mixed", pd.Series(["a", 1, 2.5, None], dtype=object)),
        ("booleans", [True, False]),
        ("nullable", pd.array([1, None, 3], dtype="Int64")),
        ("categories", pd.Categorical(["a", "b"])),
        ("dates", pd.Series([pd.Timestamp(2020, 1, 1), pd.NaT])),
        ("times", pd.to_timedelta([1, 2], unit="h")),
    ],
)
def test_a_large_table_is_written_as_pandas_writes_it(name: str, cells: Any, separator: str) -> None:
    column = pd.Series(cells, name=name)
    column = column.iloc[np.arange(MANY_ROWS) % len(column)].reset_index(drop=True)
    expected = pd.DataFrame({"n": np.arange(MANY_ROWS), name: column})
    for table in (expected, expected[[name]]):
        text = table.to_csv(index=False, sep=separator).encode(errors="backslashreplace")
        assert as_csv(table, is_raw=True, separator=separator) == (text, 0)


def test_plain_cells_are_not_written_by_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pd.DataFrame({"text": ["a", "b"] * MANY_ROWS, "number": np.arange(2 * MANY_ROWS) / 3})
    rows = table.to_csv(index=False).encode()
    monkeypatch.setattr(pd.DataFrame, "to_csv", lambda table, **_: "text,number\n" if table.empty else "by pandas")
    assert as_csv(table)[0] == rows


def test_cells_without_a_hash_are_written_too() -> None:
    table = pd.DataFrame({"several": [["a", "b"], []], "text": ["=1", "b"]})
    assert as_csv(table) == (b"several,text\n\"['a', 'b']\",'=1\n[],b\n", 1)
