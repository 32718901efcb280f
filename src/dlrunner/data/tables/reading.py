"""Values of a table under a schema: the same for training and prediction."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from dlrunner.data.tables.formats import LARGEST
from dlrunner.data.tables.pieces import as_column, columns_in_pieces
from dlrunner.data.tables.raw import PER_QUERY, RawTable
from dlrunner.data.tables.schema import Column, Schema, whole_as_text
from dlrunner.data.tables.stacked import FEW_ROWS, VALUE, aggregates_of, alike, values_of
from dlrunner.errors import DataError, did_you_mean


@dataclass(frozen=True)
class BadRow:
    """A value that has another type or format than its column."""

    row: int
    """Of the table, from 0."""
    column: str
    reason: str


@dataclass(frozen=True)
class Values:
    """The values of a table."""

    frame: pd.DataFrame
    """Columns of the schema: text (str), integer (int64; float64 where values are missing), number (float64), date
    (datetime64), time (float64: minutes since midnight), boolean (bool; object where values are missing)."""
    bad: list[BadRow]


def read_values(
    table: RawTable, schema: Schema, names: Sequence[str] | None = None, coded: Collection[str] = ()
) -> Values:
    """Return the values of the columns of a schema; bad ones are missing, and listed.

    Args:
        table: the open table.
        schema: how its columns are read.
        names: the columns that are wanted; all by default.
        coded: columns of text that become categories, in the order of their first appearance.

    Raises:
        DataError: a column does not exist.
    """
    wanted = [schema[name] for name in names] if names is not None else list(schema.columns)
    for column in wanted:
        if column.name not in table.names:
            raise DataError(
                f"{table.place} is missing the column {column.name}; {did_you_mean(column.name, table.names)}"
            )
    checked = [each for each in wanted if each.type != "text"]
    checked = [each for each in checked if each.name not in schema.found or schema.found[each.name].num_bad]
    stacked = _Stacked(table, wanted) if 0 < table.num_rows() <= FEW_ROWS else None
    counts = {} if stacked is None else stacked.num_bad(checked)
    for some in _groups([each for each in checked if each.name not in counts]):
        names = [each.name for each in some]
        counts |= zip(names, table.aggregate(*[f"count_if({_bad(table, each)})" for each in some]), strict=True)
    bad: list[BadRow] = []
    for column in checked:
        if count := counts[column.name]:
            found = table.where(_bad(table, column), table.column(column.name), limit=count)
            reasons = [(row, f"{column.name} is {value!r}, which is not {_a(column, value)}") for row, value in found]
            bad += [BadRow(row, column.name, reason) for row, reason in reasons]
    columns = {} if stacked is None else stacked.values(coded)
    for some in _groups([each for each in wanted if each.name not in columns]):
        columns |= columns_in_pieces(table, some, [expression(table, column) for column in some], coded)
    index = pd.RangeIndex(table.num_rows())
    columns = {each.name: columns[each.name] for each in wanted}
    return Values(pd.DataFrame(columns, index=index, copy=False), bad)  # copied, they would be moved into one block


class _Stacked:
    """The columns of strings of a table with few rows (see `stacked`).

    Args:
        table: the open table.
        columns: how its columns are read; those of other types are left out, and texts that may be long.
    """

    def __init__(self, table: RawTable, columns: Sequence[Column]) -> None:
        self._table = table
        self._columns = [each for each in columns if table.type_of(each.name) == "VARCHAR" and not each.verbatim]
        names = [each.name for each in self._columns]
        found = table.fetch(*map(table.column, names)).columns if names else []
        self._strings = dict(zip(names, found, strict=True))

    def num_bad(self, columns: Sequence[Column]) -> dict[str, int]:
        """Return how many bad values those of some columns that are here have."""
        counts: dict[str, int] = {}
        for group, strings in self._groups(columns):
            found = aggregates_of(self._table, strings, [f"count_if({group[0].bad(VALUE)})"])
            counts |= {each.name: count for each, (count,) in zip(group, found, strict=True)}
        return counts

    def values(self, coded: Collection[str]) -> dict[str, Any]:
        """Return the values of all columns."""
        columns: dict[str, Any] = {}
        for group, strings in self._groups(self._columns):
            found = values_of(self._table, strings, group[0].value(VALUE))
            columns |= {each.name: as_column(each, piece, coded) for each, piece in zip(group, found, strict=True)}
        return columns

    def _groups(self, columns: Sequence[Column]) -> Iterator[tuple[Sequence[Column], Sequence[pa.ChunkedArray]]]:
        for group in alike(
            [each for each in columns if each.name in self._strings], lambda each: replace(each, name="")
        ):
            yield group, [self._strings[each.name] for each in group]


def _groups(columns: Sequence[Column]) -> Iterator[Sequence[Column]]:
    """Yield the columns of each query."""
    for start in range(0, len(columns), PER_QUERY):
        yield columns[start : start + PER_QUERY]


def _bad(table: RawTable, column: Column) -> str:
    """Return the SQL condition that a value is there, but not of the type and format of its column."""
    source, kind = table.column(column.name), table.type_of(column.name)
    if kind == "VARCHAR":
        return column.bad(source)
    known = f"{source} IS NOT NULL AND NOT isnan({source})" if kind == "DOUBLE" else f"{source} IS NOT NULL"
    return f"({known} AND ({expression(table, column)}) IS NULL)"


def _a(column: Column, value: str) -> str:
    """Return what a bad value is not."""
    if column.type in ("integer", "number"):
        with contextlib.suppress(ValueError):
            if abs(float(value)) > LARGEST:
                return "a finite number" if math.isinf(float(value)) else f"a number up to {LARGEST:g}"
    return f"an {column.described()}" if column.type == "integer" else f"a {column.described()}"


def expression(table: RawTable, column: Column) -> str:
    """Return the SQL expression of the values of a column as its type."""
    source, kind = table.column(column.name), table.type_of(column.name)
    if kind == "VARCHAR":
        return column.value(source)
    if column.type == "text":
        if kind == "DOUBLE":  # numbers with missing values among them: 7.0 was 7
            return (
                f"CASE WHEN isnan({source}) THEN NULL WHEN {source} % 1 = 0 AND abs({source}) < 1e15 "
                f"THEN CAST(CAST({source} AS BIGINT) AS VARCHAR) ELSE CAST({source} AS VARCHAR) END"
            )
        return f"CAST({source} AS VARCHAR)"
    if column.type == "date":
        if kind == "TIMESTAMP":
            return source
        text = whole_as_text(source) if kind == "DOUBLE" else f"CAST({source} AS VARCHAR)"
        return column.date_format.value(f"({text})")
    if kind == "TIMESTAMP":
        raise DataError(f"{table.place}: {column.name} holds dates, not {column.type}s")
    if column.type == "boolean":
        return source if kind == "BOOLEAN" else f"(CASE {source} WHEN 1 THEN true WHEN 0 THEN false END)"
    if kind == "DOUBLE":
        return f"bounded({source})"
    return f"CAST({source} AS DOUBLE)" if column.type == "number" or kind != "BIGINT" else source


def bad_mask(bad: Sequence[BadRow], num_rows: int) -> NDArray[np.bool_]:
    """Return which rows have a bad value, [rows]."""
    mask = np.zeros(num_rows, dtype=bool)
    mask[[each.row for each in bad]] = True
    return mask
