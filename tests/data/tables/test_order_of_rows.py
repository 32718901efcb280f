"""What a column is does not depend on where in the file its odd values stand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dlrunner.data.tables.table import Table, read_table

NUMBERS = [f"{value:.2f}" for value in np.random.default_rng(0).normal(100, 20, 3000)]
DAYS = [str(day.date()) for day in pd.date_range("2020-01-01", periods=400)]


def read(values: Sequence[str], folder: Path) -> Table:
    pd.DataFrame({"x": values, "y": 1}).to_csv(folder / "t.csv", index=False)
    return read_table(folder / "t.csv")


@pytest.mark.parametrize("first", [0, 7, 1500, 2993])
def test_few_words_among_numbers_are_errors_wherever_they_stand(first: int, tmp_path: Path) -> None:
    table = read([*NUMBERS[:first], *["pending"] * 7, *NUMBERS[first:-7]], tmp_path)
    assert table.schema["x"].type == "number"
    found = table.schema.found["x"]
    assert found.num_bad == 7
    assert f"row {first + 2}: 'pending'" in str(found.bad_example)


@pytest.mark.parametrize("first", [0, 200, 400])
def test_few_words_among_dates_are_errors_wherever_they_stand(first: int, tmp_path: Path) -> None:
    table = read([*DAYS[:first], *["open"] * 15, *DAYS[first:]], tmp_path)
    assert table.schema["x"].type == "date"
    assert table.schema.found["x"].num_bad == 15


@pytest.mark.parametrize("first", [0, 1000])
def test_many_words_among_numbers_make_texts_with_a_warning_wherever_they_stand(first: int, tmp_path: Path) -> None:
    table = read([*NUMBERS[:first], *["pending"] * 500, *NUMBERS[first:2000]], tmp_path)
    assert table.schema["x"].type == "text"
    assert table.schema.found["x"].doubt == "80 % of its values are numbers, but it is read as text"
