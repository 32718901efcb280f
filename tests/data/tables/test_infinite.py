"""An infinite number is none: refused or left out in training, without a prediction in new rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dlrunner.data.tables.schema import Schema
from dlrunner.data.tables.table import read_frame, read_table
from dlrunner.errors import DataError

VALUES = {"text": ["1.5", "inf", "-Infinity", "1e400", "2", "nan"], "typed": [1.5, np.inf, -np.inf, np.inf, 2, np.nan]}


@pytest.fixture(params=["csv", "parquet"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"t.{request.param}"
    if request.param == "csv":
        pd.DataFrame({"x": VALUES["text"]}).to_csv(path, index=False)
    else:
        pd.DataFrame({"x": VALUES["typed"]}).to_parquet(path)
    return path


def test_an_infinite_number_is_refused_with_its_row_or_left_out(path: Path) -> None:
    table = read_table(path)
    assert table.schema["x"].type == "number"
    found = table.schema.found["x"]
    assert (found.num_bad, found.num_missing) == (3, 1)
    with pytest.raises(DataError, match=r"row \d: x is '?inf'?, which is not a finite number; 3 such row"):
        table.checked(["x"], skip_bad=False)
    kept = table.checked(["x"], skip_bad=True)
    assert kept.frame["x"].dropna().tolist() == [1.5, 2]
    assert any("3 of 6 rows are left out" in note for note in kept.notes)


@pytest.mark.parametrize("values", VALUES.values(), ids=list(VALUES))
@pytest.mark.parametrize("kind", ["number", "integer"])
def test_new_rows_with_infinite_numbers_are_bad(values: list[object], kind: str) -> None:
    schema = Schema.from_state([{"name": "x", "type": kind}])
    read = read_frame(pd.DataFrame({"x": values}), schema, ["x"], Path("t"))
    assert [each.row for each in read.bad] == [1, 2, 3]
    assert np.isnan(read.frame["x"].to_numpy()[[1, 2, 3, 5]]).all()


@pytest.mark.parametrize("as_text", [True, False])
def test_numbers_whose_square_has_no_room_are_refused_and_the_smallest_ones_are_zero(
    tmp_path: Path, as_text: bool
) -> None:
    frame = pd.DataFrame({"x": [1.5, -1e200, 1e150, 1e-200, -1e-150]})
    path = tmp_path / ("t.csv" if as_text else "t.parquet")
    frame.to_csv(path, index=False) if as_text else frame.to_parquet(path)
    table = read_table(path)
    with pytest.raises(DataError, match=r"row \d: x is '?-1e\+?200'?, which is not a number up to 1e\+150; 1 such row"):
        table.checked(["x"], skip_bad=False)
    assert table.checked(["x"], skip_bad=True).frame["x"].tolist() == [1.5, 1e150, 0, -1e-150]
