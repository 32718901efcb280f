"""Numbers on plots are written as people write them."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from dlrunner.reporting.plots.number_format import format_amount, format_column, short_number


def test_amounts_are_rounded_and_grouped() -> None:
    values = (0, 1234567, -0.5, 1e-7, math.inf)
    assert [format_amount(value) for value in values] == ["0", "1,235,000", "−0.5", "1e-7", "inf"]


def test_powers_of_ten_are_written_as_people_type_them() -> None:
    assert [short_number(value) for value in (0, 0.001, 0.25, 12, 2.5e6)] == ["0", "1e-3", "0.25", "12", "2.5e6"]


def test_a_column_has_as_many_decimals_as_its_largest_value_needs() -> None:
    assert format_column(pd.Series([12.346, -0.25, np.nan]), is_amount=True) == (["12.35", "−0.25", "–"], True)
    assert format_column(pd.Series([1234567.0, 7.0]), is_amount=False) == (["1234567", "7"], True)
    assert format_column(pd.Series(["a-b", None]), is_amount=False) == (["a-b", "–"], False)
