"""Columns of strings that are one column to DuckDB, below each other, as far as they are read in the same way.

Each expression of a query takes a part of a millisecond to plan, and so each column several milliseconds: that was
nearly all of the time to read a table of few rows, 5 of 6 seconds for 350 columns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import pyarrow as pa

from dlrunner.data.tables.raw import PER_QUERY, RawTable, readable_errors

FEW_ROWS = 10_000
"""Of a table whose columns are stacked: their strings, of `PER_QUERY` columns at a time, are in memory twice."""
VALUE = "value"
"""SQL expression of the strings."""

T = TypeVar("T")


def alike(columns: Sequence[T], key: Callable[[T], Hashable]) -> Iterator[Sequence[T]]:
    """Yield the columns of each query: those with the same key."""
    groups = defaultdict[Hashable, list[T]](list)
    for each in columns:
        groups[key(each)].append(each)
    for group in groups.values():
        for start in range(0, len(group), PER_QUERY):
            yield group[start : start + PER_QUERY]


def aggregates_of(
    table: RawTable, columns: Sequence[pa.ChunkedArray], aggregates: Sequence[str], inner: Sequence[str] = (VALUE,)
) -> list[tuple[int, ...]]:
    """Return the same counts of each of some columns.

    Args:
        table: the open table.
        columns: their strings, at least one each.
        aggregates: SQL expressions of counts.
        inner: named SQL expressions of `VALUE` that they are made of.
    """
    source = f"(SELECT number, {', '.join(inner)} FROM stacked)"
    found = _found(table, columns, f"SELECT {', '.join(aggregates)} FROM {source} GROUP BY number ORDER BY number")
    counts = [[int(count or 0) for count in each.to_pylist()] for each in found.columns]  # NULL where all values are
    return list(zip(*counts, strict=True))


def values_of(table: RawTable, columns: Sequence[pa.ChunkedArray], expression: str) -> Iterator[pa.Array]:
    """Yield the values of the same SQL expression of `VALUE` for each of some columns."""
    found = _found(table, columns, f"SELECT {expression} FROM stacked").column(0)
    start = 0
    for each in columns:
        yield found.slice(start, len(each)).combine_chunks()
        start += len(each)


def _found(table: RawTable, columns: Sequence[pa.ChunkedArray], query: str) -> pa.Table:
    numbers = np.repeat(np.arange(len(columns), dtype=np.int32), [len(each) for each in columns])
    strings = pa.chunked_array([chunk for each in columns for chunk in each.chunks], columns[0].type)
    with readable_errors(table.place, table.files):
        table.connection.register("stacked", pa.table({"number": numbers, VALUE: strings}))
        found = table.connection.sql(query).to_arrow_table()
        table.connection.unregister("stacked")  # it would keep the strings in memory
    return found
