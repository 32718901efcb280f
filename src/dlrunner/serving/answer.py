"""Answers: tables of predictions as plain JSON values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field

Value = bool | int | float | str | None


class Predictions(BaseModel):
    """Predictions, one for each row of the request, as `dlrun predict` has them."""

    predictions: list[dict[str, Value]]
    note: str | None = Field(None, description="on the rows as a whole, such as categories that were not in training")


class RowProblem(BaseModel):
    """Why a row cannot be read."""

    row: int = Field(description="from 0")
    problem: str


class Refusal(BaseModel):
    """Why a request has no predictions."""

    detail: str
    rows: list[RowProblem] | None = None


def with_inputs(rows: pd.DataFrame, predicted: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of a request next to its predictions, those that the predictions repeat once.

    >>> rows = pd.DataFrame({"nr": [7], "area": [80]})
    >>> list(with_inputs(rows, pd.DataFrame({"nr": [7], "price": [1.5]})))
    ['area', 'nr', 'price']
    """
    own = [name for name in rows if name not in predicted]
    return pd.concat([rows[own].set_axis(predicted.index), predicted], axis=1)


def values_of(table: pd.DataFrame) -> list[dict[str, Value]]:
    """Return the rows of a table; missing values, and numbers that JSON does not have, are null.

    A float32 has its own digits, as in a CSV file:

    >>> values_of(pd.DataFrame({"a": np.array([0.1, np.nan], np.float32), "b": [True, False]}))
    [{'a': 0.1, 'b': True}, {'a': None, 'b': False}]
    """
    columns = {str(name): _plain(table[name]) for name in table.columns}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _plain(column: pd.Series[Any]) -> list[Value]:
    convert: Callable[[Any], Value] = _number if pd.api.types.is_float_dtype(column) else _value
    return [None if value is None or value is pd.NA or value is pd.NaT else convert(value) for value in column.array]


def _number(value: Any) -> float | None:
    number = float(str(value)) if isinstance(value, np.float32) else float(value)
    return number if math.isfinite(number) else None


def _value(value: Any) -> Value:
    if isinstance(value, float | np.floating):
        return _number(value)
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, bool | int | str) else str(value)
