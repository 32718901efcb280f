"""Numbers on plots are written as people write them."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from dlrunner.reporting.html.charts import Curve, axis_of, curves
from dlrunner.reporting.html.scale import Scale
from dlrunner.reporting.plots.number_format import (
    amount_tick,
    format_amount,
    format_column,
    number_tick,
    set_amount_ticks,
    short_number,
)


def test_amounts_are_rounded_and_grouped() -> None:
    values = (0, 1234567, -0.5, 1e-7, math.inf)
    assert [format_amount(value) for value in values] == ["0", "1,235,000", "−0.5", "1e-7", "inf"]


def test_powers_of_ten_are_written_as_people_type_them() -> None:
    assert [short_number(value) for value in (0, 0.001, 0.25, 12, 2.5e6)] == ["0", "1e-3", "0.25", "12", "2.5e6"]


@pytest.mark.parametrize(
    ("low", "high", "some"),
    [
        (25e6, 25.1e6, "2.502e7"),
        (1_700_000_000, 1_700_002_000, "1.7000005e9"),
        (1_234_567, 1_234_569, "1,234,567.5"),
        (0.00012, 0.00012004, "0.00012001"),
        (0, 0.6, "0.4"),
    ],
)
def test_ticks_are_never_alike(low: float, high: float, some: str) -> None:
    axes = Figure().add_subplot()
    axes.set_xlim(low, high)
    set_amount_ticks(axes.xaxis, low, high, is_log=False)
    ticks = axes.get_xticks().tolist()
    amounts, numbers = [amount_tick(tick) for tick in ticks], [number_tick(tick) for tick in ticks]
    assert some in amounts
    assert len(set(amounts)) == len(set(numbers)) == len(ticks) > 2
    of_pages = Scale.of(low, high, is_linear=True).ticks()
    assert len({text for _, text in of_pages}) == len(of_pages) > 2


def test_ticks_of_a_page_are_never_alike() -> None:
    assert [text for _, text in Scale.of(0.99999, 1.0).ticks()] == ["0.99999", "0.999995", "1"]
    drawn = curves("roc_auc", [Curve("roc_auc", {1.0: 0.99999, 2.0: 1.0})])
    assert re.search(r'textLength="50"[^>]*>0.999995<', drawn), "narrowed to its room"
    sizes = axis_of("batch_size", [100_000, 100_001, 200_000])
    assert [text for _, text in sizes.ticks] == ["100000", "200000"]


def test_a_column_has_as_many_decimals_as_its_largest_value_needs() -> None:
    assert format_column(pd.Series([12.346, -0.25, np.nan]), is_amount=True) == (["12.35", "−0.25", "–"], True)
    assert format_column(pd.Series([1234567.0, 7.0]), is_amount=False) == (["1234567", "7"], True)
    assert format_column(pd.Series(["a-b", None]), is_amount=False) == (["a-b", "–"], False)
