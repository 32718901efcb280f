"""Values of a table under a schema: the same for training and prediction."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from dlrunner.data.tables.raw import PER_QUERY, RawTable
from dlrunner.data.tables.schema import Column, Schema
from dlrunner.errors import DataError, did_you_mean

NUMPY = {"integer": "float64", "number": "float64", "date": "datetime64[us]", "time": "float64"}


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
        coded: columns of text that become categories, in the order of their first appearance. They, and numbers and
            dates, are read in pieces, since the texts of all rows need several times the memory of their codes.

    Raises:
        DataError: a column does not exist.
    """
    wanted = [schema[name] for name in names] if names is not None else list(schema.columns)
    for column in wanted:
        if column.name not in table.names:
            raise DataError(
                f"{table.place} is missing the column {column.name}; {did_you_mean(column.name, table.names)}"
            )
    strings = [each for each in wanted if each.type != "text"]
    strings = [each for each in strings if each.name not in schema.found or schema.found[each.name].num_bad]
    counts = [
        count
        for some in _groups(strings)
        for count in table.aggregate(*[f"count_if({_bad(table, each)})" for each in some])
    ]
    bad: list[BadRow] = []
    for column, count in zip(strings, counts, strict=True):
        if count:
            found = table.where(_bad(table, column), table.column(column.name), limit=int(count))
            reasons = [(row, f"{column.name} is {value!r}, which is not {_a(column, value)}") for row, value in found]
            bad += [BadRow(row, column.name, reason) for row, reason in reasons]
    in_pieces = [each for each in wanted if each.name in coded or each.type in NUMPY] if coded else []
    columns = _read_in_pieces(table, in_pieces, coded) if in_pieces else {}
    for some in _groups([each for each in wanted if each.name not in columns]):
        read = table.fetch(*[expression(table, column) for column in some])
        for column in reversed(some):  # each is freed as soon as it is converted, and not copied into a block
            columns[column.name] = _as_pandas(read.column(len(read.column_names) - 1), column)
            read = read.remove_column(len(read.column_names) - 1)
    index = pd.RangeIndex(len(next(iter(columns.values()))) if columns else table.num_rows())
    return Values(pd.DataFrame({column.name: columns[column.name] for column in wanted}, index=index, copy=False), bad)


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
            if math.isinf(float(value)):
                return "a finite number"
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
        text = f"CAST({source} AS VARCHAR)"
        if kind == "DOUBLE":  # 20200131.0 was 20200131; of Excel's days and of seconds the fraction counts
            text = f"CASE WHEN {source} % 1 = 0 THEN CAST(CAST({source} AS BIGINT) AS VARCHAR) ELSE {text} END"
        return column.date_format.value(f"({text})")
    if column.type == "boolean":
        return source if kind == "BOOLEAN" else f"({source} = 1)"
    if kind == "TIMESTAMP":
        raise DataError(f"{table.place}: {column.name} holds dates, not numbers")
    if kind == "DOUBLE":
        return f"finite({source})"
    return f"CAST({source} AS DOUBLE)" if column.type == "number" or kind != "BIGINT" else source


def _read_in_pieces(table: RawTable, columns: Sequence[Column], coded: Collection[str]) -> dict[str, Any]:
    """Return texts as categories, numbers and dates of a table that is read in pieces; see `read_values`."""
    known = {column.name: dict[str, int]() for column in columns if column.name in coded}
    found = dict[str, NDArray[Any]]()
    for piece in table.pieces(*[expression(table, column) for column in columns]):
        for values, column in zip(piece.columns, columns, strict=True):
            is_coded = column.name in coded
            new = _codes(values, known[column.name]) if is_coded else _as_pandas(pa.chunked_array([values]), column)
            found[column.name] = _extended(found.get(column.name, new[:0].copy()), new)
    for column in columns:
        found.setdefault(column.name, np.empty(0, np.int32 if column.name in coded else NUMPY[column.type]))
    categories = {name: pd.Index(list(texts), dtype="str") for name, texts in known.items()}
    return {**found, **{name: pd.Categorical.from_codes(found[name], each) for name, each in categories.items()}}


def _extended(values: NDArray[Any], new: NDArray[Any]) -> NDArray[Any]:
    """Return an array with new values at its end; it grows where it is: pieces and all of them are twice the memory."""
    if new.dtype != values.dtype:
        values = values.astype(np.result_type(values, new))
    count = len(values)
    values.resize(count + len(new), refcheck=False)
    values[count:] = new
    return values


def _codes(values: pa.Array, known: dict[str, int]) -> NDArray[np.int32]:
    """Return the code of each value, -1 where it is missing; new values are added to the known ones."""
    encoded = values.dictionary_encode()
    codes = [known.setdefault(each, len(known)) for each in encoded.dictionary.to_pylist()]
    places = encoded.indices.fill_null(-1).to_numpy()
    return np.asarray(np.array([*codes, -1], dtype=np.int32)[places])


def _as_pandas(values: pa.ChunkedArray, column: Column) -> Any:
    if column.type == "text":
        return pd.Series(values.to_pandas(), dtype="str")
    if column.type == "boolean":
        return values.to_pandas()
    found = values.to_numpy()
    if column.type == "integer" and not values.null_count and (found % 1 == 0).all() and (np.abs(found) < 2**63).all():
        return found.astype(np.int64)
    return np.asarray(found, dtype=NUMPY[column.type])


def bad_mask(bad: Sequence[BadRow], num_rows: int) -> NDArray[np.bool_]:
    """Return which rows have a bad value, [rows]."""
    mask = np.zeros(num_rows, dtype=bool)
    mask[[each.row for each in bad]] = True
    return mask
