"""CSV files of large tables."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dlrunner.files.spreadsheet import as_csv, csv_pieces


def test_a_table_that_is_written_in_pieces_is_the_same() -> None:
    times = pd.Series(pd.date_range("2020-01-01", periods=250_000, freq="s").floor("D")).mask(lambda s: s.index == 7)
    times[120_000] += pd.Timedelta(hours=1)
    table = pd.DataFrame(
        {"=name\nx": [f"-{n}a" for n in range(len(times))], "y": np.arange(len(times)) / 3, "t": times}
    )
    for each in (table, table[:0], table[["y"]], table.rename(columns={"t": "=t"})):
        pieces = list(csv_pieces(each))
        assert b"".join(pieces) == as_csv(each)[0]
    assert len(list(csv_pieces(table))) == 3
