"""Numbers on plots as people write them: on axes, in titles and in tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

TICK_STEPS = (1, 2, 2.5, 5, 10)
"""Between marks on an axis, times a power of ten."""
TICK_DIGITS = 10
"""Fewer than a float has: 0.1 + 0.2 is 0.3."""


def short_number(value: float, digits: int = 3) -> str:
    """Write 0.001 as 1e-3, and 0.25 and 12 as they are.

    >>> short_number(0.001), short_number(25020000), short_number(25020000, 4)
    ('1e-3', '2.5e7', '2.502e7')

    Args:
        value: the number.
        digits: of the mantissa.
    """
    if value == 0 or 0.01 <= abs(value) < 1e5:
        return f"{value:.10g}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{float(mantissa):.{digits}g}e{int(exponent)}"


def number_tick(value: float, _: int | None = None) -> str:
    """Write a number at a tick, with all its digits up to ten: ticks are round, and must differ."""
    return short_number(value, TICK_DIGITS)


def format_amount(value: float, digits: int = 4) -> str:
    """Write an amount for people, rounded to some digits.

    >>> format_amount(12345.6), format_amount(0.123456), format_amount(-2e9), format_amount(float("nan"))
    ('12,350', '0.1235', '-2e9', 'nan')
    """
    if not np.isfinite(value):
        return str(value)
    rounded = float(f"{value:.{digits}g}")
    is_plain = rounded == 0 or 1e-4 <= abs(rounded) < 1e7
    return f"{rounded:,.10g}".replace("-", "−") if is_plain else short_number(rounded, digits)


def format_change(value: float) -> str:
    """Write a change with its sign and two digits.

    >>> format_change(52711.3), format_change(-0.0123)
    ('+53,000', '−0.012')
    """
    return f"{'+' if value >= 0 else ''}{format_amount(value, 2)}"


def amount_tick(value: float, _: int | None = None) -> str:
    """Write an amount at a tick, with all its digits up to ten."""
    return format_amount(value, TICK_DIGITS)


def set_amount_ticks(axis: Axis, low: float, high: float, is_log: bool) -> None:
    """Mark an axis in amounts as people write them, also where a logarithmic one spans no power of ten."""
    if is_log and high > 500 * low:
        axis.set_major_locator(LogLocator(numticks=10))
        axis.set_minor_locator(NullLocator())
    elif is_log and high > 4 * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=10))
    else:
        axis.set_major_locator(MaxNLocator(4 if is_log else 5, steps=TICK_STEPS))
    axis.set_major_formatter(FuncFormatter(amount_tick))
    axis.set_minor_formatter(NullFormatter())


def format_column(column: pd.Series[Any], is_amount: bool) -> tuple[list[str], bool]:
    """Return a column as texts, with as many decimals as its largest value deserves, and whether it is numbers."""
    cells = list(column.astype(object))
    missing = [pd.api.types.is_scalar(cell) and pd.isna(cell) for cell in cells]
    present = [cell for cell, is_missing in zip(cells, missing, strict=True) if not is_missing]
    is_number = bool(present) and all(
        isinstance(c, (int, float, np.number)) and not isinstance(c, bool) for c in present
    )
    decimals = 0
    if is_number:
        values = np.array(present, dtype=np.float64)
        values = np.abs(values[np.isfinite(values)])
        if (values != np.round(values)).any():
            most = int(np.clip(3 - np.floor(np.log10(values.max())), 0, 6))
            decimals = next((d for d in range(most) if np.allclose(values, values.round(d), rtol=1e-6, atol=0)), most)
    texts = []
    for cell, is_missing in zip(cells, missing, strict=True):
        if is_missing:
            texts.append("–")
        elif is_number and np.isfinite(cell):
            is_long = abs(cell) >= 1e15 or 0 < abs(cell) < 1e-6
            texts.append(short_number(float(cell)) if is_long else f"{cell:{',' * is_amount}.{decimals}f}")
        else:
            texts.append(str(cell).removesuffix(" 00:00:00"))
    return [text.replace("-", "−") if is_number else text for text in texts], is_number
